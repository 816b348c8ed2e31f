import math

import pytest

from omnimotion_core.config import FlowConfig
from omnimotion_core.flow.pairs import Pair, choose_closures, closure_candidates, stride_pairs, ways_to_compose

GAPS = FlowConfig().gaps


def test_pairs_are_all_at_the_asked_distances() -> None:
    pairs = stride_pairs([range(6)], (1, 2, 4))
    slow = [Pair(i, j) for i in range(6) for j in range(6) if j - i in (1, 2, 4)]
    assert sorted(pairs) == sorted(slow)


def test_no_pair_crosses_a_cut() -> None:
    pairs = stride_pairs([range(5), range(5, 9)], GAPS)
    assert pairs
    assert all((pair.first < 5) == (pair.second < 5) for pair in pairs)


@pytest.mark.parametrize("frames", [48, 100, 250, 1000])
def test_pairs_grow_as_frames_times_their_logarithm(frames: int) -> None:
    assert len(stride_pairs([range(frames)], GAPS)) <= frames * 2 * math.log2(frames)


def test_every_default_distance_is_composed_in_all_ways_of_two_smaller_ones() -> None:
    assert ways_to_compose(1, GAPS) == []
    assert ways_to_compose(4, GAPS) == [3, 2, 1]
    assert ways_to_compose(24, GAPS) == [16, 12, 8]
    for gap in GAPS[1:]:
        assert ways_to_compose(gap, GAPS) == [m for m in range(gap - 1, 0, -1) if m in GAPS and gap - m in GAPS] != []


def test_closures_join_keyframes_beyond_the_largest_gap() -> None:
    pairs = closure_candidates([range(80)], 8, 32)
    assert Pair(0, 40) in pairs
    assert all(pair.gap > 32 and pair.first % 8 == 0 and pair.second % 8 == 0 for pair in pairs)
    assert closure_candidates([range(80)], 0, 32) == []


def test_the_best_closures_are_chosen_and_no_frame_has_too_many() -> None:
    scores = {Pair(0, 40): 90, Pair(0, 48): 80, Pair(0, 56): 70, Pair(8, 48): 60, Pair(16, 56): 10}
    assert choose_closures(scores, 40, 2) == [Pair(0, 40), Pair(0, 48), Pair(8, 48)]
