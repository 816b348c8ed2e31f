"""OmniMotion's training loss in the plainest form, from its formulas: nothing shared, nothing kept back.

What the fast step is held against: the same loss and gradients, more arithmetic and memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from omnimotion_core.coordinates import pixel_to_normalized
from omnimotion_core.model.networks import CouplingLayer, GaborNet, encode_positions
from omnimotion_core.model.volumetric import VolumetricField
from omnimotion_core.optimization.pair_sampling import PairBatch


def gabor_net(net: GaborNet, x: Tensor) -> Tensor:
    def gabor(k: int) -> Tensor:
        layer = net.filters[k]
        distance = (x**2).sum(-1, keepdim=True) + (layer.mu**2).sum(-1) - 2 * (x @ layer.mu.T)
        return torch.sin(F.linear(x, layer.weight, layer.bias)) * torch.exp(-0.5 * distance * layer.gamma)

    z = gabor(0)
    for k, linear in enumerate(net.linears, 1):
        z = gabor(k) * linear(z)
    result: Tensor = net.output(z)
    return result


def scale_and_shift(layer: CouplingLayer, latent: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    projected = layer.projector[1](F.leaky_relu(layer.projector[0](latent), 0.01))
    encoded = F.leaky_relu(layer.encoder(encode_positions(others, layer.num_frequencies)), 0.01)
    x = torch.cat([projected[:, None].expand(*encoded.shape[:2], -1), encoded], dim=-1)
    for linear in layer.hidden:
        x = F.leaky_relu(linear(x), 0.01)
    log_scale, shift = layer.output(x).split(1, dim=-1)
    return log_scale.clamp(-8, 8), shift


def move(field: VolumetricField, frames: Tensor, points: Tensor, inverse: bool) -> Tensor:
    latent = gabor_net(field.latents, field.times[frames][:, None])
    steps = list(zip(field.layers, field.networks.axes, strict=True))
    for layer, axis in reversed(steps) if inverse else steps:
        assert isinstance(layer, CouplingLayer)
        kept = [k for k in range(3) if k != axis]
        log_scale, shift = scale_and_shift(layer, latent, points[..., kept])
        moved = torch.zeros(3)
        moved[axis] = 1
        changed = points * log_scale.exp() + shift if inverse else (points - shift) * torch.exp(-log_scale)
        points = points * (1 - moved) + changed * moved
    return points


def published_loss(
    field: VolumetricField, batch: PairBatch, depths: Tensor, bin_widths: Tensor, step: int, smooth_points: int
) -> Tensor:
    """The loss of one batch at ``step``; ``depths`` (B, N, S) as drawn. For a field without an affine network."""
    width, height = field.shape.working_size
    num_pairs, num_points, num_samples = depths.shape
    xy = pixel_to_normalized(batch.source, (width, height))
    local = torch.cat([xy[:, :, None].expand(-1, -1, num_samples, -1), depths[..., None]], dim=-1)
    local = local.reshape(num_pairs, -1, 3)
    canonical = move(field, batch.frames_from, local, inverse=False)
    landed = move(field, batch.frames_to, canonical, inverse=True)
    radius = canonical.norm(dim=-1, keepdim=True)
    contracted = torch.where(radius <= 1, canonical, (2 - 1 / radius) * canonical / radius)
    values = gabor_net(field.canonical.network, contracted)
    alpha = (1 - torch.exp(-F.softplus(values[..., 3] - 1))).view(num_pairs, num_points, num_samples)
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-10], dim=-1), dim=-1)[..., :-1]
    weights = alpha * passed
    color = (torch.sigmoid(values[..., :3]).view(*weights.shape, 3) * weights[..., None]).sum(dim=2)
    landed = landed.view(*weights.shape, 3)
    inside = ((landed[..., 2] >= 0) & (landed[..., 2] <= 2)).float()
    soft = (landed[..., :2] * (weights * inside)[..., None]).sum(dim=2)
    predicted = (soft + 1) / 2 * torch.tensor([width - 1.0, height - 1.0])

    shown = ((predicted >= 0) & (predicted <= torch.tensor([width - 1.0, height - 1.0]))).all(dim=-1)
    error = (predicted - batch.target).abs().mean(dim=-1)
    loss = (error * batch.weight)[shown].mean()
    both = batch.weight[:, 1:] * batch.weight[:, :-1] * (shown[:, 1:] & shown[:, :-1])
    steps = ((predicted[:, 1:] - predicted[:, :-1]) - (batch.target[:, 1:] - batch.target[:, :-1])).abs().mean(dim=-1)
    loss = loss + min(step / 500_000, 0.1) * (steps * both).sum() / both.sum()
    color_steps = (color[:, 1:] - color[:, :-1]) - (batch.color[:, 1:] - batch.color[:, :-1])
    loss = loss + min(step / 5000, 10) * (F.mse_loss(color, batch.color) + color_steps.abs().mean())
    z = landed[..., 2]
    loss = loss + 10 * ((z[z < 0] ** 2).sum() + ((z[z > 2] - 2) ** 2).sum()) / z.numel()
    apart = (depths[..., :, None] - depths[..., None, :]).abs()
    spread = (weights[..., :, None] * weights[..., None, :] * apart).sum(dim=(-1, -2))
    spread = spread + (weights**2 * bin_widths).sum(dim=-1) / 3
    loss = loss + min(max(step - 40_000, 0) / 2000, 10) * spread.mean()
    inner = (batch.frames_from > 0) & (batch.frames_from < field.num_frames - 1)
    frames, here = batch.frames_from[inner], local[inner][:, : smooth_points * num_samples]
    anew = move(field, frames, here, inverse=False)
    before, after = (move(field, frames + d, anew, inverse=True) for d in (-1, 1))
    if len(frames):
        loss = loss + 20 * F.l1_loss(here - before, after - here)
    return loss
