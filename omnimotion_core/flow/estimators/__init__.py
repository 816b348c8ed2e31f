"""Flow estimators, chosen by name.

An estimator is a class with the methods of ``Estimator``. A third party adds one by an entry point of the group
``omnimotion.flow`` whose name is what ``--flow`` takes and whose value is the class:

    [project.entry-points."omnimotion.flow"]
    my-flow = "my_package.flow:MyFlow"
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from omnimotion_core.config import FlowConfig
from omnimotion_core.coordinates import Size
from omnimotion_core.devices import choose_device
from omnimotion_core.errors import FlowError
from omnimotion_core.flow.weights import find_features, find_weights
from omnimotion_core.video.clip import Clip

if TYPE_CHECKING:
    import torch

    from omnimotion_core.flow.estimators.imported_tracks import ImportedTracks

GROUP = "omnimotion.flow"
AUTO = "auto"  # DIS, and learned flow where its weights are there: see ``flow.plan``
LEARNED = {  # those that read weights
    "gmflow": "omnimotion_core.flow.estimators.gmflow:GmFlowEstimator",
    "raft": "omnimotion_core.flow.estimators.raft:RaftFlow",
    "raft-small": "omnimotion_core.flow.estimators.raft:RaftSmallFlow",
}
BUILT_IN = ("auto", "dis", *LEARNED)


class Estimator(Protocol):
    """Optical flow between two frames of a clip."""

    refines: bool  # whether ``flow`` makes use of ``initial``

    def pairs(self) -> Iterable[tuple[int, int]] | None:
        """The directed pairs (i, j) that can be had, or None where any pair can."""
        ...

    def prepare(self, t: int, picture: np.ndarray) -> Any:
        """What ``flow`` needs of frame ``t``, made once a frame from ``picture`` (h, w, 3) uint8 RGB."""
        ...

    def flow(self, source: Any, target: Any, initial: np.ndarray | None) -> np.ndarray:
        """Flow (h, w, 2) float32 as (dx, dy) in pixels of the prepared pictures, from ``source`` to ``target``.

        ``initial`` is a first guess of the same shape. Called from several threads at once.
        """
        ...


@runtime_checkable
class LearnedEstimator(Estimator, Protocol):
    """An estimator with a network, which gives both directions of several pairs at once."""

    device: "torch.device"
    resizes: bool  # whether it brings pictures to the size that suits it; else they come at matching size

    def load(self, size: Size) -> Path:
        """Find and read the weights, and tell their file; pictures of ``size`` are to come."""
        ...

    def batch(self, size: Size) -> int:
        """How many pairs of pictures of this size are best given at once; 1: each thread gives its own."""
        ...

    def flow_pairs(
        self, pairs: Sequence[tuple[Any, Any]],
        initials: Sequence[tuple[np.ndarray | None, np.ndarray | None]] | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
        """Flow there and back of each pair of what ``prepare`` gave, from first guesses where they are given."""
        ...


def require_estimator(config: FlowConfig) -> None:
    """Refuse before the work what could not be done for want of weights.

    Raises:
        FlowError: the weights of the estimator or the features asked for are absent, or weights are given that nothing
            reads.
    """
    if config.exhaustive.enabled:
        find_features(config.exhaustive.features)
    if config.estimator in LEARNED:
        find_weights(config.estimator, config.weights)
    elif config.weights is not None:
        raise FlowError(f"flow by {config.estimator!r} reads no weights, and {config.weights} is given",
                        f"say of which estimator they are: --flow {' or '.join(LEARNED)}")  # fmt: skip


def create_estimator(
    name: str, clip: Clip, *, weights: str | None = None, device: str = "cpu", full_size: bool = True
) -> "Estimator | LearnedEstimator | ImportedTracks":
    """The estimator called ``name``; a folder's path gives the flow files in it, a file's the point tracks in it.

    Args:
        name: of an estimator; ``auto`` is DIS, to which the flow stage may add a learned one.
        clip: whose flow is wanted.
        weights: a learned estimator's file; a known one from the cache folder when not given. Read when it is needed.
        device: where a network computes: auto, cpu, cuda or mps.
        full_size: whether DIS searches to the full size of the pictures.
    Raises:
        FlowError: there is no such estimator, folder or file, or it cannot be loaded.
    """
    if name in LEARNED:
        make = EntryPoint(name=name, value=LEARNED[name], group=GROUP).load()  # it loads torch, which takes seconds
        learned: LearnedEstimator = make(weights, choose_device(device))
        return learned
    if name in BUILT_IN:
        from omnimotion_core.flow.estimators.dis import DisFlow

        return DisFlow(full_size=full_size)
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name in found:
        return _load(found[name])
    if Path(name).is_dir():
        from omnimotion_core.flow.estimators.imported import ImportedFlow

        return ImportedFlow(Path(name), clip)
    if Path(name).is_file():
        from omnimotion_core.flow.estimators.imported_tracks import ImportedTracks

        return ImportedTracks(Path(name), clip)
    raise _unknown(name)


def check_estimator(name: str) -> str:
    """See that ``name`` can be an estimator, before a clip is at hand.

    Returns:
        A digest of what the flow files or tracks of that path are, empty for an estimator: other files, other flow.
    Raises:
        FlowError: there is no such estimator, folder or file.
    """
    if name in BUILT_IN or any(point.name == name for point in entry_points(group=GROUP)):
        return ""
    path = Path(name)
    if not path.exists():
        raise _unknown(name)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _unknown(name: str) -> FlowError:
    known = ", ".join(sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))
    return FlowError(
        f"{name!r} is neither a flow estimator nor a folder of flow nor a file of tracks",
        f"use one of {known}, or an existing folder or track file",
    )


def _load(point: EntryPoint) -> Estimator:
    try:
        estimator: Estimator = point.load()()
    except Exception as error:  # foreign code may fail in any way, and the user can mend it
        problem = f"flow estimator {point.name!r} cannot be loaded ({error})"
        raise FlowError(problem, f"repair or remove {point.value}") from error
    return estimator
