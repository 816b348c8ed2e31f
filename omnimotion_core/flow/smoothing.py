"""Flow made smooth along surfaces and sharp between them: what has one color moves, nearby, by one affine map.

Flow that is found by comparing small squares is drawn over the edges of things by some pixels: squares there hold two
surfaces, and the one with the stronger texture decides. What is composed of such flow loses a strip more with every
step, and small and turning things altogether.
"""

import cv2
import numpy as np

from omnimotion_core.compilation import compiled, inlined
from omnimotion_core.flow.channels import all_set, largest

REACH, STEP = 6, 2  # pixels: how far around each is looked, and how far apart
NEARBY = 4.0  # pixels: standard deviation of the weight by place
COLOR_SCALE, COLOR_SCALES = 12.0, 8  # sum of CIELAB differences at which a weight falls to a third; at 8 times it ends
AGREE_PX = 1.0  # flow that differs by as much counts a quarter
ALIKE = 0.001  # of the longer side: flow that is so near to the mean around it has nothing to be parted
LEAST_TRUST = 0.02  # of flow that has failed: it decides where there is no other
TRIED = (8, 12, 36, 40)  # of the pixels looked at, in reading order, from which the search starts, and the weightiest
ROUNDS = 2  # of reweighting
STIFFNESS = 2.0  # pixels squared: holds the map to a shift where all that counts lies in one place

_PLACES = (2 * REACH // STEP + 1) ** 2  # that are looked at around a pixel
_LANES = np.uint64(32)  # pixels of a row that are computed together: all innermost loops are over them
_LAYER = np.uint64(_PLACES) * _LANES  # entries that are kept of one thing at all places around them
_ZERO, _ONE = np.float32(0), np.float32(1)
_U, _V, _U_X, _U_Y, _V_X, _V_Y = (_LANES * np.uint64(row) for row in range(6))  # flow and its slopes
_MOST, _AGREEING, _WEIGHT, _START_U, _START_V = (_LANES * np.uint64(row) for row in range(2, 7))  # before there are any
_TOTAL, _X, _Y, _OF_U, _OF_V = (_LANES * np.uint64(row) for row in range(6, 11))  # weighted sums
_XX, _XY, _YY, _XU, _YU, _XV, _YV = (_LANES * np.uint64(row) for row in range(11, 18))
_HELD = _LANES * np.uint64(18)


def smooth_along_surfaces(flow: np.ndarray, lab: np.ndarray, cost: np.ndarray | None = None) -> np.ndarray:
    """Each pixel's flow by the affine motion that most of the pixels of its color around it agree on.

    Args:
        flow: (h, w, 2) from the picture, in its pixels; what is not finite is filled from around.
        lab: the picture, (h, w, 3) float32 CIELAB.
        cost: (h, w), pixels; flow that costs more is trusted less. None: all alike.
    Returns:
        (h, w, 2) float32.
    Source: the local mode filter of van de Weijer and van den Boomgaard 2001 finds what most agree on, with weights by
    color and trust as Sun, Roth and Black 2014 have them ("A quantitative analysis of current practices in optical flow
    estimation"); affine maps in place of shifts, since over some frames things turn.
    """
    smooth = np.array(flow, dtype=np.float32, order="C")
    known = all_set(np.isfinite(smooth))
    smooth[~known] = 0
    around = cv2.blur(smooth, (2 * REACH + 1, 2 * REACH + 1))
    varied = largest(smooth - around) >= ALIKE * max(smooth.shape)
    trust = known.astype(np.float32)
    if cost is not None:
        trust *= np.exp(-np.square(cost)).astype(np.float32) + np.float32(LEAST_TRUST)
    height, width = trust.shape
    beyond = -width % int(_LANES)  # columns of the last lanes, with no trust as all around the picture
    planes = np.zeros((6, height + 2 * REACH, width + beyond + 2 * REACH), np.float32)
    inner = planes[:, REACH : REACH + height, REACH : REACH + width]
    for plane, values in zip(inner, (*np.moveaxis(smooth, -1, 0), trust, *np.moveaxis(lab, -1, 0)), strict=True):
        plane[:] = values
    _fit(planes, varied | ~known, *_places(planes.shape[2]), smooth)
    return smooth


def _places(line: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels looked at around one, in reading order.

    Args:
        line: entries of a row.
    Returns:
        How many entries away they are, (N,) int64, and (x, y, weight by place) of each, (N, 3) float32.
    """
    away = np.arange(-REACH, REACH + 1, STEP)
    y, x = (places.ravel() for places in np.meshgrid(away, away, indexing="ij"))
    near = np.exp((x**2 + y**2) * (-0.5 / NEARBY**2))
    return y * line + x, np.stack([x, y, near], axis=-1).astype(np.float32)


@inlined
def _gather(flat, plane, here, away, places, around):  # type: ignore[no-untyped-def]  # numba infers
    """Fill ``around`` (3 layers,) with the weights and the flow of what lies around the pixels from ``here`` on.

    ``flat`` holds the planes of the picture, ``plane`` entries each: flow, trust, color.
    """
    scale = np.float32(1 / (COLOR_SCALE * COLOR_SCALES))
    trust, lightness = plane * np.uint64(2), plane * np.uint64(3)
    a, b = plane * np.uint64(4), plane * np.uint64(5)
    for place in range(_PLACES):
        there, near, entry = np.uint64(np.int64(here) + away[place]), places[place, 2], np.uint64(place) * _LANES
        for lane in range(_LANES):
            apart = abs(flat[lightness + there + lane] - flat[lightness + here + lane])
            apart += abs(flat[a + there + lane] - flat[a + here + lane])
            apart += abs(flat[b + there + lane] - flat[b + here + lane])
            alike = _ONE - apart * scale
            alike = alike if alike > _ZERO else _ZERO
            squared = alike * alike
            around[entry + lane] = flat[trust + there + lane] * near * (squared * squared * squared * squared)
            around[_LAYER + entry + lane] = flat[there + lane]
            around[_LAYER + _LAYER + entry + lane] = flat[plane + there + lane]


@inlined
def _choose(around, held):  # type: ignore[no-untyped-def]
    """Fill the flow of ``held`` (rows of lanes,): that of the pixels tried with which most of ``around`` agrees."""
    unit = np.float32(1 / AGREE_PX**2)
    for lane in range(_LANES):
        held[_U + lane], held[_V + lane] = _ZERO, _ZERO
        held[_MOST + lane], held[_WEIGHT + lane] = _ZERO, _ZERO
        held[_START_U + lane], held[_START_V + lane] = _ZERO, _ZERO
    for place in range(_PLACES):
        entry = np.uint64(place) * _LANES
        for lane in range(_LANES):
            heavier = around[entry + lane] > held[_WEIGHT + lane]
            held[_WEIGHT + lane] = around[entry + lane] if heavier else held[_WEIGHT + lane]
            held[_START_U + lane] = around[_LAYER + entry + lane] if heavier else held[_START_U + lane]
            held[_START_V + lane] = around[_LAYER + _LAYER + entry + lane] if heavier else held[_START_V + lane]
    for number in range(-1, len(TRIED)):
        if number >= 0:
            entry = np.uint64(TRIED[number]) * _LANES
            for lane in range(_LANES):
                held[_WEIGHT + lane] = around[entry + lane]
                held[_START_U + lane] = around[_LAYER + entry + lane]
                held[_START_V + lane] = around[_LAYER + _LAYER + entry + lane]
        for lane in range(_LANES):
            held[_AGREEING + lane] = _ZERO
        for place in range(_PLACES):
            entry = np.uint64(place) * _LANES
            for lane in range(_LANES):
                off_u = around[_LAYER + entry + lane] - held[_START_U + lane]
                off_v = around[_LAYER + _LAYER + entry + lane] - held[_START_V + lane]
                miss = _ONE + (off_u * off_u + off_v * off_v) * unit
                held[_AGREEING + lane] += around[entry + lane] / (miss * miss)
        for lane in range(_LANES):
            more = (held[_WEIGHT + lane] > _ZERO) & (held[_AGREEING + lane] > held[_MOST + lane])
            held[_MOST + lane] = held[_AGREEING + lane] if more else held[_MOST + lane]
            held[_U + lane] = held[_START_U + lane] if more else held[_U + lane]
            held[_V + lane] = held[_START_V + lane] if more else held[_V + lane]


@inlined
def _add_up(around, places, held):  # type: ignore[no-untyped-def]
    """Fill the sums of ``held``, each pixel around weighed by how near the affine motion there comes to its flow."""
    unit = np.float32(1 / AGREE_PX**2)
    for index in range(_TOTAL, _HELD):
        held[index] = _ZERO
    for place in range(_PLACES):
        entry, x, y = np.uint64(place) * _LANES, places[place, 0], places[place, 1]
        for lane in range(_LANES):
            u, v = around[_LAYER + entry + lane], around[_LAYER + _LAYER + entry + lane]
            off_u = u - held[_U + lane] - held[_U_X + lane] * x - held[_U_Y + lane] * y
            off_v = v - held[_V + lane] - held[_V_X + lane] * x - held[_V_Y + lane] * y
            miss = _ONE + (off_u * off_u + off_v * off_v) * unit
            counted = around[entry + lane] / (miss * miss)
            held[_TOTAL + lane] += counted
            held[_OF_U + lane] += counted * u
            held[_OF_V + lane] += counted * v
            across, down = counted * x, counted * y
            held[_X + lane] += across
            held[_Y + lane] += down
            held[_XX + lane] += across * x
            held[_XY + lane] += across * y
            held[_YY + lane] += down * y
            held[_XU + lane] += across * u
            held[_YU + lane] += down * u
            held[_XV + lane] += across * v
            held[_YV + lane] += down * v


@inlined
def _solve(held):  # type: ignore[no-untyped-def]
    """Fill the flow and its slopes, of the affine motion that the sums of ``held`` tell."""
    for lane in range(_LANES):
        total, x, y = held[_TOTAL + lane] + np.float32(1e-12), held[_X + lane], held[_Y + lane]
        mean_x, mean_y, u, v = x / total, y / total, held[_OF_U + lane] / total, held[_OF_V + lane] / total
        xx = held[_XX + lane] - x * mean_x + np.float32(STIFFNESS) * total
        yy = held[_YY + lane] - y * mean_y + np.float32(STIFFNESS) * total
        xy = held[_XY + lane] - x * mean_y
        xu, yu = held[_XU + lane] - x * u, held[_YU + lane] - y * u
        xv, yv = held[_XV + lane] - x * v, held[_YV + lane] - y * v
        area = xx * yy - xy * xy
        u_x, u_y = (xu * yy - yu * xy) / area, (yu * xx - xu * xy) / area
        v_x, v_y = (xv * yy - yv * xy) / area, (yv * xx - xv * xy) / area
        held[_U_X + lane], held[_U_Y + lane], held[_V_X + lane], held[_V_Y + lane] = u_x, u_y, v_x, v_y
        held[_U + lane], held[_V + lane] = u - u_x * mean_x - u_y * mean_y, v - v_x * mean_x - v_y * mean_y


@compiled
def _fit(planes, varied, away, places, smooth):  # type: ignore[no-untyped-def]
    """``smooth`` (h, w, 2) becomes, wherever ``varied``, the flow at each pixel of the affine motion that most of what
    lies around it agree on. ``planes`` (6, rows, columns) have a border of ``REACH``, and whole lanes."""
    height, width = varied.shape
    flat, plane, line = planes.reshape(-1), np.uint64(planes.shape[1] * planes.shape[2]), planes.shape[2]
    around, held, lanes = np.empty(3 * _PLACES * _LANES, np.float32), np.empty(_HELD, np.float32), np.int64(_LANES)
    for row in range(height):
        for first in range(0, width, lanes):
            last = min(first + lanes, width)
            if not varied[row, first:last].any():
                continue
            _gather(flat, plane, np.uint64((row + REACH) * line + REACH + first), away, places, around)
            _choose(around, held)
            for index in range(_U_X, _TOTAL):
                held[index] = _ZERO
            for _ in range(ROUNDS):
                _add_up(around, places, held)
                _solve(held)
            for column in range(first, last):
                if varied[row, column]:
                    lane = np.uint64(column - first)
                    smooth[row, column, 0], smooth[row, column, 1] = held[_U + lane], held[_V + lane]
