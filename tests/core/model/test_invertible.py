import math

import numpy as np
import pytest
import torch
from torch import Tensor

from omnimotion_core.model.interpolation import time_weights
from omnimotion_core.model.invertible import AXES, MAX_RAW, FrameAffine, TabulatedCouplings

FRAMES = 7


def couplings(strength: float = 0.3, dtype: torch.dtype = torch.float32) -> TabulatedCouplings:
    """Eight layers on two levels with random tables of the given size."""
    segments = [range(FRAMES)]
    made = TabulatedCouplings(
        8, [time_weights(segments, 3.0), time_weights(segments, 1.0)], [4, 9], torch.tensor([1.2, 1.1, 1.0]),
        torch.tensor([0.1, 0.0, 1.0]), torch.Generator().manual_seed(0),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for table in made.tables:
            table.copy_(torch.randn(table.shape, generator=generator) * strength / 2)
    return made.to(dtype)


def points(count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    xyz = torch.rand(count, 3, generator=generator, dtype=dtype) * 2 - torch.tensor([1, 1, 0], dtype=dtype)
    return torch.randint(FRAMES, (count,), generator=generator), xyz


def test_couplings_are_undone_exactly() -> None:
    frames, xyz = points(5000, torch.float64)
    layers = couplings(dtype=torch.float64)
    atlases = layers.atlases()
    moved = layers(atlases, frames, xyz)
    assert (moved - xyz).norm(dim=-1).mean() > 0.2
    np.testing.assert_allclose(layers.inverse(atlases, frames, moved).detach(), xyz, atol=1e-9)


def test_couplings_are_undone_in_single_precision_to_a_hundredth_of_a_pixel() -> None:
    frames, xyz = points(5000)
    layers = couplings(strength=0.1)
    atlases = layers.atlases()
    back = layers.inverse(atlases, frames, layers(atlases, frames, xyz))
    assert (back - xyz).abs().max() * 1920 / 2 < 0.01


def test_one_layer_is_the_affine_coupling_of_its_formula() -> None:
    segments = [range(1)]
    layer = TabulatedCouplings(
        1, [time_weights(segments, 1.0)], [2], torch.ones(3), torch.zeros(3), torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        layer.tables[0].zero_()
        layer.tables[0][0, 0, 0] = 0.4  # raw scale, the same everywhere
        layer.tables[0][0, 0, 1] = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # shift rises along the first other axis
    xyz = torch.tensor([[0.5, -0.2, 0.7]])
    moved = layer(layer.atlases(), torch.zeros(1, dtype=torch.long), xyz).detach()[0]
    scale = np.exp(np.arcsinh(0.4))
    assert AXES[0] == 2
    np.testing.assert_allclose(moved, [0.5, -0.2, 0.7 * scale + (0.5 + 1) / 2], rtol=1e-5)


def test_scale_is_bounded() -> None:
    layer = couplings(strength=0.0)
    with torch.no_grad():
        layer.tables[0][:, :, 0] = 1e3
    frames, xyz = points(10)
    scale, _ = layer._scale_and_shift(layer.atlases()[0], frames, list(xyz.unbind(-1)), 2)
    np.testing.assert_allclose(scale.detach(), np.exp(2.0), rtol=1e-5)
    assert math.isclose(MAX_RAW, math.sinh(2.0))


def test_volume_is_never_folded() -> None:
    frames, xyz = points(20, torch.float64)
    layers = couplings(dtype=torch.float64)
    atlases = layers.atlases()
    for k in range(20):
        jacobian = torch.autograd.functional.jacobian(
            lambda p, k=k: layers(atlases, frames[k : k + 1], p[None])[0], xyz[k]
        )
        assert torch.linalg.det(jacobian) > 0


def test_gradients_reach_every_table() -> None:
    layers = couplings()
    frames, xyz = points(4000)
    layers(layers.atlases(), frames, xyz).square().sum().backward()
    for table in layers.tables:
        assert table.grad is not None
        assert (table.grad.abs().flatten(2).sum(dim=(-1)) > 0).all()


def test_frames_without_data_follow_the_coarse_tables() -> None:
    layers = couplings(strength=0.0)
    frames = torch.full((100,), 2)
    _, xyz = points(100)
    (layers(layers.atlases(), frames, xyz)[:, 0]).sum().backward()
    assert layers.tables[0].grad.abs().sum() > 0
    fine = layers.tables[1].grad.abs().sum(dim=(0, 2, 3, 4))
    assert fine[2] > 0
    assert fine[[0, 1, 3, 4, 5, 6]].sum() == 0


def test_roughness_is_zero_for_even_tables_only() -> None:
    layers = couplings(strength=0.0)
    assert layers.roughness() == 0
    with torch.no_grad():
        layers.tables[1][3, 2, 0, 1, 1] = 1.0
    assert layers.roughness() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frame_maps_are_undone_exactly(dtype: torch.dtype) -> None:
    affine = FrameAffine(FRAMES).to(dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        affine.matrix.add_(torch.randn(FRAMES, 6, generator=generator).to(dtype) * 0.2)
    frames, xyz = points(1000, dtype)
    moved = affine(frames, xyz)
    matrix = affine.matrix.detach().view(FRAMES, 2, 3)[frames]
    expected = (matrix[:, :, :2] @ xyz[:, :2, None])[:, :, 0] + matrix[:, :, 2]
    np.testing.assert_allclose(moved[:, :2].detach(), expected, atol=1e-5)
    np.testing.assert_array_equal(moved[:, 2].detach(), xyz[:, 2])
    np.testing.assert_allclose(affine.inverse(frames, moved).detach(), xyz, atol=1e-5)
