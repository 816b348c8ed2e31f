import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from omnimotion_core.model.interpolation import time_weights
from omnimotion_core.model.invertible import TabulatedCouplings
from omnimotion_core.optimization.compiled_tables import CompiledTables

SEGMENTS = (range(7), range(7, 8), range(8, 13))  # a shot of one frame between two
LEVELS = {
    "three levels": ((6.0, 3), (2.0, 5), (1.0, 9)),
    "one level": ((4.0, 5),),
    "coarse in time": ((6.0, 3), (3.0, 8)),
}


@pytest.fixture(params=LEVELS, ids=str)
def couplings(request: pytest.FixtureRequest) -> TabulatedCouplings:
    levels = LEVELS[request.param]
    weights = [time_weights(SEGMENTS, step) for step, _ in levels]
    generator = torch.Generator().manual_seed(3)
    made = TabulatedCouplings(5, weights, [knots for _, knots in levels], torch.ones(3), torch.zeros(3), generator)
    with torch.no_grad():
        for table in made.tables:
            table.copy_(torch.randn(table.shape, generator=generator))
    return made


def test_levels_add_up_as_by_products_of_matrices(couplings: TabulatedCouplings) -> None:
    compiled = CompiledTables(couplings)
    generator = torch.Generator().manual_seed(4)
    for levels in range(1, len(couplings.tables) + 1):
        couplings.levels = levels
        expected, found = couplings.tables_by_frame(), compiled.by_frame()
        np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-6)
        one, other = torch.randn(2, *expected.shape, generator=generator)
        wanted = torch.autograd.grad(expected, list(couplings.tables[:levels]), one + other)
        assert compiled.backward(one.numpy(), other.numpy(), smoothness=0.0) == 0.0
        assert_gradients(couplings, wanted)


def test_roughness_and_its_gradient_are_those_of_the_formula(couplings: TabulatedCouplings) -> None:
    compiled = CompiledTables(couplings)
    for levels in range(1, len(couplings.tables) + 1):
        couplings.levels = levels
        expected, nothing = 3 * couplings.roughness(), np.zeros_like(compiled.by_frame())
        wanted = torch.autograd.grad(expected, list(couplings.tables[:levels]))
        np.testing.assert_allclose(compiled.backward(nothing, nothing.copy(), 3.0), expected.item(), rtol=1e-5)
        assert_gradients(couplings, wanted)


def assert_gradients(couplings: TabulatedCouplings, wanted: Sequence[torch.Tensor]) -> None:
    """The first tables have these gradients, and the others none."""
    for table, gradient in itertools.zip_longest(couplings.tables, wanted):
        assert (table.grad is None) == (gradient is None)
        if gradient is not None:
            np.testing.assert_allclose(table.grad, gradient, rtol=1e-4, atol=1e-5)


def test_threads_change_no_digit(couplings: TabulatedCouplings) -> None:
    def step(compiled: CompiledTables) -> list[np.ndarray]:
        total = compiled.by_frame().copy()
        value = compiled.backward(2 * total, total**2, 1.0)
        return [total, np.array(value), *(table.grad.numpy().copy() for table in couplings.tables)]

    with ThreadPoolExecutor(2) as pool:
        for one, other in zip(step(CompiledTables(couplings)), step(CompiledTables(couplings, pool)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_sum_is_no_view_of_the_tables(couplings: TabulatedCouplings) -> None:
    before = [table.detach().clone() for table in couplings.tables]
    CompiledTables(couplings).by_frame()[:] = 0
    for table, kept in zip(couplings.tables, before, strict=True):
        np.testing.assert_array_equal(table.detach(), kept)
