"""Matching the pairs of one block after the other: from flow to the matches that are kept."""

import itertools
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from omnimotion_core.config import FlowConfig
from omnimotion_core.flow.candidates import Direction
from omnimotion_core.flow.consistency import match_weight, reached, sample, targets
from omnimotion_core.flow.correspondences import Block, join
from omnimotion_core.flow.estimators import Estimator, LearnedEstimator
from omnimotion_core.flow.estimators.imported_tracks import ImportedTracks
from omnimotion_core.flow.homography import find_homography
from omnimotion_core.flow.learned import LearnedFields
from omnimotion_core.flow.matching import (
    Both,
    Composed,
    FrameBank,
    Guess,
    PairMatcher,
    compose_guesses,
    estimate,
    follows,
    input_size,
)
from omnimotion_core.flow.pairs import Pair, choose_closures, stride_pairs, ways_to_compose
from omnimotion_core.video.clip import Clip

Guide = Callable[[int, int], np.ndarray]  # frames i, j → flow from i to j by a fitted field, (h, w, 2) working pixels

BLOCK = 8  # first frames a block
SEARCH_FROM_GAP = 4  # frames; over shorter distances composed flow fails at few pixels that a search would find
CLOSURE_MIN_INLIERS = 40
HIDDEN_MAX_GAP = 4  # frames; over longer distances a failed round trip says little about occlusion
HIDDEN_PER_PAIR = 400
HIDDEN_MIN_CYCLE = 3.0  # times the trusted bound


class TrackBlocks:
    """Matches of imported tracks."""

    def __init__(self, tracks: ImportedTracks) -> None:
        self.tracks = tracks

    def run(self, pairs: list[Pair], on_pair: Callable[[int], None]) -> Block:
        """The block's arrays."""
        frames = [frames for pair in pairs for frames in ((pair.first, pair.second), (pair.second, pair.first))]
        parts = [self._matched(i, j) for i, j in frames]
        on_pair(len(pairs))
        return join(parts)

    def _matched(self, i: int, j: int) -> Block:
        source, target = self.tracks.matches(i, j)
        hidden = self.tracks.hidden(i, j) if abs(j - i) <= HIDDEN_MAX_GAP else source[:0]
        return {
            "pairs": np.array([[i, j]], np.int32),
            "pair": np.zeros(len(source), np.int32),
            "source": source,
            "target": target,
            "weight": np.full(len(source), 255, np.uint8),
            "hidden_pair": np.zeros(len(hidden), np.int32),
            "hidden_source": hidden,
        }


class FlowBlocks:
    """Matches block after block, handing on the guesses that a later block needs.

    Args:
        planned: the pairs of all blocks to come; None: of the one that is run.
        learned: fields that are candidates besides the estimator's own flow.
        guide: flow by a fitted field, which is a candidate too; for an estimator that ``follows``.
    """

    def __init__(
        self, clip: Clip, config: FlowConfig, estimator: Estimator, pool: ThreadPoolExecutor, seed: int,
        planned: Set[Pair] | None = None, learned: LearnedFields | None = None, guide: Guide | None = None,
    ) -> None:  # fmt: skip
        self.clip, self.config, self.pool, self.seed, self.learned = clip, config, pool, seed, learned
        self.planned, self.guide = planned, guide
        window = BLOCK + max(config.gaps) + 2  # a frame beside at each end, for what goes on as before
        size = input_size(estimator, clip.working_size, config.long_side)
        wanted = config.homographies or config.keyframe_step > 0
        self.bank = FrameBank(clip, estimator, size, capacity=window, needs_features=estimator.refines and wanted)
        self.matcher = PairMatcher(self.bank, config)
        self.any_pair = estimator.pairs() is None
        self.batch = estimator.batch(size) if isinstance(estimator, LearnedEstimator) else 1  # pairs at once, on a GPU
        self.follows = follows(estimator)
        self.neighbors = frozenset(stride_pairs(clip.segments, (1,)) if self.follows else ())
        self.plain: dict[Pair, Both] = {}  # the estimator's own flow between neighbors, at matching size
        self.guesses: dict[Pair, Guess] = {}
        self.ready: dict[Pair, Block] = {}

    def run(self, pairs: list[Pair], on_pair: Callable[[int], None]) -> Block:
        """The block's arrays; ``on_pair`` is told how many planned pairs are matched, some of them for later blocks."""
        if max(pair.gap for pair in pairs) > max(self.config.gaps) and self.any_pair:
            pairs = self._closures(pairs)
        wanted = set(pairs)
        needed = self._with_parts(pairs) if self.any_pair and self.matcher.bank.estimator.refines else wanted
        planned = wanted if self.planned is None else self.planned
        for gap in sorted({pair.gap for pair in needed}):
            level = sorted(pair for pair in needed if pair.gap == gap and not self._is_ready(pair, wanted))
            direct, learned = self._in_batches(level), {} if self.learned is None else self.learned.in_batches(level)
            work = partial(self._match, direct=direct, learned=learned)
            for start in range(0, len(level), BLOCK):
                part = level[start : start + BLOCK]
                self._find_plain(part)
                for pair, arrays in zip(part, self.pool.map(work, part), strict=True):
                    self.ready[pair] = arrays
                    on_pair(len(self.ready.keys() & planned))
        block = join([self.ready[pair] for pair in pairs])
        last = max((pair.first for pair in pairs), default=-1)
        self.ready = {pair: arrays for pair, arrays in self.ready.items() if pair.first > last}
        self.guesses = {pair: guess for pair, guess in self.guesses.items() if pair.first > last}
        return block

    def _is_ready(self, pair: Pair, wanted: set[Pair]) -> bool:
        return pair in self.ready and (pair in self.guesses or pair in wanted)

    def _with_parts(self, pairs: Iterable[Pair]) -> set[Pair]:
        """``pairs`` and all whose flow is part of a first guess for one of them, directly or through others."""
        needed: set[Pair] = set()
        waiting = list(pairs)
        while waiting:
            pair = waiting.pop()
            if pair not in needed:
                needed.add(pair)
                waiting += itertools.chain.from_iterable(self._ways(pair))
        return needed

    def _ways(self, pair: Pair) -> list[tuple[Pair, Pair]]:
        """Of whose flow that of ``pair`` can be composed; none for neighbors and for loop closures, which are searched.

        What is hidden in one middle frame, or was lost on the way to it, is often right by way of another.
        """
        if pair.gap > max(self.config.gaps):
            return []
        middles = (pair.first + distance for distance in ways_to_compose(pair.gap, self.config.gaps))
        return [(Pair(pair.first, middle), Pair(middle, pair.second)) for middle in middles]

    def _match(self, pair: Pair, direct: dict[Pair, Both], learned: dict[Pair, Both]) -> Block:
        """The matches of ``pair``; ``direct`` and ``learned`` hold the flow that was computed in batches."""
        own = direct.get(pair) or self.plain.get(pair)
        composed = self._composed(pair) if own is None or self.follows else None
        followed = composed if self.follows else None
        if own is None and (followed is None or pair.gap >= SEARCH_FROM_GAP):
            own = self.matcher.around(pair, flow_of(composed))
        power_of_two = pair.gap & (pair.gap - 1) == 0
        directions = self.matcher.match(
            pair, direct=own, composed=followed, continued=self._continued(pair),
            by_homography=self.config.homographies and own is not None
            and (power_of_two or pair.gap not in self.config.gaps),
            learned=learned.get(pair) or (None if self.learned is None else self.learned.alone(pair)),
            smooth=pair in self.neighbors, guided=self._guided(pair),
        )  # fmt: skip
        if any(pair.gap < gap for gap in self.config.gaps):
            self.guesses[pair] = self.matcher.guess(directions)
        return self._sampled(pair, directions)

    def _guided(self, pair: Pair) -> Both | None:
        """The pair's flow by the fitted field, where there is one."""
        if self.guide is None:
            return None
        return self.guide(pair.first, pair.second), self.guide(pair.second, pair.first)

    def _find_plain(self, pairs: Sequence[Pair]) -> None:
        """The estimator's own flow of those of ``pairs`` that are neighbors, and of the neighbors before and after."""
        near = {Pair(pair.first + step, pair.second + step) for pair in pairs for step in (-1, 0, 1)} & self.neighbors
        if not near:
            return  # the last ones are there for the next block's first
        self.plain = {pair: flow for pair, flow in self.plain.items() if pair in near}
        missing = sorted(near - self.plain.keys())
        self.plain.update(zip(missing, self.pool.map(lambda pair: estimate(self.bank, [pair], [None])[0], missing),
                              strict=True))  # fmt: skip

    def _continued(self, pair: Pair) -> list[Both]:
        """Flow between neighbors if things go on as from the frame before, and if they moved as to the frame after."""
        here = self.plain.get(pair)
        if here is None:
            return []
        found: list[Both] = []
        before = self.plain.get(Pair(pair.first - 1, pair.second - 1))
        if before is not None:
            found.append((-before[1], sample(before[1], targets(here[1]))))
        after = self.plain.get(Pair(pair.first + 1, pair.second + 1))
        if after is not None:
            found.append((sample(after[0], targets(here[0])), -after[0]))
        return found

    def _in_batches(self, level: list[Pair]) -> dict[Pair, Both]:
        """The estimator's own flow of all pairs where it computes several at once; else nothing."""
        if self.batch == 1:
            return {}
        groups = [level[start : start + self.batch] for start in range(0, len(level), self.batch)]
        flows = [
            estimate(self.bank, group, [self.matcher.start(flow_of(self._composed(pair))) for pair in group])
            for group in groups
        ]
        return dict(zip(level, itertools.chain.from_iterable(flows), strict=True))

    def _composed(self, pair: Pair) -> Composed | None:
        """The flow of parts of the pair's distance put together, where it was kept."""
        if not self.any_pair or not self.bank.estimator.refines:
            return None
        kept = [way for way in self._ways(pair) if all(part in self.guesses for part in way)]
        return self.matcher.composed(pair, [compose_guesses(self.guesses[a], self.guesses[b]) for a, b in kept])

    def _sampled(self, pair: Pair, directions: tuple[Direction, Direction]) -> Block:
        """The matches of both directions that are kept."""
        forward, backward = directions
        masks = self.clip.mask(pair.first), self.clip.mask(pair.second)
        parts = [
            self._sampled_direction((pair.first, pair.second), forward, backward, masks),
            self._sampled_direction((pair.second, pair.first), backward, forward, masks[::-1]),
        ]
        return join(parts)

    def _sampled_direction(
        self, frames: tuple[int, int], there: Direction, back: Direction,
        masks: tuple[np.ndarray | None, np.ndarray | None],
    ) -> Block:  # fmt: skip
        config = self.config
        rng = np.random.default_rng([self.seed, *frames])
        weight = match_weight(
            there.cycle, there.appearance, self.matcher.structure(*frames, there.flow), there.moved,
            max_cycle=config.max_cycle_error_px, max_appearance=config.max_appearance_error,
        )  # fmt: skip
        hidden = np.zeros(weight.shape, bool)
        if abs(frames[1] - frames[0]) <= HIDDEN_MAX_GAP:
            failed = (there.cycle > HIDDEN_MIN_CYCLE * config.max_cycle_error_px) & np.isfinite(there.cycle)
            hidden = failed & ~reached(back.flow)
        if masks[0] is not None and masks[1] is not None:
            weight = np.where(masks[0] & mask_at(masks[1], there.flow), weight, 0.0)
            hidden &= masks[0]
        chosen = choose_pixels(weight > 0, config.samples_per_pair, rng)
        shadows = choose_pixels(hidden, HIDDEN_PER_PAIR, rng)
        flow = there.flow[chosen[:, 1], chosen[:, 0]]
        return {
            "pairs": np.array([frames], np.int32),
            "pair": np.zeros(len(chosen), np.int32),
            "source": chosen.astype(np.int16),
            "target": (chosen + flow).astype(np.float32),
            "weight": np.maximum(np.rint(weight[chosen[:, 1], chosen[:, 0]] * 255), 1).astype(np.uint8),
            "hidden_pair": np.zeros(len(shadows), np.int32),
            "hidden_source": shadows.astype(np.int16),
        }

    def _closures(self, candidates: list[Pair]) -> list[Pair]:
        """The pairs of keyframes that show the same place again."""

        def score(pair: Pair) -> int:
            found = find_homography(self.bank.features(pair.first), self.bank.features(pair.second))
            return 0 if found is None else found[1]

        scores = dict(zip(candidates, self.pool.map(score, candidates), strict=True))
        return choose_closures(scores, CLOSURE_MIN_INLIERS, self.config.max_closures_per_keyframe)


def flow_of(composed: Composed | None) -> Both | None:
    """The flow to start from."""
    return None if composed is None else composed.flow


def choose_pixels(allowed: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``count`` of the pixels (h, w) that are allowed, (M, 2) as (x, y), in reading order."""
    index = np.flatnonzero(allowed)
    if len(index) > count:
        index = np.sort(rng.choice(index, count, replace=False))
    y, x = np.divmod(index, allowed.shape[1])
    return np.stack([x, y], axis=-1)


def mask_at(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Whether each pixel's match lies on ``mask`` (h, w) bool."""
    height, width = mask.shape
    y, x = np.mgrid[:height, :width]
    column = np.rint(x + flow[..., 0]).astype(np.int64)
    row = np.rint(y + flow[..., 1]).astype(np.int64)
    within = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    return within & mask[row.clip(0, height - 1), column.clip(0, width - 1)]
