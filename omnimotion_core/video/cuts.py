"""Hard cuts: frames at which another shot begins.

Two frames are compared by how well the blocks of one, freed of their slow shading, are found again somewhere near in
the other (normalized cross correlation: a change of brightness or contrast is no difference, and motion up to a third
of the picture is followed). A cut is a difference that is large, stands out from those beside it (a fast pan does not:
its neighbors are as large) and that no frame shortly before joins to one shortly after (a flash, or something passing
close to the lens, returns). Blocks that hold several motions, such as a pillar that sweeps past, are found badly too;
so flow has the last word: within a shot most of a picture follows it to the next and back. Frames without structure,
such as the black within a fade, are looked across. Black bars are cut off, since their edges match everywhere.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.devices import opencv_on_one_thread

MIN_DIFFERENCE = 0.26  # real clips: neighbors reach 0.19, unrelated pictures begin at 0.49 (soft ones at 0.27)
STANDS_OUT = 1.8  # times the median difference of the neighbors
NEIGHBORS = 4  # differences on each side
RETURNS = 0.7  # times its difference, below which a pair across a supposed cut shows the same place
BRIDGE = 4  # frames on each side among which a pair that matches denies the cut: flashes of 3 frames return
FOLLOWED = 0.65  # share of the pixels that come back by flow: neighbors reach 0.78, unrelated pictures at most 0.57
RETURN_PX = 2.0  # by which these may miss themselves, the pictures enlarged
_ENLARGED = 2  # times: DIS finds little in smaller pictures
_GRID = (3, 4)  # blocks along the shorter and the longer side
_REACH = 0.3  # of the picture, how far a block is looked for
_SHADING = 1 / 12  # of the longer side: radius of the slow shading, which would match anywhere
_FLAT = 1.5 / 255  # standard deviation below which a block shows nothing
_BAR = 0.02 * 65535  # by which the pixels of a bar's row may differ
_LEAST_SHOWN = 0.3  # of a side, between bars
_AROUND = (5, 5)  # pixels
_MIN_BLOCKS = 3  # blocks with structure that a frame needs to be compared


def find_cuts(thumbnails: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Each t at which a new shot begins.

    Args:
        thumbnails: one grey picture a frame, (h, w) uint16 0..65535, all of one size, about 96 px wide.
    Returns:
        rising, all between 1 and T - 1. A shot of a single frame between two others is told by its two cuts; up to
        three frames after which the shot before goes on are not.
    """
    details = [_detail(picture) for picture in _without_bars(thumbnails)]
    shown = [t for t, picture in enumerate(details) if _has_structure(picture)]
    pictures = [details[t] for t in shown]
    steps = [difference(a, b) for a, b in pairwise(pictures)]
    return tuple(
        shown[k + 1]
        for k, step in enumerate(steps)
        if step > MIN_DIFFERENCE
        and step > STANDS_OUT * _around(steps, k)
        and not _bridged(pictures, k + 1, step)
        and followed(pictures[k], pictures[k + 1]) < FOLLOWED
    )


def _without_bars(thumbnails: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The pictures without the rows and columns along their sides that are flat in every frame, and one more each."""
    kept = list(thumbnails)
    for _ in range(2):  # rows, then columns as rows
        flat = np.all([np.ptp(picture, axis=1) < _BAR for picture in kept], axis=0)
        if flat.all():
            return list(thumbnails)
        shown = np.flatnonzero(~flat)
        top, bottom = shown[0] + (shown[0] > 0), shown[-1] + (shown[-1] == len(flat) - 1)
        if bottom - top < len(flat) * _LEAST_SHOWN:
            return list(thumbnails)
        kept = [picture[top:bottom].T for picture in kept]
    return kept


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """How little of two pictures' detail (h, w) float32 is found in the other, 0 (all is) to about 1 (nothing)."""
    return max(_lost(a, b), _lost(b, a))


def followed(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pixels of detail a (h, w) that flow takes to b and back to where they began; flat ones left out."""
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    pictures = []
    for detail in (a, b):
        levels = (255 * (detail - low) / max(high - low, 1e-6)).round().astype(np.uint8)
        pictures.append(cv2.resize(levels, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC))
    with opencv_on_one_thread():
        there, back = (
            cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*pair, None)  # type: ignore[call-overload]
            for pair in (pictures, pictures[::-1])
        )
    height, width = pictures[0].shape
    x, y = np.moveaxis(there + pixel_grid((width, height)), -1, 0)
    returned = there + cv2.remap(back, x, y, cv2.INTER_LINEAR, borderValue=(np.inf, np.inf))
    structure = cv2.resize(_local_deviation(a), (width, height)) >= _FLAT
    return float((np.hypot(*np.moveaxis(returned, -1, 0)) < RETURN_PX)[structure].mean()) if structure.any() else 0.0


def _local_deviation(detail: np.ndarray) -> np.ndarray:
    """The standard deviation around each pixel, (h, w)."""
    mean, square = (cv2.blur(values, _AROUND) for values in (detail, detail * detail))
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)))


def _around(steps: list[float], k: int) -> float:
    """Median of the neighbors' differences; 0 where there are none."""
    beside = steps[max(0, k - NEIGHBORS) : k] + steps[k + 1 : k + 1 + NEIGHBORS]
    return float(np.median(beside)) if beside else 0.0


def _bridged(pictures: list[np.ndarray], k: int, step: float) -> bool:
    """Whether some picture shortly before picture k matches one shortly after much better than the two at the cut."""
    limit = max(MIN_DIFFERENCE, RETURNS * step)
    return any(
        difference(before, after) <= limit
        for before in pictures[max(0, k - BRIDGE) : k]
        for after in pictures[k : k + BRIDGE]
    )


def _lost(a: np.ndarray, b: np.ndarray) -> float:
    """Median over the blocks of b of how badly each is found in a; flat blocks are left out."""
    h, w = b.shape
    reach_y, reach_x = max(1, int(h * _REACH)), max(1, int(w * _REACH))
    field = cv2.copyMakeBorder(a, reach_y, reach_y, reach_x, reach_x, cv2.BORDER_REPLICATE)
    lost = []
    for top, bottom, left, right in _blocks(h, w):
        block = b[top:bottom, left:right]
        if block.std() >= _FLAT:
            found = cv2.matchTemplate(
                field[top : bottom + 2 * reach_y, left : right + 2 * reach_x], block, cv2.TM_CCOEFF_NORMED
            )
            lost.append(1.0 - float(np.clip(found, -1.0, 1.0).max()))
    return float(np.median(lost)) if lost else 0.0


def _has_structure(picture: np.ndarray) -> bool:
    blocks = _blocks(*picture.shape)
    shown = [bool(picture[top:bottom, left:right].std() >= _FLAT) for top, bottom, left, right in blocks]
    return sum(shown) >= _MIN_BLOCKS


def _blocks(h: int, w: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of each block."""
    down, across = _GRID if w >= h else _GRID[::-1]
    ys, xs = np.linspace(0, h, down + 1).astype(int), np.linspace(0, w, across + 1).astype(int)
    return [
        (int(top), int(bottom), int(left), int(right))
        for top, bottom in pairwise(ys)
        for left, right in pairwise(xs)
    ]


def _detail(thumbnail: np.ndarray) -> np.ndarray:
    """The picture without its slow shading, float32."""
    picture = thumbnail.astype(np.float32) / np.float32(65535)
    return np.asarray(picture - cv2.GaussianBlur(picture, (0, 0), max(picture.shape) * _SHADING))
