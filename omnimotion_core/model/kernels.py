"""The tabulated couplings as compiled loops: the same arithmetic as ``TabulatedCouplings`` in one pass over the points.

On a CPU a point costs a few dozen multiplications, and the calls of a tensor library around them cost more than they
do. So numba compiles the loops; what they are fed and what they give are plain arrays.

A point waits at each layer for what the layer before it gave. So ``LANES`` points go through a layer before the next
one, and each in three loops: where they lie in the tables, what stands there, what that makes of them. Only the second
goes from point to point; the others are vector instructions. Tables are read as flat arrays at unsigned positions, for
which no strides are multiplied and no negative indices looked for.

Arrays throughout, all float32 unless said:
    tables (L, T, 2, R, R)   raw scale and shift of each layer in each frame, rows by the second conditioning axis
    affine (T, 6)            rows of [A | b]
    center, extent (3,)      the middle of the tables' range and half of it
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from omnimotion_core.compilation import compiled, inlined

LANES = 32  # points that go through a layer together
PART = 65_536  # points that one thread takes at once
DEPTH_STEP = 0.2  # where depths of neighboring cells differ by more, two surfaces meet and nothing lies between


_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1), np.float32(0)
_STEP = np.float32(DEPTH_STEP)
_INDEX, _UNSIGNED, _NEXT = np.int32, np.uint64, np.uint64(1)


@inlined
def transformed_axis(layer):  # type: ignore[no-untyped-def]  # numba infers
    """Which of x, y, z a layer transforms: z, x, y in turn, as ``invertible.AXES``."""
    turn = layer % 3
    return 2 if turn == 0 else turn - 1


@inlined
def layer_axes(layer):  # type: ignore[no-untyped-def]
    """The axis that a layer transforms, and the two that tell how: the columns' and the rows' of its table."""
    c = transformed_axis(layer)
    return c, (1 if c == 0 else 0), (1 if c == 2 else 2)


@inlined
def knot_scale(center, extent, last):  # type: ignore[no-untyped-def]
    """Factors and offsets (3,) from canonical coordinates to knots, the first at 0 and the last at ``last``."""
    return _HALF * last / extent, (_ONE - center / extent) * _HALF * last


@inlined
def knot_position(value, factor, offset, last):  # type: ignore[no-untyped-def]
    """Where ``value`` lies among the knots: the knot before it, the rest, and 1 (0 where it was clamped to the range).

    A value that is no number counts as the lower end, so that no index is out of bounds. (Written as choices, not as
    branches, so that many are found at once.)
    """
    position = value * factor + offset
    free = _ONE if (position > 0) & (position <= last) else _ZERO
    position = position if position > 0 else _ZERO
    position = position if position < last else last
    index = min(_INDEX(position), _INDEX(_INDEX(last) - 1))
    return index, position - np.float32(index), free


@inlined
def tile_starts(frames, first, lanes, knots, starts):  # type: ignore[no-untyped-def]
    """Where the tiles of a layer begin in flat tables, for each of ``LANES`` points; those that are missing get 0."""
    for q in range(LANES):
        starts[q] = _INDEX(frames[first + q] * 2 * knots * knots) if q < lanes else _INDEX(0)


@inlined
def corners_at(flat, entry, knots, corners):  # type: ignore[no-untyped-def]
    """The four entries of raw scale, then of shift, of which the first lies at ``entry`` (LANES,): (8, LANES)."""
    side = _UNSIGNED(knots)
    for q in range(LANES):
        base = _UNSIGNED(entry[q])
        below, shift = base + side, base + side * side
        under = shift + side
        corners[0, q], corners[1, q], corners[2, q], corners[3, q] = (
            flat[base], flat[base + _NEXT], flat[below], flat[below + _NEXT]
        )  # fmt: skip
        corners[4, q], corners[5, q], corners[6, q], corners[7, q] = (
            flat[shift], flat[shift + _NEXT], flat[under], flat[under + _NEXT]
        )  # fmt: skip


@inlined
def between(corner, right, below, below_right, down, across):  # type: ignore[no-untyped-def]
    """The value between four entries."""
    upper, lower = corner + (right - corner) * across, below + (below_right - below) * across
    return upper + (lower - upper) * down


@inlined
def bilinear(table, row, column, down, across):  # type: ignore[no-untyped-def]
    """A table (h, w) between four entries."""
    upper = table[row, column] * (_ONE - across) + table[row, column + 1] * across
    lower = table[row + 1, column] * (_ONE - across) + table[row + 1, column + 1] * across
    return upper * (_ONE - down) + lower * down


@inlined
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


@inlined
def depth_position(depth, row, column, down, across, free_a, free_b):  # type: ignore[no-untyped-def]
    """Where a depth map (h, w) is read: between four cells, or at the nearest where two surfaces meet."""
    a, b = depth[row, column], depth[row, column + 1]
    c, d = depth[row + 1, column], depth[row + 1, column + 1]
    if max(max(a, b), max(c, d)) - min(min(a, b), min(c, d)) > _STEP:
        return _ONE if down >= _HALF else _ZERO, _ONE if across >= _HALF else _ZERO, _ZERO, _ZERO
    return down, across, free_a, free_b


@inlined
def _room():  # type: ignore[no-untyped-def]
    """What ``LANES`` points need while they go through the layers: points, corners, places, what lies between."""
    points, corners = np.zeros((3, LANES), np.float32), np.empty((8, LANES), np.float32)
    return points, corners, np.empty((2, LANES), np.int32), np.empty((4, LANES), np.float32)


@inlined
def _scales_and_shifts(  # type: ignore[no-untyped-def]
    flat, layer_start, starts, v, a, b, factors, offsets, knots, max_raw, entry, down, across, corners, scale, shift
):  # fmt: skip
    """Scales and shifts of a layer, (LANES,) each, at the points ``v`` (3, LANES); what comes before them is room."""
    last, at_a, at_b = np.float32(knots - 1), v[a], v[b]
    factor_a, offset_a, factor_b, offset_b = factors[a], offsets[a], factors[b], offsets[b]
    for q in range(LANES):
        column, across[q], _ = knot_position(at_a[q], factor_a, offset_a, last)
        row, down[q], _ = knot_position(at_b[q], factor_b, offset_b, last)
        entry[q] = layer_start + starts[q] + row * knots + column
    corners_at(flat, entry, knots, corners)
    for q in range(LANES):
        x, y = across[q], down[q]
        raw = between(corners[0, q], corners[1, q], corners[2, q], corners[3, q], y, x)
        raw = min(max(raw, -max_raw), max_raw)
        scale[q] = raw + math.sqrt(_ONE + raw * raw)
        shift[q] = between(corners[4, q], corners[5, q], corners[6, q], corners[7, q], y, x)


@compiled
def _forward(tables, affine, center, extent, max_raw, frames, points, out, start, end):  # type: ignore[no-untyped-def]
    layers, times, knots = tables.shape[0], tables.shape[1], tables.shape[4]
    flat, tile = tables.reshape(-1), 2 * knots * knots
    factors, offsets = knot_scale(center, extent, np.float32(knots - 1))
    v, corners, (starts, entry), (down, across, scale, shift) = _room()
    for first in range(start, end, LANES):
        lanes = min(LANES, end - first)
        tile_starts(frames, first, lanes, knots, starts)
        for q in range(lanes):
            p, t = first + q, frames[first + q]
            x, y = points[p, 0], points[p, 1]
            v[0, q] = affine[t, 0] * x + affine[t, 1] * y + affine[t, 2]
            v[1, q] = affine[t, 3] * x + affine[t, 4] * y + affine[t, 5]
            v[2, q] = points[p, 2]
        for layer in range(layers):
            c, a, b = layer_axes(layer)
            _scales_and_shifts(
                flat, layer * times * tile, starts, v, a, b, factors, offsets, knots, max_raw, entry, down, across,
                corners, scale, shift,
            )  # fmt: skip
            moved = v[c]
            for q in range(LANES):
                moved[q] = moved[q] * scale[q] + shift[q]
        for q in range(lanes):
            p = first + q
            out[p, 0], out[p, 1], out[p, 2] = v[0, q], v[1, q], v[2, q]


@compiled
def _inverse(tables, affine, center, extent, max_raw, frames, points, out, start, end):  # type: ignore[no-untyped-def]
    layers, times, knots = tables.shape[0], tables.shape[1], tables.shape[4]
    flat, tile = tables.reshape(-1), 2 * knots * knots
    factors, offsets = knot_scale(center, extent, np.float32(knots - 1))
    v, corners, (starts, entry), (down, across, scale, shift) = _room()
    for first in range(start, end, LANES):
        lanes = min(LANES, end - first)
        tile_starts(frames, first, lanes, knots, starts)
        for q in range(lanes):
            p = first + q
            v[0, q], v[1, q], v[2, q] = points[p, 0], points[p, 1], points[p, 2]
        for layer in range(layers - 1, -1, -1):
            c, a, b = layer_axes(layer)
            _scales_and_shifts(
                flat, layer * times * tile, starts, v, a, b, factors, offsets, knots, max_raw, entry, down, across,
                corners, scale, shift,
            )  # fmt: skip
            moved = v[c]
            for q in range(LANES):
                moved[q] = (moved[q] - shift[q]) / scale[q]
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
