"""The published code's checkpoints: read into a volumetric field, and written from one.

Such a file (``.pth``) holds the state dicts ``feature_mlp``, ``deform_mlp`` and ``color_mlp``, the number of frames
``num_imgs``, and for going on with the training ``optimizer`` and ``scheduler``, which are neither read nor written.
"""

import errno
import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnimotion_core.config import ModelConfig, VolumetricConfig
from omnimotion_core.errors import ConfigError, RunError
from omnimotion_core.files import sha256_of, write_atomically
from omnimotion_core.model.canonical import LAYERS as COLOR_LAYERS
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.model.volumetric import LATENT_LAYERS, VolumetricField

Name = tuple[str, str]  # a state dict of the file, and a parameter in it

PARTS = ("feature_mlp", "deform_mlp", "color_mlp")
_REMEDY = "give a checkpoint that OmniMotion's published code has saved, such as model_100000.pth"


@dataclass(frozen=True, eq=False, kw_only=True)
class PublishedCheckpoint:
    """A checkpoint of the published code."""

    path: Path
    num_frames: int
    networks: VolumetricConfig
    parameters: Mapping[str, Tensor]  # by their names in ``VolumetricField``

    def check(self, num_frames: int) -> None:
        """Raise ``RunError`` where a clip of ``num_frames`` is not what this was fitted to."""
        if num_frames != self.num_frames:
            raise RunError(f"{self.path} was fitted to {self.num_frames} frames, the clip has {num_frames}",
                           "choose the frames that it was fitted to, with --frames A-B")  # fmt: skip

    def build(self, shape: FieldShape) -> VolumetricField:
        """The field on a clip.

        Raises:
            RunError: the clip has another number of frames.
        """
        self.check(shape.num_frames)
        field = VolumetricField(shape, ModelConfig(kind="volumetric", volumetric=self.networks))
        field.load_state_dict({**field.state_dict(), **self.parameters})  # such a file has no evidence maps
        return field


def read_published(path: Path) -> PublishedCheckpoint:
    """Read a checkpoint without running anything that is in it.

    Raises:
        RunError: the file cannot be read, is damaged, holds code, or is of other networks.
    """
    num_frames, found = _read(path)
    networks = _networks(path, found)
    with torch.device("meta"):  # shapes alone, whatever sizes the file claims
        wanted = VolumetricField(_smallest_shape(), ModelConfig(kind="volumetric", volumetric=networks)).state_dict()
    parameters = {}
    for name, ours in _names(networks):
        value = found.pop(name, None)
        if value is None or value.shape != wanted[ours].shape:
            raise _other_networks(path, f"{'.'.join(name)} is {'missing' if value is None else tuple(value.shape)}")
        if not bool(value.isfinite().all()):
            raise RunError(f"{path} holds values that are no numbers", "give one of a fit that did not diverge")
        parameters[ours] = value.float()
    if found:
        raise _other_networks(path, f"it has {'.'.join(min(found))}")
    return PublishedCheckpoint(path=path, num_frames=num_frames, networks=networks, parameters=parameters)


def write_published(field: VolumetricField, path: Path) -> None:
    """Write a field in the layout of the published code, whole or not at all."""
    content: dict[str, Any] = {part: {} for part in PARTS}
    state = field.state_dict()
    for (part, theirs), ours in _names(field.networks):
        content[part][theirs] = state[ours].detach().cpu().clone()
    for k, axis in enumerate(field.networks.axes):
        mask = torch.ones(1, 1, 1, 3)
        mask[..., axis] = 0
        content["deform_mlp"][f"layers1.{k}.mask"] = mask
    content["num_imgs"] = field.num_frames
    with write_atomically(path) as temporary:
        torch.save(content, temporary)


def _names(networks: VolumetricConfig) -> Iterator[tuple[Name, str]]:
    """Every parameter: where the file has it, and its name in ``VolumetricField``."""
    yield from _gabor_names("feature_mlp", "latents", LATENT_LAYERS)
    yield from _gabor_names("color_mlp", "canonical.network", COLOR_LAYERS)
    modules = []
    for k in range(len(networks.axes)):
        theirs, ours = f"layers1.{k}.map_st.0.mlp", f"layers.{k}"
        modules.append((f"layers1.{k}.projection.proj.0", f"{ours}.encoder"))
        modules += [(f"{theirs}.{2 * i}", f"{ours}.hidden.{i}") for i in range(3)]
        modules.append((f"{theirs}.6", f"{ours}.output"))
        modules += [(f"code_projectors.{k}.mlp.{2 * i}", f"{ours}.projector.{i}") for i in range(2)]
    last = networks.affine_layers - 1
    modules += [(f"affine_mlp.hidden.{i}.0", f"affine.linears.{i}") for i in range(last)]
    if networks.affine_layers:
        modules.append((f"affine_mlp.hidden.{last}", f"affine.linears.{last}"))
    for theirs, ours in modules:
        for kind in ("weight", "bias"):
            yield ("deform_mlp", f"{theirs}.{kind}"), f"{ours}.{kind}"


def _gabor_names(part: str, ours: str, layers: int) -> Iterator[tuple[Name, str]]:
    for k in range(layers + 1):
        for kind in ("mu", "gamma"):
            yield (part, f"filters.{k}.{kind}"), f"{ours}.filters.{k}.{kind}"
        for kind in ("weight", "bias"):
            yield (part, f"filters.{k}.linear.{kind}"), f"{ours}.filters.{k}.{kind}"
    for kind in ("weight", "bias"):
        yield (part, f"output_linear.{kind}"), f"{ours}.output.{kind}"
        for k in range(layers):
            yield (part, f"linear.{k}.{kind}"), f"{ours}.linears.{k}.{kind}"


def _read(path: Path) -> tuple[int, dict[Name, Tensor]]:
    """The number of frames and all tensors of a checkpoint."""
    try:
        with warnings.catch_warnings():  # of pickles that torch did not write, which are told as an error
            warnings.simplefilter("ignore")
            # weights_only: a pickle may otherwise run whatever code it holds
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno == errno.EINVAL:  # torch seeks before the beginning of a file that was cut short
            raise RunError(f"{path} is damaged", _REMEDY) from error
        raise RunError(f"{path} cannot be read ({error.strerror})", _REMEDY) from error
    except pickle.UnpicklingError as error:
        raise RunError(f"{path} is damaged, or holds code and not tensors alone", _REMEDY) from error
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise RunError(f"{path} is damaged or no checkpoint", _REMEDY) from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), Mapping) for part in PARTS):
        raise RunError(f"{path} is no checkpoint of OmniMotion: it lacks one of {', '.join(PARTS)}", _REMEDY)
    num_frames = content.get("num_imgs")
    if not isinstance(num_frames, int) or num_frames < 2:
        raise RunError(f"{path} does not tell its number of frames (num_imgs)", _REMEDY)
    tensors = {}
    for part in PARTS:
        for name, value in content[part].items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise _other_networks(path, f"{part} holds {name!r}, a {type(value).__name__}")
            tensors[part, name.removeprefix("module.")] = value  # the prefix is a distributed run's
    return num_frames, tensors


def _networks(path: Path, found: dict[Name, Tensor]) -> VolumetricConfig:
    """The shape of the networks, read off their parameters; the axes' masks are taken out of ``found``."""
    axes: list[int] = []
    while (mask := found.pop(("deform_mlp", f"layers1.{len(axes)}.mask"), None)) is not None:
        moved = (mask.flatten() == 0).nonzero().flatten().tolist()
        if mask.numel() != 3 or len(moved) != 1:
            raise _other_networks(path, f"coupling layer {len(axes)} moves the axes {moved}")
        axes.append(int(moved[0]))
    try:
        latent_size, latent_hidden = found["feature_mlp", "output_linear.weight"].shape
        coupling_hidden, encoded = found["deform_mlp", "layers1.0.projection.proj.0.weight"].shape
        _, color_hidden = found["color_mlp", "output_linear.weight"].shape
        return VolumetricConfig(
            axes=tuple(axes), num_frequencies=(encoded // 2 - 1) // 2, latent_size=latent_size,
            latent_hidden=latent_hidden, coupling_hidden=coupling_hidden, color_hidden=color_hidden,
            affine_layers=sum(name.startswith("affine_mlp.") and name.endswith(".weight") for _, name in found),
            imported=sha256_of(path),
        )  # fmt: skip
    except (KeyError, ValueError, ConfigError) as error:
        raise _other_networks(path, f"{error.args[0]!r} does not fit") from error


def _other_networks(path: Path, what: str) -> RunError:
    return RunError(f"{path} holds other networks than OmniMotion's: {what}", _REMEDY)


def _smallest_shape() -> FieldShape:
    return FieldShape(size=(2, 2), working_size=(2, 2), num_frames=2)
