"""Simple trackers that a fitted field has to beat: chained flow and Lucas-Kanade, both going on from frame to frame.

Both check each step by going back: where a point misses itself by more than the given distance, or leaves the picture,
it is hidden, and it stays hidden, since neither method can recognize what returns. A position is told all the same, so
that a point that was hidden by mistake still counts: chained flow goes on with the flow at that place; Lucas-Kanade,
whose failed matches land anywhere, stands still in that step.
"""

from collections.abc import Callable

import cv2
import numpy as np

from omnimotion_core.coordinates import Size, inside, rescale_pixels
from omnimotion_core.errors import EvaluationError
from omnimotion_core.trajectories.tracks import Tracks

# Of 0.5 to 8 px on clips with known truth, 1 to 2 px gave the best average Jaccard of chained flow; 1.5 px is also near
# the best occlusion accuracy that does not cost Jaccard.
MAX_CYCLE_ERROR_PX = 1.5

# (from frame, to frame, points (M, 2)) → (where they go (M, 2), by how much they miss themselves on the way back (M,))
Step = Callable[[int, int, np.ndarray], tuple[np.ndarray, np.ndarray]]


def chain_tracks(
    flow: Callable[[int, int], np.ndarray],
    queries: np.ndarray,
    num_frames: int,
    size: Size,
    *,
    max_cycle_error_px: float = MAX_CYCLE_ERROR_PX,
    first_frame: int = 0,
    fps: float = 25.0,
) -> Tracks:
    """Tracks made of the flow between neighbors, chained forward and backward from each query's frame.

    Flow is read bilinearly, at the border's value outside the picture. Confidence is 1 / (1 + the misses so far in px).

    Args:
        flow: dense flow from frame i to its neighbor j, (H, W, 2) as (dx, dy) in pixels. Called at most twice a pair
            and direction; only two fields are held at once.
        queries: (N, 3) as (t, x, y) in pixels.
        num_frames: T.
        size: (width, height) of the picture.
        max_cycle_error_px: a step that misses by more on its way back hides the point.
        first_frame, fps: told in the result.
    Raises:
        EvaluationError: a query is outside the clip's frames, or a flow field is not of the picture's size.
    """
    return _track(flow_step(flow, size), queries, num_frames, size, max_cycle_error_px, first_frame, fps)


def lucas_kanade_tracks(
    picture: Callable[[int], np.ndarray],
    queries: np.ndarray,
    num_frames: int,
    size: Size,
    *,
    window_px: int = 21,
    num_levels: int = 4,
    max_cycle_error_px: float = MAX_CYCLE_ERROR_PX,
    first_frame: int = 0,
    fps: float = 25.0,
) -> Tracks:
    """Tracks by pyramidal Lucas-Kanade between neighbors, forward and backward from each query's frame.

    Args:
        picture: frame t, (h, w, 3) or (h, w) uint8; it may be smaller than the plate. Called up to four times a frame.
        queries: (N, 3) as (t, x, y) in pixels of the plate.
        num_frames: T.
        size: (width, height) of the plate.
        window_px, num_levels: the matched window's side and the pyramid's levels, on ``picture``.
        max_cycle_error_px: in pixels of ``picture``; a step that misses by more on its way back hides the point.
        first_frame, fps: told in the result.
    Raises:
        EvaluationError: a query is outside the clip's frames.
    Source: Lucas and Kanade 1981; Bouguet 2000, its pyramidal form.
    """
    window, levels = (window_px, window_px), num_levels - 1

    def match(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = np.ascontiguousarray(points[:, None])
        guess = start.copy()  # where the result goes; not a start of the search, which would need a flag
        there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, guess, winSize=window, maxLevel=levels)
        return np.asarray(there)[:, 0], np.asarray(found)[:, 0].astype(np.bool_)

    def step(source: int, target: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        before, after = _gray(picture(source)), _gray(picture(target))
        working = (before.shape[1], before.shape[0])
        # Far outside the picture OpenCV's windows are empty: such points wait a window's width from its edge.
        limit = np.asarray(working, np.float32) + window_px
        start = np.clip(rescale_pixels(points, size, working).astype(np.float32), -window_px, limit)
        there, found = match(before, after, start)
        back, found_back = match(after, before, there)
        miss = np.linalg.norm(back - start, axis=-1)
        held = found & found_back & (miss <= max_cycle_error_px)
        moved = rescale_pixels(np.where(held[:, None], there, start).astype(np.float64), working, size)
        return moved, np.where(found & found_back, miss, np.inf)

    return _track(step, queries, num_frames, size, max_cycle_error_px, first_frame, fps)


def flow_step(flow: Callable[[int, int], np.ndarray], size: Size) -> Step:
    """A step along dense flow, which is read bilinearly, at the border's value outside the picture.

    The step raises EvaluationError where a field is not of the picture's size.
    """
    wanted = (size[1], size[0], 2)

    def step(source: int, target: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        forward, backward = flow(source, target), flow(target, source)
        for field in (forward, backward):
            if field.shape != wanted:
                raise EvaluationError(f"flow has shape {field.shape}", f"give {wanted}, the picture's size")
        there = points + _sample_bilinear(forward, points)
        return there, np.linalg.norm(there + _sample_bilinear(backward, there) - points, axis=-1)

    return step


class Advance:
    """Tracks that are being made: everything begins at the queries, and is filled in frame by frame.

    Raises:
        EvaluationError: a query is outside the clip's frames.
    """

    def __init__(self, queries: np.ndarray, num_frames: int) -> None:
        self.queries = np.asarray(queries, np.float32)
        self.start = np.round(self.queries[:, 0]).astype(int)  # (N,) frames
        beyond = self.start[(self.start < 0) | (self.start >= num_frames)]
        if len(beyond):
            raise EvaluationError(
                f"a query is in frame {beyond[0]} of {num_frames}", f"use frames 0 to {num_frames - 1}"
            )
        self.rows = np.arange(len(self.queries))
        self.positions = np.zeros((len(self.queries), num_frames, 2))
        self.visible = np.zeros((len(self.queries), num_frames), np.bool_)
        self.missed = np.zeros((len(self.queries), num_frames))  # cycle errors summed since the query, px
        self.positions[self.rows, self.start] = self.queries[:, 1:]
        self.visible[self.rows, self.start] = True

    def tracks(self, size: Size, first_frame: int, fps: float) -> Tracks:
        """What is there by now; confidence is 1 / (1 + the misses in px)."""
        return Tracks(
            queries=self.queries,
            positions=self.positions.astype(np.float32),
            visible=self.visible,
            confidence=np.where(self.visible, 1.0 / (1.0 + self.missed), 0.0).astype(np.float32),
            depth=np.zeros(self.visible.shape, np.float32),
            size=size,
            first_frame=first_frame,
            fps=fps,
        )


def _track(
    step: Step,
    queries: np.ndarray,
    num_frames: int,
    size: Size,
    max_cycle_error_px: float,
    first_frame: int,
    fps: float,
) -> Tracks:
    """Repeat ``step`` from each query's frame to both ends of the clip."""
    made = Advance(queries, num_frames)
    forward = [(t, t + 1) for t in range(num_frames - 1)]
    backward = [(t, t - 1) for t in range(num_frames - 1, 0, -1)]
    for t, after in [*forward, *backward]:
        moving = made.rows[made.start <= t] if after > t else made.rows[made.start >= t]
        if not len(moving):
            continue
        there, miss = step(t, after, made.positions[moving, t])
        made.positions[moving, after] = there
        made.missed[moving, after] = made.missed[moving, t] + miss
        made.visible[moving, after] = made.visible[moving, t] & (miss <= max_cycle_error_px) & inside(there, size)
    return made.tracks(size, first_frame, fps)


def _gray(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 2 else np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))


def _sample_bilinear(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``field`` (H, W, C) at ``points`` (M, 2), the border's value outside: (M, C)."""
    # Not cv2.remap: it rounds points to 1/32 px and takes 32,767 of them at most.
    height, width = field.shape[:2]
    x, y = np.clip(points[:, 0], 0, width - 1), np.clip(points[:, 1], 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[:, None], (y - top)[:, None]
    upper = field[top, left] * (1 - across) + field[top, right] * across
    lower = field[bottom, left] * (1 - across) + field[bottom, right] * across
    return np.asarray(upper * (1 - down) + lower * down)
