"""The canonical volume: what lies far out is drawn in, color and density keep their ranges."""

import torch

from omnimotion_core.model.canonical import CanonicalVolume, contract


def test_contraction_leaves_the_unit_ball_and_draws_the_rest_into_radius_two() -> None:
    inside = torch.randn(50, 3)
    inside = inside / inside.norm(dim=1, keepdim=True) * torch.rand(50, 1)
    torch.testing.assert_close(contract(inside), inside)
    for radius in (1.0, 1.5, 4.0, 1e6):
        point = torch.tensor([0.6, 0.0, -0.8]) * radius
        torch.testing.assert_close(contract(point), torch.tensor([0.6, 0.0, -0.8]) * (2 - 1 / radius))


def test_contraction_has_a_gradient_everywhere() -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [0.6, 0.8, 0.0], [3.0, 0.0, 4.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(contract(points).sum(), points)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[0], torch.ones(3, dtype=torch.float64))
    far = points[2:].detach().requires_grad_()
    assert torch.autograd.gradcheck(contract, (far,))


def test_colors_and_densities_keep_their_ranges() -> None:
    color, density = CanonicalVolume(16)(torch.randn(4, 5, 3) * 10)
    assert color.shape == (4, 5, 3)
    assert ((color > 0) & (color < 1)).all()
    assert density.shape == (4, 5)
    assert (density > 0).all()
