import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from omnimotion_core.config import ModelConfig
from omnimotion_core.errors import RunError
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.model.storage import load_field, save_field
from omnimotion_core.trajectories.quality import cycle_errors

SHAPE = FieldShape(size=(64, 48), working_size=(64, 48), num_frames=5, cuts=(3,))


def rough_field(seed: int = 0) -> Field:
    field = Field(SHAPE, ModelConfig(knots=((2.0, 5), (1.0, 9))), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return field


def test_the_interface_takes_batches_of_rays_of_samples() -> None:
    field = rough_field()
    frames = torch.tensor([0, 4, 2])
    points = torch.rand(3, 10, 4, 3, generator=torch.Generator().manual_seed(1))
    canonical = field.to_canonical(frames, points)
    assert canonical.shape == points.shape
    np.testing.assert_allclose(field.from_canonical(frames, canonical).detach(), points, atol=1e-5)
    alone = field.to_canonical(frames[1:2], points[1:2, 3:4, 2:3])
    np.testing.assert_allclose(alone.detach()[0, 0, 0], canonical.detach()[1, 3, 2], atol=1e-6)


def test_gradients_reach_every_parameter() -> None:
    field = rough_field()
    prepared = field.prepare()
    pixels = torch.rand(5000, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([63.0, 47.0])
    frames = torch.arange(5000) % 5
    landed = prepared.from_canonical(frames.flip(0), prepared.to_canonical(frames, prepared.lift(frames, pixels)))
    landed.square().sum().backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.flatten(1).abs().sum(dim=1) > 0).all(), name


def test_cycles_over_any_frames_return() -> None:
    assert cycle_errors(rough_field()).max() < 0.01


def test_depth_is_read_between_the_centers_of_its_cells() -> None:
    field = rough_field()
    cell = field.depth_cell
    centers = torch.tensor([[1.5 * cell - 0.5, 2.5 * cell - 0.5], [2.0 * cell - 0.5, 2.5 * cell - 0.5]])
    lifted = field.prepare().lift(torch.tensor([3, 3]), centers).detach()
    depth = field.depth.detach()[3]
    np.testing.assert_allclose(lifted[0, 2], depth[2, 1], atol=1e-5)
    np.testing.assert_allclose(lifted[1, 2], (depth[2, 1] + depth[2, 2]) / 2, atol=1e-5)


def test_lifted_pixels_are_pixels_again() -> None:
    prepared = rough_field().prepare()
    pixels = torch.tensor([[0.0, 0.0], [63.0, 47.0], [12.25, 30.5]])
    np.testing.assert_allclose(prepared.to_pixels(prepared.lift(torch.zeros(3).long(), pixels)).detach(), pixels,
                               atol=1e-4)  # fmt: skip


def test_a_saved_field_answers_alike(tmp_path: Path) -> None:
    field = rough_field()
    save_field(field, tmp_path / "model.safetensors", tmp_path / "model.json")
    loaded = load_field(tmp_path / "model.safetensors", tmp_path / "model.json")
    assert loaded.shape == field.shape
    frames, points = torch.tensor([1]), torch.rand(1, 50, 1, 3)
    np.testing.assert_array_equal(loaded.to_canonical(frames, points), field.to_canonical(frames, points).detach())


def damage_model(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def damage_facts(folder: Path) -> None:
    (folder / "model.json").write_text("{")


def another_shape(folder: Path) -> None:
    facts = json.loads((folder / "model.json").read_text())
    facts["shape"]["num_frames"] = 9
    (folder / "model.json").write_text(json.dumps(facts))


def unknown_setting(folder: Path) -> None:
    facts = json.loads((folder / "model.json").read_text())
    facts["model"]["color"] = 3
    (folder / "model.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("damage", [damage_model, damage_facts, another_shape, unknown_setting])
def test_a_damaged_field_is_told(tmp_path: Path, damage: object) -> None:
    save_field(rough_field(), tmp_path / "model.safetensors", tmp_path / "model.json")
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(RunError, match="run the fit stage again"):
        load_field(tmp_path / "model.safetensors", tmp_path / "model.json")


def test_a_field_of_a_later_format_is_refused(tmp_path: Path) -> None:
    save_field(rough_field(), tmp_path / "model.safetensors", tmp_path / "model.json")
    facts = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(RunError, match="format 99"):
        load_field(tmp_path / "model.safetensors", tmp_path / "model.json")


def test_the_seed_decides_the_start() -> None:
    first, again, other = (Field(SHAPE, ModelConfig(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.couplings.tables[0], again.couplings.tables[0])
    assert not torch.equal(first.couplings.tables[0], other.couplings.tables[0])


def test_the_shape_is_plain_data() -> None:
    assert FieldShape(**dataclasses.asdict(SHAPE)) == SHAPE
