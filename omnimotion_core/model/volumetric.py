"""The volumetric motion model: OmniMotion as published.

Each frame's latent steers invertible networks between its local volume and the canonical one, where another network
holds color and density; a pixel's surface is found by looking along its ray.

Where it departs from the published code: nothing in its results. Of its options, near and far bounds of a ray and
hierarchical samples are left out, which that code has and does not use.

Source: Wang et al. 2023, arXiv:2306.05422.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from omnimotion_core.config import ModelConfig
from omnimotion_core.coordinates import normalized_to_pixel, pixel_to_normalized
from omnimotion_core.model import rendering
from omnimotion_core.model.canonical import CanonicalVolume
from omnimotion_core.model.motion import FAR, FieldShape, evidence_maps, look_up_evidence
from omnimotion_core.model.networks import CouplingLayer, FrameAffineNetwork, GaborNet

LATENT_LAYERS, LATENT_ALPHA = 2, 4.5
HIDDEN_OPACITY = 0.99  # a point is hidden when more than this is seen before it
HIDDEN_MARGIN = 1.1  # sample distances by which what is seen must be nearer than the point
SAMPLES_AT_ONCE = 16_384  # in a lookup; holds about 100 MB


class VolumetricField(nn.Module):
    """A clip's motion in OmniMotion's volumetric representation, seeded.

    B groups of N points, the points of a group belonging to one frame.
    """

    def __init__(self, shape: FieldShape, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        networks = self.networks = config.volumetric
        with torch.random.fork_rng(devices=[]):  # torch's layers draw their parameters from the global generator
            torch.manual_seed(seed)
            self.latents = GaborNet(
                1, networks.latent_hidden, networks.latent_size, layers=LATENT_LAYERS, alpha=LATENT_ALPHA
            )
            self.affine = (
                FrameAffineNetwork(networks.affine_layers, networks.coupling_hidden, networks.num_frequencies)
                if networks.affine_layers
                else None
            )
            self.layers = nn.ModuleList(
                CouplingLayer(networks.latent_size, networks.coupling_hidden, networks.num_frequencies)
                for _ in networks.axes
            )
            self.canonical = CanonicalVolume(networks.color_hidden)
        residual, support = evidence_maps(shape)
        self.residual_map: Tensor
        self.support_map: Tensor
        self.register_buffer("residual_map", residual)
        self.register_buffer("support_map", support)

    @property
    def num_frames(self) -> int:
        """T."""
        return self.shape.num_frames

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.residual_map.device

    @property
    def times(self) -> Tensor:
        """Each frame's time, (T,), in 0..1 without the 0."""
        return torch.arange(1, self.num_frames + 1, device=self.device) / self.num_frames

    def frame_codes(self) -> Tensor:
        """What each frame's latent tells each coupling layer, (L, T, H); made once for many points."""
        latents = self.latents(self.times[:, None])
        return torch.stack([layer.of_frames(latents) for layer in self._couplings()])

    def map_to_canonical(self, codes: Tensor, frames: Tensor, points: Tensor) -> Tensor:
        """Local points (B, N, 3) of ``frames`` (B,) to canonical ones; ``codes`` of ``frame_codes``."""
        axes = list(points.unbind(-1))
        if self.affine is not None:
            a, b, tx, c, d, ty = self.affine(self.times[frames], axes[2])
            axes[:2] = a * axes[0] + b * axes[1] + tx, c * axes[0] + d * axes[1] + ty
        for layer, code, k in zip(self._couplings(), codes, self.networks.axes, strict=True):
            log_scale, shift = layer(code[frames], _without(axes, k))
            axes[k] = (axes[k] - shift) * torch.exp(-log_scale)
        return torch.stack(axes, dim=-1)

    def map_from_canonical(self, codes: Tensor, frames: Tensor, points: Tensor) -> Tensor:
        """The exact inverse of ``map_to_canonical``."""
        axes = list(points.unbind(-1))
        steps = list(zip(self._couplings(), codes, self.networks.axes, strict=True))
        for layer, code, k in reversed(steps):
            log_scale, shift = layer(code[frames], _without(axes, k))
            axes[k] = axes[k] * torch.exp(log_scale) + shift
        if self.affine is not None:
            a, b, tx, c, d, ty = self.affine(self.times[frames], axes[2])
            x, y, determinant = axes[0] - tx, axes[1] - ty, a * d - b * c
            axes[:2] = (d * x - b * y) / determinant, (a * y - c * x) / determinant
        return torch.stack(axes, dim=-1)

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local points (B, N, S, 3) of ``frames`` (B,) to canonical points of the same shape."""
        return self.map_to_canonical(self.frame_codes(), frames, points.flatten(1, 2)).view(points.shape)

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """The exact inverse of ``to_canonical``."""
        return self.map_from_canonical(self.frame_codes(), frames, points.flatten(1, 2)).view(points.shape)

    def set_precision(self, hidden: torch.dtype) -> None:
        """Compute the hidden layers of the couplings and of the canonical volume in ``hidden`` from now on.

        Latents, positions, scales, shifts, colors and densities are float32 all the same.
        """
        for layer in self._couplings():
            layer.hidden_dtype = hidden
        self.canonical.network.hidden_dtype = hidden

    def prepare(self) -> "PreparedVolume":
        """The field with its frames' latents worked out, for many lookups with the same parameters."""
        return PreparedVolume(self, self.frame_codes())

    def _couplings(self) -> list[CouplingLayer]:
        return [layer for layer in self.layers if isinstance(layer, CouplingLayer)]


class PreparedVolume:
    """A volumetric field ready for lookups; every method takes flat points (P, ...) and their ``frames`` (P,) int64.

    Lookups go through the points in chunks, so that they need little memory however many there are.
    """

    single_surface = False
    threads = 1  # products of large matrices use several by themselves

    def __init__(self, field: VolumetricField, codes: Tensor) -> None:
        self.field, self.shape, self._codes = field, field.shape, codes
        self.depths = rendering.even_depths(field.networks.num_samples, FAR, field.device)

    @property
    def device(self) -> torch.device:
        """Where points are to be."""
        return self.field.device

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local (P, 3) to canonical (P, 3)."""
        return _in_chunks(
            lambda t, p: self.field.map_to_canonical(self._codes, t, p[:, None])[:, 0], frames, points, SAMPLES_AT_ONCE
        )

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Canonical (P, 3) to local (P, 3)."""
        return _in_chunks(
            lambda t, p: self.field.map_from_canonical(self._codes, t, p[:, None])[:, 0], frames, points,
            SAMPLES_AT_ONCE,
        )  # fmt: skip

    def weights_at(self, frames: Tensor, xy: Tensor) -> Tensor:
        """By how much each sample of the rays at normalized positions (P, 2) is seen, (P, S); see ``depths``."""
        return self._render(frames, xy)[..., 3]

    def color_at(self, frames: Tensor, xy: Tensor) -> Tensor:
        """The rendered color at normalized positions (P, 2): (P, 3), 0..1."""
        rendered = self._render(frames, xy)
        return rendering.composite(rendered[..., :3], rendered[..., 3])

    def depth_at(self, frames: Tensor, xy: Tensor) -> Tensor:
        """The composited depth at normalized positions (P, 2): (P,)."""
        return self.weights_at(frames, xy) @ self.depths

    def lift(self, frames: Tensor, pixels: Tensor) -> Tensor:
        """Working pixels (P, 2) to the local points (P, 3) that are seen most on their rays."""
        xy = pixel_to_normalized(pixels, self.shape.working_size)
        depth = self.depths[rendering.nearest_surface(self.weights_at(frames, xy))]
        return torch.cat([xy, depth[:, None]], dim=-1)

    def to_pixels(self, points: Tensor) -> Tensor:
        """Local points (P, 3) to working pixels (P, 2)."""
        return normalized_to_pixel(points[:, :2], self.shape.working_size)

    def shown(self, frames: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the ray to local points (P, 3) reaches them: (P,) bool; and how sure that is, (P,) 0.5..1.

        The margin and the threshold are the published code's; the paper names none. How sure it is grows with the
        distance of the optical depth before the point from the threshold's.
        """
        weights = self.weights_at(frames, points[:, :2])
        limit = points[:, 2] - HIDDEN_MARGIN * FAR / self.field.networks.num_samples
        before = rendering.opacity_before(weights, self.depths, limit).clamp(max=1 - 1e-6)
        optical_depth, threshold = -torch.log1p(-before), -math.log1p(-HIDDEN_OPACITY)
        sure = 1 - 0.5 * torch.exp(-(optical_depth - threshold).abs() / (0.5 * threshold))
        return before <= HIDDEN_OPACITY, sure

    def appearance_at(self, frames: Tensor, xy: Tensor) -> None:
        """None: the paper tells hidden points by what lies before them alone."""

    def evidence_at(self, frames: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        """What matches say near normalized positions (P, 2): see ``PreparedMotion``."""
        return look_up_evidence(self.field, frames, xy)

    def _render(self, frames: Tensor, xy: Tensor) -> Tensor:
        """Colors and weights of the rays' samples, (P, S, 4)."""

        def render(t: Tensor, at: Tensor) -> Tensor:
            canonical = self.field.map_to_canonical(self._codes, t, rendering.cast_rays(at, self.depths))
            color, density = self.field.canonical(canonical)
            return torch.cat([color, rendering.composite_weights(density)[..., None]], dim=-1)

        return _in_chunks(render, frames, xy, max(SAMPLES_AT_ONCE // len(self.depths), 1))


def _without(axes: list[Tensor], k: int) -> Tensor:
    """The two other axes, (..., 2)."""
    return torch.stack([axes[axis] for axis in range(3) if axis != k], dim=-1)


def _in_chunks(function: Callable[[Tensor, Tensor], Tensor], frames: Tensor, points: Tensor, size: int) -> Tensor:
    parts = [function(t, p) for t, p in zip(frames.split(size), points.split(size), strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
