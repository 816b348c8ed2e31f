"""The tables of the couplings as compiled loops, for the CPU: levels added up, their roughness, and both gradients.

A step adds up tables of millions of entries and takes their gradient apart again. Of each entry of a coarse level only
two neighbors in time and two along each axis matter, which products of matrices do not know.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnimotion_core.compilation import compiled
from omnimotion_core.model.invertible import SPACE_ROUGHNESS, TIME_ROUGHNESS, TabulatedCouplings, level_weights
from omnimotion_core.optimization.halves import in_halves

_ONE, _ZERO = np.float32(1), np.float32(0)


@compiled
def _add_level(table, knot, past_knot, cell, past_cell, total, layer):  # type: ignore[no-untyped-def]
    """Add one layer of a level (L, K, 2, r, r), read between its knots, to ``total`` (L, T, 2, R, R).

    Turned over on the way, so that the innermost loop always runs along entries that lie side by side.
    """
    last_knot, coarse, fine = table.shape[1] - 1, table.shape[3], total.shape[3]
    small, wide = np.empty((coarse, coarse), np.float32), np.empty((coarse, fine), np.float32)
    line = np.empty(coarse, np.float32)
    for t in range(total.shape[1]):
        in_time = past_knot[t]
        for channel in range(2):
            before = table[layer, knot[t], channel]
            after = table[layer, min(knot[t] + 1, last_knot), channel]
            for row in range(coarse):
                for column in range(coarse):
                    small[column, row] = before[row, column] * (_ONE - in_time) + after[row, column] * in_time
            for column in range(fine):
                left, right, across = small[cell[column]], small[cell[column] + 1], past_cell[column]
                for row in range(coarse):
                    line[row] = left[row] * (_ONE - across) + right[row] * across
                for row in range(coarse):
                    wide[row, column] = line[row]
            for row in range(fine):
                above, below, down = wide[cell[row]], wide[cell[row] + 1], past_cell[row]
                sums = total[layer, t, channel, row]
                for column in range(fine):
                    sums[column] += above[column] * (_ONE - down) + below[column] * down


@compiled
def _take_apart(gradient, knot, past_knot, cell, past_cell, of_level, layer):  # type: ignore[no-untyped-def]
    """Add to one layer of ``of_level`` (L, K, 2, r, r) what the ``gradient`` (L, T, 2, R, R) of the sum tells of it."""
    last_knot, coarse, fine = of_level.shape[1] - 1, of_level.shape[3], gradient.shape[3]
    wide, small = np.empty((coarse, fine), np.float32), np.empty((coarse, coarse), np.float32)
    line = np.empty(coarse, np.float32)
    for t in range(gradient.shape[1]):
        in_time = past_knot[t]
        for channel in range(2):
            wide[:], small[:] = _ZERO, _ZERO
            for row in range(fine):
                above, below, down = wide[cell[row]], wide[cell[row] + 1], past_cell[row]
                here = gradient[layer, t, channel, row]
                for column in range(fine):
                    above[column] += here[column] * (_ONE - down)
                    below[column] += here[column] * down
            for column in range(fine):
                left, right, across = small[cell[column]], small[cell[column] + 1], past_cell[column]
                for row in range(coarse):
                    line[row] = wide[row, column]
                for row in range(coarse):
                    left[row] += line[row] * (_ONE - across)
                    right[row] += line[row] * across
            before = of_level[layer, knot[t], channel]
            after = of_level[layer, min(knot[t] + 1, last_knot), channel]
            for row in range(coarse):
                for column in range(coarse):
                    before[row, column] += small[column, row] * (_ONE - in_time)
                    after[row, column] += small[column, row] * in_time


@compiled
def _roughness(table, in_time, in_space, gradient, layer):  # type: ignore[no-untyped-def]
    """Weighted sum of squared differences between neighboring knots of one layer of a table (L, K, 2, R, R).

    Fills its ``gradient``, half of whose product with the table is the sum, since that is quadratic.
    """
    times, rows, columns = table.shape[1], table.shape[3], table.shape[4]
    total = 0.0
    for t in range(times):
        for channel in range(2):
            for row in range(rows):
                here, g = table[layer, t, channel, row], gradient[layer, t, channel, row]
                above = table[layer, t, channel, max(row - 1, 0)]  # beyond the border the entry itself: no difference
                below = table[layer, t, channel, min(row + 1, rows - 1)]
                earlier = table[layer, max(t - 1, 0), channel, row]
                later = table[layer, min(t + 1, times - 1), channel, row]
                for column in range(columns):
                    twice = here[column] + here[column]
                    in_row = twice - above[column] - below[column]
                    over_time = twice - earlier[column] - later[column]
                    g[column] = in_space * in_row + in_time * over_time
                for column in range(columns - 1):
                    difference = in_space * (here[column + 1] - here[column])
                    g[column] -= difference
                    g[column + 1] += difference
                energy = _ZERO
                for column in range(columns):
                    energy += here[column] * g[column]
                    g[column] += g[column]
                total += float(energy)
    return total


class CompiledTables:
    """``TabulatedCouplings.tables_by_frame`` and ``.roughness`` on the CPU.

    Args:
        pool: of which a thread takes half of the layers; the values do not depend on it.
    """

    def __init__(self, couplings: TabulatedCouplings, pool: Executor | None = None) -> None:
        self._couplings, self._pool = couplings, pool
        count = len(couplings.tables)
        self._in_time = [_taps(getattr(couplings, f"time_weights_{level}")) for level in range(count)]
        self._in_space = {
            (level, finest): _taps(getattr(couplings, f"knot_weights_{level}_{finest}"))
            for level in range(count) for finest in range(level, count)
        }  # fmt: skip

    def by_frame(self) -> Tensor:
        """The tables of each layer in each frame, all levels that count added: (L, T, 2, R, R); differentiable."""
        tables = list(self._couplings.tables[: self._couplings.levels])
        total: Tensor = _Sum.apply(self, *tables)  # type: ignore[no-untyped-call]
        return total

    def roughness(self, factor: float = 1.0) -> Tensor:
        """``factor`` times how much the tables that count change from knot to knot; differentiable."""
        couplings = self._couplings
        total = couplings.extent.new_zeros(())
        weights = level_weights(len(couplings.tables))
        for table, weight in zip(couplings.tables[: couplings.levels], weights, strict=False):
            layers, times, channels, rows, columns = table.shape
            tiles = layers * channels
            in_time = factor * weight * TIME_ROUGHNESS / max(tiles * (times - 1) * rows * columns, 1)
            in_space = factor * weight * SPACE_ROUGHNESS / (tiles * times * (rows - 1) * columns)
            total = total + _Roughness.apply(self, table, in_time, in_space)  # type: ignore[no-untyped-call]
        return total

    def add_up(self, tables: list[np.ndarray]) -> np.ndarray:
        """The levels added up, (L, T, 2, R, R)."""
        finest, frames = len(tables) - 1, self._couplings.num_frames
        layers, knots, channels, side, _ = tables[-1].shape
        total = tables[-1].copy() if knots == frames else np.zeros((layers, frames, channels, side, side), np.float32)
        for level, table in enumerate(tables if knots != frames else tables[:-1]):
            taps = *self._in_time[level], *self._in_space[level, finest]
            self.each_layer(lambda layer, table=table, taps=taps: _add_level(table, *taps, total, layer))  # type: ignore[misc]
        return total

    def take_apart(self, gradient: np.ndarray, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        """What the ``gradient`` of the sum is for each level."""
        finest, found = len(shapes) - 1, []
        for level, shape in enumerate(shapes):
            if level == finest and shape == gradient.shape:
                found.append(gradient)
                continue
            of_level = np.zeros(shape, np.float32)
            taps = *self._in_time[level], *self._in_space[level, finest]
            self.each_layer(lambda layer, g=of_level, taps=taps: _take_apart(gradient, *taps, g, layer))  # type: ignore[misc]
            found.append(of_level)
        return found

    def each_layer(self, work: Callable[[int], Any]) -> list[Any]:
        """``work`` for each layer."""

        def some(start: int, end: int) -> list[Any]:
            return [work(layer) for layer in range(start, end)]

        first, second = in_halves(self._pool, self._couplings.num_layers, some)
        return first + second


def _taps(weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of weights (P, K) of linear interpolation: the knot before each position, and how far past it that lies, 0..1."""
    matrix = weights.numpy(force=True)
    knot = np.minimum((matrix > 0).argmax(axis=1), max(matrix.shape[1] - 2, 0))
    last = np.minimum(knot + 1, matrix.shape[1] - 1)
    past = np.where(last > knot, matrix[np.arange(len(matrix)), last], 0.0)
    return knot.astype(np.int64), past.astype(np.float32)


def scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """``gradient`` times what comes from above, which is nearly always 1: a pass over all entries less."""
    return gradient if float(factor) == 1.0 else gradient * factor


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, owner: CompiledTables, *tables: Tensor) -> Tensor:
        ctx.owner, ctx.shapes = owner, [tuple(table.shape) for table in tables]
        return torch.from_numpy(owner.add_up([table.numpy(force=True) for table in tables]))

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient = grad[0].contiguous().numpy()
        return None, *(torch.from_numpy(part) for part in ctx.owner.take_apart(gradient, ctx.shapes))


class _Roughness(torch.autograd.Function):
    """Value and gradient at once; backward only hands the gradient on."""

    @staticmethod
    def forward(ctx: Any, owner: CompiledTables, table: Tensor, in_time: float, in_space: float) -> Tensor:
        gradient, values = torch.empty_like(table), table.numpy(force=True)
        filled, factors = gradient.numpy(), (np.float32(in_time), np.float32(in_space))
        parts = owner.each_layer(lambda layer: _roughness(values, *factors, filled, layer))
        ctx.save_for_backward(gradient)
        return table.new_tensor(sum(parts))

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[None, Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return None, scaled(gradient, grad[0]), None, None
