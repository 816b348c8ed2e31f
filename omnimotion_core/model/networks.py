"""The networks of OmniMotion's volumetric model: Gabor networks and the coupling layers that networks steer.

F frequencies, C latent size, H hidden size; B groups of N points, the points of a group belonging to one frame.

What the published code keeps of every layer for its gradients is mostly what can be had again at the price of a sine:
here a hidden layer keeps its output alone, and a Gabor filter its input. What a frame's latent adds to the first hidden
layer of a coupling is computed once a frame, not once a point. Both change no result beyond rounding.

``hidden_dtype`` is the precision of hidden layers, None for that of the parameters. A fit on a GPU lowers it;
positions, sines, scales and shifts keep theirs, since eight bits of a position are a pixel.

Sources: Gabor networks, Fathony et al. 2021, Multiplicative Filter Networks; coupling layers, Dinh et al. 2017,
arXiv:1605.08803; both as in Wang et al. 2023, arXiv:2306.05422.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_LOG_SCALE = 8.0
FILTER_SCALE = 256.0
LEAK = 0.01


class GaborNet(nn.Module):
    """z_0 = g_0(x), z_k = g_k(x) * (W_k z_(k-1) + b_k), output W z_n + b, with n ``layers`` and Gabor filters g_k.

    Args:
        alpha: the filters' widths are drawn from Gamma(alpha / (layers + 1), 1).
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, layers: int, alpha: float) -> None:
        super().__init__()
        count = layers + 1
        self.filters = nn.ModuleList(GaborFilter(inputs, hidden, alpha / count, count) for _ in range(count))
        self.linears = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.output = nn.Linear(hidden, outputs)
        self.hidden_dtype: torch.dtype | None = None
        bound = hidden**-0.5
        for linear in self.linears:
            assert isinstance(linear, nn.Linear)
            nn.init.uniform_(linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        flat = x.reshape(-1, x.shape[-1])
        z = self.filters[0](flat, None)
        for linear, gabor in zip(self.linears, list(self.filters)[1:], strict=True):
            assert isinstance(linear, nn.Linear)
            z = gabor(flat, _linear(z, linear.weight, linear.bias, self.hidden_dtype))
        result: Tensor = self.output(z)
        return result.view(*x.shape[:-1], -1)


class GaborFilter(nn.Module):
    """g(x) = sin(W x + b) exp(-gamma / 2 |x - mu|²), multiplied on to what it filters."""

    def __init__(self, inputs: int, outputs: int, shape: float, count: int) -> None:
        super().__init__()
        linear = nn.Linear(inputs, outputs)  # for its initial weights
        gamma = torch.distributions.Gamma(shape, 1.0, validate_args=False).sample((outputs,))
        self.mu = nn.Parameter(2 * torch.rand(outputs, inputs) - 1)
        self.gamma = nn.Parameter(gamma)
        self.weight = nn.Parameter(linear.weight.detach() * FILTER_SCALE / math.sqrt(count) * gamma[:, None].sqrt())
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-math.pi, math.pi))

    def forward(self, x: Tensor, filtered: Tensor | None) -> Tensor:
        """``filtered`` (P, outputs), or 1 where it is None, times the filter's values at x (P, inputs)."""
        parameters = self.weight, self.bias, self.mu, self.gamma
        result: Tensor = _GaborProduct.apply(x, filtered, *parameters)  # type: ignore[no-untyped-call]
        return result


class _GaborProduct(torch.autograd.Function):
    """h * sin(W x + b) exp(-gamma / 2 |x - mu|²), computed again for the gradients in place of kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor | None, weight: Tensor, bias: Tensor, mu: Tensor, gamma: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, h, weight, bias, mu, gamma)
        wave = torch.addmm(bias, x, weight.T).sin_().mul_(_envelope(x, mu, gamma)[1])
        return wave if h is None else wave.mul_(h)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (above,) = gradients
        x, h, weight, bias, mu, gamma = ctx.saved_tensors
        angle = torch.addmm(bias, x, weight.T)
        distance, envelope = _envelope(x, mu, gamma)
        wave = angle.sin()
        d_h = None if h is None else (above * (wave * envelope)).to(h.dtype)
        common = above * envelope if h is None else (above * h).mul_(envelope)
        d_angle = angle.cos_().mul_(common)
        d_exponent = wave.mul_(common).neg_()  # of -(gamma / 2) distance, its sign taken in
        d_gamma = 0.5 * (d_exponent * distance).sum(dim=0)
        d_distance = d_exponent.mul_(0.5 * gamma)
        d_x = d_angle @ weight + 2 * (x * d_distance.sum(dim=1, keepdim=True) - d_distance @ mu)
        d_mu = 2 * (mu * d_distance.sum(dim=0)[:, None] - d_distance.T @ x)
        return d_x, d_h, d_angle.T @ x, d_angle.sum(dim=0), d_mu, d_gamma


def _envelope(x: Tensor, mu: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """|x - mu|² and exp(-gamma / 2 of it), (P, outputs) each."""
    distance = torch.addmm(mu.square().sum(dim=1), x, mu.T, alpha=-2).add_(x.square().sum(dim=1, keepdim=True))
    return distance, torch.exp(-0.5 * gamma * distance)


def encode_positions(x: Tensor, num_frequencies: int) -> Tensor:
    """(..., D) to (..., D (1 + 2 F)): x itself, then of each of its numbers the sines and the cosines of pi 2^k x."""
    angles = x[..., None] * (math.pi * 2.0 ** torch.arange(num_frequencies, device=x.device))
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return torch.cat([x, waves.flatten(-2)], dim=-1)


class CouplingLayer(nn.Module):
    """Scale and shift of one axis from the two others and the frame's latent."""

    def __init__(self, latent_size: int, hidden: int, num_frequencies: int) -> None:
        super().__init__()
        self.num_frequencies, self.latent_size = num_frequencies, latent_size
        self.projector = nn.ModuleList(nn.Linear(latent_size, latent_size) for _ in range(2))
        self.encoder = nn.Linear(2 * (1 + 2 * num_frequencies), hidden)
        sizes = (latent_size + hidden, hidden, hidden, hidden)
        self.hidden = nn.ModuleList(nn.Linear(size, hidden) for size in sizes[:3])
        self.output = nn.Linear(hidden, 2)
        self.hidden_dtype: torch.dtype | None = None

    def of_frames(self, latents: Tensor) -> Tensor:
        """What each frame's latent (T, C) adds to the first hidden layer: (T, H)."""
        projected = self.projector[1](F.leaky_relu(self.projector[0](latents), LEAK))
        first = self.hidden[0]
        assert isinstance(first, nn.Linear)
        return F.linear(projected, first.weight[:, : self.latent_size], first.bias)

    def forward(self, added: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Log scale and shift, (B, N) each, at the other two axes (B, N, 2); ``added`` (B, H) by ``of_frames``."""
        first = self.hidden[0]
        assert isinstance(first, nn.Linear)
        encoded = self.encoder(encode_positions(others, self.num_frequencies))
        x = F.leaky_relu_(encoded.to(self.hidden_dtype or encoded.dtype), LEAK)
        x = _linear(x, first.weight[:, self.latent_size :], None, self.hidden_dtype)
        x = F.leaky_relu_(x.add_(added[:, None].to(x.dtype)), LEAK)
        for linear in list(self.hidden)[1:]:
            assert isinstance(linear, nn.Linear)
            x = F.leaky_relu_(_linear(x, linear.weight, linear.bias, self.hidden_dtype), LEAK)
        log_scale, shift = self.output(x.to(self.output.weight.dtype)).unbind(-1)
        return log_scale.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE), shift


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    """A layer in ``dtype``, or in that of its parameters."""
    dtype = dtype or weight.dtype
    return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


class FrameAffineNetwork(nn.Module):
    """An affine map of x and y from the frame's time and the depth, before the coupling layers.

    The paper has none and the published weights are without; the published code switches it on. It asks there for a
    network of two layers and gets one of eight by a misspelled argument, whose cost is a third of the whole map's.
    """

    def __init__(self, layers: int, hidden: int, num_frequencies: int) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        sizes = [2 + 2 * num_frequencies, *[hidden] * (layers - 1), 5]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))

    def forward(self, times: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """Rows (a, b, tx) and (c, d, ty) of the map, (B, N) each, for times (B,) and depths (B, N)."""
        angles = z[..., None] * (math.pi * 2.0 ** torch.arange(self.num_frequencies, device=z.device))
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        x = torch.cat([waves, times[:, None, None].expand(*z.shape, 1), z[..., None]], dim=-1)
        for linear in list(self.linears)[:-1]:
            x = F.relu_(linear(x))
        turn, log_sx, tx, log_sy, ty = self.linears[-1](x).unbind(-1)
        sx, sy = log_sx.exp(), log_sy.exp()
        return turn.cos() * sx, -turn.sin() * sx, tx, turn.sin() * sy, turn.cos() * sy, ty
