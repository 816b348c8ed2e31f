"""Clips of a few sizes through the very stages of a job, in a temporary folder, and what each stage took.

The fit takes a few steps, all of them with every level of the tables and without searches for depth or free space; the
later half is timed. The time of a whole fit is reckoned from them and told as reckoned.
"""

import copy
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from omnimotion_core import pipeline
from omnimotion_core.bench.cost import fastest, machine_speed, match_cost, slope
from omnimotion_core.config import Config
from omnimotion_core.coordinates import Size
from omnimotion_core.devices import choose_device, choose_threads, computing, describe, measured
from omnimotion_core.evaluation.footage import write_frames
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.events import Event, Progress, Reporter
from omnimotion_core.model.field import Field
from omnimotion_core.results import Results
from omnimotion_core.run import STAGES
from omnimotion_core.trajectories.dense import dense_flow

STAGE = "bench"
PLATE: Size = (1920, 1080)  # of the one pair of frames whose dense flow is timed
PLAIN_STEPS = {"level_starts": [0.0], "depth_searches": [], "free_space_after": 1.0}  # each as dear as the last ones
_LEAST_MB = 1.0  # of memory above the libraries' own: what is less has no logarithm to speak of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured: clips that differ in length, clips that differ in size, questions that differ in points."""

    frames: tuple[int, ...] = (12, 24, 48)  # at the first of `sides`
    sides: tuple[int, ...] = (128, 192, 256)  # of square pictures, pixels; at the first of `frames`
    points: tuple[int, ...] = (1024, 4096, 16384)  # asked of the first clip; the second number, of every clip
    steps: int = 60  # of the fit

    @property
    def clips(self) -> list[tuple[int, int]]:
        """(frames, side), from the smallest to the largest, so that memory kept from before hides little."""
        pairs = {(self.frames[0], side) for side in self.sides} | {(count, self.sides[0]) for count in self.frames}
        return sorted(pairs, key=lambda pair: (pair[0] * pair[1] ** 2, pair))


QUICK = Plan(frames=(4, 8), sides=(48, 64), points=(256, 1024), steps=4)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one clip costs; every value is a number of the table."""

    num_frames: int
    side: int  # pixels
    prepare_s: float
    flow_s: float
    num_pairs: int  # of frames, each matched in both directions
    pair_s: float
    start_s: float  # of the fit, before its first step and after its last
    step_ms: float
    match_us: float  # of a step, for each of its matches
    fit_s: float  # reckoned: the start and as many steps as the preset takes
    flop_share: float  # of the machine's arithmetic, that the matches of a step make use of
    byte_share: float  # of its memory's speed, likewise
    query_us: float  # for a point and frame
    dense_us: float  # for a pixel of a frame pair
    peak_memory_mb: float  # of the process


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was measured."""

    machine: Mapping[str, Any]
    model: Mapping[str, float]  # what the arithmetic is counted from, and the counts
    clips: tuple[Figures, ...]
    questions: Mapping[int, float]  # points: seconds, of the first clip
    plate_s: float  # the dense flow of one pair of frames of `PLATE`
    growth: Mapping[str, Mapping[str, float]]  # over frames, pixels or points: the exponent of each cost

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def run_bench(config: Config, plan: Plan, reporter: Reporter) -> Report:
    """Measure; nothing is left on disk.

    Args:
        config: how to track; flow is by DIS, whatever weights are here, and the fit takes ``plan.steps``.
        plan: what is measured.
        reporter: hears how far it is and may cancel it.
    Raises:
        OmniMotionError: the device is absent, or the temporary folder cannot be written.
        Cancelled: the user asked to stop.
    """
    device, threads = choose_device(config.device), choose_threads(config.threads)
    reporter.stage(STAGE)
    clips = plan.clips
    total = len(clips) + 1
    reporter.progress(STAGE, 0, total)
    flops, copied = machine_speed(device, threads)
    with measured() as before:
        pass
    short = config.override({
        "flow": {"estimator": "dis"}, "fit": {"steps": plan.steps, "checkpoint_every": plan.steps // 2, **PLAIN_STEPS},
    })  # fmt: skip
    flop, size = match_cost(config.model.num_layers)
    speeds = (flops / flop * 1e-6, copied / size * 1e-6)  # matches a microsecond, at the most
    figures: dict[tuple[int, int], Figures] = {}
    questions: dict[int, float] = {}
    plate_s = 0.0
    with TemporaryDirectory(prefix="omnimotion-bench-") as name:
        _measure(Path(name, "first"), clips[0], short, config.fit.steps, speeds, plan, reporter)  # compiles the loops
        reporter.progress(STAGE, 1, total)
        for index, clip in enumerate(clips):
            figures[clip], results = _measure(
                Path(name, str(index)), clip, short, config.fit.steps, speeds, plan, reporter
            )
            if index == 0:
                questions = {count: _query_s(results, count) for count in plan.points}
            if index == len(clips) - 1:
                plate_s = _plate_s(results)
            reporter.progress(STAGE, index + 2, total)
    return Report(
        machine={**describe(device, threads), "gflops": flops / 1e9, "copy_gb_s": copied / 1e9,
                 "libraries_mb": before.peak_memory_mb},
        model={"layers": config.model.num_layers, "batch": config.fit.batch, "flop_per_match": flop,
               "bytes_per_match": size, "steps_timed": plan.steps - plan.steps // 2, "steps": config.fit.steps},
        clips=tuple(figures[clip] for clip in clips),
        questions=questions,
        plate_s=plate_s,
        growth=_growth(figures, plan, questions, before.peak_memory_mb),
    )  # fmt: skip


def _measure(
    folder: Path, clip: tuple[int, int], config: Config, steps: int, speeds: tuple[float, float], plan: Plan,
    reporter: Reporter,
) -> tuple[Figures, Results]:  # fmt: skip
    """One clip through the stages."""
    num_frames, side = clip
    quiet = Reporter(cancelled=reporter.cancelled)
    write_frames(Scene.make(num_frames, (side, side), config.seed), folder / "clip", reporter=quiet)
    watch = _Watch()
    run = pipeline.track(folder / "clip" / "frame.####.png", folder / "run", config,
                         reporter=Reporter(watch, reporter.cancelled), stages=STAGES[:3])
    stages = run.manifest["stages"]
    results = Results(run)
    query_s = _query_s(results, plan.points[1])
    dense_s = fastest(lambda: results.flow(0, num_frames // 2))
    with measured() as after:
        results.flow(0, num_frames // 2)
    prepare_s, flow_s, fit_s = (stages[stage]["seconds"] for stage in STAGES[:3])
    step_s, start_s = watch.fit(config.fit.steps // 2, fit_s, results.device.type == "cpu")
    match_us = step_s * 1e6 / config.fit.batch
    peaks = [stages[stage]["peak_memory_mb"] for stage in STAGES[:3]] + [after.peak_memory_mb]
    return Figures(
        num_frames=num_frames, side=side, prepare_s=prepare_s, flow_s=flow_s, num_pairs=watch.num_pairs,
        pair_s=flow_s / watch.num_pairs, start_s=start_s, step_ms=step_s * 1e3, match_us=match_us,
        fit_s=start_s + step_s * steps, flop_share=1 / (match_us * speeds[0]), byte_share=1 / (match_us * speeds[1]),
        query_us=query_s * 1e6 / (plan.points[1] * num_frames), dense_us=dense_s * 1e6 / side**2,
        peak_memory_mb=max(peaks),
    ), results  # fmt: skip


class _Watch:
    """Hears a job and notes when the steps of its fit were done, and how many pairs its flow has."""

    def __init__(self) -> None:
        self.num_pairs = 0
        self._at: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "flow":
            self.num_pairs = event.total
        elif isinstance(event, Progress) and event.stage == "fit":
            self._at.setdefault(event.done, time.perf_counter())

    def fit(self, half: int, stage_s: float, waits: bool) -> tuple[float, float]:
        """Seconds of a step, from the steps after ``half``; and of all else in a fit of ``stage_s``.

        Where each step ``waits`` for its end, it is their median, which what else the machine does hardly moves. A GPU
        computes by itself; but at ``half`` and at the end the fit looks at its parameters, so there it is the mean.
        """
        last = max(self._at)
        steps = np.diff([self._at[step] for step in range(half, last + 1)])
        step_s = float(np.median(steps) if waits else steps.mean())
        return step_s, max(stage_s - (self._at[last] - self._at[0]), 0.0)


def _query_s(results: Results, count: int) -> float:
    clip = results.clip
    rng = np.random.default_rng(count)
    places = rng.uniform(0, np.array(clip.size) - 1, (count, 2))
    points = np.column_stack([rng.integers(clip.num_frames, size=count), places])
    return fastest(lambda: results.query(points))


def _plate_s(results: Results) -> float:
    """The dense flow of a pair of frames of ``PLATE``: the field of the clip, asked as if its plate were so large."""
    field = copy.copy(results.field)
    assert isinstance(field, Field)
    field.shape = dataclasses.replace(field.shape, size=PLATE)
    with computing(results.device):
        prepared = field.prepare()
        return fastest(lambda: dense_flow(prepared, 0, 1, memory_mb=results.config.tracks.memory_mb), 1)


def _growth(
    figures: Mapping[tuple[int, int], Figures], plan: Plan, questions: Mapping[int, float], libraries_mb: float
) -> dict[str, dict[str, float]]:
    """The exponents; of questions those of their whole seconds."""

    def exponents(clips: list[Figures], sizes: list[float]) -> dict[str, float]:
        costs: dict[str, list[float]] = {
            "prepare_s": [one.prepare_s for one in clips],
            "flow_s": [one.flow_s for one in clips],
            "num_pairs": [one.num_pairs for one in clips],
            "step_ms": [one.step_ms for one in clips],
            "query_s": [one.query_us * one.num_frames for one in clips],
            "dense_s": [one.dense_us * one.side**2 for one in clips],
            "memory_mb": [max(one.peak_memory_mb - libraries_mb, _LEAST_MB) for one in clips],
        }
        return {name: slope(sizes, values) for name, values in costs.items()}

    over_frames = [figures[count, plan.sides[0]] for count in plan.frames]
    over_pixels = [figures[plan.frames[0], side] for side in plan.sides]
    return {
        "frames": exponents(over_frames, [float(one.num_frames) for one in over_frames]),
        "pixels": exponents(over_pixels, [float(one.side**2) for one in over_pixels]),
        "points": {"query_s": slope(list(questions), list(questions.values()))},
    }
