"""What the learned estimators share: weights read when they are needed, a device, both directions of several pairs.

A network computes on one device. On a CPU each of several threads may ask for a pair of its own; on a GPU pairs are
given together, and one batch runs at a time. Half precision is used on CUDA devices alone: on a CPU it is slower.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from omnimotion_core.coordinates import Size
from omnimotion_core.devices import free_memory
from omnimotion_core.flow.weights import find_weights

MAX_BATCH = 8  # pairs; more fill no GPU better
FREE_SHARE = 0.5  # of the free memory that pairs under way may take


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame's features, on the network's device."""

    size: Size  # of the picture
    features: Any  # the network's

    @property
    def num_bytes(self) -> int:
        """What the features take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(self.features))


class LearnedFlow(ABC):
    """An estimator with a network; a subclass says what the network is and how it is asked.

    Args:
        weights: the file; a known one from the cache folder when not given. It is looked for by ``load``.
        device: where to compute.
    """

    name: ClassVar[str]  # as ``--flow`` takes it
    refines = False
    resizes = False  # whether pictures are brought here to the size that suits the network

    def __init__(self, weights: str | Path | None, device: torch.device) -> None:
        self.device = device
        self._given = None if weights is None else str(weights)
        self._network: nn.Module | None = None
        self._loading = threading.Lock()
        self._running: AbstractContextManager[Any] = threading.Lock()

    def pairs(self) -> Iterable[tuple[int, int]] | None:
        """None: any pair can be had."""
        return None

    def load(self, size: Size) -> Path:
        """Find and read the weights, where that was not done yet.

        Args:
            size: of the pictures to come. On a CPU so many of them are computed at once as the memory has room for.
        Returns:
            The file.
        Raises:
            FlowError: it is absent, damaged, or of another network.
        """
        with self._loading:
            path = find_weights(self.name, self._given)
            if self._network is None:
                network = self._read(path).eval().requires_grad_(False)
                self._network = network.to(self.device)
                if self.device.type == "cpu":
                    self._running = threading.BoundedSemaphore(self._affordable(size, free_memory()))
        return path

    def batch(self, size: Size) -> int:
        """How many pairs of pictures of this size to give at once: 1 on a CPU, where threads take a pair each."""
        if self.device.type != "cuda":
            return 1
        return min(self._affordable(size, torch.cuda.mem_get_info(self.device)[0]), MAX_BATCH)

    def prepare(self, t: int, picture: np.ndarray) -> Prepared:
        """The picture's features, for all pairs that it is part of."""
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(self.device).permute(2, 0, 1)[None].float()
        with self._running, torch.inference_mode(), self._precision():
            return Prepared((picture.shape[1], picture.shape[0]), self._encode(pixels))

    def flow(self, source: Prepared, target: Prepared, initial: np.ndarray | None) -> np.ndarray:
        """Flow (h, w, 2) from ``source`` to ``target`` in pixels of the prepared pictures."""
        return self.flow_pairs([(source, target)], [(initial, None)])[0][0]

    def flow_pairs(
        self, pairs: Sequence[tuple[Prepared, Prepared]],
        initials: Sequence[tuple[np.ndarray | None, np.ndarray | None]] | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
        """Flow of all ``pairs`` in both directions, each (h, w, 2) float32.

        Args:
            pairs: prepared pictures of one size.
            initials: a first guess of each pair's two flows, for networks that make use of it.
        """
        initials = initials or [(None, None)] * len(pairs)
        with self._running, torch.inference_mode(), self._precision():
            forward, backward = self._both(pairs, initials)
        arrays = [flow.float().permute(0, 2, 3, 1).cpu().numpy() for flow in (forward, backward)]
        return [(np.ascontiguousarray(there), np.ascontiguousarray(back)) for there, back in zip(*arrays, strict=True)]

    @property
    def network(self) -> Any:
        """The network, once it is loaded."""
        assert self._network is not None, "load() comes first"
        return self._network

    def _affordable(self, size: Size, free_bytes: int) -> int:
        return max(int(FREE_SHARE * free_bytes // self._pair_bytes(size)), 1)

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.float16) if self.device.type == "cuda" else nullcontext()

    @abstractmethod
    def _read(self, path: Path) -> nn.Module:
        """The network with the weights of the file."""

    @abstractmethod
    def _encode(self, pixels: Tensor) -> Any:
        """What the network needs of a picture (1, 3, h, w) in 0..255."""

    @abstractmethod
    def _both(
        self, pairs: Sequence[tuple[Prepared, Prepared]],
        initials: Sequence[tuple[np.ndarray | None, np.ndarray | None]],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Flow there and back of all pairs, (P, 2, h, w) each, at the pictures' size and in their pixels."""

    @abstractmethod
    def _pair_bytes(self, size: Size) -> int:
        """About what a pair of pictures takes while it is computed."""


def tensors_of(features: Any) -> list[Tensor]:
    """The tensors of a tuple, or of a record of tensors."""
    return list(features if isinstance(features, tuple) else vars(features).values())
