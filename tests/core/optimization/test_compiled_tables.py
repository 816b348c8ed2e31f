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
    for levels in range(1, len(couplings.tables) + 1):
        couplings.levels = levels
        expected, found = couplings.tables_by_frame(), compiled.by_frame()
        np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
        wanted = torch.randn(expected.shape, generator=torch.Generator().manual_seed(4))
        tables = list(couplings.tables[:levels])
        for one, other in zip(
            torch.autograd.grad(found, tables, wanted), torch.autograd.grad(expected, tables, wanted), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_roughness_and_its_gradient_are_those_of_the_formula(couplings: TabulatedCouplings) -> None:
    compiled = CompiledTables(couplings)
    for levels in range(1, len(couplings.tables) + 1):
        couplings.levels = levels
        expected, found = 3 * couplings.roughness(), compiled.roughness(3.0)
        np.testing.assert_allclose(found.item(), expected.item(), rtol=1e-5)
        tables = list(couplings.tables[:levels])
        for one, other in zip(torch.autograd.grad(found, tables), torch.autograd.grad(expected, tables), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


def test_threads_change_no_digit(couplings: TabulatedCouplings) -> None:
    def step(compiled: CompiledTables) -> list[torch.Tensor]:
        couplings.zero_grad()
        total = compiled.by_frame()
        (total.square().sum() + compiled.roughness()).backward()
        return [total.detach(), *(table.grad.clone() for table in couplings.tables if table.grad is not None)]

    with ThreadPoolExecutor(2) as pool:
        for one, other in zip(step(CompiledTables(couplings)), step(CompiledTables(couplings, pool)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_sum_is_no_view_of_the_tables(couplings: TabulatedCouplings) -> None:
    before = [table.detach().clone() for table in couplings.tables]
    CompiledTables(couplings).by_frame().detach().zero_()
    for table, kept in zip(couplings.tables, before, strict=True):
        np.testing.assert_array_equal(table.detach(), kept)
