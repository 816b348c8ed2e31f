"""The volumetric field: invertible, answering each point for itself, with every parameter in reach of the loss."""

import math

import pytest
import torch

from omnimotion_core.config import ModelConfig, VolumetricConfig
from omnimotion_core.model import volumetric
from omnimotion_core.model.motion import FieldShape, Motion
from omnimotion_core.model.networks import CouplingLayer
from omnimotion_core.model.volumetric import VolumetricField

SHAPE = FieldShape(size=(80, 60), working_size=(40, 30), num_frames=5)
SMALL = VolumetricConfig(num_samples=8, latent_size=8, latent_hidden=16, coupling_hidden=16, color_hidden=16)


def make(affine_layers: int = 0, **changes: object) -> VolumetricField:
    networks = VolumetricConfig(**{**vars(SMALL), "affine_layers": affine_layers, **changes})
    field = VolumetricField(SHAPE, ModelConfig(kind="volumetric", volumetric=networks), seed=3)
    with torch.no_grad():  # far from the identity
        for layer in field.layers:
            assert isinstance(layer, CouplingLayer)
            layer.output.weight.mul_(4)
    return field


@pytest.mark.parametrize("affine_layers", [0, 2, 8])
def test_from_canonical_undoes_to_canonical(affine_layers: int) -> None:
    field = make(affine_layers)
    points = torch.rand(5, 40, 8, 3) * torch.tensor([2.0, 2.0, 2.0]) - torch.tensor([1.0, 1.0, 0.0])
    frames = torch.arange(5)
    with torch.no_grad():
        canonical = field.to_canonical(frames, points)
        back = field.from_canonical(frames, canonical)
        assert float((canonical - points).abs().mean()) > 0.05
        assert float((back - points).abs().max()) * 40 / 2 < 0.01  # working pixels
        there_and_back = field.from_canonical(frames, field.to_canonical(frames, points))
    assert torch.equal(back, there_and_back)


def test_it_is_a_motion_model_with_the_seeds_parameters() -> None:
    field = make()
    assert isinstance(field, Motion)
    before = torch.get_rng_state()
    again = make()
    assert torch.equal(torch.get_rng_state(), before)  # building draws nothing from the global generator
    for name, value in field.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize("affine_layers", [0, 2])
def test_gradients_reach_every_parameter(affine_layers: int) -> None:
    field = make(affine_layers)
    local = torch.rand(2, 6, 8, 3)
    canonical = field.to_canonical(torch.tensor([0, 3]), local)
    color, density = field.canonical(canonical)
    landed = field.from_canonical(torch.tensor([4, 1]), canonical)
    (color.sum() + density.sum() + landed.square().sum()).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_flat_lookups_agree_with_the_maps_of_groups_and_do_not_depend_on_company(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    field = make(2)
    frames, points = torch.randint(0, 5, (50,)), torch.rand(50, 3)
    with torch.no_grad():
        prepared = field.prepare()
        canonical = prepared.to_canonical(frames, points)
        torch.testing.assert_close(field.to_canonical(frames, points[:, None, None])[:, 0, 0], canonical)
        pixels = torch.rand(50, 2) * 25
        lifted = prepared.lift(frames, pixels)
        shown, sure = prepared.shown(frames, points)
        monkeypatch.setattr(volumetric, "SAMPLES_AT_ONCE", 24)
        torch.testing.assert_close(prepared.to_canonical(frames, points), canonical)
        for k in (0, 17, 49):
            only = slice(k, k + 1)
            torch.testing.assert_close(prepared.lift(frames[only], pixels[only]), lifted[only])
            torch.testing.assert_close(prepared.shown(frames[only], points[only])[1], sure[only], rtol=1e-4, atol=1e-4)
            assert prepared.shown(frames[only], points[only])[0] == shown[k]


class Wall(torch.nn.Module):
    """A canonical volume that is solid behind z = 1 and empty before."""

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        solid = (points[..., 2] >= 1.0).float() * 20
        return points.clamp(0, 1), solid


def identity() -> VolumetricField:
    field = make(num_samples=32)
    for layer in field.layers:
        assert isinstance(layer, CouplingLayer)
        torch.nn.init.zeros_(layer.output.weight)
        torch.nn.init.zeros_(layer.output.bias)
    field.canonical = Wall()  # type: ignore[assignment]
    return field.requires_grad_(False)


def test_a_wall_is_seen_where_it_stands() -> None:
    prepared = identity().prepare()
    frames = torch.zeros(3, dtype=torch.int64)
    lifted = prepared.lift(frames, torch.tensor([[0.0, 0.0], [39.0, 29.0], [19.5, 14.5]]))
    first_solid = math.ceil(31 / 2) * 2 / 31
    torch.testing.assert_close(lifted, torch.tensor([[-1, -1, first_solid], [1, 1, first_solid], [0, 0, first_solid]]))
    torch.testing.assert_close(prepared.depth_at(frames, lifted[:, :2]), torch.full((3,), first_solid))
    torch.testing.assert_close(prepared.color_at(frames, lifted[:, :2])[1], torch.ones(3))


def test_what_lies_behind_a_wall_is_hidden_and_how_surely() -> None:
    prepared = identity().prepare()
    depths = torch.tensor([0.2, 1.0, 1.05, 1.2, 1.9])
    shown, sure = prepared.shown(torch.zeros(5, dtype=torch.int64), torch.stack([depths * 0, depths * 0, depths], -1))
    assert shown.tolist() == [True, True, True, False, False]  # the margin is 1.1 of 1/16 behind the first sample
    assert ((sure >= 0.5) & (sure <= 1)).all()
    assert float(sure[0]) > 0.9
