"""What is computed at every pixel of every flow as compiled loops, one pass each: ``consistency`` has the meaning.

Arrays are float32 and contiguous: flows (H, W, 2), pictures (H, W, 3), two pixels high and wide at least. They are read
between four pixels, beyond the border as at the border. A row's places are found first, with vector instructions; then
what stands there is read from flat arrays at unsigned positions.
"""

import math

import numpy as np

from omnimotion_core.compilation import compiled, inlined

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_INDEX, _UNSIGNED = np.int32, np.uint64


@inlined
def _clamped(position, last):  # type: ignore[no-untyped-def]  # numba infers
    """The pixel before ``position`` and the rest, within a picture whose last pixel is ``last``.

    What is no number counts as the border, so that no index is out of bounds.
    """
    position = position if position > 0 else _ZERO
    position = position if position < last else last
    index = min(_INDEX(position), _INDEX(_INDEX(last) - 1))
    return index, position - np.float32(index)


@inlined
def _find_places(flow, y, entry, across, down):  # type: ignore[no-untyped-def]
    """Where the pixels of row ``y`` go: the first of four pixels in reading order, and how far past it, (W,) each."""
    height, width = flow.shape[0], flow.shape[1]
    last_column, last_row, here = np.float32(width - 1), np.float32(height - 1), np.float32(y)
    for x in range(width):
        column, across[x] = _clamped(np.float32(x) + flow[y, x, 0], last_column)
        row, down[x] = _clamped(here + flow[y, x, 1], last_row)
        entry[x] = row * width + column


@inlined
def _read(flat, first, step, line, across, down):  # type: ignore[no-untyped-def]
    """Between the entries at ``first``, a ``step`` after it, a ``line`` after it, and after both."""
    below = first + line
    upper = flat[first] + (flat[first + step] - flat[first]) * across
    lower = flat[below] + (flat[below + step] - flat[below]) * across
    return upper + (lower - upper) * down


@inlined
def _outside(x, y, height, width):  # type: ignore[no-untyped-def]
    """Whether a position lies off the picture, its half-pixel border included, or is no number."""
    return not ((x >= -_HALF) & (y >= -_HALF) & (x <= np.float32(width) - _HALF) & (y <= np.float32(height) - _HALF))


@compiled
def round_trips(forward, backward, error):  # type: ignore[no-untyped-def]
    """Fill ``error`` (H, W): by how much each pixel misses itself; infinite where ``forward`` leaves the picture."""
    height, width = error.shape
    flat, line, infinite = backward.reshape(-1), _UNSIGNED(2 * width), np.float32(np.inf)
    entry, across, down = np.empty(width, np.int32), np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        _find_places(forward, y, entry, across, down)
        for x in range(width):
            there_x, there_y, first = forward[y, x, 0], forward[y, x, 1], _UNSIGNED(entry[x]) * _UNSIGNED(2)
            miss_x = there_x + _read(flat, first, _UNSIGNED(2), line, across[x], down[x])
            miss_y = there_y + _read(flat, first + _UNSIGNED(1), _UNSIGNED(2), line, across[x], down[x])
            lost = _outside(np.float32(x) + there_x, np.float32(y) + there_y, height, width)
            error[y, x] = infinite if lost else math.sqrt(miss_x * miss_x + miss_y * miss_y)


@compiled
def color_differences(source, target, flow, step, difference):  # type: ignore[no-untyped-def]
    """Fill ``difference`` (h, w, 3): of color between both ends of every ``step``-th pixel's match, end less start."""
    height, width = flow.shape[0], flow.shape[1]
    flat, line = target.reshape(-1), _UNSIGNED(3 * width)
    entry, across, down = np.empty(width, np.int32), np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(0, height, step):
        _find_places(flow, y, entry, across, down)
        for x in range(0, width, step):
            first = _UNSIGNED(entry[x]) * _UNSIGNED(3)
            for channel in range(3):
                end = _read(flat, first + _UNSIGNED(channel), _UNSIGNED(3), line, across[x], down[x])
                difference[y // step, x // step, channel] = end - source[y, x, channel]


@compiled
def mean_color_differences(source, target, flow, shift, difference):  # type: ignore[no-untyped-def]
    """Fill ``difference`` (H, W): the mean over the channels of |end - start - ``shift``| of each pixel's match."""
    height, width = flow.shape[0], flow.shape[1]
    flat, line, third = target.reshape(-1), _UNSIGNED(3 * width), _ONE / np.float32(3)
    entry, across, down = np.empty(width, np.int32), np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        _find_places(flow, y, entry, across, down)
        for x in range(width):
            first, total = _UNSIGNED(entry[x]) * _UNSIGNED(3), _ZERO
            for channel in range(3):
                end = _read(flat, first + _UNSIGNED(channel), _UNSIGNED(3), line, across[x], down[x])
                total += abs(end - source[y, x, channel] - shift[channel])
            difference[y, x] = total * third


@compiled
def arrivals(flow, hit):  # type: ignore[no-untyped-def]
    """Set ``hit`` (H, W) uint8 to 1 at each pixel that a pixel goes to, to the nearest one."""
    height, width = hit.shape
    for y in range(height):
        for x in range(width):
            to_x, to_y = np.float32(x) + flow[y, x, 0], np.float32(y) + flow[y, x, 1]
            if not _outside(to_x, to_y, height, width):
                row, column = _INDEX(math.floor(to_y + _HALF)), _INDEX(math.floor(to_x + _HALF))
                hit[min(max(row, 0), height - 1), min(max(column, 0), width - 1)] = 1
