"""OmniMotion's losses against loops written from their formulas, and the corners of their schedules."""

import math

import pytest
import torch
from torch import Tensor

from omnimotion_core.optimization import volumetric_losses as losses


def points(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def same(ours: Tensor, slow: float) -> None:
    assert ours.shape == ()
    assert math.isclose(float(ours), slow, rel_tol=1e-9), (float(ours), slow)


WEIGHT = torch.rand(3, 6, dtype=torch.float64)
COUNTED = (torch.arange(18).view(3, 6) % 4 > 0).double()


def test_flow_is_the_mean_weighted_error_of_the_points_in_the_frame() -> None:
    predicted, target = points(3, 6, 2), points(3, 6, 2)
    total = count = 0.0
    for b in range(3):
        for n in range(6):
            if COUNTED[b, n]:
                dx, dy = (abs(float(predicted[b, n, k] - target[b, n, k])) for k in (0, 1))
                total += (dx + dy) / 2 * float(WEIGHT[b, n])
                count += 1
    same(losses.flow_loss(predicted, target, WEIGHT, COUNTED), total / count)
    assert float(losses.flow_loss(predicted, target, WEIGHT, torch.zeros(3, 6))) == 0.0


def test_flow_gradient_compares_steps_from_point_to_point() -> None:
    predicted, target = points(3, 6, 2), points(3, 6, 2)
    total = norm = 0.0
    for b in range(3):
        for n in range(5):
            weight = float(WEIGHT[b, n] * WEIGHT[b, n + 1] * COUNTED[b, n] * COUNTED[b, n + 1])
            step = (predicted[b, n + 1] - predicted[b, n]) - (target[b, n + 1] - target[b, n])
            total += weight * (abs(float(step[0])) + abs(float(step[1]))) / 2
            norm += weight
    same(losses.flow_gradient_loss(predicted, target, WEIGHT, COUNTED), total / norm)
    assert float(losses.flow_gradient_loss(predicted, target, WEIGHT, torch.zeros(3, 6))) == 0.0


def test_color_is_squared_error_and_steps() -> None:
    rendered, target = points(3, 6, 3), points(3, 6, 3)
    squares = [float(rendered[b, n, c] - target[b, n, c]) ** 2 for b in range(3) for n in range(6) for c in range(3)]
    steps = [
        abs(float((rendered[b, n + 1, c] - rendered[b, n, c]) - (target[b, n + 1, c] - target[b, n, c])))
        for b in range(3) for n in range(5) for c in range(3)
    ]  # fmt: skip
    same(losses.color_loss(rendered, target), sum(squares) / len(squares) + sum(steps) / len(steps))


def test_depths_outside_the_volume_cost_their_square() -> None:
    depth = torch.tensor([-0.5, 0.0, 1.0, 2.0, 2.3], dtype=torch.float64)
    same(losses.depth_range_loss(depth, 2.0), (0.25 + 0.09) / 5)


def test_distortion_is_the_double_sum() -> None:
    depths = torch.rand(4, 7, dtype=torch.float64).sort(dim=-1).values * 2
    weights, widths = torch.rand(4, 7, dtype=torch.float64), torch.rand(7, dtype=torch.float64)
    total = 0.0
    for r in range(4):
        for i in range(7):
            total += float(weights[r, i] ** 2 * widths[i]) / 3
            for j in range(7):
                total += float(weights[r, i] * weights[r, j]) * abs(float(depths[r, i] - depths[r, j]))
    same(losses.distortion_loss(depths, widths, weights), total / 4)


def test_smoothness_is_the_acceleration_where_both_neighbors_are() -> None:
    previous, here, following = points(3, 5, 3), points(3, 5, 3), points(3, 5, 3)
    counted = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    terms = [
        abs(float((here[b, m, k] - previous[b, m, k]) - (following[b, m, k] - here[b, m, k])))
        for b in (0, 2) for m in range(5) for k in range(3)
    ]  # fmt: skip
    same(losses.smoothness_loss(previous, here, following, counted), sum(terms) / len(terms))
    assert float(losses.smoothness_loss(previous, here, following, torch.zeros(3))) == 0.0
    moving = here + 0.1
    assert float(losses.smoothness_loss(here - 0.1, here, moving, counted)) < 1e-12


def test_the_sphere_holds_what_is_outside() -> None:
    canonical = torch.tensor([[0.5, 0.5, 0.5], [2.0, 0.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    same(losses.sphere_loss(canonical), ((4 - 1) ** 2 + (2 - 1) ** 2) / 2)


def test_a_prediction_counts_up_to_the_centers_of_the_borders() -> None:
    at = torch.tensor([[0.0, 0.0], [39.0, 29.0], [39.1, 5.0], [5.0, -0.1], [torch.nan, 1.0]])
    assert losses.in_frame(at, (40, 30)).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("step", "flow_gradient", "color", "distortion"),
    [
        (0, 0.0, 0.0, 0.0), (25_000, 0.05, 5.0, 0.0), (40_000, 0.08, 8.0, 0.0), (50_000, 0.1, 10.0, 5.0),
        (60_000, 0.1, 10.0, 10.0), (99_999, 0.1, 10.0, 10.0),
    ],
)  # fmt: skip
def test_the_weights_follow_their_schedules(step: int, flow_gradient: float, color: float, distortion: float) -> None:
    weights = losses.loss_weights(step)
    assert (weights.flow_gradient, weights.color, weights.distortion) == (flow_gradient, color, distortion)
    assert (weights.flow, weights.depth_range, weights.smoothness, weights.sphere) == (1.0, 10.0, 20.0, 0.0)


@pytest.mark.parametrize(
    ("step", "frames", "expected"),
    [(0, 60, 20), (1999, 60, 20), (2000, 60, 21), (77_999, 60, 58), (78_000, 60, 59), (99_999, 60, 59), (0, 12, 11),
     (0, 2, 1)],
)  # fmt: skip
def test_the_interval_grows_to_the_whole_clip(step: int, frames: int, expected: int) -> None:
    assert losses.max_interval(step, 20, 2000, frames) == expected


def test_far_pairs_count_less() -> None:
    gaps = torch.tensor([1, 11, 21])
    expected = torch.tensor([1.0, math.cos(math.pi / 4), 0.0])
    torch.testing.assert_close(losses.pair_weight(gaps, 20), expected, rtol=0, atol=1e-6)
