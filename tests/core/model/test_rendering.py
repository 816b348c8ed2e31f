"""Rays: where their samples are, and what is seen along them, against loops written from the formulas."""

import math

import torch

from omnimotion_core.model import rendering


def test_each_bin_holds_one_sample() -> None:
    depths = rendering.even_depths(5, 2.0)
    assert depths.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    drawn = rendering.stratified_depths(depths, torch.rand(1000, 5))
    for k, (low, high) in enumerate([(0, 0.25), (0.25, 0.75), (0.75, 1.25), (1.25, 1.75), (1.75, 2.0)]):
        assert low <= float(drawn[:, k].min()) < low + 0.05
        assert high - 0.05 < float(drawn[:, k].max()) <= high
    torch.testing.assert_close(rendering.stratified_depths(depths, torch.zeros(5))[1:], depths[:-1] + 0.25)


def test_a_ray_keeps_its_position() -> None:
    samples = rendering.cast_rays(torch.tensor([[[0.1, -0.4]]]), torch.tensor([0.0, 1.0, 2.0]))
    assert samples.shape == (1, 1, 3, 3)
    torch.testing.assert_close(samples[0, 0], torch.tensor([[0.1, -0.4, 0.0], [0.1, -0.4, 1.0], [0.1, -0.4, 2.0]]))


def test_weights_are_what_is_left_times_what_is_stopped() -> None:
    density = torch.rand(6, 9, dtype=torch.float64) * 3
    weights = rendering.composite_weights(density)
    for ray in range(6):
        left = 1.0
        for k in range(9):
            alpha = 1 - math.exp(-float(density[ray, k]))
            assert math.isclose(float(weights[ray, k]), left * alpha, rel_tol=1e-7)
            left *= 1 - alpha + 1e-10
    assert (weights.sum(dim=-1) < 1).all()


def test_weights_of_solid_and_empty_rays() -> None:
    weights = rendering.composite_weights(torch.tensor([[0.0, 0.0, 50.0, 50.0], [0.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert rendering.nearest_surface(weights[0]) == 2


def test_values_are_summed_by_weight() -> None:
    values, weights = torch.randn(3, 4, 2), torch.rand(3, 4)
    expected = torch.zeros(3, 2)
    for ray in range(3):
        for k in range(4):
            expected[ray] += weights[ray, k] * values[ray, k]
    torch.testing.assert_close(rendering.composite(values, weights), expected)


def test_samples_that_leave_the_volume_do_not_count_and_nothing_is_made_up_for_it() -> None:
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    kept = rendering.within_depths(weights, torch.tensor([-0.01, 0.0, 2.0, 2.01]), 2.0)
    torch.testing.assert_close(kept, torch.tensor([0.0, 0.2, 0.3, 0.0]))


def test_only_the_nearest_fifth_is_emptied() -> None:
    for count, emptied in ((32, 6), (10, 2), (5, 1)):
        assert rendering.near_masked(torch.ones(count)).tolist() == [0.0] * emptied + [1.0] * (count - emptied)


def test_opacity_before_a_depth() -> None:
    depths, weights = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    assert rendering.opacity_before(weights, depths, torch.tensor([1.0, 1.5])).tolist() == [0.5, 0.75]
