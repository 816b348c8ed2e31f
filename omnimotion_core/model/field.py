"""The tabulated motion model: couplings read from tables, a depth map a frame, one surface a ray.

It answers what OmniMotion's volumetric model answers, with the same interface, at a thousandth of its cost: in place of
many samples on each ray there is the one at the frame's depth map.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from omnimotion_core.config import ModelConfig
from omnimotion_core.coordinates import Size, normalized_to_pixel, pixel_to_normalized
from omnimotion_core.errors import RunError
from omnimotion_core.files import write_atomically, write_text
from omnimotion_core.model.interpolation import build_atlas, look_up, time_weights
from omnimotion_core.model.invertible import FrameAffine, TabulatedCouplings
from omnimotion_core.video.clip import segments_of

FORMAT = 1
FAR = 2.0  # local volumes reach from depth 0 to this, as the paper's do
EVIDENCE_CELL_PX = 16  # working pixels per cell of the evidence maps


@dataclass(frozen=True, kw_only=True)
class FieldShape:
    """What the field must know of its clip."""

    size: Size  # of the plate
    working_size: Size
    num_frames: int
    cuts: tuple[int, ...] = ()
    first_frame: int = 0
    fps: float = 24.0


class Field(nn.Module):
    """A clip's fitted motion.

    Local points are (x, y, z): normalized x and y of the working frame, depth z from 0 (near) to ``FAR``.

    Args:
        canonical_extent: half the range of canonical x and y that the frames cover, and its middle, each (2,).
    """

    def __init__(
        self, shape: FieldShape, config: ModelConfig, *, canonical_extent: Tensor | None = None,
        canonical_center: Tensor | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.config = shape, config
        segments = segments_of(shape.num_frames, shape.cuts)
        extent, center = torch.ones(3), torch.zeros(3)
        if canonical_extent is not None and canonical_center is not None:
            extent[:2], center[:2] = canonical_extent, canonical_center
        extent[2], center[2] = FAR / 2, FAR / 2
        self.affine = FrameAffine(shape.num_frames)
        self.couplings = TabulatedCouplings(
            config.num_layers,
            [time_weights(segments, step) for step, _ in config.knots],
            [knots for _, knots in config.knots],
            extent, center, torch.Generator().manual_seed(seed),
        )  # fmt: skip
        self.depth_cell = config.depth_cell(shape.working_size)
        width, height = (max(-(-side // self.depth_cell), 2) for side in shape.working_size)
        self.depth = nn.Parameter(torch.ones(shape.num_frames, height, width))
        cells = [max(-(-side // EVIDENCE_CELL_PX), 2) for side in shape.working_size]
        self.occlusion_margin: Tensor
        self.residual_map: Tensor
        self.support_map: Tensor
        self.register_buffer("occlusion_margin", torch.tensor(0.2))
        self.register_buffer("residual_map", torch.zeros(shape.num_frames, cells[1], cells[0]))
        self.register_buffer("support_map", torch.ones(shape.num_frames, cells[1], cells[0]))

    @property
    def num_frames(self) -> int:
        """T."""
        return self.shape.num_frames

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local points (B, N, S, 3) of ``frames`` (B,) to canonical points of the same shape."""
        return self._map(self.prepare().to_canonical, frames, points)

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """The exact inverse of ``to_canonical``."""
        return self._map(self.prepare().from_canonical, frames, points)

    def prepare(self) -> "PreparedField":
        """The field with its tables added up, for many lookups with the same parameters."""
        return PreparedField(self, self.couplings.atlases(), build_atlas(self.depth[:, None]))

    @staticmethod
    def _map(function: Any, frames: Tensor, points: Tensor) -> Tensor:
        batch, rays, samples, _ = points.shape
        each = frames[:, None, None].expand(batch, rays, samples).reshape(-1)
        return function(each, points.reshape(-1, 3)).view(points.shape)


class PreparedField:
    """A field ready for lookups; every method takes flat points (P, ...) and their ``frames`` (P,) int64."""

    def __init__(self, field: Field, atlases: Tensor, depth_atlas: Tensor) -> None:
        self.field, self.shape = field, field.shape
        self._atlases, self._depth_atlas = atlases, depth_atlas

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local (P, 3) to canonical (P, 3)."""
        return self.field.couplings.forward(self._atlases, frames, self.field.affine(frames, points))

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Canonical (P, 3) to local (P, 3)."""
        return self.field.affine.inverse(frames, self.field.couplings.inverse(self._atlases, frames, points))

    def depth_at(self, frames: Tensor, xy: Tensor) -> Tensor:
        """The depth map at normalized positions (P, 2): (P,)."""
        return look_up(self._depth_atlas, self.field.num_frames, frames, self._to_cells(xy))[:, 0]

    def lift(self, frames: Tensor, pixels: Tensor) -> Tensor:
        """Working pixels (P, 2) to the local points (P, 3) of the surface seen there."""
        xy = pixel_to_normalized(pixels, self.shape.working_size)
        return torch.cat([xy, self.depth_at(frames, xy)[:, None]], dim=-1)

    def to_pixels(self, points: Tensor) -> Tensor:
        """Local points (P, 3) to working pixels (P, 2)."""
        return normalized_to_pixel(points[:, :2], self.shape.working_size)

    def evidence_at(self, frames: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        """What matches say near normalized positions (P, 2).

        Returns:
            By how many working pixels they are missed, (P,), and how well the place is supported by them, (P,) 0..1.
        """
        maps = build_atlas(torch.stack([self.field.residual_map, self.field.support_map], dim=1))
        found = look_up(maps, self.field.num_frames, frames, xy)
        return found[:, 0], found[:, 1]

    def _to_cells(self, xy: Tensor) -> Tensor:
        """Normalized positions of the picture to those of the depth map, whose cells tile it from the same corner."""
        size = self.shape.working_size
        cells = self._depth_atlas.new_tensor(self.field.depth.shape[:0:-1])
        position = (normalized_to_pixel(xy, size) + 0.5) / self.field.depth_cell - 0.5
        return position * (2.0 / (cells - 1)) - 1.0


def save_field(field: Field, model_path: Path, json_path: Path) -> None:
    """Write a field's parameters (safetensors) and shape (JSON), each whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in field.state_dict().items()}
    with write_atomically(model_path) as temporary:
        temporary.write_bytes(save(tensors))  # not save_file, whose files only their owner may read
    facts = {"format": FORMAT, "shape": dataclasses.asdict(field.shape), "model": dataclasses.asdict(field.config)}
    write_text(json_path, json.dumps(facts, indent=1))


def load_field(model_path: Path, json_path: Path, device: torch.device | str = "cpu") -> Field:
    """Read a field back.

    Raises:
        RunError: a file is absent, damaged or of another layout.
    """
    remedy = "run the fit stage again"
    try:
        facts = json.loads(json_path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise RunError(f"{json_path} has format {facts['format']}, this version reads {FORMAT}", remedy)
        shape = FieldShape(**{key: _plain(value) for key, value in facts["shape"].items()})
        config = ModelConfig(**{key: _plain(value) for key, value in facts["model"].items()})
        field = Field(shape, config)
        field.load_state_dict(load_file(model_path))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{model_path} is missing or damaged", remedy) from error
    return field.to(device).requires_grad_(False)


def _plain(value: Any) -> Any:
    """JSON's lists as the tuples that the records hold."""
    return tuple(_plain(item) for item in value) if isinstance(value, list) else value
