"""Gabor networks and coupling layers against their formulas, value and gradient."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from omnimotion_core.model.networks import CouplingLayer, FrameAffineNetwork, GaborFilter, GaborNet, encode_positions


def filters_of(net: GaborNet) -> list[GaborFilter]:
    return [part for part in net.filters if isinstance(part, GaborFilter)]


def plain_gabor(gabor: GaborFilter, x: Tensor) -> Tensor:
    """sin(W x + b) exp(-gamma / 2 |x - mu|²), filter by filter."""
    columns = []
    for k in range(len(gabor.gamma)):
        distance = (x - gabor.mu[k]).square().sum(dim=-1)
        wave = torch.sin((x * gabor.weight[k]).sum(dim=-1) + gabor.bias[k])
        columns.append(wave * torch.exp(-0.5 * gabor.gamma[k] * distance))
    return torch.stack(columns, dim=-1)


def test_a_gabor_network_is_its_formula() -> None:
    net = GaborNet(3, 8, 4, layers=2, alpha=3.0).double()
    x = torch.randn(5, 7, 3, dtype=torch.float64)
    z = plain_gabor(filters_of(net)[0], x)
    for gabor, linear in zip(filters_of(net)[1:], net.linears, strict=True):
        z = plain_gabor(gabor, x) * linear(z)
    torch.testing.assert_close(net(x), net.output(z), rtol=1e-9, atol=1e-9)


def test_the_filters_own_gradients_are_autograds() -> None:
    gabor = GaborFilter(3, 6, 1.0, 3).double()
    x = torch.rand(9, 3, dtype=torch.float64, requires_grad=True)
    h = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    for filtered in (h, None):
        inputs = [x, *([h] if filtered is not None else []), *gabor.parameters()]
        above = torch.randn(9, 6, dtype=torch.float64)
        ours = torch.autograd.grad((gabor(x, filtered) * above).sum(), inputs)
        plain = plain_gabor(gabor, x) * (h if filtered is not None else 1.0)
        for got, wanted in zip(ours, torch.autograd.grad((plain * above).sum(), inputs), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


def test_the_filters_begin_as_published() -> None:
    gabor = GaborFilter(3, 20_000, 1.5, 3).requires_grad_(False)
    assert abs(float(gabor.gamma.mean()) - 1.5) < 0.05  # of Gamma(1.5, 1)
    assert abs(float(gabor.gamma.var()) - 1.5) < 0.1
    assert float(gabor.mu.abs().max()) <= 1
    assert float(gabor.bias.abs().max()) <= math.pi
    scale = gabor.weight / gabor.gamma[:, None].sqrt() / (256 / math.sqrt(3))  # the default of a linear layer
    assert float(scale.abs().max()) <= 1 / math.sqrt(3) + 1e-5
    assert abs(float(scale.var()) - 1 / 9) < 0.005


def test_positions_are_encoded_number_by_number() -> None:
    x = torch.tensor([[0.3, -0.7]])
    expected = [0.3, -0.7]
    for value in (0.3, -0.7):
        expected += [math.sin(math.pi * 2**k * value) for k in range(3)]
        expected += [math.cos(math.pi * 2**k * value) for k in range(3)]
    torch.testing.assert_close(encode_positions(x, 3), torch.tensor([expected]), rtol=1e-5, atol=1e-5)


def test_a_latent_worked_out_once_a_frame_gives_what_it_gives_at_every_point() -> None:
    layer = CouplingLayer(5, 7, 2).double()
    latents, others = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 11, 2, dtype=torch.float64)
    log_scale, shift = layer(layer.of_frames(latents), others)
    projected = layer.projector[1](F.leaky_relu(layer.projector[0](latents), 0.01))[:, None].expand(3, 11, 5)
    x = torch.cat([projected, F.leaky_relu(layer.encoder(encode_positions(others, 2)), 0.01)], dim=-1)
    for linear in layer.hidden:
        x = F.leaky_relu(linear(x), 0.01)
    torch.testing.assert_close(torch.stack([log_scale, shift], dim=-1), layer.output(x))


def test_log_scales_are_held() -> None:
    layer = CouplingLayer(4, 8, 2)
    with torch.no_grad():
        layer.output.bias.copy_(torch.tensor([100.0, 3.0]))
    log_scale, shift = layer(layer.of_frames(torch.zeros(1, 4)), torch.zeros(1, 2, 2))
    assert log_scale.tolist() == [[8.0, 8.0]]
    assert (shift > 2).all()


def test_the_affine_network_turns_scales_and_shifts() -> None:
    network = FrameAffineNetwork(2, 8, 4).requires_grad_(False)
    last = network.linears[-1]
    assert isinstance(last, torch.nn.Linear)
    last.weight.zero_()
    last.bias.copy_(torch.tensor([math.pi / 2, math.log(2.0), 0.1, math.log(3.0), 0.2]))
    a, b, tx, c, d, ty = (float(value) for value in network(torch.ones(1), torch.zeros(1, 1)))
    assert (round(a * 1 + b * 0 + tx, 5), round(c * 1 + d * 0 + ty, 5)) == (0.1, 3.2)  # x goes to y, three times as far
    assert (round(a * 0 + b * 1 + tx, 5), round(c * 0 + d * 1 + ty, 5)) == (-1.9, 0.2)
