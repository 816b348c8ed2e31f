"""A motion model on disk: both kinds come back as they were, damage is told."""

import json
from pathlib import Path

import pytest
import torch

from omnimotion_core.config import ModelConfig, VolumetricConfig
from omnimotion_core.errors import RunError
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.model.storage import build_field, load_field, save_field

SHAPE = FieldShape(size=(80, 60), working_size=(40, 30), num_frames=4, cuts=(2,), first_frame=1001, fps=25.0)
SMALL = VolumetricConfig(latent_size=4, latent_hidden=4, coupling_hidden=4, color_hidden=4, affine_layers=2)
CONFIGS = [ModelConfig(num_layers=3, knots=((4.0, 4),)), ModelConfig(kind="volumetric", volumetric=SMALL)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_a_field_comes_back_as_it_was(config: ModelConfig, tmp_path: Path) -> None:
    field = build_field(SHAPE, config, seed=5)
    field.support_map.mul_(0.5)
    save_field(field, tmp_path / "m.safetensors", tmp_path / "m.json")
    again = load_field(tmp_path / "m.safetensors", tmp_path / "m.json")
    assert type(again) is type(field)
    assert (again.shape, again.config) == (SHAPE, config)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    points, frames = torch.rand(4, 3, 2, 3), torch.arange(4)
    assert torch.equal(again.to_canonical(frames, points), field.to_canonical(frames, points))
    assert torch.equal(again.support_map, field.support_map)


def test_damage_is_told(tmp_path: Path) -> None:
    paths = tmp_path / "m.safetensors", tmp_path / "m.json"
    save_field(build_field(SHAPE, CONFIGS[1]), *paths)
    facts, tensors = json.loads(paths[1].read_text()), paths[0].read_bytes()
    changes: list[dict[str, object]] = [
        {"format": 99}, {"model": {"kind": "cubic"}}, {"model": {"num_layers": 3, "knots": [[4.0, 4]]}}, {"shape": {}},
    ]  # fmt: skip
    for changed in changes:
        paths[1].write_text(json.dumps({**facts, **changed}))
        with pytest.raises(RunError, match=r"damaged|format 99"):
            load_field(*paths)
    paths[1].write_text(json.dumps(facts))
    paths[0].write_bytes(tensors[:100])
    with pytest.raises(RunError, match="damaged"):
        load_field(*paths)
