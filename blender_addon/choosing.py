# SPDX-License-Identifier: GPL-3.0-or-later
"""Which few of many tracks to take: long, sure, and spread over the frame. Needs no Blender."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ANCHORS = 16  # frames at which coverage is looked at
_CELLS = 6  # of the frame's width and height


@dataclass(frozen=True)
class Candidate:
    """A track that may be taken."""

    weight: float  # 0..1
    seen: "Mapping[int, tuple[float, float]]"  # frame → place as fractions of the frame, where it is seen


def choose(candidates: Sequence[Candidate], count: int) -> list[int]:
    """Indices of at most ``count`` candidates, the best first; those seen in fewer than two frames are never taken.

    Greedy: a track adds its weight at each anchor frame where it is seen, shared with the tracks that were taken
    before in the same cell of the frame there. Since what a track adds only falls, a heap need not look at all of
    them for each choice. Equal input gives an equal choice.
    """
    frames = sorted({frame for one in candidates for frame in one.seen})
    if not frames:
        return []
    anchors = sorted({frames[k * (len(frames) - 1) // max(_ANCHORS - 1, 1)] for k in range(_ANCHORS)})
    slots = [[(frame, *_cell(one.seen[frame])) for frame in anchors if frame in one.seen] for one in candidates]
    taken: dict[tuple[int, int, int], int] = {}

    def gain(index: int) -> float:
        one = candidates[index]
        # the length decides between tracks that meet the same anchors, or none
        return sum(one.weight / (1 + taken.get(slot, 0)) for slot in slots[index]) + 1e-6 * one.weight * len(one.seen)

    heap = [(-gain(index), index) for index, one in enumerate(candidates) if len(one.seen) >= 2]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        known, index = heapq.heappop(heap)
        now = -gain(index)
        if now > known and heap and now > heap[0][0]:  # another one may be better by now
            heapq.heappush(heap, (now, index))
            continue
        chosen.append(index)
        for slot in slots[index]:
            taken[slot] = taken.get(slot, 0) + 1
    return chosen


def best_keyframes(tracks: Sequence[Candidate], least_common: int = 8) -> "tuple[int, int] | None":
    """The two frames to begin a camera solve with: most motion between them, weighed by how many tracks see both.

    Returns:
        None where no two frames share ``least_common`` tracks.
    """
    frames = sorted({frame for one in tracks for frame in one.seen})
    anchors = sorted({frames[k * (len(frames) - 1) // max(_ANCHORS - 1, 1)] for k in range(_ANCHORS)}) if frames else []
    best, found = 0.0, None
    for i, first in enumerate(anchors):
        for last in anchors[i + 1 :]:
            common = [one for one in tracks if first in one.seen and last in one.seen]
            if len(common) >= least_common:
                score = len(common) * _parallax(common, first, last)
                if found is None or score > best:
                    best, found = score, (first, last)
    return found


def _parallax(tracks: Sequence[Candidate], first: int, last: int) -> float:
    """How differently the tracks move between two frames, by their median departure from the median motion."""
    moves = [(one.seen[last][0] - one.seen[first][0], one.seen[last][1] - one.seen[first][1]) for one in tracks]
    middle = [sorted(move[axis] for move in moves)[len(moves) // 2] for axis in (0, 1)]
    apart = sorted(((x - middle[0]) ** 2 + (y - middle[1]) ** 2) ** 0.5 for x, y in moves)
    return apart[len(apart) // 2]


def _cell(place: "tuple[float, float]") -> "tuple[int, int]":
    column, row = (min(max(int(value * _CELLS), 0), _CELLS - 1) for value in place)
    return column, row
