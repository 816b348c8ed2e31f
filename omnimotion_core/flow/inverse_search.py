"""Dense inverse search: patches of one picture, each moved to where it fits the other, from coarse to fine.

Two searches are made of it. One is for little motion that is left, on which flow over many frames spends most of its
time: rough, in a third of the time of OpenCV's with a first guess. In the other one what patches tell is settled at
every size before the next finer one goes on from it, as OpenCV has it too, in half of its time. Differences of a patch
are one vector loop, and patches whose neighbors move as they do are visited once.

Source: Kroeger et al. 2016, "Fast optical flow using dense inverse search", arXiv:1603.03590, sections 2.1 to 2.3.
Where this parts from it:
- Of each step of Gauss and Newton half is taken, few steps are, and slopes that noise alone would give count as
  none: a patch across an outline, or without texture, stays with its guess. OpenCV takes an eighth, by the scale of its
  slopes, and more steps.
- The guess is tried at every size, not only at the coarsest; so OpenCV has it too.
- Motions of neighbors are tried, as in PatchMatch (Barnes et al. 2009), there and back.
"""

import math

import cv2
import numpy as np

from omnimotion_core.compilation import compiled, inlined
from omnimotion_core.flow.channels import scale
from omnimotion_core.flow.settling import settle

PATCH = 8  # pixels a side
STRIDE = 4  # pixels between patches
STEPS = 3  # of a patch at each size
RATE = 0.5  # share of a step that is taken
DAMPING = 30.0  # gray levels squared, of all slopes of a patch: as much is noise
MOST_PX = 1e6  # what is larger, or no number, is no motion
ALIKE_PX = 0.5  # motions nearer than this lead to the same place
ENOUGH_PX = 0.05  # a shorter step is the last
COARSEST_PATCHES = 4  # along the longer side of the smallest size
LEVEL_DIFFERENCE = 1.0  # gray level: pixels that differ by less count alike when patches are put together

_BORDER = 2 * PATCH  # pixels around the other picture, as at its border
_ROW = PATCH + 1  # entries of a row of a patch as it is kept: rows lie behind each other, an unused pixel between them
_ENTRIES = PATCH * _ROW
_INDEX, _UNSIGNED = np.int32, np.uint64
_ZERO, _ONE = np.float32(0), np.float32(1)
_SHARE = np.float32(1 / PATCH**2)


def inverse_search(source: np.ndarray, target: np.ndarray, initial: np.ndarray | None = None) -> np.ndarray:
    """Flow from ``source`` to ``target``, searched for around ``initial`` from coarse to fine; rough.

    It needs to be settled or made smooth, for which a smaller size will do.

    Args:
        source, target: (h, w) uint8 luminance, ``PATCH`` pixels high and wide at least.
        initial: (h, w, 2) float32, pixels; what is not finite counts as no motion. None: no motion.
    Returns:
        (h, w, 2) float32, pixels.
    """
    sources, targets = _pyramid(source), _pyramid(target)
    flow = None
    for smaller, other in zip(sources[::-1], targets[::-1], strict=True):
        given = np.zeros((*smaller.shape, 2), np.float32) if initial is None else _resized(initial, smaller)
        start = given if flow is None else _resized(flow, smaller)
        flow = _searched(smaller, other, start, given)
    assert flow is not None  # a picture has one size at least
    return flow


def settled_search(
    source: np.ndarray, target: np.ndarray, initial: np.ndarray, *, longest_side: float = math.inf
) -> np.ndarray:
    """Flow from ``source`` to ``target``, searched for around ``initial`` from coarse to fine, settled at every size.

    Args:
        source, target: (h, w) uint8 luminance.
        initial: (h, w, 2) float32, pixels; what is not finite counts as no motion.
        longest_side: pixels, of the largest size that is searched: the picture's or a half, a quarter, ... of it.
    Returns:
        (h, w, 2) float32, pixels.
    """
    height, width = source.shape
    missing = max(PATCH - height, 0), max(PATCH - width, 0)
    if any(missing):
        edges = 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE
        source, target = cv2.copyMakeBorder(source, *edges), cv2.copyMakeBorder(target, *edges)
        initial = cv2.copyMakeBorder(initial, *edges)
    sources, targets = _pyramid(source), _pyramid(target)
    flow = initial
    for smaller, other in zip(sources[::-1], targets[::-1], strict=True):
        if max(smaller.shape) > longest_side and smaller is not sources[-1]:
            break
        found = _searched(smaller, other, _resized(flow, smaller), _resized(initial, smaller))
        flow = settle(_rounded(smaller), _rounded(other), found)
    return _resized(flow, source)[:height, :width]


def _searched(source: np.ndarray, target: np.ndarray, start: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Flow of pictures of one size, (h, w, 2), from that of the coarser one and from a guess."""
    slopes = [cv2.Scharr(source, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1))]
    around = cv2.copyMakeBorder(target, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REPLICATE)
    rows, columns = (-(-(side - PATCH) // STRIDE) + 1 for side in source.shape)
    found = np.empty((rows, columns, 2), np.float32)
    _search(source, *slopes, around, start, given, found)
    flow = np.zeros((*source.shape, 2), np.float32)
    _put_together(source, around, found, flow)
    return flow


def _rounded(picture: np.ndarray) -> np.ndarray:
    return np.rint(picture).astype(np.uint8)


def _pyramid(picture: np.ndarray) -> list[np.ndarray]:
    """The picture and halves of it, float32, the finest first."""
    height, width = picture.shape
    by_length = round(math.log2(max(height, width) / (COARSEST_PATCHES * PATCH)))
    halvings = max(min(by_length, int(math.log2(min(height, width) / PATCH))), 0)
    sizes = [picture.astype(np.float32)]
    for _ in range(halvings):
        height, width = sizes[-1].shape
        half = cv2.resize(sizes[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        sizes.append(np.asarray(half, np.float32))
    return sizes


def _resized(flow: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """``flow`` at the size of ``picture``, in its pixels."""
    height, width = picture.shape
    if flow.shape[:2] == picture.shape:
        return np.ascontiguousarray(flow, np.float32)
    way = cv2.INTER_AREA if width < flow.shape[1] else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(flow, (width, height), interpolation=way), np.float32)
    scale(resized, width / flow.shape[1], height / flow.shape[0])
    return resized


@inlined
def _take_patch(flat, first, line, patch):  # type: ignore[no-untyped-def]  # numba infers
    """Fill ``patch`` (_ENTRIES,) with that whose corner is the entry ``first`` of a flat picture."""
    entry = _UNSIGNED(0)
    for _ in range(PATCH):
        for column in range(_UNSIGNED(PATCH)):
            patch[entry + column] = flat[first + column]
        first += line
        entry += _UNSIGNED(_ROW)


@inlined
def _clamped(position, last):  # type: ignore[no-untyped-def]
    """A position within the picture and its border; what is no number counts as the border."""
    position = position if position > 0 else _ZERO
    return position if position < last else last


@inlined
def _differ(target, size, corner, u, v, patch, counts, window, left):  # type: ignore[no-untyped-def]
    """Fill ``left`` (_ENTRIES,): the other picture's patch at (u, v) from ``corner``, less ``patch``.

    Gives the sum of what is left, and how much that varies: the sum of the squares of its distances from its mean, so
    that a patch that is lighter as a whole is no other.
    """
    line = _UNSIGNED(size[1])
    x = _clamped(np.float32(corner[1] + _BORDER) + u, np.float32(size[1] - PATCH - 2))
    y = _clamped(np.float32(corner[0] + _BORDER) + v, np.float32(size[0] - PATCH - 2))
    column, row = _INDEX(x), _INDEX(y)
    across, down = x - np.float32(column), y - np.float32(row)
    both = across * down
    here, right, below = _ONE - across - down + both, across - both, down - both
    first, entry = _UNSIGNED(row) * line + _UNSIGNED(column), _UNSIGNED(0)
    for _ in range(_ROW):
        for step in range(_UNSIGNED(_ROW)):
            window[entry + step] = target[first + step]
        first += line
        entry += _UNSIGNED(_ROW)
    total, squares = _ZERO, _ZERO
    for k in range(_UNSIGNED(_ENTRIES)):
        value = here * window[k] + right * window[k + _UNSIGNED(1)]
        value += below * window[k + _UNSIGNED(_ROW)] + both * window[k + _UNSIGNED(_ROW + 1)]
        value = (value - patch[k]) * counts[k]
        left[k] = value
        total += value
        squares += value * value
    return total, squares - total * total * _SHARE


@inlined
def _apart(motion, u, v):  # type: ignore[no-untyped-def]
    """Whether ``motion`` leads to another place than (u, v)."""
    return abs(motion[0] - u) + abs(motion[1] - v) > np.float32(ALIKE_PX)


@inlined
def _pixels_of_rows():  # type: ignore[no-untyped-def]
    """1 for the entries of a patch that are pixels of it, 0 for those between its rows."""
    counts = np.ones(_ENTRIES, np.float32)
    for row in range(PATCH):
        counts[row * _ROW + PATCH] = _ZERO
    return counts


@inlined
def _moved(target, size, corner, u, v, least, total, patch, counts, gx, gy, window, left):  # type: ignore[no-untyped-def]
    """Where steps lead from (u, v), which misses by ``least`` and leaves ``left``, whose sum is ``total``."""
    x, y, xx, xy, yy = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
    for k in range(_UNSIGNED(_ENTRIES)):
        x += gx[k]
        y += gy[k]
        xx += gx[k] * gx[k]
        xy += gx[k] * gy[k]
        yy += gy[k] * gy[k]
    xx += np.float32(DAMPING) - x * x * _SHARE
    yy += np.float32(DAMPING) - y * y * _SHARE
    xy -= x * y * _SHARE
    rate = np.float32(RATE) / (xx * yy - xy * xy)
    for _ in range(STEPS):
        along_x, along_y = -total * x * _SHARE, -total * y * _SHARE
        for k in range(_UNSIGNED(_ENTRIES)):
            along_x += left[k] * gx[k]
            along_y += left[k] * gy[k]
        step_u, step_v = (yy * along_x - xy * along_y) * rate, (xx * along_y - xy * along_x) * rate
        next_u, next_v = u - step_u, v - step_v
        total, miss = _differ(target, size, corner, next_u, next_v, patch, counts, window, left)
        if not miss < least:
            break
        least, u, v = miss, next_u, next_v
        if step_u * step_u + step_v * step_v < np.float32(ENOUGH_PX**2):
            break
    return u, v


@compiled
def _search(source, slopes_x, slopes_y, around, start, given, found):  # type: ignore[no-untyped-def]
    """Fill ``found`` (rows, columns, 2) with the motions of the patches, from left above and back again.

    First each goes on from the best of where coarser sizes led (``start``), of what was ``given``, and of what its
    neighbors before it found; on the way back only those that a neighbor's motion suits better.
    """
    height, width = source.shape
    rows, columns = found.shape[0], found.shape[1]
    picture, line = source.reshape(-1), _UNSIGNED(width)
    across, down = slopes_x.reshape(-1), slopes_y.reshape(-1)
    target, size = around.reshape(-1), around.shape
    counts, window = _pixels_of_rows(), np.zeros(_ROW * _ROW + 1, np.float32)
    patch, left = np.zeros(_ENTRIES, np.float32), np.zeros(_ENTRIES, np.float32)
    gx, gy = np.zeros(_ENTRIES, np.float32), np.zeros(_ENTRIES, np.float32)
    tried = np.empty((4, 2), np.float32)
    for way in range(2):
        before = 1 if way == 0 else -1  # steps to the neighbors that were visited before
        for i in range(rows):
            row = i if way == 0 else rows - 1 - i
            for j in range(columns):
                column = j if way == 0 else columns - 1 - j
                corner = min(row * STRIDE, height - PATCH), min(column * STRIDE, width - PATCH)
                if way == 0:
                    middle_y, middle_x = corner[0] + PATCH // 2, corner[1] + PATCH // 2
                    tried[0, 0], tried[0, 1] = start[middle_y, middle_x, 0], start[middle_y, middle_x, 1]
                    tried[1, 0], tried[1, 1] = given[middle_y, middle_x, 0], given[middle_y, middle_x, 1]
                    number = 2
                else:
                    tried[0, 0], tried[0, 1] = found[row, column, 0], found[row, column, 1]
                    number = 1
                if j > 0:
                    tried[number, 0] = found[row, column - before, 0]
                    tried[number, 1] = found[row, column - before, 1]
                    number += 1
                if i > 0:
                    tried[number, 0] = found[row - before, column, 0]
                    tried[number, 1] = found[row - before, column, 1]
                    number += 1
                others = way == 0
                for k in range(number):
                    if not abs(tried[k, 0]) + abs(tried[k, 1]) < np.float32(MOST_PX):
                        tried[k, 0], tried[k, 1] = _ZERO, _ZERO
                    others |= _apart(tried[k], tried[0, 0], tried[0, 1])
                if not others:
                    continue
                first = _UNSIGNED(corner[0]) * line + _UNSIGNED(corner[1])
                _take_patch(picture, first, line, patch)
                u, v, best, last = tried[0, 0], tried[0, 1], 0, 0
                total, least = _differ(target, size, corner, u, v, patch, counts, window, left)
                for k in range(1, number):
                    if _apart(tried[k], u, v):
                        total, miss = _differ(
                            target, size, corner, tried[k, 0], tried[k, 1], patch, counts, window, left
                        )
                        last = k
                        if miss < least:
                            least, best, u, v = miss, k, tried[k, 0], tried[k, 1]
                if way == 1 and best == 0:
                    continue
                if last != best:
                    total, least = _differ(target, size, corner, u, v, patch, counts, window, left)
                _take_patch(across, first, line, gx)
                _take_patch(down, first, line, gy)
                found[row, column, 0], found[row, column, 1] = _moved(
                    target, size, corner, u, v, least, total, patch, counts, gx, gy, window, left
                )


@compiled
def _put_together(source, around, found, flow):  # type: ignore[no-untyped-def]
    """Fill ``flow`` (h, w, 2), zeros, with the mean of the patches over each pixel, by how little each misses there."""
    height, width = source.shape
    picture, line = source.reshape(-1), _UNSIGNED(width)
    target, size, flat = around.reshape(-1), around.shape, flow.reshape(-1)
    counts, window = _pixels_of_rows(), np.zeros(_ROW * _ROW + 1, np.float32)
    patch, left = np.zeros(_ENTRIES, np.float32), np.zeros(_ENTRIES, np.float32)
    weight = np.zeros(height * width, np.float32)
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            corner = min(row * STRIDE, height - PATCH), min(column * STRIDE, width - PATCH)
            u, v = found[row, column, 0], found[row, column, 1]
            first = _UNSIGNED(corner[0]) * line + _UNSIGNED(corner[1])
            _take_patch(picture, first, line, patch)
            _differ(target, size, corner, u, v, patch, counts, window, left)
            for k in range(_UNSIGNED(_ENTRIES)):
                left[k] = _ONE / max(np.float32(LEVEL_DIFFERENCE), abs(left[k]))
            entry = _UNSIGNED(0)
            for _ in range(PATCH):
                for step in range(_UNSIGNED(PATCH)):
                    here, counted = first + step, left[entry + step]
                    weight[here] += counted
                    flat[here * _UNSIGNED(2)] += counted * u
                    flat[here * _UNSIGNED(2) + _UNSIGNED(1)] += counted * v
                first += line
                entry += _UNSIGNED(_ROW)
    for pixel in range(_UNSIGNED(height * width)):
        share = _ONE / weight[pixel]
        flat[pixel * _UNSIGNED(2)] *= share
        flat[pixel * _UNSIGNED(2) + _UNSIGNED(1)] *= share
