"""Rays through a frame's local volume: samples on them, and what is seen along them.

Rays are parallel to the z axis (an orthographic camera), so a ray is a position (x, y) and its samples differ in depth.
S samples a ray, from near to far. Densities have no length: alpha = 1 - exp(-density), whatever lies between samples.

Source: Wang et al. 2023, arXiv:2306.05422; compositing as in NeRF.
"""

import torch
from torch import Tensor

NEAR_SHARE = 0.2  # of a ray's samples, that ``near_masked`` empties


def even_depths(num_samples: int, far: float, device: torch.device | None = None) -> Tensor:
    """Depths (S,) from 0 to ``far``, what inference looks at."""
    return torch.linspace(0.0, far, num_samples, device=device)


def depth_bins(depths: Tensor) -> tuple[Tensor, Tensor]:
    """The near and far ends, (S,) each, of the bins around ``depths`` (S,), which meet half-way between two of them."""
    between = (depths[1:] + depths[:-1]) / 2
    return torch.cat([depths[:1], between]), torch.cat([between, depths[-1:]])


def stratified_depths(depths: Tensor, where: Tensor) -> Tensor:
    """Depths (..., S), one in each bin of ``depths`` (S,) at the given share of it, ``where`` (..., S) in 0..1."""
    low, high = depth_bins(depths)
    return low + (high - low) * where


def cast_rays(xy: Tensor, depths: Tensor) -> Tensor:
    """Samples (..., S, 3) of the rays at ``xy`` (..., 2), at ``depths`` (..., S) or (S,)."""
    depths = depths.expand(*xy.shape[:-1], depths.shape[-1])
    return torch.cat([xy[..., None, :].expand(*depths.shape, 2), depths[..., None]], dim=-1)


def near_masked(density: Tensor) -> Tensor:
    """Densities (..., S) with the nearest fifth of each ray empty: keeps surfaces from sticking to the front."""
    first = round(NEAR_SHARE * density.shape[-1])
    return torch.cat([torch.zeros_like(density[..., :first]), density[..., first:]], dim=-1)


def composite_weights(density: Tensor) -> Tensor:
    """By how much each sample is seen, (..., S), from densities (..., S): w_k = T_k alpha_k.

    T_k is the product of the (1 - alpha_l) before k, here the exponential of the sum of their densities: the product
    form's gradient needs a test for zeros, for which a GPU has to wait.
    """
    passed = density.cumsum(dim=-1)
    transmittance = torch.exp(density - passed)
    return transmittance * -torch.expm1(-density)


def composite(values: Tensor, weights: Tensor) -> Tensor:
    """Sum over the samples of ``values`` (..., S, C) times ``weights`` (..., S): (..., C)."""
    return (values * weights[..., None]).sum(dim=-2)


def within_depths(weights: Tensor, depths: Tensor, far: float) -> Tensor:
    """``weights`` (..., S) without the samples whose ``depths`` (..., S) lie outside 0..far.

    They are not made to sum to one again; a ray that is seen through pulls its composited position to the middle.
    """
    return weights * ((depths >= 0) & (depths <= far))


def nearest_surface(weights: Tensor) -> Tensor:
    """The sample that is seen most, (...) int64, of ``weights`` (..., S)."""
    return weights.argmax(dim=-1)


def opacity_before(weights: Tensor, depths: Tensor, limit: Tensor) -> Tensor:
    """How much is seen nearer than ``limit`` (...), 0..1: the sum of those ``weights`` (..., S) at ``depths`` (S,)."""
    return (weights * (depths < limit[..., None])).sum(dim=-1)
