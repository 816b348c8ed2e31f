"""A mask carried along by tracks: a third party's judgement of them on footage whose motion nobody knows.

A grid of points on the mask's frame takes the mask's label; in another frame each pixel takes the label of the nearest
point that is told visible there. What comes out is compared with that frame's own mask (J, intersection over union).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import EvaluationError
from omnimotion_core.trajectories.tracks import Tracks

GRID_STEP_PX = 8
MAX_DISTANCE_PX = 24.0  # a pixel with no visible point within it is background


def grid_queries(size: Size, t: int = 0, step: int = GRID_STEP_PX) -> np.ndarray:
    """A grid of points over frame t, ``step`` pixels apart: (N, 3) float32 as (t, x, y)."""
    x, y = np.meshgrid(np.arange(step // 2, size[0], step), np.arange(step // 2, size[1], step))
    return np.stack([np.full(x.size, t), x.ravel(), y.ravel()], axis=-1).astype(np.float32)


def labels_on(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The mask's value (H, W) at the pixel that holds each point (N, 2); False outside the picture. (N,) bool."""
    height, width = mask.shape
    x, y = np.floor(points.T + 0.5).astype(int)  # pixel x reaches from x - 0.5 to x + 0.5
    within = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    labels = np.zeros(len(points), np.bool_)
    labels[within] = mask[y[within], x[within]] > 0
    return labels


def carry_mask(mask: np.ndarray, tracks: Tracks, t: int, max_distance_px: float = MAX_DISTANCE_PX) -> np.ndarray:
    """The mask as the tracks carry it to frame t.

    The nearest point is found to within about 2% of its distance, points lying at whole pixels.

    Args:
        mask: (H, W) bool, of the frame in which all tracks were queried.
        tracks: of points spread over that whole frame (``grid_queries``).
        t: the frame to carry to.
        max_distance_px: a pixel with no visible point within it is background.
    Returns:
        (H, W) bool.
    Raises:
        EvaluationError: the mask has another size than the tracks' plate.
    """
    _check_mask(mask, tracks)
    height, width = mask.shape
    labels = labels_on(mask, tracks.queries[:, 1:])
    cells = np.floor(tracks.positions[:, t].astype(np.float64) + 0.5)
    shown = tracks.visible[:, t] & (cells >= 0).all(axis=-1) & (cells < (width, height)).all(axis=-1)
    if not shown.any():
        return np.zeros(mask.shape, np.bool_)
    x, y = cells[shown].astype(int).T
    free = np.ones(mask.shape, np.uint8)
    free[y, x] = 0  # the distance transform measures to zeros
    label_at = np.zeros(mask.shape, np.bool_)
    label_at[y, x] = labels[shown]
    distance, nearest = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    label_of = np.zeros(int(nearest.max()) + 1, np.bool_)
    label_of[nearest[y, x]] = label_at[y, x]
    return np.asarray(label_of[nearest] & (distance <= max_distance_px))


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """J of two masks of one size; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


@dataclass(frozen=True, kw_only=True)
class CarryScore:
    """How well a carried mask meets the given ones."""

    frames: tuple[int, ...]  # all but the first mask's own
    intersection_over_union: tuple[float, ...]  # J in each of ``frames``
    share_on_object: tuple[float, ...]  # of the object's points, hidden ones too: those that are on the mask there

    @property
    def mean(self) -> float:
        """Mean J."""
        return float(np.mean(self.intersection_over_union))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "mean_intersection_over_union": self.mean,
            "frames": list(self.frames),
            "intersection_over_union": list(self.intersection_over_union),
            "share_on_object": list(self.share_on_object),
        }

    def format(self) -> str:
        """One line."""
        worst, kept = min(self.intersection_over_union), self.share_on_object[-1]
        return f"J {self.mean:.3f} (worst {worst:.3f}), in the last frame {kept:.0%} of the points still on the object"


def score_carried_mask(masks: Callable[[int], np.ndarray], tracks: Tracks, t: int = 0) -> CarryScore:
    """Carry frame t's mask to every other frame and compare.

    Args:
        masks: the given mask of a frame, (H, W) bool.
        tracks: of ``grid_queries(size, t)``.
        t: the frame whose mask is carried.
    Raises:
        EvaluationError: a mask has another size than the tracks' plate, or that of frame t is empty.
    """
    mask = masks(t) > 0
    frames = tuple(frame for frame in range(tracks.num_frames) if frame != t)
    shares = share_on_object(masks, tracks, t)
    return CarryScore(
        frames=frames,
        intersection_over_union=tuple(
            intersection_over_union(carry_mask(mask, tracks, frame), masks(frame) > 0) for frame in frames
        ),
        share_on_object=tuple(shares[frame] for frame in frames),
    )


def share_on_object(masks: Callable[[int], np.ndarray], tracks: Tracks, t: int = 0) -> tuple[float, ...]:
    """In each frame, the share of the points of frame t's mask that lie on that frame's mask, told visible or not.

    Raises:
        EvaluationError: a mask has another size than the tracks' plate, or no point is on that of frame t.
    """
    first = masks(t) > 0
    _check_mask(first, tracks)
    on_object = labels_on(first, tracks.queries[:, 1:])
    if not on_object.any():
        raise EvaluationError(f"no tracked point is on the mask of frame {t}", "give a larger mask, or a denser grid")
    shares = []
    for frame in range(tracks.num_frames):
        mask = masks(frame) > 0
        _check_mask(mask, tracks)
        shares.append(float(labels_on(mask, tracks.positions[on_object, frame]).mean()))
    return tuple(shares)


def _check_mask(mask: np.ndarray, tracks: Tracks) -> None:
    if mask.shape != tracks.size[::-1]:
        raise EvaluationError(
            f"a mask has shape {mask.shape}", f"give one of the plate's size, ({tracks.size[1]}, {tracks.size[0]})"
        )
