"""The depth maps that a fit begins with: what does not follow the camera's motion is nearer.

Stray motion is a guess at order, not a measurement: parallax makes near things stray, and so do things that move. What
one frame tells is weak, since a walking animal stands still at times, and each of its legs for half of the time; so
matches over many frames are asked too, by when it has moved on, and what they tell is carried along them, so that a
surface has nearly the same depth in all frames that show it. Each round of this blurs the outline of things a little,
and at last colors draw it anew: between two surfaces the volume holds none, so that depths in between them do harm.
"""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from omnimotion_core.compilation import compiled
from omnimotion_core.config import ModelConfig
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.motion import FAR, FieldShape

PairMotions = dict[tuple[int, int], tuple[np.ndarray, float]]  # of frames (i, j): a matrix, its share of the matches

MAX_GAP = 32  # frames; distances from which stray motion is read and along which it is carried
CARRY_ROUNDS = 2  # over so many times MAX_GAP frames a surface's depth evens out; each blurs outlines a little
SURE = 0.3  # sum of squared weights of a cell's matches from which on it is no part of its surroundings
RESIDUAL_CLIP_PX = 8.0
SPEEDS_TO_HALF = 4.0  # the fastest things stray so many times as fast as what lies in the middle of the volume
FARTHEST, NEAREST = 0.9 * FAR, 0.1 * FAR
MEDIAN_ROUNDS = 2
REACH, NEARBY = 5, 3.0  # cells that are looked at around each, and within which most of them count
SAME_COLOR = 0.06  # distance of two colors 0..1 within which they are likely of one surface
BINS, COLOR_STEPS = 64, 256  # in which values, and squares of distances of colors, are counted
CHUNK = 262_144  # matches looked at together


def initial_depth(
    shape: FieldShape, config: ModelConfig, correspondences: Correspondences, motions: PairMotions,
    pictures: np.ndarray, threads: int = 1,
) -> np.ndarray:  # fmt: skip
    """Depth maps (T, h, w) float32 in which what strays from the dominant motion is nearer.

    Args:
        motions: the dominant motion of the pairs that are asked.
        pictures: all frames at the size of the depth maps, (T, 3, h, w) colors 0..1.
        threads: among which frames are shared out.
    """
    cell = config.depth_cell(shape.working_size)
    width, height = config.depth_size(shape.working_size)
    shape_of_maps = (shape.num_frames, height, width)
    start, end, stray, weight = _asked_matches(shape_of_maps, cell, correspondences, motions)
    speed = _filled_means(shape_of_maps, start, stray, weight)
    for _ in range(CARRY_ROUNDS):
        carried = _filled_means(shape_of_maps, start, speed.ravel()[end], weight)
        speed = (speed + carried) / 2
    for _ in range(MEDIAN_ROUNDS):
        speed = median_along_colors(speed, pictures, threads)
    half = max(float(np.quantile(speed, 0.98)) / SPEEDS_TO_HALF, 0.25)
    nearness = speed / (speed + half) * (1 + 1 / SPEEDS_TO_HALF)
    return FARTHEST - (FARTHEST - NEAREST) * np.clip(nearness, 0, 1).astype(np.float32)


def median_along_colors(values: np.ndarray, pictures: np.ndarray, threads: int = 1) -> np.ndarray:
    """Maps (T, h, w) float32 of which each cell is the median of those around it that have its color.

    Unlike a mean, it is the value of one of the surfaces that meet there, and none between them. It is right to
    within 1 / ``BINS`` of the range of the values.

    Args:
        values: finite numbers.
        pictures: (T, 3, h, w) colors 0..1.
    Source: Zhang, Xu and Jia 2014, "100+ times faster weighted median filter", here with one histogram a cell.
    """
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return values.copy()
    bins = ((values - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int32).clip(0, BINS - 1)
    colors, medians, falloffs = np.ascontiguousarray(pictures, np.float32), np.empty_like(values), _falloffs()
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        list(pool.map(lambda t: _medians(bins[t], colors[t], *falloffs, medians[t]), range(len(values))))
    return np.float32(low) + medians * np.float32((high - low) / BINS)


def _falloffs() -> tuple[np.ndarray, np.ndarray]:
    """How much a cell counts by its place around another, (2 REACH + 1, 2 REACH + 1), and by the square of the distance
    of their colors, in ``COLOR_STEPS`` of them up to three times ``SAME_COLOR``, beyond which none counts."""
    away = np.arange(-REACH, REACH + 1) ** 2
    apart = np.linspace(0, 9, COLOR_STEPS + 1)
    of_place = np.exp((away[:, None] + away) * (-0.5 / NEARBY**2)).astype(np.float32)
    return of_place, np.exp(-0.5 * apart).astype(np.float32)


@compiled
def _medians(bins, picture, of_place, of_color, medians):  # type: ignore[no-untyped-def]
    """The weighted median around each cell of ``bins`` (h, w), counted in bins, from 0 to their number."""
    height, width = bins.shape
    reach, last = of_place.shape[0] // 2, of_color.shape[0] - 1
    steps = np.float32(last / (3 * SAME_COLOR) ** 2)
    counts = np.empty(BINS, np.float32)
    red, green, blue = picture[0], picture[1], picture[2]
    for row in range(height):
        for column in range(width):
            r, g, b = red[row, column], green[row, column], blue[row, column]
            counts[:] = 0
            total = np.float32(0)
            for y in range(max(row - reach, 0), min(row + reach + 1, height)):
                for x in range(max(column - reach, 0), min(column + reach + 1, width)):
                    apart = (red[y, x] - r) ** 2 + (green[y, x] - g) ** 2 + (blue[y, x] - b) ** 2
                    step = int(apart * steps)
                    if step < last:
                        weight = of_place[y - row + reach, x - column + reach] * of_color[step]
                        counts[bins[y, x]] += weight
                        total += weight
            half, below, place = total / 2, np.float32(0), 0
            while place < BINS - 1 and below + counts[place] < half:
                below += counts[place]
                place += 1
            within = (half - below) / max(counts[place], np.float32(1e-9))
            medians[row, column] = place + min(within, np.float32(1))


def _asked_matches(
    shape: tuple[int, int, int], cell: int, correspondences: Correspondences, motions: PairMotions
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The matches of pairs that are near enough in time and have a dominant motion.

    Returns:
        The cells of depth maps at their two ends (flat indices), by how many working pixels a frame they stray from the
        dominant motion, and how much they count, (M,) each.
    """
    near = [abs(int(j) - int(i)) <= MAX_GAP and (int(i), int(j)) in motions for i, j in correspondences.pairs]
    rows = np.flatnonzero(np.array(near, bool)[correspondences.pair]).astype(np.int32)
    matrices = np.zeros((len(correspondences.pairs), 2, 3))
    for row, (i, j) in enumerate(correspondences.pairs.tolist()):
        if (i, j) in motions:
            matrices[row] = motions[i, j][0][:2]
    start, end = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
    stray, weight = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    for first in range(0, len(rows), CHUNK):  # a long clip has tens of millions
        part = slice(first, first + CHUNK)
        pair, source = correspondences.pair[rows[part]], correspondences.source[rows[part]].astype(np.float32)
        target, frames = correspondences.target[rows[part]], correspondences.pairs[pair]
        matrix = matrices[pair]
        moved = matrix[:, :, 0] * source[:, :1] + matrix[:, :, 1] * source[:, 1:] + matrix[:, :, 2]
        gap = np.abs(frames[:, 1] - frames[:, 0])
        stray[part] = np.minimum(np.linalg.norm(target - moved, axis=1) / gap, RESIDUAL_CLIP_PX)
        start[part], end[part] = (
            _cells_of(shape, frames[:, side].astype(np.int64), ends, cell) for side, ends in ((0, source), (1, target))
        )
        trust = correspondences.weight[rows[part]].astype(np.float32) / 255
        weight[part] = trust**2  # what looks otherwise around tells little
    return start, end, stray, weight


def _cells_of(shape: tuple[int, int, int], frames: np.ndarray, pixels: np.ndarray, cell: int) -> np.ndarray:
    """Flat index into depth maps of the cells that hold ``pixels``."""
    column, row = (pixels / cell).astype(np.int64).T
    return (frames * shape[1] + row.clip(0, shape[1] - 1)) * shape[2] + column.clip(0, shape[2] - 1)


def _filled_means(
    shape: tuple[int, int, int], cells: np.ndarray, values: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """The weighted mean value of each cell, (T, h, w); cells of which little is known are filled from around them."""
    total, count = np.zeros(shape), np.zeros(shape)
    _add(cells, values, weight, total.ravel(), count.ravel())
    return np.stack([_fill(*frame) for frame in zip(total.astype(np.float32), count.astype(np.float32), strict=True)])


@compiled
def _add(cells, values, weight, total, count):  # type: ignore[no-untyped-def]
    """Add to each cell its matches' weighted values, and their weights."""
    for match in range(len(cells)):
        cell, counted = cells[match], weight[match]
        total[cell] += values[match] * counted
        count[cell] += counted


def _fill(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The mean a cell; cells of which little is known are taken from their surroundings, near ones first."""
    known = count >= SURE
    filled = np.where(known, total, 0) / np.where(known, count, 1)
    for sigma in (1.0, 4.0, 16.0, 64.0):
        if known.all():
            break  # wide blurs cost most and are seldom wanted
        blurred, weight = cv2.GaussianBlur(total, (0, 0), sigma), cv2.GaussianBlur(count, (0, 0), sigma)
        open_cells = ~known & (weight > 1e-3)
        filled[open_cells] = blurred[open_cells] / weight[open_cells]
        known |= open_cells
    return filled
