"""Invertible maps from a frame's local volume to the canonical volume, frame by frame.

Both maps below have an inverse in closed form, so the composition has one: what goes to the canonical volume and back
returns to float precision, whatever the parameters are.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimotion_core.model.interpolation import build_atlas, look_up, resample_weights

AXES = (2, 0, 1)  # z, x, y: the axis that layer k transforms is AXES[k % 3]
MAX_RAW = math.sinh(2.0)  # of the raw scale r, so that the scale r + sqrt(1 + r²) = exp(asinh r) stays within exp(±2)
INITIAL_STD = 1e-3
TIME_ROUGHNESS, SPACE_ROUGHNESS = 100.0, 30.0  # weights of a table's mean squared differences


class FrameAffine(nn.Module):
    """One affine map of x and y a frame: canonical xy = A_t xy + b_t."""

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        identity = torch.eye(2, 3).flatten()
        self.matrix = nn.Parameter(identity.repeat(num_frames, 1))  # (T, 6): rows of [A | b]

    def forward(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local (P, 3) of ``frames`` (P,) to canonical (P, 3)."""
        a, b, tx, c, d, ty = F.embedding(frames, self.matrix).unbind(-1)
        x, y, z = points.unbind(-1)
        return torch.stack([a * x + b * y + tx, c * x + d * y + ty, z], dim=-1)

    def inverse(self, frames: Tensor, points: Tensor) -> Tensor:
        """Canonical (P, 3) to local (P, 3) of ``frames`` (P,)."""
        a, b, tx, c, d, ty = F.embedding(frames, self.matrix).unbind(-1)
        x, y, z = points.unbind(-1)
        x, y = x - tx, y - ty
        determinant = a * d - b * c
        return torch.stack([(d * x - b * y) / determinant, (a * y - c * x) / determinant, z], dim=-1)


class TabulatedCouplings(nn.Module):
    """Affine coupling layers whose scale and shift are read from tables over (two axes, time).

    Layer k leaves two axes alone and maps the third, x_k -> x_k exp(asinh r) + t, where r and t are functions of the
    two others and of the frame. In NVP and OmniMotion these functions are networks; here they are sums of tables on a
    few levels of detail, coarse in space and time to fine, read by linear interpolation. They have exp(s) for the
    scale; exp(asinh r) = r + sqrt(1 + r²) is as free and takes no transcendental function.

    The tables of all levels are added up to the finest one's knots before the points are looked up, so a point costs
    one lookup a layer however many levels there are.

    Args:
        time_weights: for each level (T, K), the weights of its time knots in each frame.
        num_knots: for each level, the knots an axis; rising.
        extent: half the range of canonical x, y and z that the tables cover, (3,); beyond it their border holds.
        center: the middle of that range, (3,).

    Source: affine couplings, Dinh et al. 2017, arXiv:1605.08803.
    """

    def __init__(
        self, num_layers: int, time_weights: list[Tensor], num_knots: list[int], extent: Tensor, center: Tensor,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_layers, self.num_frames = num_layers, time_weights[0].shape[0]
        self.levels = len(num_knots)  # that count, from the coarsest on; the rest is as if it were 0
        self.tables = nn.ParameterList(
            nn.Parameter(torch.randn(num_layers, weights.shape[1], 2, knots, knots, generator=generator) * INITIAL_STD)
            for weights, knots in zip(time_weights, num_knots, strict=True)
        )  # (L, K, 2, R, R) each: raw scale and shift
        for level, (weights, knots) in enumerate(zip(time_weights, num_knots, strict=True)):
            self.register_buffer(f"time_weights_{level}", weights, persistent=False)
            for finest in range(level, len(num_knots)):
                between = resample_weights(knots, num_knots[finest])
                self.register_buffer(f"knot_weights_{level}_{finest}", between, persistent=False)
        self.extent: Tensor
        self.center: Tensor
        self.register_buffer("extent", extent)
        self.register_buffer("center", center)

    def tables_by_frame(self) -> Tensor:
        """The tables of each layer in each frame, all levels that count added: (L, T, 2, R, R), raw scale and shift.

        R is of the finest of these levels.
        """
        total: Tensor | None = None
        for level, table in enumerate(self.tables[: self.levels]):
            in_time = getattr(self, f"time_weights_{level}")  # (T, K)
            in_space = getattr(self, f"knot_weights_{level}_{self.levels - 1}")  # (R_finest, R)
            layers, knots_in_time, channels, knots, _ = table.shape
            frames = table
            if not _is_identity(in_time):
                frames = (in_time @ table.reshape(layers, knots_in_time, -1)).view(layers, -1, channels, knots, knots)
            fine = frames if _is_identity(in_space) else in_space @ frames @ in_space.T
            total = fine if total is None else total + fine
        assert total is not None
        return total

    def atlases(self) -> tuple[Tensor, ...]:
        """``tables_by_frame`` side by side: (2, rows * R, columns * R) each. Made once for many points.

        Parted once and not sliced at each use, since the gradient of a slice is as large as the whole.
        """
        return build_atlas(self.tables_by_frame()).unbind(0)

    def forward(self, atlases: Sequence[Tensor], frames: Tensor, points: Tensor) -> Tensor:
        """Points (P, 3) of ``frames`` (P,) through all layers."""
        axes = list(points.unbind(-1))
        for layer in range(self.num_layers):
            k = AXES[layer % 3]
            scale, shift = self._scale_and_shift(atlases[layer], frames, axes, k)
            axes[k] = axes[k] * scale + shift
        return torch.stack(axes, dim=-1)

    def inverse(self, atlases: Sequence[Tensor], frames: Tensor, points: Tensor) -> Tensor:
        """Undoes ``forward``."""
        axes = list(points.unbind(-1))
        for layer in reversed(range(self.num_layers)):
            k = AXES[layer % 3]
            scale, shift = self._scale_and_shift(atlases[layer], frames, axes, k)
            axes[k] = (axes[k] - shift) / scale
        return torch.stack(axes, dim=-1)

    def _scale_and_shift(self, atlas: Tensor, frames: Tensor, axes: list[Tensor], k: int) -> tuple[Tensor, Tensor]:
        others = [axis for axis in range(3) if axis != k]
        position = torch.stack([(axes[axis] - self.center[axis]) / self.extent[axis] for axis in others], dim=-1)
        raw, shift = look_up(atlas, self.num_frames, frames, position).unbind(-1)
        raw = raw.clamp(-MAX_RAW, MAX_RAW)
        return raw + (1 + raw.square()).sqrt(), shift

    def roughness(self) -> Tensor:
        """How much the tables change from knot to knot, in time and in space: a scalar to keep small.

        The coarsest level is free to change (weight 0.01), finer ones less so, up to weight 0.3.
        """
        total = self.extent.new_zeros(())
        for table, weight in zip(self.tables[: self.levels], level_weights(len(self.tables)), strict=False):
            in_time = table.diff(dim=1).square().mean() if table.shape[1] > 1 else 0.0
            in_space = table.diff(dim=3).square().mean() + table.diff(dim=4).square().mean()
            total = total + weight * (TIME_ROUGHNESS * in_time + SPACE_ROUGHNESS * in_space)
        return total


def _is_identity(weights: Tensor) -> bool:
    """Whether a level needs no resampling, its knots being the finest ones."""
    return weights.shape[0] == weights.shape[1]


def level_weights(levels: int) -> list[float]:
    """0.01 for the coarsest level to 0.3 for the finest, in equal ratios."""
    if levels == 1:
        return [0.3]
    return [0.01 * 30.0 ** (level / (levels - 1)) for level in range(levels)]
