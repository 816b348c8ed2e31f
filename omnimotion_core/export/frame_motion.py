"""The one form of a frame's motion that every preset of motion vectors is a function of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from omnimotion_core.errors import ExportError
from omnimotion_core.video.clip import Clip

if TYPE_CHECKING:
    from omnimotion_core.trajectories.dense import DenseFlow

Flow = Callable[[int, int], "DenseFlow"]  # the dense motion from one frame (index t) to another, at plate resolution


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameMotion:
    """Where a frame's pixels go next and where they were before, in pixels of the plate, y down."""

    forward: np.ndarray  # (H, W, 2) float32, (dx, dy): position in the next frame - position here; zero without one
    backward: np.ndarray  # (H, W, 2) float32, (dx, dy): position in the previous frame - position here; likewise
    visibility: np.ndarray  # (H, W) float32, 1: seen in every neighbor there is, 0: hidden in one, or no neighbor
    confidence: np.ndarray  # (H, W) float32, 0..1, the lesser over the neighbors there are
    seen_next: np.ndarray  # (H, W) float32, 1: seen in the next frame, 0: hidden there, or there is none
    seen_previous: np.ndarray  # (H, W) float32, likewise
    has_next: bool
    has_previous: bool
    depth: np.ndarray | None = None  # (H, W) float32, smaller is nearer; None: not asked for
    farther: Mapping[int, "FrameMotion"] = field(default_factory=dict)  # the same over so many frames in place of one


def frame_motion(
    flow: Flow, clip: Clip, t: int, *, distances: Sequence[int] = (1,), with_depth: bool = False
) -> FrameMotion:
    """The canonical motion of frame t; nothing reaches across a cut.

    Args:
        flow: the dense motion between two frames.
        distances: beside 1, those that ``farther`` is to hold, in frames; each is held where t, counted from the
            clip's first frame, divides by it.
        with_depth: fill ``depth``.
    Raises:
        ExportError: the flow is not of the plate's size.
    """
    farther = {step: _over(flow, clip, t, step)[0] for step in distances if step > 1 and t % step == 0}
    motion, depth = _over(flow, clip, t, 1)
    if with_depth and depth is None:
        depth = flow(t, t).depth
    return FrameMotion(
        forward=motion.forward, backward=motion.backward, visibility=motion.visibility, confidence=motion.confidence,
        seen_next=motion.seen_next, seen_previous=motion.seen_previous, has_next=motion.has_next,
        has_previous=motion.has_previous, depth=depth if with_depth else None, farther=farther,
    )  # fmt: skip


def _over(flow: Flow, clip: Clip, t: int, step: int) -> tuple[FrameMotion, np.ndarray | None]:
    """The motion to frames t ± step, and the depth of frame t where there is one of them."""
    shape = (clip.size[1], clip.size[0])
    shot = next(segment for segment in clip.segments if t in segment)
    vectors = {t + step: np.zeros((*shape, 2), np.float32), t - step: np.zeros((*shape, 2), np.float32)}
    seen = {neighbor: np.zeros(shape, np.float32) for neighbor in vectors}
    neighbors = [neighbor for neighbor in vectors if neighbor in shot]
    visibility = confidence = np.full(shape, 1.0 if neighbors else 0.0, np.float32)
    depth = None
    for neighbor in neighbors:
        dense = flow(t, neighbor)
        if dense.vectors.shape != (*shape, 2):
            raise ExportError(
                f"the flow from frame {t} to {neighbor} is {dense.vectors.shape}, not {(*shape, 2)}",
                "give it at the plate's resolution",
            )
        vectors[neighbor] = dense.vectors.astype(np.float32, copy=False)
        seen[neighbor] = dense.visible.astype(np.float32)
        visibility = np.minimum(visibility, seen[neighbor])
        confidence = np.minimum(confidence, dense.confidence)
        depth = dense.depth
    motion = FrameMotion(
        forward=vectors[t + step], backward=vectors[t - step], visibility=visibility,
        confidence=confidence.astype(np.float32, copy=False), seen_next=seen[t + step], seen_previous=seen[t - step],
        has_next=t + step in neighbors, has_previous=t - step in neighbors,
    )  # fmt: skip
    return motion, depth
