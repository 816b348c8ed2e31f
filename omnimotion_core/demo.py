"""The demonstration: a clip whose motion is known, tracked, exported and compared with the truth."""

from pathlib import Path

from omnimotion_core import pipeline
from omnimotion_core.comparison import compare
from omnimotion_core.config import Config, digest
from omnimotion_core.errors import ConfigError, RunError
from omnimotion_core.evaluation.footage import STAGE, write_frames
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.evaluation.tapvid import format_table, load_truth
from omnimotion_core.events import Reporter
from omnimotion_core.files import unwritable, write_text
from omnimotion_core.products import known_kinds
from omnimotion_core.results import Results


def run_demo(out: Path, config: Config, *, num_frames: int, side: int, reporter: Reporter) -> str:
    """Make ``out/clip``, its ``out/truth.npz`` and the run ``out/run`` with every export, or go on with them.

    Args:
        out: a folder that is absent, empty, or of an earlier demo.
        config: how to track; every export is written, whatever it says.
        num_frames: of the clip.
        side: of the clip's square picture, pixels.
        reporter: hears the job and may cancel it.
    Returns:
        What to print: the accuracy beside simple trackers', and where everything is.
    Raises:
        OmniMotionError: the settings or the folder cannot be used.
        Cancelled: the user asked to stop; the same call goes on.
    """
    scene = Scene.make(num_frames, (side, side), config.seed)
    mark = out / "demo.json"
    facts = digest(num_frames, side, config.seed)
    try:
        if out.exists() and not mark.exists() and any(out.iterdir()):
            raise RunError(f"{out} holds something else than a demo", "give --out a new folder")
        if mark.exists() and mark.read_text(encoding="utf-8") != facts:
            raise ConfigError(f"{out} holds a demo of another length, size or seed", "give --out a new folder")
    except OSError as error:
        raise unwritable(out, error) from error
    write_text(mark, facts)
    reporter.stage(STAGE)
    write_frames(scene, out / "clip", stem="demo", keep_existing=True, reporter=reporter)
    truth_path = out / "truth.npz"
    if not truth_path.exists():
        scene.truth().save(truth_path)
    everything = config.override({"export": {"kinds": known_kinds()}})
    run = pipeline.track(out / "clip" / "demo.####.png", out / "run", everything, reporter=reporter)
    results = Results(run)
    figures = compare(results, load_truth(truth_path, num_frames, scene.size), "first", reporter=reporter)
    places = (run.tracks, run.markers, run.exr, run.preview, run.report)
    return "\n".join([format_table(figures), "", *map(str, places)])
