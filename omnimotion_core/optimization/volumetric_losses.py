"""OmniMotion's loss terms, their weights and their schedules, as in the published code.

Every term gives a scalar; lengths are in working pixels where a docstring does not say otherwise. B pairs of frames, N
points of each, S samples on a point's ray. Which points count is told by weights and never by picking them out, for
which a GPU would have to wait.

Where paper and code part, the code is followed: the terms ``color gradient``, ``flow gradient``, ``depth range`` and
``distortion`` are the supplement's, with weights that only the code has; the canonical sphere has weight 0; smoothness
looks at a quarter of the points. Where this parts from the code: it drops by its quantile of 1 the one largest error of
a step, and pairs points for gradients after picking those in the frame; here all count, in the order drawn.

Source: Wang et al. 2023, arXiv:2306.05422.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """What each term is multiplied by: numbers, or tensors () on a device."""

    flow: float | Tensor
    flow_gradient: float | Tensor
    color: float | Tensor  # of the color term and of its gradient alike
    depth_range: float | Tensor
    distortion: float | Tensor
    smoothness: float | Tensor
    sphere: float | Tensor


def loss_weights(step: float, flow: float = 1.0) -> LossWeights:
    """The weights at ``step`` of the 100,000 that the published schedules are written for.

    Args:
        flow: a factor of both flow terms. They are in working pixels and the others are not, so that the published
            weights mean what they meant in frames of about 480 lines only.
    """
    return LossWeights(
        flow=flow,
        flow_gradient=flow * min(step / 500_000, 0.1),
        color=min(step / 5000, 10.0),
        depth_range=10.0,
        distortion=min(max(step - 40_000, 0) / 2000, 10.0),
        smoothness=20.0,
        sphere=0.0,
    )


def flow_loss(predicted: Tensor, target: Tensor, weight: Tensor, counted: Tensor) -> Tensor:
    """Mean over the points that are ``counted`` of their error times their ``weight``; not a weighted mean.

    Args:
        predicted, target: (B, N, 2) pixels; a point's error is the mean of |dx| and |dy|.
        weight: (B, N).
        counted: (B, N), 0 or 1: whether the prediction lies in the frame.
    """
    error = (predicted - target).abs().mean(dim=-1)
    return (error * weight * counted).sum() / counted.sum().clamp(min=1)


def flow_gradient_loss(predicted: Tensor, target: Tensor, weight: Tensor, counted: Tensor) -> Tensor:
    """Weighted mean error of the differences between each point (B, N, 2) and the next of the same pair.

    A difference has the product of both points' weights, and none where one of them is not counted.
    """
    error = (predicted.diff(dim=1) - target.diff(dim=1)).abs().mean(dim=-1)
    present = weight * counted
    both = present[:, 1:] * present[:, :-1]
    return (error * both).sum() / both.sum().clamp(min=1e-8)


def color_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """Mean square difference of colors (B, N, 3) plus mean difference of their steps from point to next point."""
    steps = (rendered.diff(dim=1) - target.diff(dim=1)).abs().mean()
    return (rendered - target).square().mean() + steps


def depth_range_loss(depth: Tensor, far: float) -> Tensor:
    """Mean square by which mapped depths (...) leave 0..``far``."""
    return (depth.clamp(max=0).square() + (depth - far).clamp(min=0).square()).mean()


def distortion_loss(depths: Tensor, widths: Tensor, weights: Tensor) -> Tensor:
    """How spread out along a ray is what is seen, mean over rays.

    sum_ij w_i w_j |u_i - u_j| + sum_i w_i² d_i / 3, the double sum from running ones, in S and not S² steps.

    Args:
        depths: u, (..., S), rising.
        widths: d, the lengths of the samples' bins, (S,) or (..., S).
        weights: w, (..., S).
    Source: Barron et al. 2022, mip-NeRF 360, equation 15.
    """
    before = weights.cumsum(dim=-1) - weights
    moment = weights * depths
    moment_before = moment.cumsum(dim=-1) - moment
    between = 2 * (weights * (depths * before - moment_before)).sum(dim=-1)
    within = (weights.square() * widths).sum(dim=-1) / 3
    return (between + within).mean()


def smoothness_loss(previous: Tensor, here: Tensor, following: Tensor, counted: Tensor) -> Tensor:
    """Mean acceleration of samples between three neighboring frames.

    Args:
        previous, here, following: (B, M, 3) the same canonical points, local to the frame before, the frame, the next.
        counted: (B,), 0 or 1: 0 for a frame that lacks a neighbor.
    """
    acceleration = (following + previous - 2 * here).abs().mean(dim=(1, 2))
    return (acceleration * counted).sum() / counted.sum().clamp(min=1)


def sphere_loss(canonical: Tensor) -> Tensor:
    """Mean square of |u|² - 1 over the canonical points (..., 3) outside the unit sphere."""
    squared = canonical.square().sum(dim=-1)
    outside = (squared >= 1).to(squared.dtype)
    return ((squared - 1).square() * outside).sum() / outside.sum().clamp(min=1)


def in_frame(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether positions (..., 2) lie between the centers of the first and last pixels: (...) 0 or 1."""
    x, y = pixels.unbind(dim=-1)
    return ((x >= 0) & (x <= size[0] - 1) & (y >= 0) & (y <= size[1] - 1)).to(pixels.dtype)


def pair_weight(gap: Tensor, max_interval: int) -> Tensor:
    """How much a pair of frames ``gap`` (...) apart counts: 1 for neighbors, falling to 0 as a cosine.

    The paper prints 1 / cos; with it far pairs would count most.
    """
    return torch.cos((gap - 1).clamp(min=0) / max_interval * (torch.pi / 2))


def max_interval(step: float, start: int, widen_every: int, num_frames: int) -> int:
    """How far apart the frames of a pair may be at ``step``: one frame more every ``widen_every`` steps."""
    return max(min(start + int(step // widen_every), num_frames - 1), 1)
