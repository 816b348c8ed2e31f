"""Flow of a pair of frames in both directions: several candidates, and at each pixel the one that proves best.

A candidate starts from the flow of the two halves of the pair's distance (long motion in short steps, without
accumulating their drift), another from the homography of matched features (a moving camera, a loop closure). Where a
learned field is at hand it is a third, and a fourth is what the estimator makes of it: finer where the field is right.
At each pixel the candidate with the smaller sum of round-trip error and difference of color is kept.

Three sizes are met here: the *working* size of the clip; the *matching* size, at which flow is estimated (small frames
are enlarged, which halves DIS's error on them); and the *memo* size, at which flow is kept as a first guess for others.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from omnimotion_core.config import FlowConfig
from omnimotion_core.coordinates import Size, pixel_grid
from omnimotion_core.flow.consistency import appearance_error, compose, cycle_error, resize_flow
from omnimotion_core.flow.estimators import Estimator, LearnedEstimator
from omnimotion_core.flow.homography import Features, apply_homography, find_features, find_homography
from omnimotion_core.flow.pairs import Pair
from omnimotion_core.video.clip import Clip

MAX_ENLARGEMENT = 2.0
MEMO_LONG_SIDE = 432  # pixels; first guesses need no more, since DIS refines from half size on
APPEARANCE_COST = 0.15  # pixels of round-trip error that one CIELAB unit weighs as much as


@dataclass(frozen=True, eq=False)
class Frame:
    """What matching needs of one frame, made once."""

    picture: np.ndarray  # (h, w, 3) uint8 at matching size
    prepared: Any  # the estimator's
    lab: np.ndarray  # (h, w, 3) float32 CIELAB at working size, slightly blurred
    features: Features  # at matching size


@dataclass(frozen=True, eq=False)
class Direction:
    """Flow of one direction of a pair, at working size."""

    flow: np.ndarray  # (h, w, 2) float32, working pixels
    cycle: np.ndarray  # (h, w) float32, round-trip error, working pixels
    appearance: np.ndarray  # (h, w) float32, CIELAB units


@dataclass(frozen=True, eq=False)
class Guess:
    """Flow kept as a first guess, float16 at memo size, both directions of a pair."""

    forward: np.ndarray
    backward: np.ndarray


class FrameBank:
    """Frames made ready for matching, the most recently used kept.

    ``features`` of every frame asked for are kept throughout, since they are small and loop closures need them all.
    """

    def __init__(
        self, clip: Clip, estimator: Estimator, matching_size: Size, *, capacity: int, needs_features: bool
    ) -> None:
        self.clip, self.estimator, self.matching_size = clip, estimator, matching_size
        self._capacity, self._needs_features = capacity, needs_features
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._features: dict[int, Features] = {}
        self._lock = threading.Lock()

    def frame(self, t: int) -> Frame:
        """Frame ``t``; safe to call from several threads."""
        with self._lock:
            if t in self._frames:
                self._frames.move_to_end(t)
                return self._frames[t]
        made = self._make(t)
        with self._lock:
            self._frames[t] = made
            while len(self._frames) > self._capacity:
                self._frames.popitem(last=False)
        return made

    def features(self, t: int) -> Features:
        """The features of frame ``t`` at matching size."""
        with self._lock:
            if t in self._features:
                return self._features[t]
        return self.frame(t).features

    def _make(self, t: int) -> Frame:
        working = self.clip.rgb8(t)
        picture = working
        if self.matching_size != self.clip.working_size:
            picture = cv2.resize(working, self.matching_size, interpolation=cv2.INTER_CUBIC)
        lab = cv2.cvtColor(working.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
        with self._lock:
            features = self._features.get(t)
        if features is None:
            features = Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
            if self._needs_features:
                mask = self.clip.mask(t)
                luminance = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
                features = find_features(luminance, None if mask is None else _resize_mask(mask, self.matching_size))
            with self._lock:
                self._features[t] = features
        return Frame(picture, self.estimator.prepare(t, picture), cv2.GaussianBlur(lab, (0, 0), 1.0), features)


def matching_size(working: Size, long_side: int) -> Size:
    """The size at which flow is estimated: enlarged towards ``long_side``, twice at most, never shrunk."""
    scale = min(max(long_side / max(working), 1.0), MAX_ENLARGEMENT)
    return round(working[0] * scale), round(working[1] * scale)


def input_size(estimator: Estimator, working: Size, long_side: int) -> Size:
    """The size of the pictures that ``estimator`` is given."""
    return working if getattr(estimator, "resizes", False) else matching_size(working, long_side)


def memo_size(working: Size) -> Size:
    """The size at which first guesses are kept."""
    scale = min(MEMO_LONG_SIDE / max(working), 1.0)
    return max(round(working[0] * scale), 8), max(round(working[1] * scale), 8)


Both = tuple[np.ndarray, np.ndarray]  # a pair's flow, first to second and second to first


def estimate(bank: FrameBank, pairs: Sequence[Pair], initials: Sequence[Both | None]) -> list[Both]:
    """The estimator's own flow of each pair, at the bank's size, from first guesses where there are any."""
    estimator = bank.estimator
    prepared = [(bank.frame(pair.first).prepared, bank.frame(pair.second).prepared) for pair in pairs]
    guesses = [(None, None) if initial is None else initial for initial in initials]
    if isinstance(estimator, LearnedEstimator):
        return estimator.flow_pairs(prepared, guesses)
    return [
        (estimator.flow(source, target, forward), estimator.flow(target, source, backward))
        for (source, target), (forward, backward) in zip(prepared, guesses, strict=True)
    ]


class PairMatcher:
    """Matches pairs of frames of one clip; its methods may be called from several threads."""

    def __init__(self, bank: FrameBank, config: FlowConfig) -> None:
        self.bank, self.config = bank, config
        self.working_size = bank.clip.working_size

    def match(
        self, pair: Pair, *, direct: Both, by_homography: bool, learned: Both | None = None
    ) -> tuple[Direction, Direction]:
        """Flow of ``pair``, first to second and second to first.

        Args:
            direct: the estimator's own flow of the pair, as ``estimate`` gives it.
            by_homography: whether the homography of matched features makes a candidate too.
            learned: a learned field of the pair, at any size.
        """
        source, target = self.bank.frame(pair.first), self.bank.frame(pair.second)
        candidates = [direct]
        if by_homography and self.bank.estimator.refines:
            candidates += self._aligned(source, target)
        if learned is not None:
            guess = self._enlarged(learned[0]), self._enlarged(learned[1])
            candidates += [learned, *estimate(self.bank, [pair], [guess])]
        judged = [self._judge(source, target, *candidate) for candidate in candidates]
        best = judged[0]
        for other in judged[1:]:
            best = (_better(best[0], other[0]), _better(best[1], other[1]))
        return best

    def guess(self, directions: tuple[Direction, Direction]) -> Guess:
        """What is kept of a pair's flow as a first guess for longer distances."""
        size = memo_size(self.working_size)
        forward, backward = (resize_flow(direction.flow, size).astype(np.float16) for direction in directions)
        return Guess(forward, backward)

    def start(self, guesses: tuple[Guess, Guess] | None) -> Both | None:
        """A first guess at a pair's flow, at matching size.

        Args:
            guesses: flow of the two halves of the pair's distance, first to middle and middle to second.
        """
        if guesses is None or not self.bank.estimator.refines:
            return None
        first, second = guesses
        forward = compose(first.forward.astype(np.float32), second.forward.astype(np.float32))
        backward = compose(second.backward.astype(np.float32), first.backward.astype(np.float32))
        return self._enlarged(forward), self._enlarged(backward)

    def _aligned(self, source: Frame, target: Frame) -> list[Both]:
        """Flow by way of the homography: the residual motion is estimated after one picture is laid over the other."""
        found = find_homography(source.features, target.features)
        if found is None:
            return []
        matrix, _ = found
        inverse = np.linalg.inv(matrix)
        return [(self._residual(source, target, matrix, inverse), self._residual(target, source, inverse, matrix))]

    def _residual(self, source: Frame, target: Frame, matrix: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """Flow from ``source`` to ``target``, which ``matrix`` relates (``inverse`` undoes it)."""
        laid_over = cv2.warpPerspective(
            target.picture, inverse, self.bank.matching_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        estimator = self.bank.estimator
        residual = estimator.flow(source.prepared, estimator.prepare(-1, laid_over), None)
        grid = pixel_grid(self.bank.matching_size)
        return apply_homography(matrix, grid + residual) - grid

    def _judge(
        self, source: Frame, target: Frame, forward: np.ndarray, backward: np.ndarray
    ) -> tuple[Direction, Direction]:
        forward, backward = resize_flow(forward, self.working_size), resize_flow(backward, self.working_size)
        return (
            self._direction(source, target, forward, cycle_error(forward, backward)),
            self._direction(target, source, backward, cycle_error(backward, forward)),
        )

    def _direction(self, source: Frame, target: Frame, flow: np.ndarray, cycle: np.ndarray) -> Direction:
        trusted = cycle <= self.config.max_cycle_error_px
        return Direction(flow, cycle, appearance_error(source.lab, target.lab, flow, trusted))

    def _enlarged(self, flow: np.ndarray) -> np.ndarray:
        """Flow of another size (its vectors in that size's pixels) at matching size."""
        return resize_flow(flow, self.bank.matching_size)


def _resize_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)


def _better(first: Direction, second: Direction) -> Direction:
    take = second.cycle + APPEARANCE_COST * second.appearance < first.cycle + APPEARANCE_COST * first.appearance
    return Direction(
        np.where(take[..., None], second.flow, first.flow),
        np.where(take, second.cycle, first.cycle),
        np.where(take, second.appearance, first.appearance),
    )


def dense_flow_at_plate_size(bank: FrameBank, i: int, j: int) -> np.ndarray:
    """The estimator's own flow from frame i to j, (H, W, 2) float32 at plate size in plate pixels, unfiltered."""
    estimator = bank.estimator
    flow = estimator.flow(bank.frame(i).prepared, bank.frame(j).prepared, None)
    return resize_flow(flow, bank.clip.size)
