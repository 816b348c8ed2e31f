"""The tabulated motion model: couplings read from tables, a depth map a frame, one surface a ray.

It answers what OmniMotion's volumetric model answers, with the same interface, at a thousandth of its cost: in place of
many samples on each ray there is the one at the frame's depth map.
"""

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimotion_core.config import ModelConfig
from omnimotion_core.coordinates import normalized_to_pixel, pixel_to_normalized
from omnimotion_core.model.interpolation import build_atlas, look_up, time_weights
from omnimotion_core.model.invertible import MAX_RAW, FrameAffine, TabulatedCouplings
from omnimotion_core.model.kernels import DEPTH_STEP, DepthMaps, PointMaps
from omnimotion_core.model.motion import FAR, FieldShape, evidence_maps, look_up_evidence
from omnimotion_core.video.clip import segments_of


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
        self.threads = 1  # that share out the points of a question
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
        width, height = config.depth_size(shape.working_size)
        self.depth = nn.Parameter(torch.ones(shape.num_frames, height, width))
        residual, support = evidence_maps(shape)
        self.occlusion_margin: Tensor
        self.residual_map: Tensor
        self.support_map: Tensor
        self.register_buffer("occlusion_margin", torch.tensor(0.2))
        self.register_buffer("residual_map", residual)
        self.register_buffer("support_map", support)
        self.color_map: Tensor  # CIELAB, changes of exposure taken out; even until the fit's end
        self.register_buffer("color_map", torch.zeros(shape.num_frames, 3, height, width, dtype=torch.float16))

    @property
    def num_frames(self) -> int:
        """T."""
        return self.shape.num_frames

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.depth.device

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local points (B, N, S, 3) of ``frames`` (B,) to canonical points of the same shape."""
        return self._map(self.prepare().to_canonical, frames, points)

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """The exact inverse of ``to_canonical``."""
        return self._map(self.prepare().from_canonical, frames, points)

    def prepare(self) -> "PreparedField":
        """The field with its tables added up, for many lookups with the same parameters."""
        return PreparedField(self)

    @staticmethod
    def _map(function: Any, frames: Tensor, points: Tensor) -> Tensor:
        batch, rays, samples, _ = points.shape
        each = frames[:, None, None].expand(batch, rays, samples).reshape(-1)
        return function(each, points.reshape(-1, 3)).view(points.shape)


class PreparedField:
    """A field ready for lookups; every method takes flat points (P, ...) and their ``frames`` (P,) int64."""

    single_surface = True

    def __init__(self, field: Field) -> None:
        self.field, self.shape = field, field.shape
        self._tables = field.couplings.tables_by_frame()
        self._depth_atlas = build_atlas(field.depth[:, None])

    @cached_property
    def _atlases(self) -> tuple[Tensor, ...]:
        return build_atlas(self._tables).unbind(0)

    @cached_property
    def _appearance_atlas(self) -> Tensor:
        return build_atlas(self.field.color_map.float())

    @cached_property
    def _maps(self) -> PointMaps:
        couplings = self.field.couplings
        return PointMaps(
            self._tables.numpy(force=True), self.field.affine.matrix.numpy(force=True), couplings.center.numpy(),
            couplings.extent.numpy(), MAX_RAW, self.field.threads,
        )  # fmt: skip

    @cached_property
    def _depths(self) -> DepthMaps:
        field = self.field
        return DepthMaps(field.depth.numpy(force=True), self.shape.working_size, field.depth_cell, field.threads)

    @property
    def device(self) -> torch.device:
        """Where points are to be."""
        return self.field.device

    @property
    def threads(self) -> int:
        """That may ask at once, to no other answer."""
        return self.field.threads if self.device.type == "cpu" else 1

    @property
    def _compiled(self) -> bool:
        """Whether compiled loops answer: on the CPU, and where nobody asks for gradients."""
        return self.device.type == "cpu" and not torch.is_grad_enabled()

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local (P, 3) to canonical (P, 3)."""
        if self._compiled:
            return torch.from_numpy(self._maps.to_canonical(frames.numpy(), points.numpy(force=True)))
        return self.field.couplings.forward(self._atlases, frames, self.field.affine(frames, points))

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Canonical (P, 3) to local (P, 3)."""
        if self._compiled:
            return torch.from_numpy(self._maps.from_canonical(frames.numpy(), points.numpy(force=True)))
        return self.field.affine.inverse(frames, self.field.couplings.inverse(self._atlases, frames, points))

    def depth_at(self, frames: Tensor, xy: Tensor) -> Tensor:
        """The depth map at normalized positions (P, 2): (P,). Where it steps it is the nearest cell's, not between."""
        if self._compiled:
            return torch.from_numpy(self._depths.at(frames.numpy(), xy.numpy(force=True)))
        cells = self._cells_at(xy)
        before = [cells[:, axis].detach().long().clamp(max=side - 2) for axis, side in enumerate(self._counts)]
        steps = self._rise[frames, before[1], before[0]] > DEPTH_STEP
        cells = torch.where(steps[:, None], cells.detach().add(0.5).floor(), cells)
        return look_up(self._depth_atlas, self.field.num_frames, frames, self._normalized(cells))[:, 0]

    def lift(self, frames: Tensor, pixels: Tensor) -> Tensor:
        """Working pixels (P, 2) to the local points (P, 3) of the surface seen there."""
        xy = pixel_to_normalized(pixels, self.shape.working_size)
        return torch.cat([xy, self.depth_at(frames, xy)[:, None]], dim=-1)

    def to_pixels(self, points: Tensor) -> Tensor:
        """Local points (P, 3) to working pixels (P, 2)."""
        return normalized_to_pixel(points[:, :2], self.shape.working_size)

    def shown(self, frames: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Whether local points (P, 3) do not lie behind the depth map: (P,) bool; and how sure that is, 0.5..1."""
        margin = self.field.occlusion_margin
        behind = points[:, 2] - self.depth_at(frames, points[:, :2])
        return behind <= margin, 1 - 0.5 * torch.exp(-(behind - margin).abs() / (0.5 * margin))  # half at a toss-up

    def appearance_at(self, frames: Tensor, xy: Tensor) -> Tensor:
        """The color near normalized positions (P, 2): (P, 3) CIELAB, slightly blurred, exposure evened out."""
        return look_up(self._appearance_atlas, self.field.num_frames, frames, self._normalized(self._cells_at(xy)))

    def evidence_at(self, frames: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        """What matches say near normalized positions (P, 2): see ``PreparedMotion``."""
        return look_up_evidence(self.field, frames, xy)

    @property
    def _counts(self) -> tuple[int, int]:
        """Cells of a depth map, across and down."""
        height, width = self.field.depth.shape[1:]
        return width, height

    @cached_property
    def _rise(self) -> Tensor:
        """By how much the depths of each four cells that meet in a corner differ, (T, h - 1, w - 1)."""
        depth = self.field.depth.detach()[:, None]
        return (F.max_pool2d(depth, 2, stride=1) + F.max_pool2d(-depth, 2, stride=1))[:, 0]

    def _cells_at(self, xy: Tensor) -> Tensor:
        """Where normalized positions of the picture lie among the cells of the depth map, which tile it."""
        position = (normalized_to_pixel(xy, self.shape.working_size) + 0.5) / self.field.depth_cell - 0.5
        width, height = self._counts
        x, y = position.nan_to_num(0.0).unbind(-1)
        return torch.stack([x.clamp(0, width - 1), y.clamp(0, height - 1)], dim=-1)

    def _normalized(self, cells: Tensor) -> Tensor:
        """-1 and 1 at the first and the last cell."""
        return cells * (2.0 / (cells.new_tensor(self._counts) - 1)) - 1.0
