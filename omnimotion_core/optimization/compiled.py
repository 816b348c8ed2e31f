"""The loss of a batch of matches and its gradient as one compiled loop, for the CPU.

What ``loop`` asks of torch on other devices (lift, map to canonical, map to the other frame, compare) is done here
match by match, forward and back, with the derivatives written out. A few numbers a layer are kept on the way.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from omnimotion_core.compilation import compiled, inlined
from omnimotion_core.model.field import Field
from omnimotion_core.model.invertible import MAX_RAW
from omnimotion_core.model.kernels import (
    LANES,
    bilinear,
    cell_position,
    corners_at,
    depth_position,
    knot_position,
    knot_scale,
    layer_axes,
    tile_starts,
)
from omnimotion_core.optimization.compiled_tables import CompiledTables, add_to
from omnimotion_core.optimization.halves import in_halves
from omnimotion_core.optimization.losses import SOFTENING_PX
from omnimotion_core.optimization.sampling import Batch

_ONE, _ZERO = np.float32(1), np.float32(0)
_UNSIGNED, _NEXT = np.uint64, np.uint64(1)
_SOFTENING, _MAX_RAW = np.float32(SOFTENING_PX), np.float32(MAX_RAW)


@inlined
def _spread(table, row, column, down, across, value):  # type: ignore[no-untyped-def]
    """Add ``value`` to the four entries that ``bilinear`` reads, by their weights."""
    table[row, column] += value * (_ONE - across) * (_ONE - down)
    table[row, column + 1] += value * across * (_ONE - down)
    table[row + 1, column] += value * (_ONE - across) * down
    table[row + 1, column + 1] += value * across * down


@inlined
def _slopes(table, row, column, down, across):  # type: ignore[no-untyped-def]
    """How ``bilinear`` changes with ``across`` and with ``down``."""
    along = (table[row, column + 1] - table[row, column]) * (_ONE - down)
    along += (table[row + 1, column + 1] - table[row + 1, column]) * down
    below = (table[row + 1, column] - table[row, column]) * (_ONE - across)
    below += (table[row + 1, column + 1] - table[row, column + 1]) * across
    return along, below


@inlined
def _spread_on_tile(tables, base, side, down, across, value):  # type: ignore[no-untyped-def]
    """Add ``value`` to the four entries of a flat table of which the first is ``base``, by their weights."""
    low = value * down
    high = value - low
    below, high_right, low_right = base + side, high * across, low * across
    tables[base] += high - high_right
    tables[base + _NEXT] += high_right
    tables[below] += low - low_right
    tables[below + _NEXT] += low_right


@inlined
def _value_and_slopes(corner, right, below, below_right, down, across):  # type: ignore[no-untyped-def]
    """The value between four entries, and how it changes with ``across`` and with ``down``."""
    to_right, to_below = right - corner, below - corner
    twist = below_right - right - to_below
    along, downwards = to_right + twist * down, to_below + twist * across
    return corner + to_right * across + downwards * down, along, downwards


@inlined
def _cell_of(depth, pixel, cell, height, width):  # type: ignore[no-untyped-def]
    """Where a depth map (h, w) is read at a working pixel."""
    column, across, _ = cell_position(pixel[0], cell, width)
    row, down, _ = cell_position(pixel[1], cell, height)
    down, across, _, _ = depth_position(depth, row, column, down, across, _ONE, _ONE)
    return row, column, down, across


@compiled
def _part(  # type: ignore[no-untyped-def]
    tables, affine, depth, center, extent, half, cell, frames_from, frames_to, source, target, weight, on_surface,
    scale, robust, depth_weight, g_tables, g_affine, g_depth, start, end,
):  # fmt: skip
    """Loss of the matches [start, end), their gradients added to ``g_…``; ``weight`` is each one's share of it."""
    layers, times, knots = tables.shape[0], tables.shape[1], tables.shape[4]
    height, width = depth.shape[1], depth.shape[2]
    count = 2 * layers  # there through all layers, and back through all in the other frame
    flat, g_flat, tile = tables.reshape(-1), g_tables.reshape(-1), 2 * knots * knots
    last, side = np.float32(knots - 1), _UNSIGNED(knots)
    factors, offsets = knot_scale(center, extent, last)
    # what a layer leaves for the way back
    entries = np.empty((count, LANES), np.int32)
    scales, befores, acrosses, downs, of_raws = np.empty((5, count, LANES), np.float32)
    raws_a, raws_b, shifts_a, shifts_b = np.empty((4, count, LANES), np.float32)  # slopes along both axes
    starts_there, starts_back = np.empty((2, LANES), np.int32)
    corners, (g_raws, g_shifts) = np.empty((8, LANES), np.float32), np.empty((2, LANES), np.float32)
    v, g = np.zeros((3, LANES), np.float32), np.zeros((3, LANES), np.float32)
    loss = 0.0
    for first in range(start, end, LANES):
        lanes = min(LANES, end - first)
        tile_starts(frames_from, first, lanes, knots, starts_there)
        tile_starts(frames_to, first, lanes, knots, starts_back)
        for q in range(lanes):
            m, i = first + q, frames_from[first + q]
            row, column, down, across = _cell_of(depth[i], source[m], cell, height, width)
            x, y = source[m, 0] / half[0] - _ONE, source[m, 1] / half[1] - _ONE
            v[0, q] = affine[i, 0] * x + affine[i, 1] * y + affine[i, 2]
            v[1, q] = affine[i, 3] * x + affine[i, 4] * y + affine[i, 5]
            v[2, q] = bilinear(depth[i], row, column, down, across)
        for n in range(count):
            there = n < layers
            layer, starts = (n, starts_there) if there else (count - 1 - n, starts_back)
            c, a, b = layer_axes(layer)
            moved, at_a, at_b, layer_start = v[c], v[a], v[b], layer * times * tile
            factor_a, offset_a, factor_b, offset_b = factors[a], offsets[a], factors[b], offsets[b]
            entry, across_n, down_n, free_a, free_b = entries[n], acrosses[n], downs[n], raws_a[n], raws_b[n]
            for q in range(LANES):
                column, across_n[q], free_a[q] = knot_position(at_a[q], factor_a, offset_a, last)
                row, down_n[q], free_b[q] = knot_position(at_b[q], factor_b, offset_b, last)
                entry[q] = layer_start + starts[q] + row * knots + column
            corners_at(flat, entry, knots, corners)
            raw_a, raw_b, shift_a, shift_b = raws_a[n], raws_b[n], shifts_a[n], shifts_b[n]
            scale_n, before, of_raw = scales[n], befores[n], of_raws[n]
            for q in range(LANES):
                x, y = across_n[q], down_n[q]
                raw, raw_along, raw_below = _value_and_slopes(
                    corners[0, q], corners[1, q], corners[2, q], corners[3, q], y, x
                )
                shift, shift_along, shift_below = _value_and_slopes(
                    corners[4, q], corners[5, q], corners[6, q], corners[7, q], y, x
                )
                along, below = factor_a * free_a[q], factor_b * free_b[q]
                raw_a[q], raw_b[q] = raw_along * along, raw_below * below
                shift_a[q], shift_b[q] = shift_along * along, shift_below * below
                limited = min(max(raw, -_MAX_RAW), _MAX_RAW)
                root = math.sqrt(_ONE + limited * limited)
                stretch = limited + root
                scale_n[q] = stretch
                of_raw[q] = stretch / root if limited == raw else _ZERO  # the scale is r + root(1 + r²)
                before[q] = moved[q] if there else (moved[q] - shift) / stretch
                moved[q] = moved[q] * stretch + shift if there else before[q]
        for q in range(lanes):
            m, j, share = first + q, frames_to[first + q], weight[first + q]
            a00, a01, a10, a11 = affine[j, 0], affine[j, 1], affine[j, 3], affine[j, 4]
            determinant = a00 * a11 - a01 * a10
            x_to, y_to = v[0, q] - affine[j, 2], v[1, q] - affine[j, 5]
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
            behind = v[2, q] - bilinear(depth[j], row, column, down, across)
            g_z = share * depth_weight * on_surface[m]
            if behind < 0:
                g_z = -g_z
            loss += share * distance / damping + g_z * behind
            _spread(g_depth[j], row, column, down, across, -g_z)
            along, below = _slopes(depth[j], row, column, down, across)
            g_x = (g_x - g_z * along * free_a / cell) * half[0]
            g_y = (g_y - g_z * below * free_b / cell) * half[1]
            g[0, q] = (a11 * g_x - a10 * g_y) / determinant
            g[1, q] = (a00 * g_y - a01 * g_x) / determinant
            g[2, q] = g_z
            for k in range(2):  # u = A l + b, so dl = A⁻¹ (du - dA l - db)
                g_affine[j, 3 * k] -= g[k, q] * x_to
                g_affine[j, 3 * k + 1] -= g[k, q] * y_to
                g_affine[j, 3 * k + 2] -= g[k, q]
        for n in range(count - 1, -1, -1):
            there = n < layers
            c, a, b = layer_axes(n if there else count - 1 - n)
            g_c, g_a, g_b, scale_n, before, of_raw = g[c], g[a], g[b], scales[n], befores[n], of_raws[n]
            raw_a, raw_b, shift_a, shift_b = raws_a[n], raws_b[n], shifts_a[n], shifts_b[n]
            for q in range(LANES):
                stretch, above = scale_n[q], g_c[q]
                g_shift = above if there else -above / stretch
                g_raw = g_shift * before[q] * of_raw[q]
                g_c[q] = above * stretch if there else -g_shift
                g_a[q] += g_raw * raw_a[q] + g_shift * shift_a[q]
                g_b[q] += g_raw * raw_b[q] + g_shift * shift_b[q]
                g_raws[q], g_shifts[q] = g_raw, g_shift
            entry, across_n, down_n = entries[n], acrosses[n], downs[n]
            for q in range(lanes):
                base, across, down = _UNSIGNED(entry[q]), across_n[q], down_n[q]
                _spread_on_tile(g_flat, base, side, down, across, g_raws[q])
                _spread_on_tile(g_flat, base + side * side, side, down, across, g_shifts[q])
        for q in range(lanes):
            m, i = first + q, frames_from[first + q]
            row, column, down, across = _cell_of(depth[i], source[m], cell, height, width)
            x, y = source[m, 0] / half[0] - _ONE, source[m, 1] / half[1] - _ONE
            for k in range(2):
                g_affine[i, 3 * k] += g[k, q] * x
                g_affine[i, 3 * k + 1] += g[k, q] * y
                g_affine[i, 3 * k + 2] += g[k, q]
            _spread(g_depth[i], row, column, down, across, g[2, q])
    return loss


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
                g[row, column] += (outside + outside) * beyond
    return total


DepthTerm = Callable[[np.ndarray, np.ndarray], float]  # of depth maps; adds its gradient to the second array


def depth_terms(
    frames: Tensor, edges: tuple[Tensor, Tensor], *, smoothness: float, in_range: float, far: float
) -> DepthTerm:
    """``smoothness`` · ``losses.depth_smoothness_loss`` + ``in_range`` · ``losses.depth_range_loss`` on the CPU.

    Args:
        frames: (F,), each another, whose maps (T, h, w) count.
        edges: ``losses.edge_weights`` of all frames.
    """
    across, down = (weights.numpy() for weights in edges)
    factors = np.float32(smoothness), np.float32(in_range), np.float32(far)
    return lambda depth, gradient: float(_smoothness(depth, frames.numpy(), across, down, *factors, gradient))


class CompiledLoss:
    """A step's loss and the gradients of all parameters of a field, on the CPU: ``losses.flow_loss`` + ``depth_weight``
    · ``losses.depth_consistency_loss`` of matches, a ``DepthTerm``, and the roughness of the tables.

    Args:
        scale: from working pixels to the losses' unit.
        threads: one, or two that share a batch; the values do not depend on it.
    """

    def __init__(self, field: Field, scale: float, depth_weight: float, threads: int) -> None:
        self._field, self._scale, self._depth_weight = field, np.float32(scale), np.float32(depth_weight)
        self.pool = ThreadPoolExecutor(1) if threads > 1 else None
        self.tables = CompiledTables(field.couplings, self.pool)
        width, height = field.shape.working_size
        couplings = field.couplings
        self._geometry = (
            couplings.center.numpy(), couplings.extent.numpy(),
            np.array([(width - 1) / 2, (height - 1) / 2], np.float32), np.float32(field.depth_cell),
        )  # fmt: skip
        self._room: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])  # for the gradients of each half of a batch

    def backward(
        self, batch: Batch, robust_px: float | None, *, depth_term: DepthTerm | None = None, smoothness: float = 0.0
    ) -> float:
        """Give every parameter of the field its gradient, which lasts until the next call; the loss is returned.

        Args:
            smoothness: factor of the tables' roughness.
        """
        field = self._field
        share = (batch.weight / batch.weight.sum().clamp(min=1e-6)).numpy()
        columns = (batch.frames_from, batch.frames_to, batch.source, batch.target)
        matches = (*(column.numpy() for column in columns), share, batch.on_surface.numpy())
        settings = (self._scale, np.float32(robust_px or 0.0), self._depth_weight)
        arrays = [self.tables.by_frame(), field.affine.matrix.numpy(force=True), field.depth.numpy(force=True)]
        if not self._room[0] or self._room[0][0].shape != arrays[0].shape:
            kinds = (np.float32, np.float64, np.float32)  # thousands of matches add up in each affine entry
            made = [[np.empty(array.shape, kind) for array, kind in zip(arrays, kinds, strict=True)] for _ in range(2)]
            self._room = made[0], made[1]

        def half(start: int, end: int) -> float:
            gradients = self._room[0 if start == 0 else 1]
            for gradient in gradients:
                gradient.fill(0)
            loss: float = _part(*arrays, *self._geometry, *matches, *settings, *gradients, start, end)
            if start == 0 and depth_term is not None:
                loss += depth_term(arrays[2], gradients[2])
            return loss

        first, second = in_halves(self.pool, len(share), half)
        (of_tables, of_affine, of_depth), (more_of_tables, more_of_affine, more_of_depth) = self._room
        flat, more = of_depth.reshape(-1), more_of_depth.reshape(-1)
        in_halves(self.pool, len(flat), lambda start, end: add_to(flat[start:end], more[start:end]))
        field.depth.grad = torch.from_numpy(of_depth)
        field.affine.matrix.grad = torch.from_numpy(of_affine + more_of_affine).float()
        return first + second + self.tables.backward(of_tables, more_of_tables, smoothness)
