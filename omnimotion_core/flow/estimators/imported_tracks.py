"""Point tracks that another program made, as matches between frames.

An npz file in one of two layouts:

- ours: ``positions (N, T, 2)`` and ``visible (N, T)``, centre-origin pixels of the plate, as in ``tracks.npz``
- TAP-Vid's: ``target_points (N, T, 2)`` and ``occluded (N, T)``, corner-origin pixels of the plate
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from omnimotion_core.coordinates import inside, raster_to_pixel, rescale_pixels
from omnimotion_core.errors import FlowError
from omnimotion_core.video.clip import Clip


class ImportedTracks:
    """Tracks of a file; any pair of frames can be had.

    Raises:
        FlowError: the file is damaged, of another layout, or of another number of frames.
    """

    refines = False

    def __init__(self, path: Path, clip: Clip) -> None:
        positions, visible = _read(path)
        if visible.shape[1] != clip.num_frames:
            raise FlowError(f"{path} tracks {visible.shape[1]} frames, the clip has {clip.num_frames}",
                            "give tracks of the same frames, or choose them with --frames")  # fmt: skip
        self._visible = visible & inside(positions, clip.size)
        self._positions = rescale_pixels(positions, clip.size, clip.working_size)

    def pairs(self) -> Iterable[tuple[int, int]] | None:
        """None: any pair can be had."""
        return None

    def matches(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the points visible in both frames are in each, (M, 2) float32 working pixels."""
        both = self._visible[:, i] & self._visible[:, j]
        return self._positions[both, i], self._positions[both, j]

    def hidden(self, i: int, j: int) -> np.ndarray:
        """Where the points that frame i shows and frame j hides are in frame i, (K, 2) float32 working pixels."""
        return self._positions[self._visible[:, i] & ~self._visible[:, j], i]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, T, 2) float32 in plate pixels, visible (N, T) bool."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if "target_points" in data:
                positions, visible = raster_to_pixel(data["target_points"]), ~data["occluded"].astype(bool)
            else:
                positions, visible = data["positions"], data["visible"].astype(bool)
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        remedy = "give an npz of positions (N,T,2) and visible (N,T)"
        raise FlowError(f"{path} holds no tracks ({error})", remedy) from error
    if positions.ndim != 3 or positions.shape[2] != 2 or visible.shape != positions.shape[:2]:
        raise FlowError(f"{path} holds positions {positions.shape} and visible {visible.shape}",
                        "give (N,T,2) and (N,T)")  # fmt: skip
    visible = visible & np.isfinite(positions).all(axis=-1)
    return np.where(visible[..., None], positions, 0.0).astype(np.float32), visible
