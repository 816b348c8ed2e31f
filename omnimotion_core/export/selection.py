"""Which few of many tracks to show or to hand on: the longest and surest, spread over the frame. numpy alone."""

import numpy as np

from omnimotion_core.coordinates import inside
from omnimotion_core.trajectories.tracks import Tracks

_MAX_ANCHORS = 32  # frames at which coverage is looked at
_TRACKS_PER_CELL = 4.0  # a cell of the frame is meant for about so many of the chosen tracks


def usable(tracks: Tracks) -> np.ndarray:
    """Where a track may be shown as seen, (N, T) bool: visible, and its position finite and on the picture."""
    return np.asarray(tracks.visible & inside(tracks.positions, tracks.size))


def track_name(row: int) -> str:
    """What the track in this row of ``tracks.npz`` is called in every program: letters and digits alone."""
    return f"te{row:05d}"


def choose_tracks(tracks: Tracks, count: int) -> np.ndarray:
    """Rows of at most ``count`` tracks, ascending; tracks usable in fewer than two frames are never chosen.

    Greedy: some evenly spaced frames are anchors, and each is divided into cells. A track that is seen at an anchor
    adds its confidence there, divided by 1 + the number of tracks already chosen in that cell at that anchor. The
    track that adds most is chosen next; of equals the first. So long and sure tracks come first, and an empty region
    or time beats a crowded one. Tracks too short to meet an anchor follow, by their summed confidence. The same
    tracks give the same choice everywhere.
    """
    seen = usable(tracks)
    candidates = np.flatnonzero(seen.sum(axis=1) >= 2)
    if len(candidates) <= count:
        return candidates
    anchors = np.unique(np.linspace(0, tracks.num_frames - 1, min(_MAX_ANCHORS, tracks.num_frames)).round().astype(int))
    sighted = seen[np.ix_(candidates, anchors)]
    confidence = np.where(sighted, tracks.confidence[np.ix_(candidates, anchors)], 0.0).astype(np.float64)
    cells, num_cells = _cells(tracks, candidates, anchors, sighted, count)
    slots = cells + num_cells * np.arange(len(anchors))  # (candidates, anchors), each a cell of an anchor
    taken = np.zeros(num_cells * len(anchors))
    total = np.where(seen, tracks.confidence, 0.0).sum(axis=1, dtype=np.float64)[candidates]
    free = np.ones(len(candidates), bool)
    chosen: list[int] = []
    bound = confidence.sum(axis=1)  # what a track adds never grows: who still adds what it once did adds most
    while len(chosen) < count:
        best = int(np.argmax(bound))
        gain = (confidence[best] / (1.0 + taken[slots[best]])).sum()
        if gain < bound[best]:
            bound[best] = gain
            continue
        if gain <= 0:
            break
        chosen.append(best)
        free[best], bound[best] = False, -1.0
        taken[slots[best][sighted[best]]] += 1
    rest = np.flatnonzero(free)
    rest = rest[np.argsort(-total[rest], kind="stable")][: count - len(chosen)]
    return np.sort(candidates[np.concatenate([np.array(chosen, int), rest])])


def first_seen(tracks: Tracks) -> np.ndarray:
    """The position at which each track is first seen, (N, 2) pixels."""
    return np.asarray(tracks.positions[np.arange(len(tracks)), tracks.visible.argmax(axis=1)])


def _cells(
    tracks: Tracks, rows: np.ndarray, anchors: np.ndarray, sighted: np.ndarray, count: int
) -> tuple[np.ndarray, int]:
    """The cell (rows, anchors) of each sighting (0 where there is none), and how many cells an anchor has."""
    width, height = tracks.size
    side = max(1.0, np.sqrt(width * height * _TRACKS_PER_CELL / count))
    columns, lines = int(np.ceil(width / side)), int(np.ceil(height / side))
    position = np.where(sighted[..., None], tracks.positions[np.ix_(rows, anchors)], 0.0)
    column = np.clip(((position[..., 0] + 0.5) * columns / width).astype(int), 0, columns - 1)
    line = np.clip(((position[..., 1] + 0.5) * lines / height).astype(int), 0, lines - 1)
    return line * columns + column, columns * lines
