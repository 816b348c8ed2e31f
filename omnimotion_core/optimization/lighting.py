"""How the light on what a clip shows changes: what drives out of a shadow is no other surface.

Points that land on another color than they began with are told hidden. So that this holds where the light changes in
parts of the picture only, the change is read from the matches: along them the colors less the light on them are to stay
the same. Light is kept in coarse cells, where texture leaves no trace, and no greater than the matches ask for.
"""

import cv2
import numpy as np

from omnimotion_core.compilation import compiled
from omnimotion_core.flow.correspondences import Correspondences

CELLS = 32  # of the longer side
MAX_GAP = 8  # frames: over more, what has changed much is not matched
MATCHES_PER_FRAME = 4000  # that are asked, on the average
SMOOTHNESS = 0.02  # of what the matches of a cell count on the average: light on cells side by side is alike
SMALLNESS = 0.0006  # likewise: without need there is no change
ROBUST = 4.0  # CIELAB units: a match that misses the change around it by so much counts half
NOTABLE = 2.0  # CIELAB units: of light that is changed by so much half is believed, of less little
ROUNDS = 3  # of reweighting
ITERATIONS = 60  # of the solver; twice as many change nothing that is seen


def light_changes(colors: np.ndarray, cell: int, correspondences: Correspondences) -> np.ndarray:
    """By how much brighter and differently tinted every place is than its surface is on the whole.

    Args:
        colors: (T, h, w, 3) CIELAB, changes of exposure taken out.
        cell: working pixels that a color stands for, across and down.
    Returns:
        (T, h, w, 3) float32 CIELAB units; what is left of ``colors`` without it stays the same along the matches.
    Source: intrinsic images from sequences (Weiss 2001, "Deriving intrinsic images from image sequences") part
    reflectance from light by what is constant in time; here in the frame of the moving surface, by least squares.
    """
    times, height, width, _ = colors.shape
    block = -(-max(height, width) // CELLS)  # colors a cell of light, across and down
    rows, columns = -(-height // block), -(-width // block)
    matches = _near_rows(correspondences, MATCHES_PER_FRAME * times)
    frames = correspondences.pairs[correspondences.pair[matches]]
    ends, values = [], []
    for side, pixels in ((0, correspondences.source), (1, correspondences.target)):
        x, y = (pixels[matches] / cell).astype(np.int32).clip(0, [width - 1, height - 1]).T
        ends.append((frames[:, side] * rows + y // block) * columns + x // block)
        values.append(colors[frames[:, side], y, x])
    change, trust = values[1] - values[0], correspondences.weight[matches].astype(np.float32) / 255
    light, counted = np.zeros((times * rows * columns, 3)), trust
    mean = max(2 * float(trust.sum()) / len(light), 1e-6)
    for _ in range(ROUNDS):
        light = _solve(ends[0], ends[1], change, counted / mean, (times, rows, columns))
        miss = np.abs(change - (light[ends[1]] - light[ends[0]])).mean(axis=1)
        counted = trust / (1 + (miss / ROBUST) ** 2).astype(np.float32)
    strength = np.square(np.abs(light).mean(axis=1, keepdims=True))
    light *= strength / (strength + NOTABLE**2)
    maps = light.astype(np.float32).reshape(times, rows, columns, 3)
    size = columns * block, rows * block
    return np.stack([cv2.resize(each, size, interpolation=cv2.INTER_LINEAR)[:height, :width] for each in maps])


def _near_rows(correspondences: Correspondences, count: int) -> np.ndarray:
    """At most about ``count`` matches over short distances, evenly spread."""
    pairs = correspondences.pairs
    near = np.abs(pairs[:, 1] - pairs[:, 0]) <= MAX_GAP
    rows = np.flatnonzero(near[correspondences.pair])
    return rows[:: max(len(rows) // count, 1)]


def _solve(
    start: np.ndarray, end: np.ndarray, change: np.ndarray, weight: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """The light (T * h * w, 3) whose differences between cells ``start`` and ``end`` (M,) are nearest to ``change``.

    By conjugate gradients, preconditioned by what each cell counts.
    """
    light = np.zeros((int(np.prod(shape)), 3))
    counts = np.bincount(start, weight, len(light)) + np.bincount(end, weight, len(light))
    scale = 1 / (counts + SMALLNESS + 4 * SMOOTHNESS)[:, None]
    rest, applied = np.zeros_like(light), np.empty_like(light)
    _add_changes(start, end, change, weight, rest)
    ahead = scale * rest
    energy = (rest * ahead).sum(axis=0)
    for _ in range(ITERATIONS):
        _apply(ahead, start, end, weight, shape, applied)
        step = energy / np.maximum((ahead * applied).sum(axis=0), 1e-30)
        light += step * ahead
        rest -= step * applied
        turned = scale * rest
        before, energy = energy, (rest * turned).sum(axis=0)
        ahead = turned + energy / np.maximum(before, 1e-30) * ahead
    return light


@compiled
def _add_changes(start, end, change, weight, total):  # type: ignore[no-untyped-def]
    """Add to ``total`` (N, 3) what the matches ask of both their cells."""
    for match in range(len(weight)):
        for channel in range(3):
            asked = weight[match] * change[match, channel]
            total[end[match], channel] += asked
            total[start[match], channel] -= asked


@compiled
def _apply(light, start, end, weight, shape, result):  # type: ignore[no-untyped-def]
    """Fill ``result`` (N, 3) with the normal equations' matrix times ``light`` (N, 3)."""
    times, height, width = shape
    result[:] = SMALLNESS * light
    for match in range(len(weight)):
        for channel in range(3):
            pull = weight[match] * (light[end[match], channel] - light[start[match], channel])
            result[end[match], channel] += pull
            result[start[match], channel] -= pull
    for cell in range(times * height * width):
        column, row = cell % width, cell // width % height
        for channel in range(3):
            if column + 1 < width:
                pull = SMOOTHNESS * (light[cell + 1, channel] - light[cell, channel])
                result[cell + 1, channel] += pull
                result[cell, channel] -= pull
            if row + 1 < height:
                pull = SMOOTHNESS * (light[cell + width, channel] - light[cell, channel])
                result[cell + width, channel] += pull
                result[cell, channel] -= pull
