"""Flow between any two frames: long distances need a start, and what a folder does not hold is told."""

from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.config import FlowConfig
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow import any_pair
from omnimotion_core.flow.any_pair import AnyPairFlow
from omnimotion_core.flow.stage import adjacent_flow
from omnimotion_core.video.clip import Clip

CONFIG = FlowConfig(long_side=256)


def miss(flow: np.ndarray, scene: Scene, i: int, j: int) -> float:
    exact, visible = scene.flow(i, j)
    assert flow.shape == exact.shape
    return float(np.linalg.norm(flow - exact, axis=-1)[visible].mean())


def test_neighbors_are_matched_as_ever(shot: Clip) -> None:
    np.testing.assert_array_equal(AnyPairFlow(shot, CONFIG)(6, 5), adjacent_flow(shot, CONFIG)(6, 5))


@pytest.mark.parametrize(("base", "last"), [(0, 11), (11, 0)])
def test_a_pair_starts_from_the_one_before(base: int, last: int, shot: Clip, scene: Scene) -> None:
    flow, toward = AnyPairFlow(shot, CONFIG), 1 if last > base else -1
    for t in range(base + toward, last, toward):
        flow(base, t)
        flow(t, base)
    there, back = miss(flow(base, last), scene, base, last), miss(flow(last, base), scene, last, base)
    flow.forget()
    assert there < 0.8 * miss(flow(base, last), scene, base, last)
    assert back < 0.8 * miss(flow(last, base), scene, last, base)


def test_a_pair_starts_from_its_halves(shot: Clip, scene: Scene) -> None:
    flow = AnyPairFlow(shot, CONFIG)
    cold = miss(flow(0, 8), scene, 0, 8)
    flow.forget()
    for i, j in ((0, 2), (2, 4), (4, 6), (6, 8), (0, 4), (4, 8)):
        flow(i, j)
    assert miss(flow(0, 8), scene, 0, 8) < 0.8 * cold


def test_few_first_guesses_are_kept(shot: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_pair, "_MEMO_BYTES", 0)
    flow = AnyPairFlow(shot, CONFIG)
    for t in range(1, 12):
        flow(0, t)
        flow(t, 0)
    assert len(flow._memos) == 16


def test_a_folder_of_flow_tells_what_it_holds(shot: Clip, tmp_path: Path) -> None:
    for i, j in ((0, 1), (1, 0), (1, 2)):
        first, second = i + shot.first_frame, j + shot.first_frame
        np.save(tmp_path / f"flow_{first:04d}_{second:04d}.npy", np.full((96, 128, 2), float(j - i), np.float32))
    flow = AnyPairFlow(shot, FlowConfig(estimator=str(tmp_path)))
    assert flow.available(0, 1)
    assert flow.available(1, 0)
    assert not flow.available(1, 2)  # there is no way back
    assert not flow.available(0, 2)
    assert (flow(0, 1) == 1).all()
    assert (flow(1, 0) == -1).all()
