"""Which pixels' flow the paper's model is taught, by the published rules of filtering and of chaining.

Where paper and code part, the code is followed: appearance is checked from a distance of 3 frames on (paper: beyond 3),
and of neighboring frames all pixels teach, trusted or not (``flow.exhaustive.whole_neighbors``; the paper knows no such
exception). Unlike there, a target must always lie in the frame: beyond it the code's round trip reads zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from omnimotion_core.coordinates import Size, inside
from omnimotion_core.flow.candidates import Direction
from omnimotion_core.flow.consistency import sample, second_cycle_error, targets

APPEARANCE_MIN_GAP = 3  # frames; from here on appearance is checked, and nothing hidden is believed
HIDDEN_MIN_CYCLE = 1.5  # times the trusted bound, by which a hidden pixel's round trip misses
CHAIN_MAX_COLOR = 0.3  # distance of RGB colors, 0..1 each, between the ends of a chained match

Agree = Callable[[np.ndarray, np.ndarray], np.ndarray]  # flow and what of it is trusted to which ends look alike


@dataclass(frozen=True, eq=False)
class Accepted:
    """What is believed of the flow from one frame to another."""

    flow: np.ndarray  # (h, w, 2) float32
    consistent: np.ndarray  # (h, w) bool: the match holds from both sides
    hidden: np.ndarray  # (h, w) bool: the target is hidden, and the flow right all the same

    @property
    def valid(self) -> np.ndarray:
        """Either of both, (h, w) bool."""
        return np.asarray(self.consistent | self.hidden)


def accept(there: Direction, back: Direction, gap: int, max_cycle: float, agree: Agree) -> Accepted:
    """What is believed of ``there``, whose way back is ``back``, between frames ``gap`` apart.

    Args:
        max_cycle: by how much a round trip may miss, pixels.
        agree: says which ends look alike.
    """
    consistent = there.cycle < max_cycle
    hidden = np.zeros_like(consistent)
    if gap >= APPEARANCE_MIN_GAP:
        consistent = consistent & agree(there.flow, consistent)
    else:
        failed = (there.cycle > HIDDEN_MIN_CYCLE * max_cycle) & np.isfinite(there.cycle)
        hidden = failed & (second_cycle_error(there.flow, back.flow) < max_cycle)
    return Accepted(there.flow, consistent, hidden)


@dataclass(frozen=True, eq=False)
class Chained:
    """The flow from a base frame to another one, accumulated on the way."""

    flow: np.ndarray  # (h, w, 2) float32
    trusted: np.ndarray  # (h, w) bool

    def lengthened(self, following: Accepted) -> "Chained":
        """One frame farther, by the flow between neighbors; trusted where that is consistent all around."""
        ends = targets(self.flow)
        size: Size = (self.flow.shape[1], self.flow.shape[0])
        safe = sample(following.consistent.astype(np.float32), ends) == 1
        flow = self.flow + sample(following.flow, ends)
        return Chained(flow, self.trusted & safe & inside(targets(flow), size))


def overwrite(
    chained: Chained | None, direct: Accepted, pictures: tuple[np.ndarray, np.ndarray], agree: Agree
) -> tuple[Chained, Accepted]:
    """The chain of a pair after direct flow took its place where it is valid, and what is believed of the pair then.

    Args:
        chained: from the pair before, one frame farther; None for neighbors.
        direct: what is believed of the pair's own flow.
        pictures: both frames, (h, w, 3) uint8.
        agree: says which ends look alike.
    """
    flow = direct.flow if chained is None else np.where(direct.valid[..., None], direct.flow, chained.flow)
    trusted = direct.consistent if chained is None else chained.trusted
    source, target = (picture.astype(np.float32) / 255 for picture in pictures)
    like = np.linalg.norm(sample(target, targets(flow)) - source, axis=-1) < CHAIN_MAX_COLOR
    trusted = (trusted & like & agree(flow, direct.consistent)) | direct.consistent
    trusted = trusted & ~direct.hidden
    return Chained(flow, trusted), Accepted(flow, trusted, direct.hidden)
