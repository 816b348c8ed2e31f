"""The record of trajectories and its file; needs numpy alone."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import RunError
from omnimotion_core.files import write_atomically


@dataclass(frozen=True, eq=False, kw_only=True)
class Tracks:
    """Where every query point is in every frame.

    Positions are pixels of the plate, (x, y), y down, (0, 0) the centre of the top-left pixel; t counts from 0.
    """

    queries: np.ndarray  # (N, 3) float32, (t, x, y)
    positions: np.ndarray  # (N, T, 2) float32, (x, y); an estimate also where the point is hidden
    visible: np.ndarray  # (N, T) bool
    confidence: np.ndarray  # (N, T) float32, 0..1
    depth: np.ndarray  # (N, T) float32, of the quasi-3D volume: smaller is nearer
    size: Size  # of the plate
    first_frame: int  # the number of frame t = 0 in the source
    fps: float

    def __post_init__(self) -> None:
        num_points, num_frames = self.visible.shape
        assert self.queries.shape == (num_points, 3)
        assert self.positions.shape == (num_points, num_frames, 2)
        assert self.confidence.shape == self.depth.shape == (num_points, num_frames)

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.visible.shape[1])

    def select(self, index: np.ndarray) -> Self:
        """The tracks of the given rows (indices or a boolean mask), in that order."""
        return type(self)(
            queries=self.queries[index], positions=self.positions[index], visible=self.visible[index],
            confidence=self.confidence[index], depth=self.depth[index],
            size=self.size, first_frame=self.first_frame, fps=self.fps,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write ``tracks.npz`` as a whole or not at all."""
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file, queries=self.queries, positions=self.positions, visible=self.visible, confidence=self.confidence,
                depth=self.depth, size=np.asarray(self.size, np.int64), first_frame=np.int64(self.first_frame),
                fps=np.float64(self.fps),
            )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``tracks.npz``.

        Raises:
            RunError: the file is absent, damaged or of another layout.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                return cls(
                    queries=data["queries"], positions=data["positions"], visible=data["visible"],
                    confidence=data["confidence"], depth=data["depth"],
                    size=(int(data["size"][0]), int(data["size"][1])),
                    first_frame=int(data["first_frame"]), fps=float(data["fps"]),
                )  # fmt: skip
        except (OSError, EOFError, KeyError, TypeError, ValueError, AssertionError, zipfile.BadZipFile) as error:
            raise RunError(f"{path} is not a tracks file", "run `omnimotion tracks` on its run folder") from error
