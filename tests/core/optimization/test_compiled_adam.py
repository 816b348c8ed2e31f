from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omnimotion_core.optimization import compiled_adam
from omnimotion_core.optimization.compiled_adam import CompiledAdam

BETAS = (0.9, 0.99)


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((3, 5), (70,), (2, 4, 6))]


def groups(values: list[Tensor]) -> list[dict[str, Any]]:
    return [{"params": values[:2], "lr": 1e-2}, {"params": values[2:], "lr": 3e-3}]


def advance(optimizer: Any, values: list[Tensor], steps: range) -> None:
    """Steps with other rates and gradients each; the second parameter has none in the first three."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad(set_to_none=True)
        for index, value in enumerate(values):
            gradient = torch.randn(value.shape, generator=generator) * 10.0 ** (index - 1)
            value.grad = None if index == 1 and step < 3 else gradient
        optimizer.param_groups[1]["lr"] = 3e-3 / (1 + step)
        optimizer.step()


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), rtol=1e-5, atol=1e-6)


def test_steps_are_those_of_torch() -> None:
    ours, theirs = parameters(), parameters()
    advance(CompiledAdam(groups(ours), betas=BETAS), ours, range(12))
    advance(torch.optim.Adam(groups(theirs), betas=BETAS), theirs, range(12))
    assert_same(ours, theirs)
    assert not torch.equal(ours[1], parameters()[1])


def test_what_one_kept_the_other_goes_on_from() -> None:
    whole, kept, other = parameters(), parameters(), parameters()
    advance(torch.optim.Adam(groups(whole), betas=BETAS), whole, range(12))
    before = CompiledAdam(groups(kept), betas=BETAS)
    advance(before, kept, range(6))
    for make in (CompiledAdam, torch.optim.Adam):
        with torch.no_grad():
            for value, reached in zip(other, kept, strict=True):
                value.copy_(reached)
        after = make(groups(other), betas=BETAS)
        if make is torch.optim.Adam:  # whose groups hold more
            state = {**before.state_dict(), "param_groups": after.state_dict()["param_groups"]}
        else:
            state = before.state_dict()
        after.load_state_dict(state)
        advance(after, other, range(6, 12))
        assert_same(other, whole)


def test_a_loaded_state_is_a_copy() -> None:
    values = parameters()
    first = CompiledAdam(groups(values), betas=BETAS)
    advance(first, values, range(2))
    second = CompiledAdam(groups(values), betas=BETAS)
    second.load_state_dict(first.state_dict())
    kept = first.state_dict()["state"][0]["exp_avg"].clone()
    advance(second, values, range(2, 4))
    assert torch.equal(first.state_dict()["state"][0]["exp_avg"], kept)


def test_threads_change_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_adam, "SHARED", 20)
    one, two = parameters(), parameters()
    advance(CompiledAdam(groups(one), betas=BETAS), one, range(5))
    with ThreadPoolExecutor(2) as pool:
        advance(CompiledAdam(groups(two), betas=BETAS, pool=pool), two, range(5))
    for first, second in zip(one, two, strict=True):
        assert torch.equal(first, second)


def test_gradients_are_dropped_or_set_to_zero() -> None:
    values = parameters()
    optimizer = CompiledAdam(groups(values), betas=BETAS)
    values[0].grad = torch.ones_like(values[0])
    optimizer.zero_grad(set_to_none=False)
    assert values[0].grad is not None
    assert float(values[0].grad.abs().max()) == 0
    optimizer.zero_grad()
    assert values[0].grad is None
