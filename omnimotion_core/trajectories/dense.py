"""The field between any two frames, for every pixel of the plate."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from omnimotion_core.coordinates import Size, pixel_grid
from omnimotion_core.errors import QueryError
from omnimotion_core.model.motion import Motion, PreparedMotion
from omnimotion_core.trajectories.query import BYTES_PER_POINT, Source
from omnimotion_core.video.clip import segments_of


@dataclass(frozen=True, eq=False, kw_only=True)
class DenseFlow:
    """Where every pixel of frame ``source`` is in frame ``target``, at plate resolution."""

    source: int  # frame index
    target: int  # frame index
    vectors: np.ndarray  # (H, W, 2) float32, (dx, dy) in plate pixels, y down; estimated also where hidden
    visible: np.ndarray  # (H, W) bool: the pixel's surface is in the target frame and nothing hides it there
    confidence: np.ndarray  # (H, W) float32, 0..1
    depth: np.ndarray  # (H, W) float32, of the source pixel in the quasi-3D volume: smaller is nearer


STRIP_POINTS = 32_768  # that a CPU's thread takes at once, always the same, so that results do not depend on threads


def dense_flow(field: Motion | PreparedMotion, source: int, target: int, *, memory_mb: int = 512) -> DenseFlow:
    """Flow of every pixel from frame ``source`` to frame ``target``, computed in strips that fit ``memory_mb``.

    Between frames on two sides of a hard cut all vectors are zero and nothing is visible.

    Raises:
        QueryError: there is no such frame.
    """
    prepared = _prepare(field, source, target)
    shape = prepared.shape
    width, height = shape.size
    vectors = np.zeros((height, width, 2), np.float32)
    visible = np.zeros((height, width), bool)
    confidence = np.zeros((height, width), np.float32)
    depth = np.zeros((height, width), np.float32)
    apart = not any(source in segment and target in segment for segment in segments_of(shape.num_frames, shape.cuts))

    def fill(rows: slice, pixels: np.ndarray) -> None:
        points = Source.at(prepared, np.full(len(pixels), source), pixels)
        depth[rows] = points.local[:, 2].cpu().numpy().reshape(-1, width)
        if apart:
            return
        landed = points.land(np.array([target]))
        vectors[rows] = (landed.positions.cpu().numpy() - pixels).reshape(-1, width, 2)
        visible[rows] = landed.visible.cpu().numpy().reshape(-1, width)
        confidence[rows] = landed.confidence.cpu().numpy().reshape(-1, width)

    _in_strips(prepared, memory_mb, fill)
    if source == target:
        vectors[:], visible[:] = 0.0, True
    return DenseFlow(
        source=source, target=target, vectors=vectors, visible=visible, confidence=confidence, depth=depth
    )


def dense_depth(field: Motion | PreparedMotion, frame: int, *, memory_mb: int = 512) -> np.ndarray:
    """Depth of every pixel of a frame in the quasi-3D volume, (H, W) float32: smaller is nearer; no distance.

    Raises:
        QueryError: there is no such frame.
    """
    prepared = _prepare(field, frame)
    width, height = prepared.shape.size
    depth = np.zeros((height, width), np.float32)

    def fill(rows: slice, pixels: np.ndarray) -> None:
        points = Source.at(prepared, np.full(len(pixels), frame), pixels)
        depth[rows] = points.local[:, 2].cpu().numpy().reshape(-1, width)

    _in_strips(prepared, memory_mb, fill)
    return depth


def _prepare(field: Motion | PreparedMotion, *frames: int) -> PreparedMotion:
    prepared = field.prepare() if isinstance(field, Motion) else field
    for frame in frames:
        if not 0 <= frame < prepared.shape.num_frames:
            raise QueryError(
                f"frame {frame} is not in the clip", f"give frames from 0 to {prepared.shape.num_frames - 1}"
            )
    return prepared


def _in_strips(prepared: PreparedMotion, memory_mb: int, fill: Callable[[slice, np.ndarray], None]) -> None:
    """``fill`` for rows of the plate whose points fit the memory, and their pixels (P, 2)."""
    points = memory_mb * 2**20 // BYTES_PER_POINT // prepared.threads
    if prepared.device.type == "cpu":
        points = min(points, STRIP_POINTS)
    strips = list(_strips(prepared.shape.size, points))
    if prepared.threads == 1 or len(strips) == 1:
        for rows, pixels in strips:
            fill(rows, pixels)
    else:
        with ThreadPoolExecutor(prepared.threads) as pool:
            list(pool.map(lambda strip: fill(*strip), strips))


def _strips(size: Size, points: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of the plate of about so many points, and their pixels (P, 2)."""
    grid = pixel_grid(size)
    rows_at_once = max(points // size[0], 1)
    for top in range(0, size[1], rows_at_once):
        rows = slice(top, top + rows_at_once)
        yield rows, grid[rows].reshape(-1, 2)
