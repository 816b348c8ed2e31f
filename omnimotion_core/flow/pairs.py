"""Which pairs of frames are matched: distances on a logarithmic scale, and loop closures.

The number of pairs grows as T log T where all pairs would grow as T².
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Pair:
    """Two frames that are matched in both directions, ``first`` before ``second``."""

    first: int
    second: int

    @property
    def gap(self) -> int:
        """Distance in frames."""
        return self.second - self.first


def stride_pairs(segments: Sequence[range], gaps: Sequence[int]) -> list[Pair]:
    """All pairs at the given distances that lie within one segment, sorted by first frame, then by distance."""
    return [
        Pair(first, first + gap)
        for segment in segments
        for first in segment
        for gap in gaps
        if first + gap in segment
    ]  # fmt: skip


def ways_to_compose(gap: int, gaps: Sequence[int]) -> list[int]:
    """The distances m of the middle frames over which flow of ``gap`` can be composed: both m and gap - m are matched.

    The largest m, which composes fewest steps, comes first; there is none between neighbors.
    """
    known = set(gaps)
    return sorted((m for m in known if m < gap and gap - m in known), reverse=True)


def closure_candidates(segments: Sequence[range], step: int, max_gap: int) -> list[Pair]:
    """Pairs of keyframes, ``step`` frames apart, that are farther from each other than ``max_gap``."""
    if step == 0:
        return []
    return [
        Pair(first, second)
        for segment in segments
        for first in segment[::step]
        for second in segment[::step]
        if second - first > max_gap
    ]  # fmt: skip


def choose_closures(scores: dict[Pair, int], min_score: int, max_per_frame: int) -> list[Pair]:
    """The best-scored pairs of at least ``min_score`` matches, at most ``max_per_frame`` a frame, sorted."""
    used: dict[int, int] = {}
    chosen: list[Pair] = []
    for pair in sorted(scores, key=lambda pair: (-scores[pair], pair)):
        ends = (pair.first, pair.second)
        if scores[pair] >= min_score and all(used.get(end, 0) < max_per_frame for end in ends):
            chosen.append(pair)
            for end in ends:
                used[end] = used.get(end, 0) + 1
    return sorted(chosen)
