"""The EXR sequences of a run folder, and what their files hold: each is measured once, whoever asks."""

import math
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.coordinates import Size, pixel_grid
from omnimotion_core.errors import ExportError
from omnimotion_core.export.exr import read_exr
from omnimotion_core.export.motion_vectors import PRESETS, FrameMotion, read_motion_vectors

_FRAME = re.compile(r"(?P<stem>[^.].*)\.(?P<number>\d{4,}|-\d{3,})\.exr", re.DOTALL)  # as {:04d} writes numbers
_MEASURED = "omnimotionMeasured"  # the key of an instance's data that keeps what was measured
_MAX_PIXELS = 50_000  # of a frame, at which the way there and back is looked at


@dataclass(frozen=True, kw_only=True)
class ExrSequence:
    """Files of one folder that differ in their frame number alone."""

    stem: str  # what all names begin with: clip and kind
    files: Mapping[int, Path]  # by frame number, rising
    is_vectors: bool  # motion vectors, of whatever preset

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return next(iter(self.files.values())).parent

    @property
    def export_kind(self) -> str:
        """What ``omnimotion export --to`` calls it."""
        return f"vectors:{self.folder.name}" if self.is_vectors else self.folder.name


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameFacts:
    """What one file of a sequence holds."""

    number: int  # in its name
    path: Path
    problem: str = ""  # why it cannot be used, where it cannot
    attributes: Mapping[str, Any] = field(default_factory=dict)
    size: Size = (0, 0)
    channels: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()  # channels with values that are no numbers
    visibility: tuple[float, float] = (0.0, 0.0)  # least and greatest
    confidence: tuple[float, float] = (0.0, 0.0)
    longest_px: float = 0.0  # the longest vector
    goes: bool = False  # some forward vector is not zero
    came: bool = False  # some backward vector is not zero
    miss_px: float | None = None  # by which the way to the next frame and back misses, median; None: nothing to compare
    step_px: float = 0.0  # length of that way, median


def sequence_folders(exr: Path) -> list[Path]:
    """The folders of ``exr``, by name; those that begin with a dot belong to a writer."""
    return sorted(path for path in exr.glob("*") if path.is_dir() and not path.name.startswith("."))


def find_sequences(exr: Path) -> list[ExrSequence]:
    """The sequences in the folders of ``exr``, by their names; empty where there is no such folder."""
    found = []
    for folder in sequence_folders(exr):
        groups: dict[str, dict[int, Path]] = {}
        for path in sorted(folder.iterdir()):
            match = _FRAME.fullmatch(path.name)
            if match is not None:
                groups.setdefault(match["stem"], {})[int(match["number"])] = path
        for stem, files in groups.items():
            is_vectors = folder.name in PRESETS or _holds_vectors(next(iter(files.values())))
            found.append(ExrSequence(stem=stem, files=dict(sorted(files.items())), is_vectors=is_vectors))
    return found


def measure(instance: MutableMapping[str, Any]) -> list[FrameFacts]:
    """What every file of an instance's sequence holds; read once and kept in the instance's data.

    Args:
        instance: its ``data``, with ``exrSequence``.
    """
    if _MEASURED not in instance:
        instance[_MEASURED] = list(_measured(instance["exrSequence"]))
    return list(instance[_MEASURED])


def forget_measured(instance: MutableMapping[str, Any]) -> None:
    """Have the files read again when they are asked for next."""
    instance.pop(_MEASURED, None)


def _holds_vectors(path: Path) -> bool:
    try:
        read_motion_vectors(path)
    except ExportError:
        return False
    return True


def _measured(sequence: ExrSequence) -> Iterator[FrameFacts]:
    """Frame by frame; two frames are held at a time."""
    before: tuple[FrameFacts, FrameMotion | None] | None = None
    for number, path in sequence.files.items():
        now = _measure_file(number, path, sequence.is_vectors)
        if before is not None:
            yield _with_miss(before[0], before[1], now[1] if number == before[0].number + 1 else None)
        before = now
    if before is not None:
        yield before[0]


def _measure_file(number: int, path: Path, is_vectors: bool) -> tuple[FrameFacts, FrameMotion | None]:
    try:
        file = read_exr(path)
        motion = read_motion_vectors(path) if is_vectors else None
    except ExportError as error:
        return FrameFacts(number=number, path=path, problem=error.problem), None
    height, width = next(iter(file.channels.values())).shape
    facts = FrameFacts(
        number=number, path=path, attributes=file.attributes, size=(width, height), channels=tuple(file.channels),
        not_finite=tuple(name for name, values in file.channels.items() if not np.isfinite(values).all()),
        visibility=_range(motion.visibility if motion else file.channels.get("visibility.Y")),
        confidence=_range(motion.confidence if motion else file.channels.get("confidence.Y")),
    )  # fmt: skip
    if motion is None:
        return facts, None
    lengths = [float(np.hypot(*np.moveaxis(part, -1, 0)).max(where=np.isfinite(part).all(-1), initial=0.0))
               for part in (motion.forward, motion.backward)]  # fmt: skip
    return replace(facts, longest_px=max(lengths), goes=bool(motion.forward.any()), came=bool(motion.backward.any())), (
        motion if math.isfinite(sum(lengths)) and not facts.not_finite else None
    )


def _range(values: np.ndarray | None) -> tuple[float, float]:
    finite = np.zeros(1) if values is None else values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _with_miss(facts: FrameFacts, here: FrameMotion | None, there: FrameMotion | None) -> FrameFacts:
    """``facts`` with what a point misses its own place by that goes to the next frame and comes back."""
    if here is None or there is None or not here.has_next or here.forward.shape != there.backward.shape:
        return facts
    height, width = here.visibility.shape
    step = max(1, math.ceil(math.sqrt(height * width / _MAX_PIXELS)))
    start = pixel_grid((width, height))[::step, ::step]
    forward = here.forward[::step, ::step]
    arrival = start + forward
    inside = ((arrival >= 0) & (arrival <= (width - 1, height - 1))).all(axis=-1)
    chosen = (here.visibility[::step, ::step] > 0.5) & inside
    if not chosen.any():
        return facts
    miss = np.hypot(*(forward[chosen] + _sample(there.backward, arrival[chosen])).T)
    return replace(facts, miss_px=float(np.median(miss)), step_px=float(np.median(np.hypot(*forward[chosen].T))))


def _sample(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """``image`` (H, W, 2) at pixels (N, 2) within it, bilinear."""
    corner = np.minimum(xy.astype(int), (max(image.shape[1] - 2, 0), max(image.shape[0] - 2, 0)))
    (x, y), (u, v) = corner.T, (xy - corner).T[..., None]
    right, below = np.minimum(x + 1, image.shape[1] - 1), np.minimum(y + 1, image.shape[0] - 1)
    top = image[y, x] * (1 - u) + image[y, right] * u
    bottom = image[below, x] * (1 - u) + image[below, right] * u
    return np.asarray(top * (1 - v) + bottom * v)


def listed(numbers: Sequence[int], limit: int = 5) -> str:
    """A few of some frame numbers, as a message tells them."""
    shown = ", ".join(map(str, sorted(numbers)[:limit]))
    return f"{shown} and {len(numbers) - limit} more" if len(numbers) > limit else shown
