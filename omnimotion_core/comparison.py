"""A run beside what it has to beat, on a clip whose true motion is known."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.errors import EvaluationError
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
from omnimotion_core.events import Reporter
from omnimotion_core.results import Results
from omnimotion_core.trajectories.tracks import Tracks

STAGE = "evaluate"
OURS, CHAINED, LUCAS_KANADE = "omnimotion", "chained flow", "Lucas-Kanade"
DIRECT, SEVERAL = "direct flow", "several intervals"
NAMES = (OURS, CHAINED, LUCAS_KANADE, DIRECT, SEVERAL)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """TAP-Vid's figures of the run and of others, by name, and how well the run's confidence sorts its errors."""

    figures: dict[str, TapVidMetrics]
    seconds: dict[str, float | None]  # of ours: its stages and the answers; None: not known
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
    answers: Mapping[str, Path] | None = None,
) -> Comparison:  # fmt: skip
    """The same with seconds and confidence, and beside more than those two.

    Args:
        results: of the run.
        truth: of its clip.
        mode: which queries are asked.
        baselines: also the flow from each query's frame to every other, and chaining over several intervals.
        answers: files of other trackers by the name that the table gives them; see ``load_answers``.
    Raises:
        EvaluationError: the truth or a file does not belong to the clip or to the queries.
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
    ways |= _ways(results, queries, baselines, reporter)
    found, seconds = {}, {}
    for name, make in ways.items():
        began = time.perf_counter()
        found[name] = make()
        seconds[name] = time.perf_counter() - began
    stages = [facts.get("seconds") for facts in results.run.manifest["stages"].values()]
    seconds[OURS] += sum(known for known in stages if isinstance(known, (int, float)))
    return Comparison(
        figures={name: tapvid_metrics(truth, tracks, rows, mode) for name, tracks in {**found, **imported}.items()},
        seconds={**seconds, **dict.fromkeys(imported)},
        sparsification=track_sparsification(truth, found[OURS], rows, mode),
    )


def _ways(
    results: Results, queries: np.ndarray, baselines: bool, reporter: Reporter
) -> dict[str, Callable[[], Tracks]]:
    """The baselines by name, each to be called once, in this order; their flow is the progress that is told."""
    from omnimotion_core.flow.any_pair import AnyPairFlow
    from omnimotion_core.flow.stage import adjacent_flow

    clip, config, device = results.clip, results.config.flow, results.config.device
    count, size = clip.num_frames, clip.size
    starts = np.round(queries[:, 0]).astype(int).tolist()
    direct, several = list(direct_pairs(starts, count)), list(interval_pairs(starts, count))
    chain = 4 * (count - 1)  # fields: forward, then backward over the clip, there and back
    total = chain + (2 * (len(direct) + len(several)) if baselines else 0)
    done = 0

    def told(estimate: Callable[[int, int], np.ndarray]) -> Callable[[int, int], np.ndarray]:
        @lru_cache(maxsize=2)  # the chain asks for both directions of a pair, more than once where a chain turns
        def flow(source: int, target: int) -> np.ndarray:
            nonlocal done
            done = min(done + 1, total)
            reporter.progress(STAGE, done, total)
            return estimate(source, target)

        return flow

    def reached(fields: int) -> None:
        nonlocal done
        done = fields
        reporter.progress(STAGE, done, total)

    def chained() -> Tracks:
        made = chain_tracks(told(adjacent_flow(clip, config, device)), queries, count, size)
        reached(chain)  # pairs that no point crosses were not asked for
        return made

    ways: dict[str, Callable[[], Tracks]] = {
        CHAINED: chained, LUCAS_KANADE: lambda: lucas_kanade_tracks(clip.rgb8, queries, count, size)
    }  # fmt: skip
    if not baselines:
        return ways
    any_pair = AnyPairFlow(clip, config, device)

    def direct_way() -> Tracks:
        made = direct_tracks(told(any_pair), queries, count, size)
        reached(chain + 2 * len(direct))
        any_pair.forget()  # so that the seconds of the next are its own
        return made

    def several_way() -> Tracks:
        made = several_interval_tracks(told(any_pair), queries, count, size, available=any_pair.available)
        reached(total)
        return made

    if all(any_pair.available(source, target) for source, target in direct):
        ways[DIRECT] = direct_way
    else:
        total -= 2 * len(direct)
        reporter.note("direct flow is left out: the folder of flow does not hold all pairs with the queries' frames")
    ways[SEVERAL] = several_way
    return ways
