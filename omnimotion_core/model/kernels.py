"""The tabulated couplings as compiled loops: the same arithmetic as ``TabulatedCouplings`` in one pass over the points.

On a CPU a point costs a few dozen multiplications, and the calls of a tensor library around them cost more than they
do. So numba compiles the loops; what they are fed and what they give are plain arrays.

A point waits at each layer for what the layer before it gave. So ``LANES`` points go through a layer before the next
one, and the processor works on several at once. Tables are read as flat arrays at unsigned positions, for which no
strides are multiplied and no negative indices looked for.

Arrays throughout, all float32 unless said:
    tables (L, T, 2, R, R)   raw scale and shift of each layer in each frame, rows by the second conditioning axis
    affine (T, 6)            rows of [A | b]
    center, extent (3,)      the middle of the tables' range and half of it
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

_FAST = {"contract", "arcp", "nsz", "reassoc"}  # but for infinities and what is no number, whose tests must hold
LANES = 16  # points that go through a layer together
PART = 65_536  # points that one thread takes at once
DEPTH_STEP = 0.2  # where depths of neighboring cells differ by more, two surfaces meet and nothing lies between


def compiled(function: Callable[..., Any]) -> Any:
    """``function`` compiled when it is first called, and kept for later processes where there is a place for it."""
    try:
        return numba.njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return numba.njit(nogil=True, fastmath=_FAST, error_model="numpy")(function)


_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1), np.float32(0)
_STEP = np.float32(DEPTH_STEP)
_UNSIGNED, _NEXT = np.uint64, np.uint64(1)


@numba.njit(inline="always")
def transformed_axis(layer):  # type: ignore[no-untyped-def]  # numba infers
    """Which of x, y, z a layer transforms: z, x, y in turn, as ``invertible.AXES``."""
    turn = layer % 3
    return 2 if turn == 0 else turn - 1


@numba.njit(inline="always")
def layer_axes(layer):  # type: ignore[no-untyped-def]
    """The axis that a layer transforms, and the two that tell how: the columns' and the rows' of its table."""
    c = transformed_axis(layer)
    return c, (1 if c == 0 else 0), (1 if c == 2 else 2)


@numba.njit(inline="always")
def knot_scale(center, extent, last):  # type: ignore[no-untyped-def]
    """Factors and offsets (3,) from canonical coordinates to knots, the first at 0 and the last at ``last``."""
    return _HALF * last / extent, (_ONE - center / extent) * _HALF * last


@numba.njit(inline="always")
def knot_position(value, factor, offset, last):  # type: ignore[no-untyped-def]
    """Where ``value`` lies among the knots: the knot before it, the rest, and 1 (0 where it was clamped to the range).

    A value that is no number counts as the lower end, so that no index is out of bounds.
    """
    position = value * factor + offset
    free = _ONE
    if not position > 0:
        position, free = _ZERO, _ZERO
    elif position > last:
        position, free = last, _ZERO
    index = min(int(position), int(last) - 1)
    return index, position - np.float32(index), free


@numba.njit(inline="always")
def tile_position(layer, t, row, column, frames, knots):  # type: ignore[no-untyped-def]
    """Where among the entries of flat tables the raw scale of that knot lies; its shift lies a tile further on."""
    return _UNSIGNED(((layer * frames + t) * 2 * knots + row) * knots + column)


@numba.njit(inline="always")
def tile_bilinear(tables, base, side, down, across):  # type: ignore[no-untyped-def]
    """Flat tables with rows of ``side`` entries, between four entries of which the first is ``base``."""
    below = base + side
    upper = tables[base] * (_ONE - across) + tables[base + _NEXT] * across
    lower = tables[below] * (_ONE - across) + tables[below + _NEXT] * across
    return upper * (_ONE - down) + lower * down


@numba.njit(inline="always")
def bilinear(table, row, column, down, across):  # type: ignore[no-untyped-def]
    """A table (h, w) between four entries."""
    upper = table[row, column] * (_ONE - across) + table[row, column + 1] * across
    lower = table[row + 1, column] * (_ONE - across) + table[row + 1, column + 1] * across
    return upper * (_ONE - down) + lower * down


@numba.njit(inline="always")
def cell_position(pixel, cell, count):  # type: ignore[no-untyped-def]
    """Where ``pixel`` lies among ``count`` cells: the one before it, the rest, and 1 (0 where it was clamped)."""
    position = (pixel + _HALF) / cell - _HALF
    free = _ONE
    if not position > 0:
        position, free = _ZERO, _ZERO
    elif position > np.float32(count - 1):
        position, free = np.float32(count - 1), _ZERO
    index = min(int(position), count - 2)
    return index, position - np.float32(index), free


@numba.njit(inline="always")
def depth_position(depth, row, column, down, across, free_a, free_b):  # type: ignore[no-untyped-def]
    """Where a depth map (h, w) is read: between four cells, or at the nearest where two surfaces meet."""
    a, b = depth[row, column], depth[row, column + 1]
    c, d = depth[row + 1, column], depth[row + 1, column + 1]
    if max(max(a, b), max(c, d)) - min(min(a, b), min(c, d)) > _STEP:
        return _ONE if down >= _HALF else _ZERO, _ONE if across >= _HALF else _ZERO, _ZERO, _ZERO
    return down, across, free_a, free_b


@numba.njit(inline="always")
def _scale_and_shift(tables, layer, t, frames, knots, at_a, at_b, max_raw):  # type: ignore[no-untyped-def]
    """Scale and shift of a layer at a point whose two other axes lie at those knots."""
    (column, across, _), (row, down, _) = at_a, at_b
    base, side = tile_position(layer, t, row, column, frames, knots), _UNSIGNED(knots)
    raw = min(max(tile_bilinear(tables, base, side, down, across), -max_raw), max_raw)
    return raw + math.sqrt(_ONE + raw * raw), tile_bilinear(tables, base + side * side, side, down, across)


@compiled
def _forward(tables, affine, center, extent, max_raw, frames, points, out, start, end):  # type: ignore[no-untyped-def]
    layers, times, knots = tables.shape[0], tables.shape[1], tables.shape[4]
    flat, last = tables.reshape(-1), np.float32(knots - 1)
    factors, offsets = knot_scale(center, extent, last)
    v = np.empty((3, LANES), np.float32)
    for first in range(start, end, LANES):
        lanes = min(LANES, end - first)
        for q in range(lanes):
            p, t = first + q, frames[first + q]
            x, y = points[p, 0], points[p, 1]
            v[0, q] = affine[t, 0] * x + affine[t, 1] * y + affine[t, 2]
            v[1, q] = affine[t, 3] * x + affine[t, 4] * y + affine[t, 5]
            v[2, q] = points[p, 2]
        for layer in range(layers):
            c, a, b = layer_axes(layer)
            for q in range(lanes):
                at_a = knot_position(v[a, q], factors[a], offsets[a], last)
                at_b = knot_position(v[b, q], factors[b], offsets[b], last)
                scale, shift = _scale_and_shift(flat, layer, frames[first + q], times, knots, at_a, at_b, max_raw)
                v[c, q] = v[c, q] * scale + shift
        for q in range(lanes):
            p = first + q
            out[p, 0], out[p, 1], out[p, 2] = v[0, q], v[1, q], v[2, q]


@compiled
def _inverse(tables, affine, center, extent, max_raw, frames, points, out, start, end):  # type: ignore[no-untyped-def]
    layers, times, knots = tables.shape[0], tables.shape[1], tables.shape[4]
    flat, last = tables.reshape(-1), np.float32(knots - 1)
    factors, offsets = knot_scale(center, extent, last)
    v = np.empty((3, LANES), np.float32)
    for first in range(start, end, LANES):
        lanes = min(LANES, end - first)
        for q in range(lanes):
            p = first + q
            v[0, q], v[1, q], v[2, q] = points[p, 0], points[p, 1], points[p, 2]
        for layer in range(layers - 1, -1, -1):
            c, a, b = layer_axes(layer)
            for q in range(lanes):
                at_a = knot_position(v[a, q], factors[a], offsets[a], last)
                at_b = knot_position(v[b, q], factors[b], offsets[b], last)
                scale, shift = _scale_and_shift(flat, layer, frames[first + q], times, knots, at_a, at_b, max_raw)
                v[c, q] = (v[c, q] - shift) / scale
        for q in range(lanes):
            p, t = first + q, frames[first + q]
            a00, a01, a10, a11 = affine[t, 0], affine[t, 1], affine[t, 3], affine[t, 4]
            x, y = v[0, q] - affine[t, 2], v[1, q] - affine[t, 5]
            determinant = a00 * a11 - a01 * a10
            out[p, 0] = (a11 * x - a01 * y) / determinant
            out[p, 1] = (a00 * y - a10 * x) / determinant
            out[p, 2] = v[2, q]


@compiled
def _depths(depth, half, cell, frames, xy, out, start, end):  # type: ignore[no-untyped-def]
    height, width = depth.shape[1], depth.shape[2]
    for p in range(start, end):
        here = depth[frames[p]]
        column, across, _ = cell_position((xy[p, 0] + _ONE) * half[0], cell, width)
        row, down, _ = cell_position((xy[p, 1] + _ONE) * half[1], cell, height)
        down, across, _, _ = depth_position(here, row, column, down, across, _ONE, _ONE)
        out[p] = bilinear(here, row, column, down, across)


class DepthMaps:
    """A field's depth maps with fixed values, for flat points on the CPU.

    Args:
        depth: (T, h, w) float32, contiguous.
        working_size: (width, height) of the pictures that the maps cover.
        cell: working pixels a cell.
        threads: that share many points out; the answers do not depend on it.
    """

    def __init__(self, depth: np.ndarray, working_size: tuple[int, int], cell: int, threads: int = 1) -> None:
        half = np.array([(side - 1) / 2 for side in working_size], np.float32)
        self._parameters, self._threads = (depth, half, np.float32(cell)), threads

    def at(self, frames: np.ndarray, xy: np.ndarray) -> np.ndarray:
        """Depths (P,) at normalized positions (P, 2) of ``frames`` (P,) int64."""
        out = np.empty(len(xy), np.float32)
        _share_out(_depths, self._parameters, frames, xy, out, self._threads)
        return out


class PointMaps:
    """Both maps of a field with fixed parameters, for flat points on the CPU.

    Args:
        tables, affine, center, extent: as the module's docstring tells, contiguous.
        max_raw: where raw scales are clamped.
        threads: that share many points out; the answers do not depend on it.
    """

    def __init__(
        self, tables: np.ndarray, affine: np.ndarray, center: np.ndarray, extent: np.ndarray, max_raw: float,
        threads: int = 1,
    ) -> None:  # fmt: skip
        self._parameters = (tables, affine, center, extent, np.float32(max_raw))
        self._threads = threads

    def to_canonical(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Local points (P, 3) of ``frames`` (P,) int64 to canonical ones."""
        return self._run(_forward, frames, points)

    def from_canonical(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Canonical points (P, 3) to local ones of ``frames`` (P,) int64: the inverse."""
        return self._run(_inverse, frames, points)

    def _run(self, loop, frames: np.ndarray, points: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
        out = np.empty(points.shape, np.float32)
        _share_out(loop, self._parameters, frames, points, out, self._threads)
        return out


def _share_out(  # type: ignore[no-untyped-def]
    loop, parameters: tuple[Any, ...], frames: np.ndarray, points: np.ndarray, out: np.ndarray, threads: int
) -> None:
    """Run ``loop`` over all points, ``PART`` at a time, on so many threads."""
    frames, points = np.ascontiguousarray(frames), np.ascontiguousarray(points)
    parts = [(start, min(start + PART, len(points))) for start in range(0, len(points), PART)]
    if threads == 1 or len(parts) == 1:
        loop(*parameters, frames, points, out, 0, len(points))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: loop(*parameters, frames, points, out, *part), parts))
