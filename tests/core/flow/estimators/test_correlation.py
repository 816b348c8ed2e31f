"""Both forms of RAFT's correlation lookup against a loop over pixels and positions."""

import math

import pytest
import torch
from torch import Tensor

from omnimotion_core.flow.estimators.correlation import LEVELS, OnDemand, Volume, correlate, volume_bytes


def at(picture: Tensor, x: float, y: float) -> float:
    """One value of ``picture`` (h, w), bilinear, 0 outside."""
    value = 0.0
    for column, row in ((math.floor(x) + a, math.floor(y) + b) for a in (0, 1) for b in (0, 1)):
        if 0 <= column < picture.shape[1] and 0 <= row < picture.shape[0]:
            value += float(picture[row, column]) * (1 - abs(x - column)) * (1 - abs(y - row))
    return value


def slow_lookup(source: Tensor, target: Tensor, points: Tensor, radius: int) -> Tensor:
    """Position by position: means over blocks of the whole volume, as the paper says it."""
    count, channels, height, width = source.shape
    found = torch.zeros(count, LEVELS * (2 * radius + 1) ** 2, height, width)
    for b, row, column in ((b, y, x) for b in range(count) for y in range(height) for x in range(width)):
        plane = torch.einsum("c,chw->hw", source[b, :, row, column], target[b]) / math.sqrt(channels)
        x, y = points[b, :, row, column].tolist()
        channel = 0
        for level in range(LEVELS):
            if level:
                plane = torch.nn.functional.avg_pool2d(plane[None], 2)[0]
            for dx in range(-radius, radius + 1):
                for dy in range(-radius, radius + 1):
                    found[b, channel, row, column] = at(plane, x / 2**level + dx, y / 2**level + dy)
                    channel += 1
    return found


@pytest.fixture
def features() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    source, target = (torch.randn(2, 8, 17, 18, generator=generator)[:, :, :h] for h in (3, 17))
    points = torch.rand(2, 2, 3, 18, generator=generator) * 26 - 4  # some outside of the target
    return source, target, points


@pytest.mark.parametrize("form", [Volume, OnDemand])
def test_a_lookup_is_the_interpolated_correlation_at_each_position(
    form: type[Volume] | type[OnDemand], features: tuple[Tensor, Tensor, Tensor]
) -> None:
    source, target, points = features
    torch.testing.assert_close(
        form(source, target, 1).lookup(points), slow_lookup(source, target, points, 1), atol=1e-5, rtol=0
    )


def test_chunks_of_the_form_on_demand_do_not_show(
    features: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, points = features
    whole = OnDemand(source, target, 2).lookup(points)
    monkeypatch.setattr("omnimotion_core.flow.estimators.correlation.CHUNK_BYTES", 10_000)
    torch.testing.assert_close(OnDemand(source, target, 2).lookup(points), whole, atol=1e-6, rtol=0)


def test_the_volume_is_taken_up_to_the_bound_and_not_beyond(features: tuple[Tensor, Tensor, Tensor]) -> None:
    source, target, _ = features
    bound = volume_bytes(source, target)
    assert isinstance(correlate(source, target, 1, bound), Volume)
    assert isinstance(correlate(source, target, 1, bound - 1), OnDemand)
    held = sum(level.numel() * 4 for level, _ in Volume(source, target, 1)._levels)
    assert 0.95 * bound <= held <= bound
