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
COLOR_SCALE = 12.0  # sum of CIELAB differences at which the weight falls to a third
COLOR_STEPS, MOST_SCALES = 256, 5.0  # in which it is counted, and up to how many times that
AGREE_PX = 1.0  # flow that differs by as much counts a quarter
ALIKE = 0.001  # of the longer side: flow that is so near to the mean around it has nothing to be parted
LEAST_TRUST = 0.02  # of flow that has failed: it decides where there is no other
TRIED = 8  # of so many of the pixels looked at one is tried as the start, and that which counts most
ROUNDS = 2  # of reweighting
STIFFNESS = 2.0  # pixels squared: holds the map to a shift where all that counts lies in one place


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
    away = np.arange(-REACH, REACH + 1, STEP)
    of_place = np.exp((away[:, None] ** 2 + away**2) * (-0.5 / NEARBY**2)).astype(np.float32)
    of_color = np.exp(-np.linspace(0, MOST_SCALES, COLOR_STEPS + 1)).astype(np.float32)
    _fit(smooth.copy(), np.ascontiguousarray(lab, np.float32), trust, varied | ~known, of_place, of_color, smooth)
    return smooth


@inlined
def _gather(flow, lab, trust, of_place, of_color, row, column, around):  # type: ignore[no-untyped-def]
    """Fill ``around`` with the pixels of like color around one; how many there are."""
    height, width = trust.shape
    half, last = of_place.shape[0] // 2, of_color.shape[0] - 1
    steps = np.float32(last / (MOST_SCALES * COLOR_SCALE))
    lightness, a, b = lab[row, column, 0], lab[row, column, 1], lab[row, column, 2]
    count = 0
    for down in range(-half, half + 1):
        y = row + down * STEP
        if y < 0 or y >= height:
            continue
        for across in range(-half, half + 1):
            x = column + across * STEP
            if x < 0 or x >= width:
                continue
            apart = abs(lab[y, x, 0] - lightness) + abs(lab[y, x, 1] - a) + abs(lab[y, x, 2] - b)
            step = int(apart * steps)
            if step < last:
                around[0, count] = trust[y, x] * of_place[down + half, across + half] * of_color[step]
                around[1, count], around[2, count] = flow[y, x, 0], flow[y, x, 1]
                around[3, count], around[4, count] = x - column, y - row
                count += 1
    return count


@inlined
def _agreed(around):  # type: ignore[no-untyped-def]
    """The flow, at the place (0, 0), of the affine motion that most of ``around`` (5, N) agree on."""
    weights, us, vs, xs, ys = around[0], around[1], around[2], around[3], around[4]
    count, unit, one = around.shape[1], np.float32(1 / AGREE_PX**2), np.float32(1)
    most, u, v = np.float32(-1), np.float32(0), np.float32(0)
    heaviest = weights.argmax()
    for first in range(-TRIED, count, TRIED):
        i = heaviest if first < 0 else first
        agreeing = np.float32(0)
        for j in range(count):
            miss = one + ((us[j] - us[i]) ** 2 + (vs[j] - vs[i]) ** 2) * unit
            agreeing += weights[j] / (miss * miss)
        if agreeing > most:
            most, u, v = agreeing, us[i], vs[i]
    u_x, u_y, v_x, v_y = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    counted = np.empty(count, np.float32)
    for _ in range(ROUNDS):
        total, x, y, mean_u, mean_v = np.float32(1e-12), np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(count):
            miss = one + ((us[j] - u - u_x * xs[j] - u_y * ys[j]) ** 2
                          + (vs[j] - v - v_x * xs[j] - v_y * ys[j]) ** 2) * unit  # fmt: skip
            counted[j] = weights[j] / (miss * miss)
            total += counted[j]
            x += counted[j] * xs[j]
            y += counted[j] * ys[j]
            mean_u += counted[j] * us[j]
            mean_v += counted[j] * vs[j]
        x, y, mean_u, mean_v = x / total, y / total, mean_u / total, mean_v / total
        xx, xy, yy = np.float32(STIFFNESS) * total, np.float32(0), np.float32(STIFFNESS) * total
        xu, yu, xv, yv = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(count):
            across, down = counted[j] * (xs[j] - x), counted[j] * (ys[j] - y)
            xx += across * (xs[j] - x)
            xy += across * (ys[j] - y)
            yy += down * (ys[j] - y)
            xu += across * (us[j] - mean_u)
            yu += down * (us[j] - mean_u)
            xv += across * (vs[j] - mean_v)
            yv += down * (vs[j] - mean_v)
        area = xx * yy - xy * xy
        u_x, u_y = (xu * yy - yu * xy) / area, (yu * xx - xu * xy) / area
        v_x, v_y = (xv * yy - yv * xy) / area, (yv * xx - xv * xy) / area
        u, v = mean_u - u_x * x - u_y * y, mean_v - v_x * x - v_y * y
    return u, v


@compiled
def _fit(flow, lab, trust, varied, of_place, of_color, smooth):  # type: ignore[no-untyped-def]
    """``smooth`` (h, w, 2) becomes the agreed flow wherever ``varied``."""
    height, width = trust.shape
    around = np.empty((5, of_place.size), np.float32)  # weight, flow and place of the pixels looked at
    for row in range(height):
        for column in range(width):
            if varied[row, column]:
                count = _gather(flow, lab, trust, of_place, of_color, row, column, around)
                smooth[row, column, 0], smooth[row, column, 1] = _agreed(around[:, :count])
