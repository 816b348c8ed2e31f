"""RAFT's correlation lookup: how well each pixel's features agree with those around its present match.

Two forms with the same result. The *volume* holds the agreement of every pixel with every other, at four scales; its
memory grows with the fourth power of the picture's side. *On demand* only what a lookup asks for is computed, from the
features: slower, with memory that hardly grows. That they agree rests on the mean over 2x2 pixels and the interpolation
being linear, so that both may be applied to the features in place of the correlations.

B pictures, N = h * w feature pixels of the source, C channels, r the radius of the window that is looked up.

Source: Teed and Deng 2020, "RAFT: Recurrent all-pairs field transforms for optical flow", arXiv:2003.12039, sec. 3.2.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 4
CHUNK_BYTES = 64 * 2**20  # of gathered features that the form on demand holds at once


class Correlation(Protocol):
    """Looks correlations up around points of the target."""

    def lookup(self, points: Tensor) -> Tensor:
        """Correlations in a window around each point at every level.

        Args:
            points: (B, 2, h, w) as (x, y), in feature pixels of the target.
        Returns:
            (B, LEVELS * (2r + 1)², h, w); of a window's two axes x is the slower one, as trained networks expect.
        """
        ...


def volume_bytes(source: Tensor, target: Tensor) -> int:
    """What the volume of these features (B, C, h, w) takes, all levels."""
    pixels = source.shape[0] * source[0, 0].numel() * target[0, 0].numel()
    return math.ceil(pixels * 4 * 4 / 3)  # float32; each level holds a quarter of the one before


def correlate(source: Tensor, target: Tensor, radius: int, max_bytes: int) -> Correlation:
    """The volume where it takes at most ``max_bytes``, else the form on demand.

    Args:
        source, target: features (B, C, h, w).
        radius: of the window, feature pixels.
        max_bytes: what the volume may take.
    """
    form = Volume if volume_bytes(source, target) <= max_bytes else OnDemand
    return form(source.float(), target.float(), radius)


class Volume:
    """All correlations, computed once."""

    def __init__(self, source: Tensor, target: Tensor, radius: int) -> None:
        self.radius = radius
        count, channels, height, width = target.shape
        volume = torch.einsum("bcn,bcm->bnm", source.flatten(2), target.flatten(2)) / math.sqrt(channels)
        pictures = volume.reshape(-1, 1, height, width)
        self._levels = []
        for level in range(LEVELS):
            pictures = F.avg_pool2d(pictures, 2) if level else pictures
            self._levels.append((pictures.reshape(count, -1, pictures[0].numel()), pictures.shape[-2:]))

    def lookup(self, points: Tensor) -> Tensor:
        """As the protocol says."""
        found = []
        for level, (volume, size) in enumerate(self._levels):
            index, known, fraction = _neighborhood(points, level, size, self.radius)
            near = torch.gather(volume, 2, index.flatten(2)).reshape(index.shape)
            found.append(_interpolate(near * known, fraction))
        return _stack(found, points)


class OnDemand:
    """Correlations computed from the features when they are looked up."""

    def __init__(self, source: Tensor, target: Tensor, radius: int) -> None:
        self.radius = radius
        self._source = source.flatten(2).transpose(1, 2) / math.sqrt(source.shape[1])  # (B, N, C)
        self._levels = []
        for level in range(LEVELS):
            target = F.avg_pool2d(target, 2) if level else target
            self._levels.append((target.flatten(2).transpose(1, 2).contiguous(), target.shape[-2:]))

    def lookup(self, points: Tensor) -> Tensor:
        """As the protocol says."""
        found = []
        for level, (features, size) in enumerate(self._levels):
            index, known, fraction = _neighborhood(points, level, size, self.radius)
            near = torch.stack([self._agreement(b, features[b], index[b]) for b in range(len(index))])
            found.append(_interpolate(near * known, fraction))
        return _stack(found, points)

    def _agreement(self, b: int, features: Tensor, index: Tensor) -> Tensor:
        """Dot products of each source pixel with the target pixels (N, K, K) of its neighborhood."""
        per_pixel = index[0].numel() * features.shape[1] * features.element_size()
        step = max(CHUNK_BYTES // per_pixel, 1)
        parts = []
        for start in range(0, len(index), step):
            near = features[index[start : start + step].flatten(1)]  # (chunk, K², C)
            parts.append(near @ self._source[b, start : start + step, :, None])
        return torch.cat(parts).reshape(index.shape)


def _neighborhood(points: Tensor, level: int, size: torch.Size, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """The whole pixels that a window around each point is interpolated from.

    All positions of a window share one fraction of a pixel, so (2r + 2)² pixels serve (2r + 1)² positions.

    Returns:
        index: (B, N, 2r + 2, 2r + 2) int64 into the level's pixels, x the slower axis.
        known: same shape, 0 where the pixel lies outside, which counts as no agreement.
        fraction: (B, N, 2) in 0..1 as (x, y).
    """
    height, width = size
    position = points.flatten(2).transpose(1, 2) / 2**level  # (B, N, 2)
    corner = position.floor()
    offset = torch.arange(-radius, radius + 2, device=points.device)
    x = corner[..., 0, None].long() + offset  # (B, N, 2r + 2)
    y = corner[..., 1, None].long() + offset
    known = ((x >= 0) & (x < width))[..., :, None] & ((y >= 0) & (y < height))[..., None, :]
    index = y.clamp(0, height - 1)[..., None, :] * width + x.clamp(0, width - 1)[..., :, None]
    return index, known, position - corner


def _interpolate(near: Tensor, fraction: Tensor) -> Tensor:
    """Values (B, N, K + 1, K + 1) at whole pixels, x slower, to (B, N, K, K) at the ``fraction`` (B, N, 2) between."""
    x, y = fraction[..., 0, None, None], fraction[..., 1, None, None]
    along_x = near[..., :-1, :] * (1 - x) + near[..., 1:, :] * x
    return along_x[..., :-1] * (1 - y) + along_x[..., 1:] * y


def _stack(found: list[Tensor], points: Tensor) -> Tensor:
    count, _, height, width = points.shape
    together = torch.cat([level.flatten(2) for level in found], dim=2)  # (B, N, levels * K²)
    return together.transpose(1, 2).reshape(count, -1, height, width)
