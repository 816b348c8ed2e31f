"""Plain surfaces: what has no texture moves by one motion, which the edges around it tell.

On a bare wall, in a sky, before a studio's backing nothing tells one place from the next, and flow there is drawn in
from what has texture around: from the outline of a head that passes, say. The wall is then pushed along before the head
and pulled along behind it, and no check tells, since it comes back as if it had moved, and looks the same. So each
region without texture is asked which one motion explains the edges around it and its own inside: one of the motions of
the pair's features, standing still, or one that its outline's own flow agrees on. A region keeps its flow where no
motion does, where its inside speaks against it, and where most of its flow is otherwise, unless that flow is torn or
the inside speaks against it too.

Edges tell much of a motion and nothing of whose it is: all of a wall's may be those of what moves before it. A wall's
inside tells little, in noise as strong as its shading, but that is its own and there is much of it: pictures blurred
until hardly any noise is left are compared all over the region, and a motion that makes them less alike than another
one does, by more than noise can, is out. What changes smoothly all over a region tells of no motion: a lens darkens
the corners of every picture alike, and by that a sky would stand still before a camera that pans. Over many frames
edges tell less, since what turns moves as no one motion does; then what was told over few of them holds.

The other direction follows: what a region of one picture lands on goes back by the same motion. What the motion does
not carry to a place that looks alike, since something covers it there, keeps its flow, which no longer comes back.

Source: that motion is to be taken from where it is known, and regions of one color move as one, is Wang and Adelson's
("Representing moving images with layers", 1994); edges are asked for what they tell, the motion across them, as in
Horn and Schunck 1981.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from omnimotion_core.coordinates import inside
from omnimotion_core.flow.channels import largest, mean_magnitude
from omnimotion_core.flow.homography import LEAST_AREA_KEPT, apply_homography
from omnimotion_core.flow.regions import (
    LEAST_OUTLINE,
    SHADES,
    SOFT_PX,
    Region,
    Regions,
    evenly,
    pixels_of,
    smooth_change,
)
from omnimotion_core.flow.view import View, read

LEAST_ASKED = 0.5  # of an outline, by length
MOST_MISSED = 0.6  # pixels that edges may be off by, on average, each by one at most
PREFERENCE = 0.05  # pixels by which a motion that the outline suggests must be better than those of the whole picture
AGREE_PX = 0.5  # flow that is nearer to a motion than this agrees with it
LEAST_AGREEING = 0.5  # of a region's flow
LEAST_OF_BEST = 0.5  # of what agrees on any motion: as much must agree with one that is told by composed flow
ALIKE = 2.0  # times the noise: what differs in color by so much more than before lands elsewhere
MOST_WORSE = 0.05  # times the noise: the inside speaks against a motion by which it differs more than by its flow
MOST_WORSE_THAN_TORN = 0.1  # the same where flow is torn, which fits itself to the noise
ROUNDED = 0.5  # CIELAB units, what 8 bits and a codec round to: noise that is less tells no finer differences
LEAST_CORE = 300  # pixels; what is smaller tells nothing
LEAST_CORE_ASKED = 0.5  # of them, that must land in what is plain too
LEAST_LEFT = 1e-4  # CIELAB units squared, about what rounding to 8 bits leaves after the blur
LEFT_OF_NOISE = 0.6  # times the noise of the pictures: what the blur leaves of it, with some to spare
SURELY = 8.0  # logarithm of how much likelier the shading is by another motion: by as much this one is out
OUTLINE_MOTIONS = 2  # that a region's outline is asked for
SAMPLES = 800  # of flow whose agreement is looked for
SAMPLES_AGREE_PX = 0.5


@dataclass(frozen=True, eq=False)
class _Assigned:
    """The motions that were given to plain regions of one direction's source."""

    flow: np.ndarray  # (h, w, 2)
    chosen: np.ndarray  # (h, w) int: 0 where flow was kept, k: motions[k - 1], -k: the other direction's, taken back
    motions: list[np.ndarray]


def move_plain_regions(
    there: View, back: View, regions: tuple[Regions, Regions], motions: Sequence[np.ndarray],
    composed: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray] | None:  # fmt: skip
    """The flow of a pair of frames, plain regions moved by one motion each.

    Args:
        there, back: both directions of the pair.
        regions: of both pictures.
        motions: (3, 3) each: what parts of the source's picture are known to do, as homographies from its pixels to the
            target's; standing still is always tried.
        composed: flow there and back, (h, w, 2) each, put together from that of parts of the distance, for which this
            has been done.
    Returns:
        Flow there and back, (h, w, 2) float32 each; None where all regions keep their flow.
    """
    still = np.eye(3)
    before, after = (None, None) if composed is None else composed
    forward = _assign(there, regions, [still, *motions], before)
    backward = _assign(back, regions[::-1], [still, *(np.linalg.inv(motion) for motion in motions)], after)
    if not forward.motions and not backward.motions:
        return None
    return _sent_back(there, regions[0], forward, backward), _sent_back(back, regions[1], backward, forward)


def _assign(
    view: View, regions: tuple[Regions, Regions], motions: Sequence[np.ndarray], composed: np.ndarray | None
) -> _Assigned:
    assigned = _Assigned(view.flow.copy(), np.zeros(view.appearance.shape, np.int32), [])
    for region in regions[0].large:
        motion = _motion_of(region, view, _Shading(region, *regions, view.exposure), motions, composed)
        if motion is not None:
            assigned.motions.append(motion)
            _put(assigned, view, region.grown, motion, len(assigned.motions))
    return assigned


def _sent_back(view: View, regions: Regions, own: _Assigned, other: _Assigned) -> np.ndarray:
    """``own`` flow, and plain pixels that kept theirs but are landed on by what the ``other`` direction moved."""
    height, width = own.chosen.shape
    result = _Assigned(own.flow.copy(), own.chosen.copy(), own.motions)
    for index, motion in enumerate(other.motions, 1):
        inverse = np.linalg.inv(motion)
        pixels = pixels_of(regions.plain & (result.chosen == 0))
        ends = apply_homography(inverse, pixels.astype(np.float32))
        pixels, ends = (each[inside(ends, (width, height))] for each in (pixels, ends))
        x, y = np.rint(ends).astype(int).clip(0, (width - 1, height - 1)).T
        _put(result, view, pixels[other.chosen[y, x] == index], inverse, -index)
    return result.flow


def _put(assigned: _Assigned, view: View, pixels: np.ndarray, motion: np.ndarray, name: int) -> None:
    """Move those of ``pixels`` by ``motion`` that land where it looks alike."""
    alike = _alike(pixels, view, motion)[0]
    x, y = pixels[alike].T
    moved = pixels[alike].astype(np.float32)
    assigned.flow[y, x] = apply_homography(motion, moved) - moved
    assigned.chosen[y, x] = name


def _motion_of(
    region: Region, view: View, shading: "_Shading", motions: Sequence[np.ndarray], composed: np.ndarray | None
) -> np.ndarray | None:
    """The motion of a plain region, (3, 3): of those that its inside admits the one that its edges miss least.

    None where it is to keep its flow. How much edges miss does not count where a motion that they hardly miss is out:
    they are another thing's. But then one of the motions has to explain the shading all but for noise. What the outline
    suggests must be better by ``PREFERENCE``, and does not count where flow is torn: of a wall between bars that pass
    it is the bars' motion. Where edges tell nothing, as over some distance those of what moves as no one motion does,
    that of the picture's motions is taken by which most of the region moves as ``composed``, unless flow as found
    agrees on another.
    """
    agreed, agreeing = _agreed(region.inside, view.flow, 1)
    suggested, _ = _agreed(region.outline, view.flow, OUTLINE_MOTIONS)
    least = min(map(shading.unlikely, [*motions, *suggested, *agreed]))

    def is_out(motion: np.ndarray) -> bool:
        return shading.unlikely(motion) - least > SURELY

    is_torn = agreeing < LEAST_AGREEING or any(map(is_out, agreed))
    ranked = [(_missed(region, view, motion), motion) for motion in motions]
    if not is_torn:
        ranked += [(_missed(region, view, motion) + PREFERENCE, motion) for motion in suggested]
    ranked.sort(key=lambda pair: pair[0])
    of_others = ranked[0][0] <= MOST_MISSED and is_out(ranked[0][1])
    bound = np.inf if of_others and shading.fits(least, view.noise) else MOST_MISSED
    for missed, motion in ranked:
        if missed <= bound and not is_out(motion) and _admits(region, view, motion, view.flow if not is_torn else None):
            return motion
    if composed is None:
        return None
    for motion in motions:
        is_flows_too = _moving_so(region, view.flow, motion) >= LEAST_OF_BEST * agreeing
        if is_flows_too and not is_out(motion) and _admits(region, view, motion, composed):
            return motion
    return None


class _Shading:
    """What the faint shading of a plain region tells of its motion."""

    def __init__(self, region: Region, source: Regions, target: Regions, exposure: np.ndarray) -> None:
        self.core, self.target = region.core, target
        self.tells = len(region.core) * region.each >= LEAST_CORE
        self._independent = region.each / (4 * np.pi * SOFT_PX**2)  # measurements of a color that a pixel stands for
        x, y = region.core.T
        self._before = source.soft[y, x] / np.float32(SHADES) + exposure

    def unlikely(self, motion: np.ndarray) -> float:
        """Minus the logarithm of how likely the shading is by ``motion``, but for what all motions share.

        A smooth change of light is taken out. Infinite where most of the region would land on what is not plain.
        Source: normal noise of unknown strength.
        """
        if not self.tells:
            return 0.0
        left, asked = self._left(motion)
        if asked.mean() < LEAST_CORE_ASKED:
            return np.inf
        rest = left[asked] - smooth_change(self.core[asked], left[asked])
        return self._scale * float(np.log(np.square(rest).mean() + LEAST_LEFT))

    def fits(self, unlikely: float, noise: float) -> bool:
        """Whether a motion that is so ``unlikely`` leaves of the shading what may be noise."""
        return self.tells and unlikely <= self._scale * float(np.log(np.square(LEFT_OF_NOISE * noise) + LEAST_LEFT))

    @property
    def _scale(self) -> float:
        return 1.5 * self._independent * len(self.core)

    def _left(self, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is left of the core's colors (M, 3) by ``motion``, and which of them land inside of what is plain."""
        ends = apply_homography(motion, self.core.astype(np.float32))
        height, width = self.target.sound.shape
        x, y = np.rint(ends).astype(int).clip(0, (width - 1, height - 1)).T
        asked = self.target.sound[y, x] & inside(ends, (width, height))
        return read(self.target.soft, ends) / np.float32(SHADES) - self._before, asked


def _missed(region: Region, view: View, motion: np.ndarray) -> float:
    """By how many pixels the region's edges are off by ``motion``, on average, each by one at most.

    What edges are off across them is their difference of color over their slope. Edges that leave the picture are not
    asked; a motion by which most do is off by as much as can be.
    """
    difference, stays = view.differences(region.outline, motion)
    if region.share[stays].sum() < LEAST_ASKED * region.share.sum():
        return 1.0
    off = np.minimum(difference[stays] / region.slope[stays], 1)
    return float(np.average(off, weights=region.share[stays]))


def _admits(region: Region, view: View, motion: np.ndarray, flow: np.ndarray | None) -> bool:
    """Whether a region's inside looks no less alike than by its flow, where its color is met, and most moves so.

    What most does is asked of ``flow`` (h, w, 2); None, where that is torn, of which no half agrees on any motion.
    """
    alike, worse = _alike(region.inside, view, motion)
    most_worse = (MOST_WORSE_THAN_TORN if flow is None else MOST_WORSE) * max(view.noise, ROUNDED)
    if not alike.any() or worse[alike].mean() > most_worse:
        return False
    if flow is None:
        return True
    return _moving_so(region, flow, motion) >= LEAST_AGREEING


def _moving_so(region: Region, flow: np.ndarray, motion: np.ndarray) -> float:
    """The share of the region's inside whose ``flow`` is within ``AGREE_PX`` of ``motion``."""
    x, y = region.inside.T
    start = region.inside.astype(np.float32)
    return float((largest(apply_homography(motion, start) - start - flow[y, x]) < AGREE_PX).mean())


def _agreed(pixels: np.ndarray, flow: np.ndarray, most: int) -> tuple[list[np.ndarray], float]:
    """The affine motion that most of the flow of ``pixels`` agrees on, then that of most of the rest, (3, 3) each.

    Returns:
        At most ``most`` motions, and the share of the flow that agrees on the first.
    """
    pixels = pixels[evenly(len(pixels), SAMPLES)]
    x, y = pixels.T
    start = pixels.astype(np.float32)
    end = start + flow[y, x]
    found: list[np.ndarray] = []
    share = 0.0
    for index in range(most):
        if len(start) < LEAST_OUTLINE:
            break
        affine: np.ndarray | None = cv2.estimateAffine2D(
            start, end, method=cv2.USAC_MAGSAC, ransacReprojThreshold=SAMPLES_AGREE_PX, maxIters=500
        )[0]
        if affine is None:
            break
        motion = np.vstack([affine, [0, 0, 1]])
        off = largest(apply_homography(motion, start) - end)
        if index == 0:
            share = float((off < AGREE_PX).mean())
        if np.linalg.det(motion) >= LEAST_AREA_KEPT:
            found.append(motion)
        start, end = start[off > 2 * SAMPLES_AGREE_PX], end[off > 2 * SAMPLES_AGREE_PX]
    return found, share


def _alike(pixels: np.ndarray, view: View, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``pixels`` land on their own color by ``motion``; by how much more they differ than by their flow.

    A smooth change of light by the motion is taken out.
    """
    x, y = pixels.T
    before = view.appearance[y, x]
    changes, stays = view.changes(pixels, motion)
    difference = mean_magnitude(changes - smooth_change(pixels, changes, stays))
    return stays & (difference <= np.maximum(before, view.noise) + ALIKE * view.noise), difference - before
