"""Plain surfaces: what of a picture has no texture, its edges, and its faint shading.

A lens darkens the corners of every picture alike, and light falls off over a wall. Such smooth changes are told from
shading by one function of place.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from omnimotion_core.flow.channels import mean_magnitude

PLAIN_SLOPE = 0.6  # CIELAB units a pixel; a region in which color changes by less has no texture
LEAST_AREA = 0.003  # of the picture; smaller regions are left alone
OUTLINE_PX = 3  # how far from a region its edges are looked for
LEAST_OUTLINE = 24  # edge pixels; what has fewer around it is left alone
MOST_OUTLINE = 3000  # edge pixels that are asked
SOFT_PX = 4.0  # standard deviation of the blur by which shading is told from noise
SHADES = 256  # steps of a CIELAB unit, in which shading is kept
SOUND_PX = 3  # of a region's rim, that what is beside it has been blurred into
MOST_CORE = 6000  # pixels of a region's inside that are compared
LEAST_LIT = 300  # pixels of a region, that a smooth change of light may be told from
MOST_LIT = 2000  # pixels that are asked
LIT_ALIKE = 3.0  # times the median: what has changed by more has been covered


@dataclass(frozen=True, eq=False)
class Region:
    """A plain region's pixels, the same with what is around them, and the edges there, (N, 2) int16 as (x, y)."""

    inside: np.ndarray
    core: np.ndarray  # of ``inside``, evenly spread, those away from the rim
    each: float  # pixels of the region that one of ``core`` stands for
    grown: np.ndarray
    outline: np.ndarray
    slope: np.ndarray  # (M,) of the outline's pixels
    share: np.ndarray  # (M,) what each of them counts: stretches of an outline count by their length


@dataclass(frozen=True, eq=False)
class Regions:
    """What has no texture in one picture."""

    plain: np.ndarray  # (h, w) bool, small regions too
    sound: np.ndarray  # (h, w) bool, the same without their rims
    large: tuple[Region, ...]  # those that are large enough and have edges around them
    lab: np.ndarray  # (h, w, 3) float32, the picture

    @functools.cached_property
    def soft(self) -> np.ndarray:
        """What is sound blurred within itself, (h, w, 3) int16, ``SHADES`` to a CIELAB unit, which halves its memory.

        A smooth change over the picture is left out: it would shift towards the middle of what it is blurred within.
        """
        weight = self.sound.astype(np.float32)
        pixels = pixels_of(self.sound)
        rest = np.zeros_like(self.lab)
        rest[self.sound] = self.lab[self.sound] - smooth_change(pixels, self.lab[self.sound])
        blurred = cv2.GaussianBlur(rest, (0, 0), SOFT_PX)
        shading = blurred / np.maximum(cv2.GaussianBlur(weight, (0, 0), SOFT_PX), 1e-3)[..., None]
        most = np.iinfo(np.int16).max
        return np.rint(np.clip(shading * SHADES, -most, most)).astype(np.int16)


def find_regions(lab: np.ndarray) -> Regions:
    """The plain regions of a picture, (h, w, 3) float32 CIELAB, slightly blurred."""
    slope = _slope(lab)
    plain = cv2.dilate((slope >= PLAIN_SLOPE).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    sound = cv2.erode(plain.astype(np.uint8), np.ones((2 * SOUND_PX + 1, 2 * SOUND_PX + 1), np.uint8)) > 0
    return Regions(plain, sound, tuple(_large_regions(plain, sound, slope)), lab)


def _large_regions(plain: np.ndarray, sound: np.ndarray, slope: np.ndarray) -> Iterator[Region]:
    """The regions of ``plain`` (h, w) bool that are large enough and have edges around them."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(plain.astype(np.uint8), connectivity=4)
    side = 2 * OUTLINE_PX + 1
    for label in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= LEAST_AREA * plain.size):
        if label == 0:  # what is not plain
            continue
        left, top, width, height = stats[label, :4]
        corner = np.array([max(left - OUTLINE_PX, 0), max(top - OUTLINE_PX, 0)])
        window = slice(corner[1], top + height + OUTLINE_PX), slice(corner[0], left + width + OUTLINE_PX)
        region, steep = (labels[window] == label).astype(np.uint8), slope[window]
        grown = cv2.dilate(region, np.ones((side, side), np.uint8)) > 0
        edges = grown & (steep >= PLAIN_SLOPE)
        share = 1 / np.maximum(cv2.boxFilter(edges.astype(np.float32), -1, (side, side), normalize=False), 1)
        outline = pixels_of(edges)
        if len(outline) < LEAST_OUTLINE:
            continue
        outline = outline[evenly(len(outline), MOST_OUTLINE)]
        core = pixels_of((region > 0) & sound[window])
        asked = core[evenly(len(core), MOST_CORE)]
        x, y = outline.T
        yield Region(
            inside=(pixels_of(region) + corner).astype(np.int16), core=(asked + corner).astype(np.int16),
            each=len(core) / max(len(asked), 1), grown=(pixels_of(grown) + corner).astype(np.int16),
            outline=(outline + corner).astype(np.int16), slope=steep[y, x], share=share[y, x],
        )  # fmt: skip


def smooth_change(pixels: np.ndarray, values: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
    """The quadratic function of place that most ``values`` lie near, at ``pixels`` (N, 2): (N, 3) float32.

    Args:
        values: (N, 3) float32, colors or changes of them.
        asked: (N,) bool, which of them count; all when not given. Where they are too few to tell it is 0.
    """
    rows = np.arange(len(pixels)) if asked is None else np.flatnonzero(asked)
    if len(rows) < LEAST_LIT:
        return np.zeros_like(values)
    rows = rows[evenly(len(rows), MOST_LIT)]
    x, y = ((pixels - pixels[rows].mean(axis=0)) / max(float(pixels[rows].std()), 1.0)).T
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    light = np.median(values[rows], axis=0)[None]
    for _ in range(2):
        off = mean_magnitude(values[rows] - light)
        near = rows[off <= LIT_ALIKE * np.median(off)]
        coefficients = np.linalg.lstsq(terms[near], values[near].astype(np.float64), rcond=None)[0]
        light = terms[rows] @ coefficients
    return np.asarray(terms @ coefficients, np.float32)


def _slope(lab: np.ndarray) -> np.ndarray:
    """By how much color changes from pixel to pixel, (h, w): the mean over the channels."""
    across = cv2.Sobel(lab, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    down = cv2.Sobel(lab, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    return mean_magnitude(np.hypot(across, down))


def pixels_of(mask: np.ndarray) -> np.ndarray:
    """Where ``mask`` (h, w) is set, (N, 2) int as (x, y)."""
    return np.argwhere(mask)[:, ::-1]


def evenly(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` places, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)
