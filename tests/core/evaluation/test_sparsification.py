"""The sparsification curve against a slow loop, and its limits."""

import json
import math

import numpy as np
import pytest

from omnimotion_core.evaluation.sparsification import sparsification, track_sparsification
from omnimotion_core.evaluation.tapvid import Truth, queries_for
from omnimotion_core.trajectories.tracks import Tracks


def slow_areas(confidence: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    areas = []
    for key in (confidence, -error):
        left = sorted(zip(key.tolist(), error.tolist(), strict=True))
        whole, values = sum(e for _, e in left) / len(left), []
        while left:
            values.append(sum(e for _, e in left) / len(left) / whole)
            left.pop(0)
        areas.append(sum(values) / len(values))
    return areas[0], areas[1]


@pytest.mark.parametrize("count", [1, 7, 300])
def test_it_agrees_with_a_slow_loop(count: int) -> None:
    rng = np.random.default_rng(count)
    error = rng.exponential(2.0, count)
    confidence = 1 / (1 + error + rng.exponential(2.0, count))
    found = sparsification(confidence, error)
    area, oracle = slow_areas(confidence, error)
    assert found.area == pytest.approx(area)
    assert found.oracle_area == pytest.approx(oracle)
    assert found.ause == pytest.approx(area - oracle)
    assert found.num_positions == count
    assert found.curve[0] == found.oracle[0] == pytest.approx(1.0)
    assert len(found.removed) == len(found.curve) == len(found.oracle) == 20


def test_perfect_blind_and_misleading_confidence() -> None:
    error = np.random.default_rng(0).permutation(np.arange(1.0, 201.0))
    assert sparsification(-error, error).ause == pytest.approx(0.0)
    assert sparsification(np.ones(200), error).area == pytest.approx(1.0)  # equal confidence is no order
    assert sparsification(error, error).area > 1.2
    # The rest of 1 … 200 without its largest k has the mean (201 - k) / 2.
    assert sparsification(-error, error).curve == pytest.approx([(201 - k) / 201 for k in range(0, 200, 10)])


def test_nothing_to_divide_by() -> None:
    for error in (np.zeros(0), np.zeros(5)):
        found = sparsification(np.ones(len(error)), error)
        assert math.isnan(found.area)
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["ause"] is None


def test_only_visible_points_after_the_query_count() -> None:
    truth = Truth(
        target_points=np.full((2, 3, 2), 10.5), occluded=np.array([[False, False, True], [True, False, False]]),
        query_points=np.array([[0, 10.5, 10.5], [1, 10.5, 10.5]]),
    )  # fmt: skip
    queries, rows = queries_for(truth, "first")
    positions = np.full((2, 3, 2), 10.0, np.float32)
    positions[0, 1, 0], positions[1, 2, 0] = 13, 11
    positions[0, 2], positions[1, 0] = 50, 50  # hidden, before the query
    confidence = np.array([[1, 0.2, 0.9], [0.9, 1, 0.8]], np.float32)
    tracks = Tracks(
        queries=queries, positions=positions, visible=~truth.occluded, confidence=confidence,
        depth=np.zeros((2, 3), np.float32), size=(128, 64), first_frame=0, fps=25.0,
    )  # fmt: skip
    found = track_sparsification(truth, tracks, rows, "first")
    assert found.num_positions == 2
    assert found.area == pytest.approx((1 + 2 / 4) / 2)  # errors 6 and 2 in the raster; the surer is the smaller
    assert found.ause == pytest.approx(0.0)
