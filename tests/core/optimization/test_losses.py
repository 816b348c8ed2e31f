import math

import numpy as np
import pytest
import torch

from omnimotion_core.optimization import losses


def test_flow_loss_is_the_weighted_mean_of_its_formula() -> None:
    rng = np.random.default_rng(0)
    predicted, target, weight = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), rng.random(9)
    for robust in (None, 4.0):
        total = norm = 0.0
        for k in range(9):
            dx, dy = predicted[k] - target[k]
            distance = math.sqrt(dx**2 + dy**2 + losses.SOFTENING_PX**2)
            total += weight[k] * (distance if robust is None else distance * robust / (robust + distance))
            norm += weight[k]
        p, q, w = (torch.from_numpy(values) for values in (predicted, target, weight))
        found = losses.flow_loss(p, q, w, robust)
        assert float(found) == pytest.approx(total / norm)


def test_a_robust_outlier_costs_at_most_the_scale() -> None:
    far = torch.tensor([[1e4, 0.0]])
    assert float(losses.flow_loss(far, torch.zeros(1, 2), torch.ones(1), 4.0)) == pytest.approx(4.0, rel=1e-2)


def test_matches_without_any_weight_cost_nothing() -> None:
    zero = torch.zeros(3)
    assert float(losses.flow_loss(torch.ones(3, 2), torch.zeros(3, 2), zero, None)) == 0
    assert float(losses.depth_consistency_loss(torch.ones(3), zero, zero, torch.ones(3))) == 0


def test_depth_consistency_is_a_weighted_mean_difference() -> None:
    mapped, seen, weight = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0]), torch.tensor([1.0, 3.0])
    found = losses.depth_consistency_loss(mapped, seen, weight, torch.ones(2))
    assert float(found) == pytest.approx((0.5 + 3 * 2.0) / 4)


def test_what_may_be_hidden_need_not_lie_on_the_surface() -> None:
    mapped, seen, weight = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0]), torch.tensor([1.0, 3.0])
    found = losses.depth_consistency_loss(mapped, seen, weight, torch.tensor([1.0, 0.0]))
    assert float(found) == pytest.approx(0.5 / 4)


def test_depth_may_jump_where_the_picture_does() -> None:
    picture = torch.zeros(1, 3, 4, 6)
    picture[..., 3:] = 0.5
    across, down = losses.edge_weights(picture)
    assert across[0, 0, 2] == pytest.approx(math.exp(-losses.EDGE_SHARPNESS * 0.5))
    assert (down == 1).all()
    at_edge, inside = torch.zeros(1, 4, 6), torch.zeros(1, 4, 6)
    at_edge[..., 3:] = 1.0
    inside[..., 2:] = 1.0
    costs = [float(losses.depth_smoothness_loss(depth, across, down)) for depth in (at_edge, inside)]
    assert costs[0] < 0.01 * costs[1]
    assert costs[1] == pytest.approx(4 / 20)


def test_only_depth_outside_the_volume_costs() -> None:
    depth = torch.tensor([-0.5, 0.0, 1.0, 2.0, 3.0])
    assert float(losses.depth_range_loss(depth, 2.0)) == pytest.approx((0.25 + 1.0) / 5)


def test_lengths_are_those_of_a_frame_of_256() -> None:
    assert losses.length_scale((854, 480)) * 854 == 256
