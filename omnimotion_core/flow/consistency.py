"""Which matches can be trusted: round trips, appearance, and what a pixel hides behind.

All flows are (H, W, 2) float32 as (dx, dy) in pixels.
"""

import functools

import cv2
import numpy as np

from omnimotion_core.coordinates import Size, pixel_grid
from omnimotion_core.errors import FlowError
from omnimotion_core.flow.channels import scale
from omnimotion_core.flow.loops import arrivals, color_differences, mean_color_differences, round_trips

SURROUNDINGS_PX = 9  # side of the square in which small surroundings are looked at
STRUCTURE_NOISE = 20.0  # variance in 8-bit levels, about which noise and grain tell nothing
MOVED_PX = 0.4  # working pixels: composed flow that was off by as much is worth a third
STRUCTURE_RANGE = (0.4, 0.8)  # similarity: none of a match's worth is left below, all of it above
EXPOSURE_STEP = 3  # pixels, at least; the median difference of color is read from a coarser grid
EXPOSURE_PLACES = 8192  # of that grid, about: more change nothing


def sample(picture: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``picture`` (H, W) or (H, W, C) at ``positions`` (..., 2) as (x, y), bilinear; the border's value beyond it.

    Exact to 1/32 pixel of position, which is the step of OpenCV's interpolation table.
    """
    x = np.ascontiguousarray(positions[..., 0], dtype=np.float32)
    y = np.ascontiguousarray(positions[..., 1], dtype=np.float32)
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def targets(flow: np.ndarray) -> np.ndarray:
    """Where each pixel goes, (H, W, 2)."""
    return _grid(_size(flow)) + flow


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Flow of frame i to k from ``first`` (i to j) and ``second`` (j to k)."""
    _require_equal(first, second)
    return first + sample(second, targets(first))


def cycle_error(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Distance by which each pixel misses itself after going to the other frame and back.

    Args:
        forward: flow from frame i to frame j.
        backward: flow from j to i.
    Returns:
        (H, W) float32 in pixels, ``inf`` where the forward flow leaves the frame.
    Raises:
        FlowError: the two flows differ in size.
    Source: Wang et al. 2023, arXiv:2306.05422, filtering of the input correspondences.
    """
    _require_equal(forward, backward)
    error = np.empty(forward.shape[:2], np.float32)
    round_trips(_plain(forward), _plain(backward), error)
    return error


def second_cycle_error(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Distance between where each pixel goes, and where it goes from the place that the way back has led to.

    A pixel that is hidden in frame j comes back to what hides it. Where that goes to the same place once more, the flow
    of the hidden pixel can be right all the same.

    Args:
        forward: flow from frame i to frame j.
        backward: flow from j to i.
    Returns:
        (H, W) float32 in pixels.
    Raises:
        FlowError: the two flows differ in size.
    Source: the published preprocessing of Wang et al. 2023, arXiv:2306.05422.
    """
    _require_equal(forward, backward)
    target = targets(forward)
    back = sample(backward, target)
    miss = back + sample(forward, target + back)
    return cv2.magnitude(miss[..., 0].copy(), miss[..., 1].copy())


def appearance_error(source: np.ndarray, target: np.ndarray, flow: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Mean difference of color between the two ends of each match, a change of exposure taken out.

    Args:
        source, target: pictures in CIELAB, (H, W, 3) float32.
        flow: from source to target.
        trusted: (H, W) bool, pixels from whose median difference the change of exposure is read.
    Returns:
        (H, W) float32 in CIELAB units.
    """
    source, target, flow = _plain(source), _plain(target), _plain(flow)
    step = max(EXPOSURE_STEP, round((trusted.size / EXPOSURE_PLACES) ** 0.5))
    coarse = trusted[::step, ::step]
    changes = np.empty((*coarse.shape, source.shape[2]), np.float32)
    color_differences(source, target, flow, step, changes)
    exposure = np.median(changes[coarse].T.copy(), axis=1) if coarse.any() else np.zeros(source.shape[2])
    error = np.empty(trusted.shape, np.float32)
    mean_color_differences(source, target, flow, exposure.astype(np.float32), error)
    return error


def structure_similarity(source: np.ndarray, target: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """How alike the small surroundings of both ends of each match are, whatever their brightness.

    Where there is nothing to see at either end it is 1: that tells nothing against the match.

    Args:
        source, target: luminance, (H, W) uint8.
        flow: from source to target, which the surroundings follow.
    Returns:
        (H, W) float32 from -1 to 1.
    Source: the product of contrast and structure of Wang et al. 2004, "Image quality assessment: from error visibility
    to structural similarity", in square windows.
    """
    first, second = source.astype(np.float32), sample(target.astype(np.float32), targets(flow))
    mean, other = local_mean(first), local_mean(second)
    variances = local_mean(first * first + second * second) - mean * mean - other * other
    covariance = local_mean(first * second) - mean * other
    similarity: np.ndarray = (2 * covariance + STRUCTURE_NOISE) / (variances + STRUCTURE_NOISE)
    return similarity


def local_mean(picture: np.ndarray) -> np.ndarray:
    """The mean in a small square around each pixel, (H, W) float32."""
    return cv2.blur(picture, (SURROUNDINGS_PX, SURROUNDINGS_PX))


def match_weight(
    cycle: np.ndarray, appearance: np.ndarray, structure: np.ndarray, moved: np.ndarray, *, max_cycle: float,
    max_appearance: float,
) -> np.ndarray:  # fmt: skip
    """How much a match is worth, 0..1: falls smoothly with both errors, and is 0 beyond either bound.

    At half of both bounds the weight is about 0.6. What has little structure in common is worth less, and so is flow
    put together of steps that do not quite fit: what moves when it is followed has drifted, and where the picture is
    soft it drifts unseen.
    """
    low, high = STRUCTURE_RANGE
    weight = np.exp(-((cycle / max_cycle) ** 2) - (appearance / max_appearance) ** 2)
    weight *= np.exp(-((moved / MOVED_PX) ** 2))
    weight *= np.clip((structure - low) / (high - low), 0.0, 1.0)
    return np.where((cycle <= max_cycle) & (appearance <= max_appearance), weight, 0.0).astype(np.float32)


def reached(backward: np.ndarray) -> np.ndarray:
    """Which pixels of frame i some pixel of frame j comes from, (H, W) bool, grown by a pixel.

    A pixel that nothing in j comes from is hidden there (or has left the picture): the range map of Wang et al. 2018,
    "Occlusion aware unsupervised learning of optical flow", arXiv:1711.05890.
    """
    hit = np.zeros(backward.shape[:2], np.uint8)
    arrivals(_plain(backward), hit)
    return cv2.dilate(hit, np.ones((3, 3), np.uint8)).astype(bool)


def resize_flow(flow: np.ndarray, size: Size) -> np.ndarray:
    """The flow of the same motion for pictures of another ``size``, its vectors in that size's pixels."""
    source = _size(flow)
    if source == size:
        return flow
    shrinks = size[0] < source[0]
    resized = cv2.resize(flow, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    scale(resized, size[0] / source[0], size[1] / source[1])
    return resized


@functools.lru_cache(maxsize=4)
def _grid(size: Size) -> np.ndarray:
    return pixel_grid(size)


def _plain(values: np.ndarray) -> np.ndarray:
    """As the compiled loops want them."""
    return np.ascontiguousarray(values, dtype=np.float32)


def _size(flow: np.ndarray) -> Size:
    return flow.shape[1], flow.shape[0]


def _require_equal(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape:
        raise FlowError(f"the two flows are {_size(first)} and {_size(second)} pixels", "give flows of the same size")
