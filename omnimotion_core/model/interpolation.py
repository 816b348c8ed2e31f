"""Piecewise linear interpolation on knots: in time by matrices, in space by lookups in an atlas of tiles.

A *tile* is the table of one frame, (C, R, R). All frames' tiles lie side by side in one picture, the *atlas*, so that
one bilinear lookup serves points of any mix of frames; a lookup is clamped to its own tile and never sees the next.
The atlas is nearly square, which keeps float32 coordinates in it precise.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def hat_weights(positions: Tensor, num_knots: int) -> Tensor:
    """Weights of linear interpolation at ``positions`` (P,), in units of knots: (P, num_knots), rows sum to 1."""
    clamped = positions.clamp(0, num_knots - 1)
    return (1 - (clamped[:, None] - torch.arange(num_knots, dtype=positions.dtype)).abs()).clamp(min=0)


def resample_weights(source: int, target: int) -> Tensor:
    """Weights (target, source) that read ``target`` even samples from ``source`` knots, ends coinciding."""
    return hat_weights(torch.linspace(0, source - 1, target), source)


def time_weights(segments: Sequence[range], frames_per_knot: float) -> Tensor:
    """Weights (T, K) of the time knots in each frame; no knot is shared between two segments."""
    blocks = []
    for segment in segments:
        num_knots = max(2, math.ceil((len(segment) - 1) / frames_per_knot) + 1) if len(segment) > 1 else 1
        blocks.append(resample_weights(num_knots, len(segment)))
    return torch.block_diag(*blocks)


def atlas_layout(num_tiles: int) -> tuple[int, int]:
    """Columns and rows of an atlas of ``num_tiles`` tiles."""
    columns = math.ceil(math.sqrt(num_tiles))
    return columns, math.ceil(num_tiles / columns)


def build_atlas(tiles: Tensor) -> Tensor:
    """Tiles (..., T, C, h, w) laid side by side: (..., C, rows * h, columns * w)."""
    *lead, num_tiles, channels, height, width = tiles.shape
    columns, rows = atlas_layout(num_tiles)
    spare = rows * columns - num_tiles
    if spare:
        tiles = torch.cat([tiles, tiles.new_zeros(*lead, spare, channels, height, width)], dim=-4)
    grid = tiles.view(*lead, rows, columns, channels, height, width)
    k = len(lead)
    grid = grid.permute(*range(k), k + 2, k, k + 3, k + 1, k + 4)
    return grid.reshape(*lead, channels, rows * height, columns * width)


def look_up(atlas: Tensor, num_tiles: int, tiles: Tensor, xy: Tensor) -> Tensor:
    """Read each point's tile, bilinear.

    Args:
        atlas: (C, rows * h, columns * w), of ``build_atlas``.
        tiles: (P,) int64, which tile.
        xy: (P, 2) position in the tile, -1 and +1 at the centers of its first and last entry; clamped to that.
    Returns:
        (P, C).
    """
    columns, rows = atlas_layout(num_tiles)
    height, width = atlas.shape[-2] // rows, atlas.shape[-1] // columns
    corner = torch.stack([tiles % columns * width, torch.div(tiles, columns, rounding_mode="floor") * height], dim=-1)
    half_span = xy.new_tensor([(width - 1) / 2, (height - 1) / 2])
    in_tile = xy.nan_to_num(0.0).clamp(-1, 1)  # grid_sample reads and writes anywhere at a position that is no number
    in_atlas = (in_tile + 1) * half_span + corner
    scale = xy.new_tensor([2 / max(columns * width - 1, 1), 2 / max(rows * height - 1, 1)])
    grid = (in_atlas * scale - 1).view(1, -1, 1, 2)
    return F.grid_sample(atlas[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0, :, :, 0].T
