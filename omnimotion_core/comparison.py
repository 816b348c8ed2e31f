"""A run beside what it has to beat, on a clip whose true motion is known."""

from functools import lru_cache

import numpy as np

from omnimotion_core.evaluation.baselines import chain_tracks, lucas_kanade_tracks
from omnimotion_core.evaluation.tapvid import QueryMode, TapVidMetrics, Truth, queries_for, tapvid_metrics
from omnimotion_core.events import Reporter
from omnimotion_core.results import Results

STAGE = "evaluate"


def compare(results: Results, truth: Truth, mode: QueryMode, *, reporter: Reporter) -> dict[str, TapVidMetrics]:
    """TAP-Vid's figures of the run, of the flow between neighbors chained, and of Lucas-Kanade.

    Raises:
        EvaluationError: the truth does not belong to the clip.
        Cancelled: the user asked to stop.
    """
    from omnimotion_core.flow.stage import adjacent_flow

    clip = results.clip
    estimate = adjacent_flow(clip, results.config.flow, results.config.device)
    queries, rows = queries_for(truth, mode)
    last, steps = clip.num_frames - 1, 2 * (clip.num_frames - 1)  # forward, then backward over the clip
    done = 0

    @lru_cache(maxsize=2)  # the chain asks for both directions of a pair, more than once where a chain turns
    def flow(source: int, target: int) -> np.ndarray:
        nonlocal done
        done = min(done + 1, 2 * steps)
        reporter.progress(STAGE, done, 2 * steps)
        return estimate(source, target)

    reporter.stage(STAGE)
    ours = results.query(queries)
    chained = chain_tracks(flow, queries, last + 1, clip.size)
    reporter.progress(STAGE, 2 * steps, 2 * steps)  # pairs that no point crosses were not asked for
    lucas_kanade = lucas_kanade_tracks(clip.rgb8, queries, last + 1, clip.size)
    answers = {"omnimotion": ours, "chained flow": chained, "Lucas-Kanade": lucas_kanade}
    return {name: tapvid_metrics(truth, tracks, rows, mode) for name, tracks in answers.items()}
