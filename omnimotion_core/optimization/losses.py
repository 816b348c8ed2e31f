"""What the fit makes small. Every function gives a scalar; lengths are in working pixels scaled to a frame of 256."""

import torch
from torch import Tensor

SOFTENING_PX = 0.1  # below this a residual counts as its square
EDGE_SHARPNESS = 20.0  # an edge of 0.05 of full color lets depth jump at a third of the price


def length_scale(working_size: tuple[int, int]) -> float:
    """Factor from working pixels to pixels of a picture whose longer side is 256, the unit of the losses."""
    return 256.0 / max(working_size)


def flow_loss(predicted: Tensor, target: Tensor, weight: Tensor, robust_px: float | None) -> Tensor:
    """Mean distance of predicted (B, 2) from matched (B, 2) positions, weighted (B,).

    Args:
        robust_px: where given, distance d counts as d / (1 + d / robust_px): a wrong match of any length costs at most
            this much.
    """
    distance = ((predicted - target).square().sum(dim=-1) + SOFTENING_PX**2).sqrt()
    if robust_px is not None:
        distance = distance / (1.0 + distance / robust_px)
    return (distance * weight).sum() / weight.sum().clamp(min=1e-6)


def depth_consistency_loss(mapped: Tensor, map_value: Tensor, weight: Tensor, on_surface: Tensor) -> Tensor:
    """Mean |mapped depth - depth map where the point lands| of matched points, (B,) each: both show one surface.

    Where ``on_surface`` is 0 they need not, and the difference counts as none.
    """
    return ((mapped - map_value).abs() * weight * on_surface).sum() / weight.sum().clamp(min=1e-6)


def edge_weights(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of depth differences, small at edges of the picture.

    Args:
        pictures: (T, 3, h, w) colors 0..1 at the depth maps' size.
    Returns:
        (T, h, w - 1) and (T, h - 1, w), 0..1.
    """
    across = pictures.diff(dim=3).abs().mean(dim=1)
    down = pictures.diff(dim=2).abs().mean(dim=1)
    return torch.exp(-EDGE_SHARPNESS * across), torch.exp(-EDGE_SHARPNESS * down)


def depth_smoothness_loss(depth: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Mean total variation of depth maps (T, h, w) with the weights of ``edge_weights``."""
    return (depth.diff(dim=2).abs() * across).mean() + (depth.diff(dim=1).abs() * down).mean()


def depth_range_loss(depth: Tensor, far: float) -> Tensor:
    """Mean square of what leaves the volume's depths 0..far; source: OmniMotion's depth range term."""
    return (depth.clamp(max=0).square() + (depth - far).clamp(min=0).square()).mean()
