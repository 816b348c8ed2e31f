"""The flow stage: from a clip to the store of matches.

Under ``auto`` a plan, decided once, says which pairs get learned flow besides DIS. The clip is worked through in blocks
of ``BLOCK`` first frames, one file a block, so that a killed stage goes on with the next block and a farm can share the
blocks out. What a block holds does not depend on the others. Where all pairs are matched (``flow.exhaustive``), blocks
go from the last to the first, and each has a side file.
"""

import dataclasses
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from omnimotion_core.config import FlowConfig
from omnimotion_core.devices import computing, opencv_on_one_thread
from omnimotion_core.errors import ConfigError, FlowError, RunError
from omnimotion_core.events import Reporter
from omnimotion_core.files import write_atomically
from omnimotion_core.flow.blocks import BLOCK, FlowBlocks, Guide, TrackBlocks
from omnimotion_core.flow.correspondences import EXHAUSTIVE_FIELDS, FIELDS, Correspondences, join
from omnimotion_core.flow.estimators import AUTO, Estimator, LearnedEstimator, create_estimator, require_estimator
from omnimotion_core.flow.estimators.dis import DisFlow
from omnimotion_core.flow.estimators.imported_tracks import ImportedTracks
from omnimotion_core.flow.exhaustive import ExhaustiveBlocks, count_partners, side_file
from omnimotion_core.flow.exhaustive_plan import affordable_frames, plan_exhaustive
from omnimotion_core.flow.learned import Choice, load_learned, plan_learned
from omnimotion_core.flow.matching import FrameBank, dense_flow_at_plate_size, input_size
from omnimotion_core.flow.pairs import Pair, closure_candidates, stride_pairs
from omnimotion_core.flow.plan import Plan
from omnimotion_core.video.clip import Clip

CLOSURES = "closures.npz"


@dataclass(frozen=True, eq=False)
class Guidance:
    """What a round of flow has from the one before."""

    flow: Guide  # by the field that was fitted to it; asked by several threads at once
    before: Path  # its folder, whose plan of learned flow is kept to


def find_correspondences(
    clip: Clip, folder: Path, config: FlowConfig, *, seed: int, threads: int, reporter: Reporter,
    chunk: tuple[int, int] | None = None, device: str = "cpu", guidance: Guidance | None = None,
) -> None:  # fmt: skip
    """Match the frames of ``clip`` and write the trusted matches to ``folder``; files that are there already are kept.

    Args:
        seed: of the choice of matches.
        threads: pairs matched at once; the result does not depend on it.
        chunk: (k, n) does only the k-th of n parts, k from 1; the n parts together are the whole.
        device: where a learned estimator computes: auto, cpu, cuda or mps.
        guidance: of a round after the first; the estimator must be DIS, alone or under ``auto``.
    Raises:
        FlowError: the estimator cannot be used, its weights are missing, or the matches of all pairs have no room.
        ConfigError: a part of what has to be done in order is asked for.
        Cancelled: the user asked to stop; finished blocks stay.
    """
    require_estimator(config)
    estimator = create_estimator(
        config.estimator, clip, weights=config.weights, device=device, full_size=config.full_size
    )
    exhaustive = _is_exhaustive(config, estimator)
    if exhaustive:
        config = _of_all_gaps(config, clip)
        if config.exhaustive.chain and chunk is not None:
            raise ConfigError("flow.exhaustive.chain is on, whose blocks go on from each other",
                              "leave --chunk away, or switch chaining off")  # fmt: skip
    whole = tasks = _tasks(clip, config, estimator)
    if exhaustive:
        tasks = tasks[::-1]
    if chunk is not None:
        part, parts = chunk
        tasks = [task for index, task in enumerate(tasks) if index * parts // len(tasks) == part - 1]
    total = sum(len(pairs) for _, pairs in tasks)

    def is_done(name: str, pairs: list[Pair]) -> bool:
        return (folder / name).exists() and (not exhaustive or _side_of(folder, pairs).exists())

    done = sum(len(pairs) for name, pairs in tasks if is_done(name, pairs))

    def report(before: int, count: int) -> None:
        reporter.progress("flow", before + count, total)

    report(done, 0)
    missing = [(name, pairs) for name, pairs in tasks if not is_done(name, pairs)]
    if not missing:
        return
    with ExitStack() as stack:
        stack.enter_context(opencv_on_one_thread())
        stack.enter_context(computing(torch.device("cpu")))  # features are compared by each of the threads
        pool = stack.enter_context(ThreadPoolExecutor(max(threads, 1)))
        worker: TrackBlocks | FlowBlocks | ExhaustiveBlocks
        if isinstance(estimator, ImportedTracks):
            worker = TrackBlocks(estimator)
        else:
            learned = None
            if isinstance(estimator, LearnedEstimator):
                load_learned(estimator, clip, config, reporter, stack)
            elif config.estimator == AUTO:
                strides = [pair for name, pairs in whole if name != CLOSURES for pair in pairs]
                choice = Choice(clip, config, strides, _most_closures(whole, config), device)
                earlier = None if guidance is None else Plan.read(guidance.before)
                if earlier is not None:
                    earlier.keep(folder)
                learned = plan_learned(
                    choice, folder, pool=pool, threads=max(threads, 1), reporter=reporter, stack=stack
                )
            if exhaustive:
                count = sum(len(pairs) for _, pairs in whole)
                plan = plan_exhaustive(clip, config, folder, num_pairs=count, reporter=reporter)
                worker = ExhaustiveBlocks(
                    clip, config, estimator, pool, seed, folder=folder, samples_per_pair=plan.samples_per_pair,
                    appearance=plan.appearance(clip, config, device), learned=learned,
                    max_frames=affordable_frames(clip, config, estimator, reporter),
                )
            else:
                worker = FlowBlocks(
                    clip, config, estimator, pool, seed, planned={pair for _, pairs in missing for pair in pairs},
                    learned=learned, guide=None if guidance is None else guidance.flow,
                )  # fmt: skip
        for name, pairs in missing:
            block = worker.run(pairs, on_pair=partial(report, done))
            with write_atomically(folder / name) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **block)
            done += len(pairs)
        report(done, 0)


def load_correspondences(folder: Path, clip: Clip, config: FlowConfig) -> Correspondences:
    """All matches of the finished flow stage.

    Raises:
        RunError: a block is missing or damaged.
        FlowError: not one pair of neighboring frames could be matched.
    """
    blocks = []
    estimator = create_estimator(config.estimator, clip)
    exhaustive = _is_exhaustive(config, estimator)
    names = FIELDS + EXHAUSTIVE_FIELDS if exhaustive else FIELDS
    tasks = _tasks(clip, _of_all_gaps(config, clip) if exhaustive else config, estimator)
    for name, _ in tasks:
        try:
            with (folder / name).open("rb") as file, np.load(file, allow_pickle=False) as data:
                blocks.append({key: data[key] for key in names})
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(f"{folder / name} is missing or damaged", "run the flow stage again") from error
    joined = join(blocks, empty_parts=True)
    if len(joined["pair"]) == 0:
        raise FlowError(f"no motion could be matched between the frames of {clip.name}",
                        "choose a shot with visible texture, or hand in flow made elsewhere with --flow")  # fmt: skip
    if not exhaustive:
        return Correspondences(**joined)
    return Correspondences(**joined, partners=count_partners(clip, [_side_of(folder, pairs) for _, pairs in tasks]))


def adjacent_flow(
    clip: Clip, config: FlowConfig, device: str = "cpu"
) -> Callable[[int, int], np.ndarray]:
    """The estimator's plain flow between neighboring frames, for baselines; DIS under ``auto`` and for imported tracks.

    Returns:
        A function of (i, j) giving (H, W, 2) float32 at plate size in plate pixels.
    Raises:
        FlowError: a learned estimator's weights are missing or cannot be used.
    """
    estimator = create_estimator(
        config.estimator, clip, weights=config.weights, device=device, full_size=config.full_size
    )
    if isinstance(estimator, ImportedTracks):  # which have no dense flow
        estimator = DisFlow(full_size=config.full_size)
    size = input_size(estimator, clip.working_size, config.long_side)
    if isinstance(estimator, LearnedEstimator):
        estimator.load(size)
    bank = FrameBank(clip, estimator, size, capacity=4, needs_features=False)

    def flow(i: int, j: int) -> np.ndarray:
        with opencv_on_one_thread():
            return dense_flow_at_plate_size(bank, i, j)

    return flow


def _tasks(
    clip: Clip, config: FlowConfig, estimator: Estimator | LearnedEstimator | ImportedTracks
) -> list[tuple[str, list[Pair]]]:
    """File names and the pairs each holds. Last come the closures, with all pairs of keyframes that are compared."""
    given = estimator.pairs()
    if given is not None:
        pairs = sorted({Pair(min(i, j), max(i, j)) for i, j in given if i != j})
        pairs = [pair for pair in pairs if any(pair.first in s and pair.second in s for s in clip.segments)]
    else:
        pairs = stride_pairs(clip.segments, config.gaps)
    tasks = []
    for start in range(0, clip.num_frames, BLOCK):
        inside = [pair for pair in pairs if start <= pair.first < start + BLOCK]
        if inside:
            tasks.append((f"{start:06d}.npz", inside))
    closures = closure_candidates(clip.segments, config.keyframe_step, max(config.gaps)) if given is None else []
    if closures and config.max_closures_per_keyframe > 0 and estimator.refines:
        tasks.append((CLOSURES, closures))
    return tasks


def _is_exhaustive(config: FlowConfig, estimator: Estimator | LearnedEstimator | ImportedTracks) -> bool:
    """Whether flow is filtered as the paper's; tracks made elsewhere are not flow."""
    return config.exhaustive.enabled and not isinstance(estimator, ImportedTracks)


def _of_all_gaps(config: FlowConfig, clip: Clip) -> FlowConfig:
    return dataclasses.replace(config, gaps=tuple(range(1, clip.num_frames)))


def _side_of(folder: Path, pairs: list[Pair]) -> Path:
    return side_file(folder, pairs[0].first // BLOCK * BLOCK)


def _most_closures(tasks: list[tuple[str, list[Pair]]], config: FlowConfig) -> int:
    """How many loop closures there can be at most."""
    candidates = next((pairs for name, pairs in tasks if name == CLOSURES), [])
    keyframes = {t for pair in candidates for t in (pair.first, pair.second)}
    return min(len(candidates), len(keyframes) * config.max_closures_per_keyframe // 2)
