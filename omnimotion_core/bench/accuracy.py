"""Scenes that trackers fail on, rendered, tracked by the very stages of a job, and compared with their truth."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from omnimotion_core import pipeline
from omnimotion_core.bench.measure import STAGE
from omnimotion_core.comparison import NAMES, Comparison, compare_with
from omnimotion_core.config import Config
from omnimotion_core.evaluation.footage import write_frames
from omnimotion_core.evaluation.hard_scenes import SCENES, make_hard_scene
from omnimotion_core.events import Reporter
from omnimotion_core.results import Results
from omnimotion_core.run import STAGES

_COLUMNS = {  # of the summary: attribute of TAP-Vid's figures, and how it is headed
    "average_jaccard": "AJ", "average_points_within": "δ_avg", "occlusion_accuracy": "OA", "temporal_coherence": "TC",
}  # fmt: skip


def measure_accuracy(config: Config, names: Sequence[str], reporter: Reporter) -> Iterator[tuple[str, Comparison]]:
    """Each scene of `evaluation.hard_scenes` with its comparison, one after the other; nothing is left on disk.

    Args:
        config: how to track; its seed is the scenes' too.
        names: which scenes, in this order; none: all.
        reporter: hears how far it is and may cancel it.
    Raises:
        OmniMotionError: a scene is unknown, the device is absent, or the temporary folder cannot be written.
        Cancelled: the user asked to stop.
    """
    scenes = {name: make_hard_scene(name, config.seed) for name in names or SCENES}
    reporter.stage(STAGE)
    reporter.progress(STAGE, 0, len(scenes))
    quiet = Reporter(cancelled=reporter.cancelled)
    for index, (name, scene) in enumerate(scenes.items()):
        with TemporaryDirectory(prefix="omnimotion-bench-") as folder:
            write_frames(scene, Path(folder, "clip"), reporter=quiet)
            run = pipeline.track(Path(folder, "clip", "frame.####.png"), Path(folder, "run"), config, reporter=quiet,
                                 stages=STAGES[:3])  # fmt: skip
            truth = scene.truth(seed=config.seed)
            found = compare_with(Results(run), truth, "first", reporter=quiet, baselines=True)
        reporter.progress(STAGE, index + 1, len(scenes))
        yield name, found


def format_scene(name: str, found: Comparison) -> str:
    """A scene's reason and its table."""
    return f"{name}: {SCENES[name][1]}\n{found.format()}\n"


def format_means(found: Mapping[str, Comparison]) -> str:
    """The means over the scenes, a line for each tracker."""
    names = [name for name in NAMES if all(name in one.figures for one in found.values())]
    width = max(map(len, names))
    lines = [
        f"means of {len(found)} scenes" if len(found) > 1 else "one scene",
        f"{'':{width}}  " + "  ".join(f"{head:>5}" for head in _COLUMNS.values()),
    ]
    for tracker in names:
        figures = [one.figures[tracker] for one in found.values()]
        means = (float(np.mean([getattr(one, column) for one in figures])) for column in _COLUMNS)
        lines.append(f"{tracker:{width}}  " + "  ".join(f"{mean:5.3f}" for mean in means))
    return "\n".join(lines)
