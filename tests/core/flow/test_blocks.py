import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from omnimotion_core.config import FlowConfig
from omnimotion_core.flow.blocks import FlowBlocks
from omnimotion_core.flow.estimators.dis import DisFlow
from omnimotion_core.flow.matching import Both
from omnimotion_core.flow.pairs import Pair
from omnimotion_core.video.clip import Clip


def steady(there: float, back: float) -> Both:
    forward, backward = np.zeros((96, 128, 2), np.float32), np.zeros((96, 128, 2), np.float32)
    forward[..., 0], backward[..., 0] = there, back
    return forward, backward


def test_neighbors_are_guessed_to_go_on_as_before_and_as_after(shot: Clip) -> None:
    with ThreadPoolExecutor(1) as pool:
        blocks = FlowBlocks(shot, FlowConfig(), DisFlow(), pool, 0)
    blocks.plain = {Pair(0, 1): steady(2, -2.5), Pair(1, 2): steady(5, -5), Pair(2, 3): steady(3, -3.5)}

    def guesses(pair: Pair) -> list[list[float]]:
        return [[float(np.median(way[..., 0])) for way in guess] for guess in blocks._continued(pair)]

    assert guesses(Pair(1, 2)) == [[2.5, -2.5], [3, -3]]
    assert guesses(Pair(0, 1)) == [[5, -5]]
    assert guesses(Pair(2, 3)) == [[5, -5]]
    assert guesses(Pair(0, 2)) == []


def test_neighbors_and_those_beside_them_are_searched_within_a_shot(shot: Clip) -> None:
    cut = dataclasses.replace(shot, cuts=(4,))
    with ThreadPoolExecutor(1) as pool:
        blocks = FlowBlocks(cut, FlowConfig(long_side=128), DisFlow(), pool, 0)
        blocks._find_plain([Pair(1, 2), Pair(1, 3)])
        assert sorted(blocks.plain) == [Pair(0, 1), Pair(1, 2), Pair(2, 3)]
        blocks._find_plain([Pair(2, 3)])
        assert sorted(blocks.plain) == [Pair(1, 2), Pair(2, 3)]  # the next would lie across the cut
