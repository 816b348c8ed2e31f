"""Flow of a pair of frames in both directions: several candidates, and at each pixel the one that proves best.

Long motion is put together from the flow of two parts of its distance, at each pixel by way of the middle frame that
proves best, and then *followed*: the second picture is laid over the first by it, and what is left is searched for. So
things that turn or come nearer are compared upright, and the search stays on the surface that the short steps followed,
where one from afar can fall on the next period of a pattern. Flow searched for around the same start, and flow by way
of the homography of matched features (a moving camera, a loop closure), replace it where it fails, and where they all
but agree with it and prove better; so does, in a later round, the flow of a field that was fitted to the round before,
followed. What a search leaves rough is *settled*: moved to where the pictures agree best nearby. Where a learned field
is at hand it is a candidate of the first kind, with what the estimator makes of it. Where estimators only compare
pictures, what is lost in both pictures is searched for among itself, and plain surfaces get one motion each at last,
since there wrong flow proves as well as right flow does.

Three sizes are met here: the *working* size of the clip; the *matching* size, at which flow is estimated (small frames
are enlarged, which halves DIS's error on them); and the *memo* size, at which flow is kept as a first guess for others.
"""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from omnimotion_core.config import FlowConfig
from omnimotion_core.coordinates import Size, pixel_grid, rescale_pixels
from omnimotion_core.flow.candidates import FAILED_COST, Direction, best_of, better, both_mended, has_failed, merged
from omnimotion_core.flow.channels import length
from omnimotion_core.flow.consistency import (
    appearance_error,
    compose,
    cycle_error,
    local_mean,
    resize_flow,
    sample,
    structure_similarity,
    targets,
)
from omnimotion_core.flow.estimators import Estimator, LearnedEstimator
from omnimotion_core.flow.estimators.dis import GUIDED_LONGEST_SIDE, DisFlow
from omnimotion_core.flow.homography import Features, apply_homography, find_features, find_homography, find_motions
from omnimotion_core.flow.inverse_search import PATCH, inverse_search
from omnimotion_core.flow.lost import find_lost
from omnimotion_core.flow.pairs import Pair
from omnimotion_core.flow.plain import move_plain_regions
from omnimotion_core.flow.regions import Regions, find_regions
from omnimotion_core.flow.settling import settle
from omnimotion_core.flow.smoothing import smooth_along_surfaces
from omnimotion_core.flow.view import View
from omnimotion_core.video.clip import Clip

MAX_ENLARGEMENT = 2.0
MEMO_LONG_SIDE = 432  # pixels; first guesses need no more, since DIS refines from half size on
MOST_MOVED_PX = 1.0  # of a frame of 256; what moved by more found another place, and tells no more of those around it


@dataclass(frozen=True, eq=False)
class Frame:
    """What matching needs of one frame, made once."""

    picture: np.ndarray  # (h, w, 3) uint8 at matching size
    luminance: np.ndarray  # (h, w) uint8 at working size
    prepared: Any  # the estimator's, of the picture
    lab: np.ndarray  # (h, w, 3) float32 CIELAB at working size, slightly blurred
    features: Features  # at matching size
    regions: Regions  # without texture, at working size


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
        lab = cv2.GaussianBlur(cv2.cvtColor(working.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB), (0, 0), 1.0)
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
        return Frame(
            picture=picture, luminance=cv2.cvtColor(working, cv2.COLOR_RGB2GRAY),
            prepared=self.estimator.prepare(t, picture), lab=lab, features=features, regions=find_regions(lab),
        )  # fmt: skip


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


def follows(estimator: Estimator) -> bool:
    """Whether long motion is followed: for estimators that only compare pictures, which a network surpasses."""
    return estimator.refines and estimator.pairs() is None and not isinstance(estimator, LearnedEstimator)


Both = tuple[np.ndarray, np.ndarray]  # a pair's flow, first to second and second to first


@dataclass(frozen=True, eq=False)
class Composed:
    """Flow of a pair of frames put together from that of parts of its distance."""

    flow: Both  # at each pixel by way of the middle frame that proves best
    plain: Both  # by way of the first one, where that has not failed: what was chosen for how it proves hides its drift


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
        estimator = bank.estimator
        self._coarse = isinstance(estimator, DisFlow) and not estimator.full_size
        to_full_size = isinstance(estimator, DisFlow) and estimator.full_size
        self._searches = to_full_size and min(bank.matching_size) >= PATCH  # for what is left of a motion, by ourselves
        self._settles = self._searches and max(bank.matching_size) <= GUIDED_LONGEST_SIDE  # else it takes too long

    def match(
        self, pair: Pair, *, direct: Both | None, composed: Composed | None = None,
        continued: Sequence[Both] = (), by_homography: bool, learned: Both | None = None, smooth: bool = False,
        guided: Both | None = None,
    ) -> tuple[Direction, Direction]:  # fmt: skip
        """Flow of ``pair``, first to second and second to first.

        Args:
            direct: the estimator's own flow of the pair, as ``estimate`` gives it; None: not looked for, where
                ``composed`` is given.
            composed: flow of two parts of the pair's distance put together, to be followed.
            continued: guesses at any size from how things move in the frames beside, to be settled.
            by_homography: whether the homography of matched features makes a candidate too where much has failed.
            learned: a learned field of the pair, at any size.
            smooth: whether what is found is made smooth along surfaces.
            guided: the pair's flow by a fitted field, to be followed; it mends what else is found.
        """
        source, target = self.bank.frame(pair.first), self.bank.frame(pair.second)
        searched = [] if direct is None else [self._judge(source, target, direct)]
        first, others = searched, []
        if composed is not None:
            first, others = [self._followed(source, target, composed)], searched
        others += [self._judge(source, target, self._settle(source, target, guess)) for guess in continued]
        if learned is not None:
            first += [self._judge(source, target, field) for field in (learned, self.around(pair, learned))]
        best = best_of(first)
        if others:
            best = both_mended(best, best_of(others))
        if by_homography and self.bank.estimator.refines and has_failed(best):
            for aligned in self._aligned(source, target):
                best = both_mended(best, self._judge(source, target, aligned))
        if smooth or (composed is not None and not self._coarse):  # coarse flow of far frames gains nothing by it
            best = self._with_lost(source, target, best)
        if smooth:
            best = self._smoothed(source, target, best)
        if smooth or composed is not None:
            best = self._without_drag(source, target, best, composed)
        if guided is not None:
            best = both_mended(best, self._followed(source, target, Composed(guided, guided)))
        return best

    def around(self, pair: Pair, guess: Both | None) -> Both:
        """The estimator's own flow of ``pair``, found around a guess of any size where there is one."""
        if guess is None or not self._settles:
            return estimate(self.bank, [pair], [self.start(guess)])[0]
        source, target = self.bank.frame(pair.first), self.bank.frame(pair.second)
        forward, backward = self._enlarged(guess[0]), self._enlarged(guess[1])
        found = (
            inverse_search(source.prepared, target.prepared, forward),
            inverse_search(target.prepared, source.prepared, backward),
        )
        return self._settle(source, target, found)

    def composed(self, pair: Pair, ways: Sequence[Both]) -> Composed | None:
        """Flow of ``pair``, at memo size, composed by way of several frames; None where there is none."""
        if len(ways) <= 1:
            return Composed(ways[0], ways[0]) if ways else None
        size = memo_size(self.working_size)
        source, target = (_at_size(self.bank.frame(t).lab, size) for t in (pair.first, pair.second))
        first, *others = (self._judged(*way, source, target) for way in ways)
        best = best_of([first, *others])
        plain = [merged(way, chosen, way.cost >= FAILED_COST).flow for way, chosen in zip(first, best, strict=True)]
        return Composed((best[0].flow, best[1].flow), (plain[0], plain[1]))

    def structure(self, i: int, j: int, flow: np.ndarray) -> np.ndarray:
        """How alike the surroundings of both ends of each match from frame i to j are: ``structure_similarity``."""
        return structure_similarity(self.bank.frame(i).luminance, self.bank.frame(j).luminance, flow)

    def guess(self, directions: tuple[Direction, Direction]) -> Guess:
        """What is kept of a pair's flow as a first guess for longer distances."""
        size = memo_size(self.working_size)
        forward, backward = (resize_flow(direction.flow, size).astype(np.float16) for direction in directions)
        return Guess(forward, backward)

    def start(self, composed: Both | None) -> Both | None:
        """Composed flow as a first guess for the estimator, at matching size."""
        return None if composed is None else (self._enlarged(composed[0]), self._enlarged(composed[1]))

    def _followed(self, source: Frame, target: Frame, composed: Composed) -> tuple[Direction, Direction]:
        """Composed flow with what was left of the motion, and how far that is from where plain steps led."""
        flow, plain = composed.flow, composed.plain
        forward, backward = self._follow(source, target, flow[0]), self._follow(target, source, flow[1])
        there, back = self._judge(source, target, (forward, backward))
        return (
            dataclasses.replace(there, moved=self._moved(plain[0], forward)),
            dataclasses.replace(back, moved=self._moved(plain[1], backward)),
        )

    def _follow(self, source: Frame, target: Frame, composed: np.ndarray) -> np.ndarray:
        if self._coarse:  # what is searched for to half size is no nearer than composed flow that is settled
            return settle(source.luminance, target.luminance, resize_flow(composed, self.working_size))
        refined = self._refined(source, target, self._enlarged(composed))
        return smooth_along_surfaces(resize_flow(refined, self.working_size), source.lab)

    def _moved(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        miss = length(after - resize_flow(before, self.working_size))
        return local_mean(np.minimum(miss, MOST_MOVED_PX * max(self.working_size) / 256))

    def _with_lost(
        self, source: Frame, target: Frame, found: tuple[Direction, Direction]
    ) -> tuple[Direction, Direction]:
        """What is found, and where that proves better, what was lost in both pictures and found among itself.

        It is settled, and so is what is around: that has been found again where it is, and no drift on the way is told.
        """
        there, back = found
        joined = find_lost(*_views(source, target, found), (there.cost, back.cost))
        if joined is None:
            return found
        judged = self._judge(source, target, joined)
        judged = both_mended(judged, self._judge(source, target, self._settle(source, target, joined)))
        return better(there, judged[0]), better(back, judged[1])

    def _smoothed(
        self, source: Frame, target: Frame, found: tuple[Direction, Direction]
    ) -> tuple[Direction, Direction]:
        there, back = found
        return self._judge(source, target, (
            smooth_along_surfaces(there.flow, source.lab, there.cost),
            smooth_along_surfaces(back.flow, target.lab, back.cost),
        ))  # fmt: skip

    def _without_drag(
        self, source: Frame, target: Frame, found: tuple[Direction, Direction], composed: Composed | None
    ) -> tuple[Direction, Direction]:
        """What is found, plain regions not drawn along by what moves beside them."""
        if not source.regions.large and not target.regions.large:
            return found
        there, back = found
        features = [self._at_working_size(frame.features) for frame in (source, target)]
        before = None
        if composed is not None:
            before = resize_flow(composed.flow[0], self.working_size), resize_flow(composed.flow[1], self.working_size)
        moved = move_plain_regions(
            *_views(source, target, found), (source.regions, target.regions), find_motions(*features), before
        )
        if moved is None:
            return found
        judged = self._judge(source, target, moved)
        return dataclasses.replace(judged[0], moved=there.moved), dataclasses.replace(judged[1], moved=back.moved)

    def _at_working_size(self, features: Features) -> Features:
        positions = rescale_pixels(features.positions, self.bank.matching_size, self.working_size)
        return dataclasses.replace(features, positions=positions)

    def _settle(self, source: Frame, target: Frame, guess: Both) -> Both:
        forward, backward = (resize_flow(flow, self.working_size) for flow in guess)
        return (
            settle(source.luminance, target.luminance, forward), settle(target.luminance, source.luminance, backward)
        )  # fmt: skip

    def _aligned(self, source: Frame, target: Frame) -> list[Both]:
        """Flow by way of the homography of the two pictures."""
        found = find_homography(source.features, target.features)
        if found is None:
            return []
        matrix, _ = found
        inverse = np.linalg.inv(matrix)
        grid = pixel_grid(self.bank.matching_size)
        flow = (
            self._refined(source, target, (apply_homography(matrix, grid) - grid).astype(np.float32)),
            self._refined(target, source, (apply_homography(inverse, grid) - grid).astype(np.float32)),
        )
        return [self._settle(source, target, flow) if self._searches else flow]

    def _refined(self, source: Frame, target: Frame, flow: np.ndarray) -> np.ndarray:
        """``flow`` at matching size, with what is found when the ``target`` is laid over the ``source`` by it."""
        if self._searches:
            left = inverse_search(source.prepared, sample(target.prepared, targets(flow)))
        else:
            estimator = self.bank.estimator
            laid_over = estimator.prepare(-1, sample(target.picture, targets(flow)))
            nothing = np.zeros_like(flow)  # a first guess of no motion asks for the lighter search
            left = estimator.flow(source.prepared, laid_over, nothing)
        return compose(left, flow)

    def _judge(self, source: Frame, target: Frame, flow: Both) -> tuple[Direction, Direction]:
        forward, backward = (resize_flow(way, self.working_size) for way in flow)
        return self._judged(forward, backward, source.lab, target.lab)

    def _judged(
        self, forward: np.ndarray, backward: np.ndarray, source: np.ndarray, target: np.ndarray
    ) -> tuple[Direction, Direction]:
        """Flow there and back, and the two pictures in CIELAB, all of one size."""

        def direction(flow: np.ndarray, back: np.ndarray, start: np.ndarray, end: np.ndarray) -> Direction:
            cycle = cycle_error(flow, back) * np.float32(self.working_size[0] / flow.shape[1])
            trusted = cycle <= self.config.max_cycle_error_px
            return Direction(
                flow=flow, cycle=cycle, appearance=appearance_error(start, end, flow, trusted),
                moved=np.zeros(cycle.shape, np.float32),
            )  # fmt: skip

        return direction(forward, backward, source, target), direction(backward, forward, target, source)

    def _enlarged(self, flow: np.ndarray) -> np.ndarray:
        """Flow of another size (its vectors in that size's pixels) at matching size."""
        return resize_flow(flow, self.bank.matching_size)


def _views(source: Frame, target: Frame, found: tuple[Direction, Direction]) -> tuple[View, View]:
    there, back = found
    return (
        View(source.lab, target.lab, there.flow, there.appearance),
        View(target.lab, source.lab, back.flow, back.appearance),
    )


def _at_size(picture: np.ndarray, size: Size) -> np.ndarray:
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _resize_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)


def compose_guesses(first: Guess, second: Guess) -> Both:
    """Flow of a pair of frames, both directions, from that of two parts of its distance, at memo size."""
    return (
        compose(first.forward.astype(np.float32), second.forward.astype(np.float32)),
        compose(second.backward.astype(np.float32), first.backward.astype(np.float32)),
    )


def dense_flow_at_plate_size(bank: FrameBank, i: int, j: int) -> np.ndarray:
    """The estimator's own flow from frame i to j, (H, W, 2) float32 at plate size in plate pixels, unfiltered."""
    flow = bank.estimator.flow(bank.frame(i).prepared, bank.frame(j).prepared, None)
    return resize_flow(flow, bank.clip.size)
