"""Depth maps whose edges are sharp: each cell tries the depths around it and takes the one its matches like best.

Gradients alone do not get there. Between the depth of an object and that of what lies behind it the volume holds no
surface, and what moves through it there moves anyhow; so a cell at the edge of an object that starts between the two
finds no way to either.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omnimotion_core.coordinates import pixel_to_normalized
from omnimotion_core.model.field import Field
from omnimotion_core.optimization.sampling import Batch, MatchSampler, random_order

RADII = (2, 7)  # cells: how far around it a cell looks for the nearest and the farthest depth
MAX_GAP = 8  # frames: matches over more are not asked, since where they are wrong tells of motion more than of depth
MAX_MATCHES = 400_000  # that are asked
CHUNK = 131_072  # matches at once
WORTH_A_LOOK = 0.2  # of depth: where candidates differ by less there is nothing to find
ROBUST_PX = 2.0  # pixels of a frame of 256: a miss by this much costs 1, the farthest 2
SAME_SURFACE = 0.05  # of depth: what lands this far or farther from the other frame's depth map costs 1 more
GAIN = 0.2  # what another depth must be better by: what is hardly better only makes outlines ragged
GAIN_OF_FARTHER = 0.6  # the same of a farther one: a leg that stands for a while moves as the ground does


@torch.no_grad()
def search_depth(field: Field, sampler: MatchSampler, scale: float, generator: torch.Generator) -> float:
    """Replace the depth of every cell by that candidate under which its matches, and those beside it, cost least.

    Args:
        field: whose depth maps are replaced.
        scale: from working pixels to pixels of a frame of 256.
        generator: draws the matches that are asked, where there are many.
    Returns:
        The share of the cells that changed.
    Source: taking over a neighbor's value where it costs less is the propagation step of Barnes et al. 2009,
    "PatchMatch: a randomized correspondence algorithm for structural image editing".
    """
    candidates = torch.stack([field.depth, *_extremes(field.depth)])  # (K, T, h, w)
    open_cells = (candidates.amax(dim=0) - candidates.amin(dim=0) > WORTH_A_LOOK).flatten()
    costs, weights = torch.zeros_like(candidates).flatten(1), torch.zeros_like(field.depth).flatten()
    prepared = field.prepare()
    for rows in _asked(field, sampler, open_cells, generator).split(CHUNK):
        batch = sampler.take(rows)
        cells = _cells_of(field, batch)
        xy = pixel_to_normalized(batch.source, field.shape.working_size)
        for depth, cost in zip(candidates.flatten(1), costs, strict=True):
            start = torch.cat([xy, depth[cells][:, None]], dim=-1)
            landed = prepared.from_canonical(batch.frames_to, prepared.to_canonical(batch.frames_from, start))
            miss = (prepared.to_pixels(landed) - batch.target).norm(dim=-1) * scale
            apart = (landed[:, 2] - prepared.depth_at(batch.frames_to, landed[:, :2])).abs()
            each = miss / (1 + miss / ROBUST_PX) + (apart / SAME_SURFACE).clamp(max=1.0)
            cost.index_add_(0, cells, batch.weight * each)
        weights.index_add_(0, cells, batch.weight)
    mean = _gathered(costs.view_as(candidates)) / _gathered(weights.view(1, *field.depth.shape)).clamp(min=1e-3)
    current = candidates[0]
    mean[1:] += torch.where(candidates[1:] > current, GAIN_OF_FARTHER, GAIN)
    found, least = current, mean[0]
    for depth, cost in zip(candidates[1:], mean[1:], strict=True):
        found, least = torch.where(cost < least, depth, found), torch.minimum(cost, least)
    changed = (found != field.depth).float().mean()
    field.depth.copy_(found)
    return float(changed)


def _asked(field: Field, sampler: MatchSampler, open_cells: Tensor, generator: torch.Generator) -> Tensor:
    """Rows of the matches over short distances that begin in ``open_cells`` (T * h * w,), ``MAX_MATCHES`` at most."""
    found = []
    for start in range(0, len(sampler), CHUNK):
        batch = sampler.take(slice(start, start + CHUNK))
        near = (batch.frames_to - batch.frames_from).abs() <= MAX_GAP
        found.append((start + torch.nonzero(near & open_cells[_cells_of(field, batch)])[:, 0]).int())
    rows = torch.cat(found)
    if len(rows) > MAX_MATCHES:
        rows = rows[random_order(len(rows), generator)[:MAX_MATCHES].sort().values.to(rows.device)]
    return rows


def _extremes(depth: Tensor) -> list[Tensor]:
    """The nearest and the farthest depth around each cell, (T, h, w) each."""
    maps, found = depth.numpy(force=True), []
    for radius in RADII:
        square = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        for extreme in (cv2.dilate, cv2.erode):
            found.append(torch.from_numpy(np.stack([extreme(each, square) for each in maps])).to(depth.device))
    return found


def _gathered(values: Tensor) -> Tensor:
    """Each cell of (K, T, h, w) together with those next to it."""
    return F.avg_pool2d(values, 3, stride=1, padding=1)


def _cells_of(field: Field, batch: Batch) -> Tensor:
    """The cell, of all depth maps in a row, in which each match begins: (B,)."""
    _, height, width = field.depth.shape
    column, row = (batch.source / field.depth_cell).long().unbind(-1)
    return (batch.frames_from * height + row.clamp(0, height - 1)) * width + column.clamp(0, width - 1)
