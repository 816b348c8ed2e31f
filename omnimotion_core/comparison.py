"""A run beside what it has to beat, on a clip whose true motion is known."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omnimotion_core.devices import computing
from omnimotion_core.errors import EvaluationError, FitError
from omnimotion_core.evaluation.answers import load_answers
from omnimotion_core.evaluation.baselines import chain_tracks, lucas_kanade_tracks
from omnimotion_core.evaluation.multi_frame import direct_pairs, direct_tracks, interval_pairs, several_interval_tracks
from omnimotion_core.evaluation.sparsification import Sparsification, track_sparsification
from omnimotion_core.evaluation.tapvid import (
    QueryMode,
    TapVidMetrics,
    Truth,
    format_table,
    queries_for,
    tapvid_metrics,
)
from omnimotion_core.events import Event, Progress, Reporter
from omnimotion_core.results import Results
from omnimotion_core.trajectories.tracks import Tracks

if TYPE_CHECKING:
    from omnimotion_core.flow.any_pair import AnyPairFlow
    from omnimotion_core.flow.correspondences import Correspondences

STAGE = "evaluate"
OURS, CHAINED, LUCAS_KANADE = "omnimotion", "chained flow", "Lucas-Kanade"
DIRECT, SEVERAL, VOLUMETRIC = "direct flow", "several intervals", "volumetric"
NAMES = (OURS, CHAINED, LUCAS_KANADE, DIRECT, SEVERAL, VOLUMETRIC)
FIT_UNITS = 200  # of progress, in which the volumetric fit is told


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """TAP-Vid's figures of the run and of others, by name, and how well the run's confidence sorts its errors."""

    figures: dict[str, TapVidMetrics]
    seconds: dict[str, float | None]  # of ours and of volumetric: the stages and the answers; None: not known
    sparsification: Sparsification  # of ours

    def format(self) -> str:
        """The table, and a line on confidence."""
        return f"{format_table(self.figures, self.seconds)}\n\n{self.sparsification.format()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, by name."""
        found = {name: {**one.to_dict(), "seconds": self.seconds[name]} for name, one in self.figures.items()}
        found[OURS]["sparsification"] = self.sparsification.to_dict()
        return found


def compare(results: Results, truth: Truth, mode: QueryMode, *, reporter: Reporter) -> dict[str, TapVidMetrics]:
    """TAP-Vid's figures of the run, of the flow between neighbors chained, and of Lucas-Kanade.

    Raises:
        EvaluationError: the truth does not belong to the clip.
        Cancelled: the user asked to stop.
    """
    return compare_with(results, truth, mode, reporter=reporter).figures


def compare_with(
    results: Results, truth: Truth, mode: QueryMode, *, reporter: Reporter, baselines: bool = False,
    volumetric_time: float = 1.0, answers: Mapping[str, Path] | None = None,
) -> Comparison:  # fmt: skip
    """The same with seconds and confidence, and beside more than those two.

    Args:
        results: of the run.
        truth: of its clip.
        mode: which queries are asked.
        baselines: also the flow from each query's frame to every other, chaining over several intervals, and the
            paper's model fitted to the run's own matches.
        volumetric_time: how long that model is fitted, in times of the run's own fit.
        answers: files of other trackers by the name that the table gives them; see ``load_answers``.
    Raises:
        EvaluationError: the truth or a file does not belong to the clip or to the queries.
        RunError: the run lacks the matches that the paper's model is to be fitted to.
        Cancelled: the user asked to stop.
    """
    clip = results.clip
    queries, rows = queries_for(truth, mode)
    files = answers or {}
    taken = next((name for name in files if name in NAMES), None)
    if taken is not None:
        raise EvaluationError(f"{taken} is the name of what is compared anyway", "give the tracks another name")
    imported = {name: load_answers(path, queries, clip.num_frames, clip.size) for name, path in files.items()}
    reporter.stage(STAGE)
    ways: dict[str, Callable[[], Tracks]] = {OURS: lambda: results.query(queries)}
    ways |= _Baselines(results, queries, reporter).ways(baselines, volumetric_time)
    found, seconds = {}, {}
    for name, make in ways.items():
        began = time.perf_counter()
        try:
            found[name] = make()
        except FitError as error:  # the paper's model diverged: the others' work is not lost for that
            reporter.note(f"{name} is left out: {error.problem}")
            continue
        seconds[name] = time.perf_counter() - began
    stages = _stage_seconds(results)
    seconds[OURS] += sum(stages.values())
    if VOLUMETRIC in seconds:
        seconds[VOLUMETRIC] += sum(stages.get(stage, 0.0) for stage in ("prepare", "flow"))
    return Comparison(
        figures={name: tapvid_metrics(truth, tracks, rows, mode) for name, tracks in {**found, **imported}.items()},
        seconds={**seconds, **dict.fromkeys(imported)},
        sparsification=track_sparsification(truth, found[OURS], rows, mode),
    )


def _stage_seconds(results: Results) -> dict[str, float]:
    """What each stage of the run took, where that is known."""
    stages = results.run.manifest["stages"]
    return {name: facts["seconds"] for name, facts in stages.items() if isinstance(facts.get("seconds"), (int, float))}


class _Baselines:
    """What a run is set beside; how far they are is told as progress, of which each has its share.

    Args:
        results: of the run.
        queries: (Q, 3) as (t, x, y), plate pixels: what all are asked.
        reporter: hears the progress and may cancel.
    """

    def __init__(self, results: Results, queries: np.ndarray, reporter: Reporter) -> None:
        self.results, self.queries, self.reporter = results, queries, reporter
        self.clip, self.config = results.clip, results.config
        self.done = self.ends = self.total = 0  # units of progress: what is done, the end of this one's share, all

    def ways(self, more: bool, volumetric_time: float) -> dict[str, Callable[[], Tracks]]:
        """By name what makes the tracks of each, to be called once and in this order; see ``compare_with``."""
        shares: list[tuple[str, int, Callable[[], Tracks]]] = [  # a unit is a field of flow, of which a pair has two
            (CHAINED, 4 * (self.clip.num_frames - 1), self._chained), (LUCAS_KANADE, 0, self._lucas_kanade)
        ]  # fmt: skip
        shares += self._flow_ways() if more else []
        budget = volumetric_time * _stage_seconds(self.results).get("fit", 0.0)
        if more and budget > 0 and self.config.model.kind != "volumetric":  # which the run is itself
            matches = self.results.fitted_to  # read now, so that a run which lacks them is told before the work
            shares.append((VOLUMETRIC, FIT_UNITS, lambda: self._volumetric(matches, budget)))
        self.total = sum(units for _, units, _ in shares)
        return {name: self._within(units, make) for name, units, make in shares}

    def _flow_ways(self) -> list[tuple[str, int, Callable[[], Tracks]]]:
        """Those that take flow between frames that are no neighbors."""
        from omnimotion_core.flow.any_pair import AnyPairFlow

        count = self.clip.num_frames
        starts = np.round(self.queries[:, 0]).astype(int).tolist()
        direct, several = list(direct_pairs(starts, count)), list(interval_pairs(starts, count))
        flow = AnyPairFlow(self.clip, self.config.flow, self.config.device)
        found: list[tuple[str, int, Callable[[], Tracks]]] = []
        if all(flow.available(source, target) for source, target in direct):
            found.append((DIRECT, 2 * len(direct), lambda: self._direct(flow)))
        else:
            self.reporter.note(
                "direct flow is left out: the folder of flow does not hold all pairs with the queries' frames"
            )
        return [*found, (SEVERAL, 2 * len(several), lambda: self._several(flow))]

    def _within(self, units: int, make: Callable[[], Tracks]) -> Callable[[], Tracks]:
        """``make``, with a share of the progress."""

        def made() -> Tracks:
            self.ends = self.done + units
            tracks = make()
            self._reach(self.ends)  # pairs that no point crosses were not asked for
            return tracks

        return made

    def _reach(self, done: int) -> None:
        self.done = min(done, self.ends)
        self.reporter.progress(STAGE, self.done, self.total)

    def _told(self, estimate: Callable[[int, int], np.ndarray]) -> Callable[[int, int], np.ndarray]:
        @lru_cache(maxsize=2)  # the chain asks for both directions of a pair, more than once where a chain turns
        def flow(source: int, target: int) -> np.ndarray:
            self._reach(self.done + 1)
            return estimate(source, target)

        return flow

    def _chained(self) -> Tracks:
        from omnimotion_core.flow.stage import adjacent_flow

        flow = self._told(adjacent_flow(self.clip, self.config.flow, self.config.device))
        return chain_tracks(flow, self.queries, self.clip.num_frames, self.clip.size)

    def _lucas_kanade(self) -> Tracks:
        return lucas_kanade_tracks(self.clip.rgb8, self.queries, self.clip.num_frames, self.clip.size)

    def _direct(self, flow: "AnyPairFlow") -> Tracks:
        made = direct_tracks(self._told(flow), self.queries, self.clip.num_frames, self.clip.size)
        flow.forget()  # so that the seconds of the next are its own
        return made

    def _several(self, flow: "AnyPairFlow") -> Tracks:
        return several_interval_tracks(self._told(flow), self.queries, self.clip.num_frames, self.clip.size,
                                       available=flow.available)

    def _volumetric(self, matches: "Correspondences", seconds: float) -> Tracks:
        """Of the paper's model, fitted to the matches that the run was fitted to."""
        from omnimotion_core.optimization.timed import fit_volumetric_in
        from omnimotion_core.trajectories.query import track_points

        began = self.done

        def emit(event: Event) -> None:
            if isinstance(event, Progress):
                self._reach(began + event.done * FIT_UNITS // event.total)

        results = self.results
        with computing(results.device, results.threads):
            field = fit_volumetric_in(seconds, self.clip, matches, seed=self.config.seed, device=results.device,
                                      reporter=Reporter(emit, self.reporter.cancelled))
            return track_points(field, self.queries, memory_mb=self.config.tracks.memory_mb)
