"""The tables of the couplings as compiled loops, for the CPU: levels added up, their roughness, and both gradients.

A step adds up tables of millions of entries and takes their gradient apart again. Of each entry of a coarse level only
two neighbors in time and two along each axis matter, which products of matrices do not know. Everything is written to
memory that is kept from step to step: the system takes longer to hand out new memory than a loop to fill it.
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

    First in space, for each of the few knots in time, and turned over on the way, so that the innermost loop always
    runs along entries that lie side by side.
    """
    knots, coarse, fine = table.shape[1], table.shape[3], total.shape[3]
    turned, wide = np.empty((coarse, coarse), np.float32), np.empty((coarse, fine), np.float32)
    line, spread = np.empty(coarse, np.float32), np.empty((knots, 2, fine, fine), np.float32)
    for k in range(knots):
        for channel in range(2):
            values = table[layer, k, channel]
            for row in range(coarse):
                for column in range(coarse):
                    turned[column, row] = values[row, column]
            for column in range(fine):
                left, right, across = turned[cell[column]], turned[cell[column] + 1], past_cell[column]
                for row in range(coarse):
                    line[row] = left[row] * (_ONE - across) + right[row] * across
                for row in range(coarse):
                    wide[row, column] = line[row]
            for row in range(fine):
                above, below, down = wide[cell[row]], wide[cell[row] + 1], past_cell[row]
                found = spread[k, channel, row]
                for column in range(fine):
                    found[column] = above[column] * (_ONE - down) + below[column] * down
    for t in range(total.shape[1]):
        before, after = spread[knot[t]].reshape(-1), spread[min(knot[t] + 1, knots - 1)].reshape(-1)
        in_time, sums = past_knot[t], total[layer, t].reshape(-1)
        for entry in range(sums.size):
            sums[entry] += before[entry] * (_ONE - in_time) + after[entry] * in_time


@compiled
def _take_apart(gradient, knot, past_knot, cell, past_cell, of_level, layer):  # type: ignore[no-untyped-def]
    """Add to one layer of ``of_level`` (L, K, 2, r, r) what the ``gradient`` (L, T, 2, R, R) of the sum tells of it."""
    knots, coarse, fine = of_level.shape[1], of_level.shape[3], gradient.shape[3]
    wide, turned = np.empty((coarse, fine), np.float32), np.empty((coarse, coarse), np.float32)
    line, spread = np.empty(coarse, np.float32), np.zeros((knots, 2, fine, fine), np.float32)
    for t in range(gradient.shape[1]):
        before, after = spread[knot[t]].reshape(-1), spread[min(knot[t] + 1, knots - 1)].reshape(-1)
        in_time, here = past_knot[t], gradient[layer, t].reshape(-1)
        for entry in range(here.size):
            before[entry] += here[entry] * (_ONE - in_time)
        for entry in range(here.size):
            after[entry] += here[entry] * in_time
    for k in range(knots):
        for channel in range(2):
            wide[:], turned[:] = _ZERO, _ZERO
            for row in range(fine):
                above, below, down = wide[cell[row]], wide[cell[row] + 1], past_cell[row]
                found = spread[k, channel, row]
                for column in range(fine):
                    above[column] += found[column] * (_ONE - down)
                for column in range(fine):
                    below[column] += found[column] * down
            for column in range(fine):
                left, right, across = turned[cell[column]], turned[cell[column] + 1], past_cell[column]
                for row in range(coarse):
                    line[row] = wide[row, column]
                for row in range(coarse):
                    left[row] += line[row] * (_ONE - across)
                    right[row] += line[row] * across
            values = of_level[layer, k, channel]
            for row in range(coarse):
                for column in range(coarse):
                    values[row, column] += turned[column, row]


@compiled
def _roughness(table, in_time, in_space, gradient, layer):  # type: ignore[no-untyped-def]
    """Weighted sum of squared differences between neighboring knots of one layer of a table (L, K, 2, R, R).

    Adds its gradient to ``gradient``; half of the product of that and the table is the sum, since it is quadratic.
    """
    times, rows, columns = table.shape[1], table.shape[3], table.shape[4]
    slope = np.empty(columns, np.float32)
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
                    slope[column] = in_space * in_row + in_time * over_time
                for column in range(columns - 1):
                    difference = in_space * (here[column + 1] - here[column])
                    slope[column] -= difference
                    slope[column + 1] += difference
                energy = _ZERO
                for column in range(columns):
                    energy += here[column] * slope[column]
                    g[column] += slope[column] + slope[column]
                total += float(energy)
    return total


@compiled
def add_to(total, part):  # type: ignore[no-untyped-def]
    """Add flat ``part`` to ``total``."""
    for k in range(total.size):
        total[k] += part[k]


class CompiledTables:
    """``TabulatedCouplings.tables_by_frame`` and ``.roughness`` on the CPU, and the gradients of what is made of them.

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
        self._total: np.ndarray = np.empty(0, np.float32)
        self._gradients = [np.empty(table.shape, np.float32) for table in couplings.tables]

    def by_frame(self) -> np.ndarray:
        """The tables of each layer in each frame, all levels that count added: (L, T, 2, R, R).

        The next call writes to the same memory.
        """
        tables, finest = self._tables(), self._couplings.levels - 1
        layers, knots, channels, side, _ = tables[-1].shape
        shape = layers, self._couplings.num_frames, channels, side, side
        if self._total.shape != shape:
            self._total = np.empty(shape, np.float32)
        total, whole = self._total, knots == self._couplings.num_frames

        def add_up(layer: int) -> None:
            total[layer] = tables[-1][layer] if whole else _ZERO
            for level in range(finest if whole else finest + 1):
                _add_level(tables[level], *self._in_time[level], *self._in_space[level, finest], total, layer)

        self._each_layer(add_up)
        return total

    def backward(self, of_total: np.ndarray, more: np.ndarray, smoothness: float) -> float:
        """Give the tables that count their gradients, which last until the next call, and those that do not none.

        Args:
            of_total, more: parts of the gradient of what is made of ``by_frame``; the first is written to.
            smoothness: factor of the roughness.
        Returns:
            ``smoothness`` times how much the tables that count change from knot to knot.
        """
        tables, finest = self._tables(), self._couplings.levels - 1
        factors = self._roughness_factors(smoothness)
        gradients = self._gradients[: finest + 1]
        if tables[-1].shape == of_total.shape:
            gradients[-1] = of_total
        apart = [level for level, gradient in enumerate(gradients) if gradient is not of_total]

        def part(layer: int) -> float:
            add_to(of_total[layer].reshape(-1), more[layer].reshape(-1))
            for level in apart:
                gradients[level][layer] = _ZERO
                taps = *self._in_time[level], *self._in_space[level, finest]
                _take_apart(of_total, *taps, gradients[level], layer)
            levels = zip(tables, factors, gradients, strict=True)
            return sum(_roughness(table, *factor, gradient, layer) for table, factor, gradient in levels)

        values = self._each_layer(part)
        for level, table in enumerate(self._couplings.tables):
            table.grad = torch.from_numpy(gradients[level]) if level <= finest else None
        return sum(values)

    def _tables(self) -> list[np.ndarray]:
        """Those that count."""
        return [table.numpy(force=True) for table in self._couplings.tables[: self._couplings.levels]]

    def _roughness_factors(self, smoothness: float) -> list[tuple[np.float32, np.float32]]:
        """Of each level's squared differences in time and in space."""
        factors = []
        weights = level_weights(len(self._couplings.tables))
        for table, weight in zip(self._tables(), weights, strict=False):
            layers, times, channels, rows, columns = table.shape
            tiles = layers * channels
            in_time = smoothness * weight * TIME_ROUGHNESS / max(tiles * (times - 1) * rows * columns, 1)
            in_space = smoothness * weight * SPACE_ROUGHNESS / (tiles * times * (rows - 1) * columns)
            factors.append((np.float32(in_time), np.float32(in_space)))
        return factors

    def _each_layer(self, work: Callable[[int], Any]) -> list[Any]:
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
