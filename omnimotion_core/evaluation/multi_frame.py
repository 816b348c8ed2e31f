"""Trackers made of flow over several distances: straight from the query's frame, and by the best of several intervals.

Neither needs a fitted field, and unlike a chain between neighbors both find a point again that was hidden for a while.
A step is checked by going back, as in ``baselines``.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from omnimotion_core.coordinates import Size, inside
from omnimotion_core.evaluation.baselines import MAX_CYCLE_ERROR_PX, Advance, flow_step
from omnimotion_core.trajectories.tracks import Tracks

# Of 1.5, 3 and 6 px, DIS on two rendered clips had the best Jaccard and occlusion accuracy at 6: over many frames flow
# is coarser than between neighbors. Several intervals have the best Jaccard at 1.5 px, as the chain has.
MAX_DIRECT_CYCLE_ERROR_PX = 6.0
INTERVALS = (1, 2, 4, 8, 16, 32)  # frames; besides them, straight from the query's frame

Flow = Callable[[int, int], np.ndarray]  # (from frame, to frame) → (H, W, 2) as (dx, dy) in pixels


def direct_pairs(frames: Iterable[int], num_frames: int) -> Iterator[tuple[int, int]]:
    """The pairs (query's frame, other frame), nearest first, to the clip's end and then to its beginning."""
    for source in sorted(set(frames)):
        yield from ((source, target) for target in range(source + 1, num_frames))
        yield from ((source, target) for target in range(source - 1, -1, -1))


def direct_tracks(
    flow: Flow,
    queries: np.ndarray,
    num_frames: int,
    size: Size,
    *,
    max_cycle_error_px: float = MAX_DIRECT_CYCLE_ERROR_PX,
    first_frame: int = 0,
    fps: float = 25.0,
) -> Tracks:
    """Tracks made of the flow from each query's frame to every other frame.

    Args:
        flow: dense flow between any two frames, asked for in the order of ``direct_pairs``, there and back, so that it
            may start each pair from the one before.
        queries: (N, 3) as (t, x, y) in pixels.
        num_frames: T.
        size: (width, height) of the picture.
        max_cycle_error_px: a point that misses itself by more on the way back is hidden in that frame.
        first_frame, fps: told in the result.
    Raises:
        EvaluationError: a query is outside the clip's frames, or a flow field is not of the picture's size.
    Source: the baseline RAFT-D of Wang et al. 2023, arXiv:2306.05422.
    """
    made, step = Advance(queries, num_frames), flow_step(flow, size)
    for source, target in direct_pairs(made.start.tolist(), num_frames):
        rows = made.rows[made.start == source]
        there, miss = step(source, target, made.positions[rows, source])
        made.positions[rows, target], made.missed[rows, target] = there, miss
        made.visible[rows, target] = (miss <= max_cycle_error_px) & inside(there, size)
    return made.tracks(size, first_frame, fps)


def interval_pairs(
    frames: Iterable[int], num_frames: int, intervals: Iterable[int] = INTERVALS
) -> Iterator[tuple[int, int]]:
    """The pairs (source, target) that chaining over several intervals steps along, by target, the longest first."""
    frames, intervals = sorted(set(frames)), sorted(set(intervals))
    for toward, targets in ((1, range(1, num_frames)), (-1, range(num_frames - 2, -1, -1))):
        for target in targets:
            behind = {start for start in frames if (target - start) * toward > 0}
            if not behind:
                continue
            begun = min(start * toward for start in behind)
            between = {target - toward * interval for interval in intervals}
            sources = behind | {source for source in between if source * toward >= begun}
            yield from ((source, target) for source in sorted(sources, reverse=toward > 0))


def several_interval_tracks(
    flow: Flow,
    queries: np.ndarray,
    num_frames: int,
    size: Size,
    *,
    intervals: Iterable[int] = INTERVALS,
    available: Callable[[int, int], bool] = lambda source, target: True,
    max_cycle_error_px: float = MAX_CYCLE_ERROR_PX,
    first_frame: int = 0,
    fps: float = 25.0,
) -> Tracks:
    """Tracks that go on, in each frame, from the frame before which the way there is the surest.

    A candidate is the track so far at t - interval, or the query itself, and the flow from there to t. Its cost is the
    sum of what its steps miss on the way back. Candidates that were hidden, miss themselves or leave the picture are
    dropped; where none is left the point is hidden, and its position is that of the least cost all the same.

    Args:
        flow: dense flow between two frames, asked for in the order of ``interval_pairs``, there and back.
        queries: (N, 3) as (t, x, y) in pixels.
        num_frames: T.
        size: (width, height) of the picture.
        intervals: in frames.
        available: whether there is flow of a pair; a frame that none leads to repeats its neighbor's position, hidden.
        max_cycle_error_px: a step that misses by more drops the candidate.
        first_frame, fps: told in the result.
    Raises:
        EvaluationError: a query is outside the clip's frames, or a flow field is not of the picture's size.
    Source: Neoral et al. 2024, arXiv:2305.12998 (MFT), with round-trip errors for what it learns.
    """
    made, step = Advance(queries, num_frames), flow_step(flow, size)
    intervals = frozenset(intervals)
    entered = None
    for source, target in interval_pairs(made.start.tolist(), num_frames, intervals):
        toward = 1 if target > source else -1
        if (target, toward) != entered:
            entered = (target, toward)
            moving = made.rows[(target - made.start) * toward > 0]
            made.positions[moving, target] = made.positions[moving, target - toward]
            made.missed[moving, target] = np.inf
        rows = made.start == source
        if abs(target - source) in intervals:
            rows |= (source - made.start) * toward >= 0
        index = made.rows[rows]
        if not len(index) or not available(source, target):
            continue
        there, miss = step(source, target, made.positions[index, source])
        cost = made.missed[index, source] + miss
        seen = made.visible[index, source] & (miss <= max_cycle_error_px) & inside(there, size)
        seen_before = made.visible[index, target]
        better = (seen & ~seen_before) | ((seen == seen_before) & (cost < made.missed[index, target]))
        index = index[better]
        made.positions[index, target], made.missed[index, target] = there[better], cost[better]
        made.visible[index, target] = seen[better]
    return made.tracks(size, first_frame, fps)
