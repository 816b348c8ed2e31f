"""A fitted motion model on disk: its parameters (safetensors) and what it takes to build it (JSON)."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from omnimotion_core.config import Config, ModelConfig
from omnimotion_core.errors import ConfigError, RunError
from omnimotion_core.files import write_atomically, write_text
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.model.volumetric import VolumetricField

FORMAT = 2


def build_field(shape: FieldShape, config: ModelConfig, *, seed: int = 0) -> Field | VolumetricField:
    """A model of the kind and shape that ``config`` asks, unfitted."""
    if config.kind == "volumetric":
        return VolumetricField(shape, config, seed=seed)
    return Field(shape, config, seed=seed)


def save_field(field: Field | VolumetricField, model_path: Path, json_path: Path) -> None:
    """Write a model's parameters and shape, each whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in field.state_dict().items()}
    with write_atomically(model_path) as temporary:
        temporary.write_bytes(save(tensors))  # not save_file, whose files only their owner may read
    facts = {"format": FORMAT, "shape": dataclasses.asdict(field.shape), "model": dataclasses.asdict(field.config)}
    write_text(json_path, json.dumps(facts, indent=1))


def load_field(model_path: Path, json_path: Path, device: torch.device | str = "cpu") -> Field | VolumetricField:
    """Read a model back.

    Raises:
        RunError: a file is absent, damaged or of another layout.
    """
    remedy = "run the fit stage again"
    try:
        facts = json.loads(json_path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise RunError(f"{json_path} has format {facts['format']}, this version reads {FORMAT}", remedy)
        shape = FieldShape(**{key: _plain(value) for key, value in facts["shape"].items()})
        field = build_field(shape, Config().override({"model": facts["model"]}).model)
        field.load_state_dict(load_file(model_path))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError, ConfigError) as error:
        raise RunError(f"{model_path} is missing or damaged", remedy) from error
    return field.to(device).requires_grad_(False)


def _plain(value: Any) -> Any:
    """JSON's lists as the tuples that the records hold."""
    return tuple(_plain(item) for item in value) if isinstance(value, list) else value
