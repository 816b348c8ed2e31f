"""Candidates for the flow of a pair of frames, and which of them is taken at each pixel.

What proves better costs less: the sum of round-trip error and difference of color.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnimotion_core.flow.channels import length

APPEARANCE_COST = 0.15  # pixels of round-trip error that one CIELAB unit weighs as much as
FAILED_COST = 2.0  # pixels; flow that costs this much has lost its surface
MUCH_FAILED = 0.2  # of the pixels of a picture; where fewer have lost their surface, homographies mend nothing
SAME_MATCH_PX = 1.0  # candidates nearer to each other than this found the same place


@dataclass(frozen=True, eq=False)
class Direction:
    """Flow of one direction of a pair, at working size."""

    flow: np.ndarray  # (h, w, 2) float32, working pixels
    cycle: np.ndarray  # (h, w) float32, round-trip error, working pixels
    appearance: np.ndarray  # (h, w) float32, CIELAB units
    moved: np.ndarray  # (h, w) float32, by how many working pixels composed flow moved when followed, nearby

    @property
    def cost(self) -> np.ndarray:
        """(h, w) float32, pixels; the smaller, the better it proves."""
        return self.cycle + APPEARANCE_COST * self.appearance


def best_of(candidates: Sequence[tuple[Direction, Direction]]) -> tuple[Direction, Direction]:
    """At each pixel the candidate that costs least."""
    best, *rest = candidates
    for other in rest:
        best = better(best[0], other[0]), better(best[1], other[1])
    return best


def better(first: Direction, second: Direction) -> Direction:
    """At each pixel what costs less."""
    return merged(first, second, second.cost < first.cost)


def has_failed(best: tuple[Direction, Direction]) -> bool:
    """Whether much of either picture has lost its surface."""
    return any(float((direction.cost >= FAILED_COST).mean()) >= MUCH_FAILED for direction in best)


def both_mended(
    first: tuple[Direction, Direction], second: tuple[Direction, Direction]
) -> tuple[Direction, Direction]:
    """Both directions of a pair, ``mended``."""
    return mended(first[0], second[0]), mended(first[1], second[1])


def mended(first: Direction, second: Direction) -> Direction:
    """``first``, and ``second`` where ``first`` has failed, or both found the same place and ``second`` costs less."""
    cost = first.cost
    same = length(second.flow - first.flow) < SAME_MATCH_PX
    taken = merged(first, second, (cost >= FAILED_COST) | (same & (second.cost < cost)))
    elsewhere = (cost >= FAILED_COST) & ~same
    return dataclasses.replace(taken, moved=np.where(elsewhere, second.moved, first.moved))


def merged(first: Direction, second: Direction, take: np.ndarray) -> Direction:
    """``second`` where ``take`` (h, w) bool says so, else ``first``."""
    return Direction(
        _pairs(np.where(take, _whole(second.flow), _whole(first.flow))),
        np.where(take, second.cycle, first.cycle),
        np.where(take, second.appearance, first.appearance),
        np.where(take, second.moved, first.moved),
    )


def _whole(flow: np.ndarray) -> np.ndarray:
    """Flow (h, w, 2) float32 with each vector as one number, (h, w): chosen in a third of the time."""
    return np.ascontiguousarray(flow, np.float32).view(np.complex64)[..., 0]


def _pairs(whole: np.ndarray) -> np.ndarray:
    return whole[..., None].view(np.float32)
