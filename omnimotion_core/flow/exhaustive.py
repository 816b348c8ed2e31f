"""The paper's input motion: flow between all pairs of frames, filtered as its authors filter it.

Flow from a base frame to each farther one starts from the flow of that same base frame to the frame before, both ways
through the clip. Every pair is filtered as soon as both its directions are there, by the rules of ``reliable``.

The published preprocessing writes all flow to disk, which grows with the square of the frames (32 GB for 100 at 480p),
before it filters any. Here a pair needs its two predecessors alone, (i, j-1) forward and (j, i+1) backward. So pairs
go by distance, and blocks of base frames from the last to the first: a block needs of the one after it only the flow of
all later frames to that one's first frame, its *edge*, shrunk to first guesses. Where these are not at hand (another
machine's block) they are made again. Memory grows with the frames, and what is kept is a sample of each pair's matches.

Where this parts from the published preprocessing besides:
- Flow is what ``--flow`` names, RAFT with 20 iterations as there among it; without weights it is DIS.
- The first guess is the flow before, at a quarter of the working size; there it is RAFT's own at an eighth.
- Chaining (``flow.exhaustive.chain``) is off unless asked for, as the paper has it; the published main program always
  chains, whatever it is told.
- Pairs do not cross a cut.
"""

import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.config import FlowConfig
from omnimotion_core.coordinates import inside
from omnimotion_core.errors import RunError
from omnimotion_core.files import write_atomically
from omnimotion_core.flow.appearance import Appearance
from omnimotion_core.flow.blocks import (
    BLOCK,
    HIDDEN_MAX_GAP,
    HIDDEN_MIN_CYCLE,
    HIDDEN_PER_PAIR,
    choose_pixels,
    mask_at,
)
from omnimotion_core.flow.candidates import Direction
from omnimotion_core.flow.consistency import reached, resize_flow, targets
from omnimotion_core.flow.correspondences import Block, join
from omnimotion_core.flow.estimators import Estimator, LearnedEstimator
from omnimotion_core.flow.learned import LearnedFields
from omnimotion_core.flow.matching import Both, FrameBank, PairMatcher, estimate, input_size
from omnimotion_core.flow.pairs import Pair
from omnimotion_core.flow.reliable import Accepted, Chained, accept, overwrite
from omnimotion_core.video.clip import Clip

GUESS_SHRINK = 4
MIN_FRAMES = 2 * BLOCK + 2  # held ready at once: both ends of a block's pairs at one distance, and two to spare

Way = tuple[int, int]  # frames from and to


def side_file(folder: Path, start: int) -> Path:
    """Beside the block of base frames from ``start`` on: its edge, and its counts of partners."""
    return folder / f"{start:06d}.side.npz"


@dataclass(frozen=True, eq=False)
class _Matched:
    """A pair's matches, and what later pairs need of it."""

    block: Block
    ways: dict[Way, np.ndarray]  # first guesses for the next distance
    valid: dict[int, np.ndarray]  # of both frames, which pixels are matched, (h, w) bool
    chains: dict[Way, Chained]


class ExhaustiveBlocks:
    """Matches all pairs, block after block, from the last to the first.

    Args:
        folder: of the blocks.
        samples_per_pair: matches kept of each direction of a pair.
        appearance: judges the ends of matches.
        max_frames: held ready at once.
        learned: fields that are candidates besides the estimator's own flow.
    """

    def __init__(
        self, clip: Clip, config: FlowConfig, estimator: Estimator, pool: ThreadPoolExecutor, seed: int, *,
        folder: Path, samples_per_pair: int, appearance: Appearance, max_frames: int,
        learned: LearnedFields | None = None,
    ) -> None:  # fmt: skip
        self.clip, self.config, self.pool, self.seed, self.learned = clip, config, pool, seed, learned
        self.folder, self.samples, self.appearance = folder, samples_per_pair, appearance
        size = input_size(estimator, clip.working_size, config.long_side)
        self.bank = FrameBank(clip, estimator, size, capacity=max(max_frames, MIN_FRAMES), needs_features=False)
        self.matcher = PairMatcher(self.bank, config)
        self.batch = estimator.batch(size) if isinstance(estimator, LearnedEstimator) else 1
        self.guided = estimator.refines and estimator.pairs() is None
        width, height = clip.working_size
        self.guess_size = max(width // GUESS_SHRINK, 8), max(height // GUESS_SHRINK, 8)
        self._guesses: dict[Way, np.ndarray] = {}
        self._chains: dict[Way, Chained] = {}
        self._steps: dict[Way, Accepted] = {}  # between neighbors

    def run(self, pairs: list[Pair], on_pair: Callable[[int], None]) -> Block:
        """The block's arrays; its side file is written before they are given.

        Raises:
            RunError: the side file cannot be written, or that of the block after this one is damaged.
        """
        start = pairs[0].first // BLOCK * BLOCK
        if self.guided:
            self._bring_edge(start + BLOCK, pairs)
        counts: dict[int, np.ndarray] = {}
        ready: dict[Pair, Block] = {}
        for gap in sorted({pair.gap for pair in pairs}):
            level = [pair for pair in pairs if pair.gap == gap]
            for pair, found in zip(level, self._level(level), strict=True):
                ready[pair] = found.block
                self._guesses.update(found.ways)
                self._chains.update(found.chains)
                for frame, valid in found.valid.items():
                    counts[frame] = counts.get(frame, np.uint16(0)) + valid.astype(np.uint16)
                on_pair(len(ready))
            self._forget(gap, start)
        self._write_side(start, counts)
        return join([ready[pair] for pair in pairs])

    def _level(self, level: list[Pair]) -> Iterable[_Matched]:
        """What is found of pairs of one distance, whose predecessors are done."""
        if self.config.exhaustive.chain:
            self._find_steps(level)
        learned = {} if self.learned is None else self.learned.in_batches(level)
        direct: dict[Pair, Both] = {}
        for start in range(0, len(level) if self.batch > 1 else 0, self.batch):
            group = level[start : start + self.batch]
            direct.update(zip(group, estimate(self.bank, group, [self._start(pair) for pair in group]), strict=True))
        return self.pool.map(lambda pair: self._match(pair, direct.get(pair), learned.get(pair)), level)

    def _match(self, pair: Pair, direct: Both | None, learned: Both | None) -> _Matched:
        own = direct or estimate(self.bank, [pair], [self._start(pair)])[0]
        if learned is None and self.learned is not None:
            learned = self.learned.alone(pair)
        forward, backward = self.matcher.match(pair, direct=own, by_homography=False, learned=learned)
        parts, valid, chains = [], {}, {}
        for way, there, back in (
            ((pair.first, pair.second), forward, backward), ((pair.second, pair.first), backward, forward),
        ):  # fmt: skip
            accepted = self._accept(way, there, back)
            if self.config.exhaustive.chain:
                chains[way], accepted = self._chain(way, accepted)
            block, valid[way[0]] = self._sampled(way, accepted, there, back)
            parts.append(block)
        ways = {(pair.first, pair.second): own[0], (pair.second, pair.first): own[1]} if self.guided else {}
        return _Matched(join(parts), {way: self._shrunk(flow) for way, flow in ways.items()}, valid, chains)

    def _accept(self, way: Way, there: Direction, back: Direction) -> Accepted:
        gap = abs(way[1] - way[0])
        return accept(there, back, gap, self.config.max_cycle_error_px, lambda *flow: self._agree(way, *flow))

    def _agree(self, way: Way, flow: np.ndarray, trusted: np.ndarray) -> np.ndarray:
        labs = self.bank.frame(way[0]).lab, self.bank.frame(way[1]).lab
        return self.appearance.agree(*way, flow, labs, trusted)

    def _sampled(self, way: Way, accepted: Accepted, there: Direction, back: Direction) -> tuple[Block, np.ndarray]:
        """The matches of one direction that are kept, and which pixels are matched."""
        gap = abs(way[1] - way[0])
        rng = np.random.default_rng([self.seed, *way])
        valid, flow = accepted.valid, accepted.flow
        teaching = valid
        if gap == 1 and self.config.exhaustive.whole_neighbors:
            teaching = inside(targets(flow), self.clip.working_size)
        gone = np.zeros_like(valid)
        if gap <= HIDDEN_MAX_GAP:
            failed = (there.cycle > HIDDEN_MIN_CYCLE * self.config.max_cycle_error_px) & np.isfinite(there.cycle)
            gone = failed & ~reached(back.flow)
        masks = self.clip.mask(way[0]), self.clip.mask(way[1])
        if masks[0] is not None and masks[1] is not None:
            on_mask = masks[0] & mask_at(masks[1], flow)
            valid, teaching, gone = valid & on_mask, teaching & on_mask, gone & masks[0]
        chosen = choose_pixels(teaching, self.samples, rng)
        shadows = choose_pixels(gone, HIDDEN_PER_PAIR, rng)
        x, y = chosen.T
        return {
            "pairs": np.array([way], np.int32),
            "pair": np.zeros(len(chosen), np.int32),
            "source": chosen.astype(np.int16),
            "target": (chosen + flow[y, x]).astype(np.float32),
            "weight": np.full(len(chosen), 255, np.uint8),
            "hidden_pair": np.zeros(len(shadows), np.int32),
            "hidden_source": shadows.astype(np.int16),
            "one_way": ~accepted.consistent[y, x],
            "num_valid": np.array([np.count_nonzero(valid)], np.int32),
        }, valid

    # first guesses

    def _start(self, pair: Pair) -> Both | None:
        """The flow to the frames before, at matching size; None for neighbors."""
        if not self.guided or pair.gap == 1:
            return None
        before = (pair.first, pair.second - 1), (pair.second, pair.first + 1)
        forward, backward = (self._grown(self._guesses[way]) for way in before)
        return forward, backward

    def _shrunk(self, flow: np.ndarray) -> np.ndarray:
        return resize_flow(flow, self.guess_size).astype(np.float16)

    def _grown(self, guess: np.ndarray) -> np.ndarray:
        return resize_flow(guess.astype(np.float32), self.bank.matching_size)

    def _forget(self, gap: int, start: int) -> None:
        """Drop what the next distance does not need, nor the block before: its edge are the ways to ``start``."""

        def needed(way: Way) -> bool:
            return abs(way[1] - way[0]) >= gap or (way[1] == start and way[0] > start)

        self._guesses = {way: guess for way, guess in self._guesses.items() if needed(way)}
        self._chains = {way: chain for way, chain in self._chains.items() if needed(way)}

    def _bring_edge(self, base: int, pairs: list[Pair]) -> None:
        """Have the first guesses of all later frames to ``base``: kept, read, or made again."""
        later = sorted({pair.second for pair in pairs if pair.first == base - 1 and pair.second > base})
        if all((frame, base) in self._guesses for frame in later):
            return
        self._guesses, self._chains = {}, {}
        held = read_side(side_file(self.folder, base))
        if held is not None:
            self._guesses = {(int(frame), base): flow for frame, flow in zip(held["frames"], held["flow"], strict=True)}
            if self.config.exhaustive.chain:
                self._chains = {
                    (int(frame), base): Chained(flow, trusted)
                    for frame, flow, trusted in zip(held["frames"], held["chain"], held["trusted"], strict=True)
                }
        missing = [frame for frame in later if (frame, base) not in self._guesses]
        if missing and self.config.exhaustive.chain:
            raise RunError(f"{side_file(self.folder, base)} is missing, from which chains go on",
                           f"delete {self.folder} and run the flow stage again")  # fmt: skip
        for gap in range(1, max(missing, default=base) - base + 1):
            level = [Pair(frame - gap, frame) for frame in missing if frame - gap >= base]
            step = self.batch
            groups = [level[start : start + step] for start in range(0, len(level), step)]
            made = map(self._backward, groups) if step > 1 else self.pool.map(self._backward, groups)
            for group, flows in zip(groups, made, strict=True):
                self._guesses.update({(p.second, p.first): self._shrunk(f) for p, f in zip(group, flows, strict=True)})

    def _backward(self, pairs: list[Pair]) -> list[np.ndarray]:
        """The estimator's own flow from the second frames to the first."""
        estimator = self.bank.estimator
        starts = [
            self._grown(self._guesses[pair.second, pair.first + 1]) if pair.gap > 1 else None for pair in pairs
        ]
        ends = [(self.bank.frame(pair.first).prepared, self.bank.frame(pair.second).prepared) for pair in pairs]
        if isinstance(estimator, LearnedEstimator):
            return [flow for _, flow in estimator.flow_pairs(ends, [(None, start) for start in starts])]
        return [estimator.flow(second, first, start) for (first, second), start in zip(ends, starts, strict=True)]

    # chaining

    def _chain(self, way: Way, direct: Accepted) -> tuple[Chained, Accepted]:
        step = 1 if way[1] > way[0] else -1
        before = (way[0], way[1] - step)
        chained = None
        if before[0] != before[1]:
            chained = self._chains[before].lengthened(self._steps[before[1], way[1]])
        pictures = self.clip.rgb8(way[0]), self.clip.rgb8(way[1])
        return overwrite(chained, direct, pictures, lambda *flow: self._agree(way, *flow))

    def _find_steps(self, level: list[Pair]) -> None:
        """Have the flow between neighbors that the chains of ``level`` go on by."""
        if level[0].gap == 1:
            return
        wanted = {pair for p in level for pair in (Pair(p.second - 1, p.second), Pair(p.first, p.first + 1))}

        def both(pair: Pair) -> dict[Way, Accepted]:
            ends = self.matcher.match(pair, direct=estimate(self.bank, [pair], [None])[0], by_homography=False)
            way = (pair.first, pair.second)
            return {way: self._accept(way, *ends), way[::-1]: self._accept(way[::-1], *ends[::-1])}

        held = {pair for pair in wanted if (pair.first, pair.second) in self._steps}
        self._steps = {way: step for way, step in self._steps.items() if Pair(min(way), max(way)) in held}
        for found in self.pool.map(both, sorted(wanted - held)):
            self._steps.update(found)

    # the side file

    def _write_side(self, start: int, counts: dict[int, np.ndarray]) -> None:
        frames = sorted(way[0] for way in self._guesses if way[1] == start and way[0] > start)
        arrays: dict[str, Any] = {
            "counted": np.array(sorted(counts), np.int32),
            "counts": np.stack([counts[frame] for frame in sorted(counts)]),
            "frames": np.array(frames, np.int32),
            "flow": np.stack([self._guesses[frame, start] for frame in frames]) if frames else np.zeros(0, np.float16),
        }
        if self.config.exhaustive.chain and frames:
            arrays["chain"] = np.stack([self._chains[frame, start].flow for frame in frames])
            arrays["trusted"] = np.stack([self._chains[frame, start].trusted for frame in frames])
        with write_atomically(side_file(self.folder, start)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)


def read_side(path: Path) -> dict[str, np.ndarray] | None:
    """A block's side file; None where there is none.

    Raises:
        RunError: it is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is damaged", f"delete {path.parent} and run the flow stage again") from error


def count_partners(clip: Clip, sides: Iterable[Path]) -> np.ndarray:
    """In how many other frames each pixel is matched, (T, h, w) uint16, from the side files of all blocks.

    Raises:
        RunError: one is missing or damaged.
    """
    width, height = clip.working_size
    total = np.zeros((clip.num_frames, height, width), np.uint16)
    for path in sides:
        held = read_side(path)
        if held is None or not {"counted", "counts"} <= held.keys():
            raise RunError(f"{path} is missing or damaged", "run the flow stage again")
        for frame, counts in zip(held["counted"], held["counts"], strict=True):
            total[frame] += counts
    return total
