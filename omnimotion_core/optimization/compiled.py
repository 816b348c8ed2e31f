"""The loss of a batch of matches and its gradient as one compiled loop, for the CPU.

What ``loop`` asks of torch on other devices (lift, map to canonical, map to the other frame, compare) is done here
match by match, forward and back, with the derivatives written out. A few numbers a layer are kept on the way.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from omnimotion_core.model.field import Field
from omnimotion_core.model.invertible import (
    MAX_RAW,
    SPACE_ROUGHNESS,
    TIME_ROUGHNESS,
    TabulatedCouplings,
    level_weights,
)
from omnimotion_core.model.kernels import (
    bilinear,
    cell_position,
    compiled,
    depth_position,
    knot_position,
    transformed_axis,
)
from omnimotion_core.optimization.losses import SOFTENING_PX
from omnimotion_core.optimization.sampling import Batch

PARTS = 2  # of a batch, each with gradients of its own; always as many, so that sums do not depend on the threads

_ONE, _ZERO, _HALF = np.float32(1), np.float32(0), np.float32(0.5)
_SOFTENING, _MAX_RAW = np.float32(SOFTENING_PX), np.float32(MAX_RAW)


@numba.njit(inline="always")
def _spread(table, row, column, down, across, value):  # type: ignore[no-untyped-def]
    """Add ``value`` to the four entries that ``bilinear`` reads, by their weights."""
    table[row, column] += value * (_ONE - across) * (_ONE - down)
    table[row, column + 1] += value * across * (_ONE - down)
    table[row + 1, column] += value * (_ONE - across) * down
    table[row + 1, column + 1] += value * across * down


@numba.njit(inline="always")
def _slopes(table, row, column, down, across):  # type: ignore[no-untyped-def]
    """How ``bilinear`` changes with ``across`` and with ``down``."""
    along = (table[row, column + 1] - table[row, column]) * (_ONE - down)
    along += (table[row + 1, column + 1] - table[row + 1, column]) * down
    below = (table[row + 1, column] - table[row, column]) * (_ONE - across)
    below += (table[row + 1, column + 1] - table[row, column + 1]) * across
    return along, below


@compiled
def _part(  # type: ignore[no-untyped-def]
    tables, affine, depth, center, extent, half, cell, frames_from, frames_to, source, target, weight, on_surface,
    scale, robust, depth_weight, g_tables, g_affine, g_depth, start, end,
):  # fmt: skip
    """Loss of the matches [start, end), their gradients added to ``g_…``; ``weight`` is each one's share of it."""
    layers, knots = tables.shape[0], tables.shape[4]
    height, width = depth.shape[1], depth.shape[2]
    count = 2 * layers  # there through all layers, and back through all in the other frame
    half_knots = _HALF * np.float32(knots - 1)
    raws, scales, befores = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.float32)
    columns, rows = np.empty(count, np.int64), np.empty(count, np.int64)
    acrosses, downs = np.empty(count, np.float32), np.empty(count, np.float32)
    frees_a, frees_b = np.empty(count, np.float32), np.empty(count, np.float32)
    v, g = np.empty(3, np.float32), np.empty(3, np.float32)
    loss = 0.0
    for m in range(start, end):
        i, j, share = frames_from[m], frames_to[m], weight[m]
        from_column, from_across, _ = cell_position(source[m, 0], cell, width)
        from_row, from_down, _ = cell_position(source[m, 1], cell, height)
        here = depth[i]
        from_down, from_across, _, _ = depth_position(here, from_row, from_column, from_down, from_across, _ONE, _ONE)
        x, y = source[m, 0] / half[0] - _ONE, source[m, 1] / half[1] - _ONE
        v[0] = affine[i, 0] * x + affine[i, 1] * y + affine[i, 2]
        v[1] = affine[i, 3] * x + affine[i, 4] * y + affine[i, 5]
        v[2] = bilinear(depth[i], from_row, from_column, from_down, from_across)
        for n in range(count):
            layer, t = (n, i) if n < layers else (count - 1 - n, j)
            c = transformed_axis(layer)
            a, b = (1 if c == 0 else 0), (1 if c == 2 else 2)
            column, across, free_a = knot_position(v[a], center[a], extent[a], knots)
            row, down, free_b = knot_position(v[b], center[b], extent[b], knots)
            raw = bilinear(tables[layer, t, 0], row, column, down, across)
            shift = bilinear(tables[layer, t, 1], row, column, down, across)
            limited = min(max(raw, -_MAX_RAW), _MAX_RAW)
            stretch = limited + math.sqrt(_ONE + limited * limited)
            if n < layers:
                befores[n] = v[c]
                v[c] = v[c] * stretch + shift
            else:
                v[c] = (v[c] - shift) / stretch
                befores[n] = v[c]
            raws[n], scales[n] = raw, stretch
            columns[n], rows[n], acrosses[n], downs[n] = column, row, across, down
            frees_a[n], frees_b[n] = free_a, free_b

        a00, a01, a10, a11 = affine[j, 0], affine[j, 1], affine[j, 3], affine[j, 4]
        determinant = a00 * a11 - a01 * a10
        x_to, y_to = v[0] - affine[j, 2], v[1] - affine[j, 5]
        x_to, y_to = (a11 * x_to - a01 * y_to) / determinant, (a00 * y_to - a10 * x_to) / determinant
        pixel_x, pixel_y = (x_to + _ONE) * half[0], (y_to + _ONE) * half[1]
        miss_x, miss_y = (pixel_x - target[m, 0]) * scale, (pixel_y - target[m, 1]) * scale
        distance = math.sqrt(miss_x * miss_x + miss_y * miss_y + _SOFTENING * _SOFTENING)
        damping = _ONE + distance / robust if robust > 0 else _ONE
        pull = share / (damping * damping * distance) * scale
        g_x, g_y = pull * miss_x, pull * miss_y

        column, across, free_a = cell_position(pixel_x, cell, width)
        row, down, free_b = cell_position(pixel_y, cell, height)
        down, across, free_a, free_b = depth_position(depth[j], row, column, down, across, free_a, free_b)
        surface = bilinear(depth[j], row, column, down, across)
        behind = v[2] - surface
        g_z = share * depth_weight * on_surface[m]
        if behind < 0:
            g_z = -g_z
        loss += share * distance / damping + g_z * behind
        _spread(g_depth[j], row, column, down, across, -g_z)
        along, below = _slopes(depth[j], row, column, down, across)
        g_x -= g_z * along * free_a / cell
        g_y -= g_z * below * free_b / cell

        g_x, g_y = g_x * half[0], g_y * half[1]
        g[0] = (a11 * g_x - a10 * g_y) / determinant
        g[1] = (a00 * g_y - a01 * g_x) / determinant
        g[2] = g_z
        for k in range(2):  # u = A l + b, so dl = A⁻¹ (du - dA l - db)
            g_affine[j, 3 * k] -= g[k] * x_to
            g_affine[j, 3 * k + 1] -= g[k] * y_to
            g_affine[j, 3 * k + 2] -= g[k]
        for n in range(count - 1, -1, -1):
            layer, t = (n, i) if n < layers else (count - 1 - n, j)
            c = transformed_axis(layer)
            a, b = (1 if c == 0 else 0), (1 if c == 2 else 2)
            column, row, across, down = columns[n], rows[n], acrosses[n], downs[n]
            if n < layers:
                g_shift = g[c]
                g_stretch = g[c] * befores[n]
                g[c] = g[c] * scales[n]
            else:
                g[c] = g[c] / scales[n]
                g_shift = -g[c]
                g_stretch = -g[c] * befores[n]
            raw = raws[n]
            g_raw = g_stretch * scales[n] / math.sqrt(_ONE + raw * raw) if abs(raw) < _MAX_RAW else _ZERO
            _spread(g_tables[layer, t, 0], row, column, down, across, g_raw)
            _spread(g_tables[layer, t, 1], row, column, down, across, g_shift)
            raw_along, raw_below = _slopes(tables[layer, t, 0], row, column, down, across)
            shift_along, shift_below = _slopes(tables[layer, t, 1], row, column, down, across)
            g[a] += (g_raw * raw_along + g_shift * shift_along) * half_knots / extent[a] * frees_a[n]
            g[b] += (g_raw * raw_below + g_shift * shift_below) * half_knots / extent[b] * frees_b[n]
        for k in range(2):
            g_affine[i, 3 * k] += g[k] * x
            g_affine[i, 3 * k + 1] += g[k] * y
            g_affine[i, 3 * k + 2] += g[k]
        _spread(g_depth[i], from_row, from_column, from_down, from_across, g[2])
    return loss


@compiled
def _roughness(table, in_time, in_space, gradient):  # type: ignore[no-untyped-def]
    """Sum of squared differences between neighboring knots of a table (L, K, 2, R, R), weighted; fills ``gradient``."""
    layers, times, channels, rows, columns = table.shape
    total = 0.0
    for layer in range(layers):
        for t in range(times):
            for channel in range(channels):
                here, g_here = table[layer, t, channel], gradient[layer, t, channel]
                for row in range(rows):
                    for column in range(columns):
                        value, g = here[row, column], _ZERO
                        if column + 1 < columns:
                            difference = here[row, column + 1] - value
                            total += in_space * difference * difference
                            g -= in_space * difference
                        if column > 0:
                            g += in_space * (value - here[row, column - 1])
                        if row + 1 < rows:
                            difference = here[row + 1, column] - value
                            total += in_space * difference * difference
                            g -= in_space * difference
                        if row > 0:
                            g += in_space * (value - here[row - 1, column])
                        if t + 1 < times:
                            difference = table[layer, t + 1, channel, row, column] - value
                            total += in_time * difference * difference
                            g -= in_time * difference
                        if t > 0:
                            g += in_time * (value - table[layer, t - 1, channel, row, column])
                        g_here[row, column] = _ONE * 2 * g
    return total


@compiled
def _smoothness(depth, frames, across, down, in_space, in_range, far, gradient):  # type: ignore[no-untyped-def]
    """Weighted differences of neighboring depths in ``frames``, squares of what leaves 0..far; adds the gradient."""
    _, height, width = depth.shape
    total = 0.0
    along = in_space / np.float32(len(frames) * height * (width - 1))
    below = in_space / np.float32(len(frames) * (height - 1) * width)
    outside = in_range / np.float32(len(frames) * height * width)
    for t in frames:
        here, g = depth[t], gradient[t]
        for row in range(height):
            for column in range(width):
                value = here[row, column]
                if column + 1 < width:
                    difference, weight = here[row, column + 1] - value, along * across[t, row, column]
                    total += weight * abs(difference)
                    slope = weight * np.sign(difference)
                    g[row, column + 1] += slope
                    g[row, column] -= slope
                if row + 1 < height:
                    difference, weight = here[row + 1, column] - value, below * down[t, row, column]
                    total += weight * abs(difference)
                    slope = weight * np.sign(difference)
                    g[row + 1, column] += slope
                    g[row, column] -= slope
                beyond = min(value, _ZERO) + max(value - far, _ZERO)
                total += outside * beyond * beyond
                g[row, column] += _ONE * 2 * outside * beyond
    return total


def _times(gradient: Tensor, factor: Tensor) -> Tensor:
    """``gradient`` times what comes from above, which is nearly always 1: a pass over all tables less."""
    return gradient if float(factor) == 1.0 else gradient * factor


class _Roughness(torch.autograd.Function):
    """As ``_MatchLoss``, of one table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, in_time: float, in_space: float) -> Tensor:
        gradient = torch.empty_like(table)
        total = _roughness(table.numpy(force=True), np.float32(in_time), np.float32(in_space), gradient.numpy())
        ctx.save_for_backward(gradient)
        return table.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return _times(gradient, grad[0]), None, None


def roughness(couplings: TabulatedCouplings) -> Tensor:
    """``TabulatedCouplings.roughness`` on the CPU."""
    total = couplings.extent.new_zeros(())
    tables, weights = couplings.tables[: couplings.levels], level_weights(len(couplings.tables))
    for table, weight in zip(tables, weights, strict=False):
        layers, times, channels, rows, columns = table.shape
        tiles = layers * channels
        in_time = weight * TIME_ROUGHNESS / max(tiles * (times - 1) * rows * columns, 1)
        in_space = weight * SPACE_ROUGHNESS / (tiles * times * (rows - 1) * columns)
        total = total + _Roughness.apply(table, in_time, in_space)  # type: ignore[no-untyped-call]
    return total


class _Smoothness(torch.autograd.Function):
    """As ``_MatchLoss``, of depth maps."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, run: Any) -> Tensor:
        gradient = torch.zeros_like(depth)
        total = run(depth.numpy(force=True), gradient.numpy())
        ctx.save_for_backward(gradient)
        return depth.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return _times(gradient, grad[0]), None


def depth_terms(
    depth: Tensor, frames: Tensor, edges: tuple[Tensor, Tensor], *, smoothness: float, in_range: float, far: float
) -> Tensor:  # fmt: skip
    """``smoothness`` · ``losses.depth_smoothness_loss`` + ``in_range`` · ``losses.depth_range_loss`` on the CPU.

    Args:
        depth: maps (T, h, w), of which ``frames`` (F,), each another, count.
        edges: ``losses.edge_weights`` of all frames.
    """
    across, down = (weights.numpy() for weights in edges)
    factors = np.float32(smoothness), np.float32(in_range), np.float32(far)

    def run(maps: np.ndarray, gradient: np.ndarray) -> float:
        return float(_smoothness(maps, frames.numpy(), across, down, *factors, gradient))

    loss: Tensor = _Smoothness.apply(depth, run)  # type: ignore[no-untyped-call]
    return loss


class _MatchLoss(torch.autograd.Function):
    """Value and gradient at once; backward only hands the gradient on."""

    @staticmethod
    def forward(ctx: Any, tables: Tensor, affine: Tensor, depth: Tensor, run: Any) -> Tensor:
        loss, gradients = run(tables, affine, depth)
        ctx.save_for_backward(*gradients)
        return tables.new_tensor(loss)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        tables, affine, depth = (_times(gradient, grad[0]) for gradient in ctx.saved_tensors)
        return tables, affine, depth, None


class MatchLoss:
    """``losses.flow_loss`` + ``depth_weight`` · ``losses.depth_consistency_loss`` of matches under a field on the CPU.

    Args:
        scale: from working pixels to the losses' unit.
        threads: one, or two that share a batch; the value does not depend on it.
    """

    def __init__(self, field: Field, scale: float, depth_weight: float, threads: int) -> None:
        self._field, self._scale, self._depth_weight = field, np.float32(scale), np.float32(depth_weight)
        self._pool = ThreadPoolExecutor(PARTS) if threads > 1 else None
        width, height = field.shape.working_size
        couplings = field.couplings
        self._geometry = (
            couplings.center.numpy(), couplings.extent.numpy(),
            np.array([(width - 1) / 2, (height - 1) / 2], np.float32), np.float32(field.depth_cell),
        )  # fmt: skip

    def __call__(self, batch: Batch, robust_px: float | None) -> Tensor:
        """The loss, differentiable with respect to all parameters of the field."""
        field = self._field
        share = (batch.weight / batch.weight.sum().clamp(min=1e-6)).numpy()
        columns = (batch.frames_from, batch.frames_to, batch.source, batch.target)
        matches = (*(column.numpy() for column in columns), share, batch.on_surface.numpy())
        settings = (self._scale, np.float32(robust_px or 0.0), self._depth_weight)

        def run(tables: Tensor, affine: Tensor, depth: Tensor) -> tuple[float, list[Tensor]]:
            arrays = [tensor.numpy(force=True) for tensor in (tables, affine, depth)]
            bounds = [len(share) * part // PARTS for part in range(PARTS + 1)]

            def one(part: int) -> tuple[float, list[np.ndarray]]:
                types = (np.float32, np.float64, np.float32)  # thousands of matches add up in each affine entry
                gradients = [np.zeros(array.shape, kind) for array, kind in zip(arrays, types, strict=True)]
                within = (bounds[part], bounds[part + 1])
                loss = _part(*arrays, *self._geometry, *matches, *settings, *gradients, *within)
                return loss, gradients

            found = list(map(one, range(PARTS)) if self._pool is None else self._pool.map(one, range(PARTS)))
            summed = [sum(parts[1:], start=parts[0]) for parts in zip(*(each for _, each in found), strict=True)]
            return sum(loss for loss, _ in found), [torch.from_numpy(gradient).float() for gradient in summed]

        tables = field.couplings.tables_by_frame()
        loss: Tensor = _MatchLoss.apply(tables, field.affine.matrix, field.depth, run)  # type: ignore[no-untyped-call]
        return loss
