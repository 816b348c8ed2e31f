"""Which points become tracks: a grid on the first frame, and later frames filled in where no track passes."""

import numpy as np

from omnimotion_core.config import TracksConfig
from omnimotion_core.coordinates import pixel_to_raster
from omnimotion_core.errors import ClipError
from omnimotion_core.model.motion import Motion
from omnimotion_core.trajectories.query import track_points
from omnimotion_core.video.clip import Clip, segments_of

SEED_FRAMES = 12  # frames, evenly over the clip and at each cut, that are looked at for uncovered places
FIRST_SHARE = 0.5  # of all tracks begin on the first frame of the grid


def seed_queries(field: Motion, clip: Clip, config: TracksConfig) -> np.ndarray:
    """Queries (N, 3) as (t, x, y), N at most ``config.max_tracks``.

    The grid's spacing is such that half of the tracks cover one frame; the others go where surfaces come into view.
    Points outside the clip's mask are left out.
    """
    width, height = clip.size
    spacing = max(np.sqrt(width * height / max(config.max_tracks * FIRST_SHARE, 1)), 1.0)
    grid = _grid(clip, spacing)
    frames = sorted({*np.linspace(0, clip.num_frames - 1, min(SEED_FRAMES, clip.num_frames)).astype(int), *clip.cuts})
    queries = np.zeros((0, 3), np.float32)
    covered = [np.zeros((0, 2), np.float32) for _ in range(clip.num_frames)]
    for t in map(int, frames):
        open_points = _on_mask(clip, t, grid[~_near(grid, covered[t], spacing)])
        open_points = open_points[: max(config.max_tracks - len(queries), 0)] if t else open_points[: config.max_tracks]
        if len(open_points) == 0:
            continue
        added = np.column_stack([np.full(len(open_points), t, np.float32), open_points]).astype(np.float32)
        queries = np.concatenate([queries, added])
        tracks = track_points(field, added, memory_mb=config.memory_mb)
        for later in frames:
            seen = tracks.positions[tracks.visible[:, later], later]
            covered[later] = np.concatenate([covered[later], seen])
    if len(queries) == 0:
        raise ClipError(f"the mask of {clip.name} leaves no point to track", "give a mask that is white where to track")
    return queries


def preview_queries(clip: Clip, count: int) -> np.ndarray:
    """Queries (N, 3) as (t, x, y), N about ``count``: a grid on the middle frame of each shot, the longest shots first.

    Points outside the clip's mask are left out; N may be 0.
    """
    width, height = clip.size
    shots = sorted(segments_of(clip.num_frames, clip.cuts), key=len, reverse=True)[:count]
    grid = _grid(clip, max(np.sqrt(width * height * len(shots) / count), 1.0))
    found = [np.zeros((0, 3), np.float32)]
    for shot in shots:
        t = shot[len(shot) // 2]
        points = _on_mask(clip, t, grid)
        found.append(np.column_stack([np.full(len(points), t, np.float32), points]).astype(np.float32))
    return np.concatenate(found)


def _grid(clip: Clip, spacing: float) -> np.ndarray:
    """Points (M, 2) of an even grid over the plate, its margins half a step."""
    width, height = clip.size
    columns, rows = max(int(width / spacing), 1), max(int(height / spacing), 1)
    x = (np.arange(columns) + 0.5) * width / columns - 0.5
    y = (np.arange(rows) + 0.5) * height / rows - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


def _near(points: np.ndarray, others: np.ndarray, spacing: float) -> np.ndarray:
    """Whether one of ``others`` lies in the square of a step around each of ``points``: (M,) bool."""
    if len(others) == 0:
        return np.zeros(len(points), bool)
    cells = {tuple(cell) for cell in np.rint(others / spacing * 2).astype(int)}
    center = np.rint(points / spacing * 2).astype(int)
    around = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    return np.array([any((x + dx, y + dy) in cells for dx, dy in around) for x, y in center])


def _on_mask(clip: Clip, t: int, points: np.ndarray) -> np.ndarray:
    mask = clip.mask(t)
    if mask is None:
        return points
    scale = np.array(clip.working_size) / np.array(clip.size)
    column, row = (pixel_to_raster(points) * scale).astype(int).T
    return points[mask[row.clip(0, mask.shape[0] - 1), column.clip(0, mask.shape[1] - 1)]]
