"""What each command but ``doctor`` does, given its parsed arguments; ``cli`` turns what they raise into exit codes.

Every function is called as ``command(options, reporter)`` and is named like its command.
"""

import json
import os
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omnimotion_core import pipeline
from omnimotion_core.api import make_config
from omnimotion_core.config import Config
from omnimotion_core.errors import ConfigError, PublishFailed, QueryError, RunError
from omnimotion_core.events import Reporter
from omnimotion_core.files import write_text
from omnimotion_core.points import read_points
from omnimotion_core.results import Results
from omnimotion_core.run import STAGES, RunFolder

if TYPE_CHECKING:
    from omnimotion_core.batch.jobs import Batch

_LOOK_EVERY_S = 0.02  # into the folder that points come from


def track(options: Namespace, reporter: Reporter) -> None:
    """The whole job."""
    pipeline.track(options.clip, options.out, _config(options), reporter=reporter)


def prepare(options: Namespace, reporter: Reporter) -> None:
    """Make the run folder and decode the clip, or decode the clip of a run folder."""
    if options.clip is not None:
        pipeline.track(options.clip, options.run, _config(options), reporter=reporter, stages=STAGES[:1])
        return
    settings = ("preset", "frames", "flow", "weights", "mask", "seed", "allow_gaps", "config")
    if any(getattr(options, name) is not None for name in settings):
        raise ConfigError("prepare without --clip takes its settings from the run folder", "add --clip CLIP")
    _stage("prepare", options, reporter)


def flow(options: Namespace, reporter: Reporter) -> None:
    """Find the correspondences, or one part of them."""
    _stage("flow", options, reporter, options.chunk)


def fit(options: Namespace, reporter: Reporter) -> None:
    """Fit the field."""
    _stage("fit", options, reporter)


def tracks(options: Namespace, reporter: Reporter) -> None:
    """Make the tracks and markers."""
    _stage("tracks", options, reporter)


def import_(options: Namespace, reporter: Reporter) -> None:
    """Make a run folder of a published checkpoint."""
    pipeline.import_checkpoint(options.checkpoint, options.clip, options.out, _config(options), reporter=reporter)


def query(options: Namespace, reporter: Reporter) -> None:
    """Answer where the points of a file go, or of each file that comes into a folder."""
    results = _results(options)
    results.run.require("fit")
    if options.points.is_dir():
        _answer_files(results, options, reporter)
        return
    _require_file_place(options.out)
    points = read_points(options.points)
    reporter.stage("tracks")
    _answer(results, points, options.out, options.blender, reporter)


def addon(options: Namespace, reporter: Reporter) -> None:
    """Build the Blender add-on."""
    from omnimotion_core.addon import build_addon

    reporter.artifact("addon", build_addon(options.out))


def export(options: Namespace, reporter: Reporter) -> None:
    """Write products, or what the run's own settings say."""
    settings = {
        "references": options.reference, "vectors_map": None if options.map is None else os.path.abspath(options.map),
        "compression": options.compression, "multipart": options.multipart, "max_displace": options.max_displace,
        "flip_v": options.flip_v,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    best = {} if options.best is None else {"max_markers": options.best}
    if options.to is None:
        if options.out is not None or given or best:
            raise ConfigError("export --out and what is told of products need --to",
                              "name the kinds: --to vectors:blender")
        _stage("export", options, reporter, options.chunk)
        return
    results = _results(options).changed({"export": given, "tracks": best})
    pipeline.export(
        results.run, options.to, out=options.out, reporter=reporter, results=results, chunk=options.chunk
    )


def propagate(options: Namespace, reporter: Reporter) -> None:
    """Carry painted frames through the shot."""
    frames, images = options.frame or [], options.image or []
    if not frames or len(frames) != len(images):
        raise ConfigError(f"--frame is given {len(frames)} times and --image {len(images)} times",
                          "give each picture with its frame: --frame N --image FILE")
    if len(set(frames)) != len(frames):
        raise ConfigError(f"frame {max(frames, key=frames.count)} is given twice", "give one picture a frame")
    results = _results(options)
    pipeline.propagate(results.run, dict(zip(frames, images, strict=True)), options.out, reporter=reporter,
                       results=results)


def evaluate(options: Namespace, reporter: Reporter) -> None:
    """Print the figures of the run and of the baselines."""
    from omnimotion_core.comparison import compare_with
    from omnimotion_core.evaluation.tapvid import load_truth

    factor = options.volumetric_time
    if factor is not None and not options.baselines:
        raise ConfigError("--volumetric-time is given without --baselines", "give both, or leave it out")
    answers: dict[str, Path] = {}
    for name, path in options.tracks or []:
        if name in answers:
            raise ConfigError(f"--tracks names {name} twice", "give each file a name of its own")
        answers[name] = path
    results = _results(options)
    if options.json is not None:
        _require_file_place(options.json)
    clip = results.clip
    truth = load_truth(options.truth, clip.num_frames, clip.size)
    found = compare_with(
        results, truth, options.query, reporter=reporter, baselines=options.baselines,
        volumetric_time=1.0 if factor is None else factor, answers=answers,
    )  # fmt: skip
    print(found.format(), flush=True)
    if options.json is not None:
        write_text(options.json, json.dumps(found.to_dict(), indent=1) + "\n")
        reporter.artifact("evaluation", options.json)


def publish(options: Namespace, reporter: Reporter) -> None:
    """Run the plug-ins over a run folder."""
    try:
        from omnimotion_core.publishing import runner
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "pyblish":
            raise
        raise ConfigError("pyblish is not installed", "install it: pip install pyblish-base") from error
    outcome = runner.publish(
        options.run, options.out, reporter=reporter, comment=options.comment, repair=options.repair,
        env_plugins=options.allow_env_plugins,
    )  # fmt: skip
    if outcome.errors:
        if options.events:
            for line in outcome.errors:
                reporter.warning(line)
        failed = f"{len(outcome.errors)} of {outcome.num_results} steps failed"
        raise PublishFailed(f"{options.run} is not published: {failed}",
                            "mend what is told above and publish again", outcome.errors)
    reporter.artifact("publish", outcome.version)


def demo(options: Namespace, reporter: Reporter) -> None:
    """Render a clip, track it, write every export, compare it with its truth."""
    from omnimotion_core.demo import run_demo

    settings = None if options.config is None else _read_settings(options.config)
    config = make_config(options.preset, settings, device=options.device, threads=options.threads)
    text = run_demo(options.out, config, num_frames=options.num_frames, side=options.size, reporter=reporter)
    print(text, flush=True)


def bench(options: Namespace, reporter: Reporter) -> None:
    """Measure what each stage costs, and how the costs grow; or how accurate the tracks of hard scenes are."""
    for path in (options.json, options.plot):
        if path is not None:
            _require_file_place(path)
    figures = _bench_costs(options, reporter) if options.accuracy is None else _bench_accuracy(options, reporter)
    if options.json is not None:
        write_text(options.json, json.dumps(figures, indent=1) + "\n")
        reporter.artifact("bench", options.json)


def _bench_costs(options: Namespace, reporter: Reporter) -> dict[str, Any]:
    from omnimotion_core.bench.measure import QUICK, Plan, run_bench
    from omnimotion_core.bench.table import format_report

    unused = next((name for name in ("preset", "config", "seed", "plot") if getattr(options, name) is not None), None)
    if unused is not None:
        raise ConfigError(f"--{unused} is given without --accuracy", "leave it out: costs are told of `standard`")
    config = make_config(device=options.device, threads=options.threads)
    report = run_bench(config, QUICK if options.quick else Plan(), reporter)
    print(format_report(report), flush=True)
    return report.to_dict()


def _bench_accuracy(options: Namespace, reporter: Reporter) -> dict[str, Any]:
    from omnimotion_core.bench.accuracy import format_means, format_scene, measure_accuracy
    from omnimotion_core.bench.plot import accuracy_plot

    settings = None if options.config is None else _read_settings(options.config)
    config = make_config(options.preset, settings, seed=options.seed, device=options.device, threads=options.threads)
    found = {}
    for name, comparison in measure_accuracy(config, options.accuracy, reporter):
        found[name] = comparison
        print(format_scene(name, comparison), flush=True)
    print(format_means(found), flush=True)
    if options.plot is not None:
        write_text(options.plot, accuracy_plot(found))
        reporter.artifact("plot", options.plot)
    return {name: comparison.to_dict() for name, comparison in found.items()}


def batch(options: Namespace, reporter: Reporter) -> None:
    """Track many clips on this machine."""
    from omnimotion_core.batch.runner import run_batch

    if options.jobs < 0:
        raise ConfigError(f"--jobs is {options.jobs}", "set it to 0 (as many as fit) or more")
    run_batch(_read_batch(options), workers=options.jobs, keep_going=options.keep_going, as_events=options.events,
              reporter=reporter)  # fmt: skip


def farm(options: Namespace, reporter: Reporter) -> None:
    """Write the same jobs for a farm's engine."""
    from omnimotion_core.batch.farm import write_farm

    write_farm(options.engine, _read_batch(options), options.out, command=options.command_on_hosts)
    reporter.artifact(options.engine, options.out)


def weights(options: Namespace, reporter: Reporter) -> None:
    """List the known weights, or fetch some into the cache folder."""
    from omnimotion_core.flow.weights import format_list, known_weights, terms_to_show

    if options.action == "list":
        if options.name is not None:
            raise ConfigError(f"weights list takes no {options.name!r}", "leave it away")
        print(format_list(), flush=True)
        return
    if options.name is None:
        raise ConfigError("weights get needs a name", "run `omnimotion weights list` for the names")
    from omnimotion_core.flow.download import fetch

    path = fetch(known_weights(options.name), reporter)
    terms = terms_to_show(path)
    if terms is not None:
        reporter.note(terms)
    reporter.artifact("weights", path)


def _read_batch(options: Namespace) -> "Batch":
    from omnimotion_core.batch.jobs import read_jobs

    named = {"preset": options.preset, "device": options.device, "flow": options.flow, "export": options.to,
             "flow_chunks": options.flow_chunks, "export_chunks": options.export_chunks,
             "settings": None if options.config is None else _read_settings(options.config)}  # fmt: skip
    changes = {key: value for key, value in named.items() if value is not None}
    return read_jobs(options.path, out=options.runs, changes=changes)


def _config(options: Namespace) -> Config:
    return make_config(
        options.preset, None if options.config is None else _read_settings(options.config), frames=options.frames,
        flow=options.flow, weights=options.weights, mask=options.mask, seed=options.seed, device=options.device,
        threads=options.threads, allow_gaps=options.allow_gaps,
    )  # fmt: skip


def _read_settings(given: str) -> Mapping[str, Any]:
    """The settings of a JSON file, or of JSON that was given as it is: a farm's task needs no file beside it."""
    inline = given.lstrip().startswith("{")
    try:
        settings = json.loads(given if inline else Path(given).read_bytes())
    except OSError as error:
        raise ConfigError(f"{given} cannot be read ({error.strerror})", "give --config a JSON file") from error
    except ValueError as error:
        raise ConfigError(f"{given} is not JSON ({error})", 'write settings such as {"fit": {"steps": 400}}') from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{given} holds no table of settings", 'write settings such as {"fit": {"steps": 400}}')
    return settings


def _stage(stage: str, options: Namespace, reporter: Reporter, chunk: pipeline.Chunk | None = None) -> None:
    pipeline.run_stage(
        options.run, stage, reporter=reporter, chunk=chunk, device=options.device, threads=options.threads
    )


def _answer_files(results: Results, options: Namespace, reporter: Reporter) -> None:
    """Answer each file that comes into a folder by one of its name in another, until the job is cancelled.

    An answered file is removed; what is wrong with one is a warning that begins with its name. A writer puts a file
    there by renaming it, since it is read as soon as it is seen.
    """
    if options.out.exists() and not options.out.is_dir():
        raise RunError(f"{options.out} is a file", "give --out a folder where --points is one")
    suffix = ".json" if options.blender else ".npz"
    reporter.stage("tracks")
    results.prepare_to_answer()
    reporter.note(f"ready: points come from {options.points}")
    while True:
        reporter.check()
        for path in sorted(options.points.glob("[!.]*.csv")):
            try:
                points = read_points(path)
                _answer(results, points, options.out / f"{path.stem}{suffix}", options.blender, reporter)
            except QueryError as error:
                reporter.warning(f"{path.name}: {error}")
            path.unlink(missing_ok=True)
        time.sleep(_LOOK_EVERY_S)


def _answer(results: Results, points: np.ndarray, out: Path, for_blender: bool, reporter: Reporter) -> None:
    """Answer points by a tracks file, or in Blender's convention by all their markers."""
    if not for_blender:
        results.query(points, reporter).save(out)
        reporter.artifact("tracks", out)
        return
    from omnimotion_core.export.markers import queries_of_markers, write_markers

    clip = results.clip
    queries = queries_of_markers(points, clip.size, clip.first_frame)
    write_markers(results.query(queries, reporter), out, clip_offset=clip.offset, max_markers=len(queries))
    reporter.artifact("markers", out)


def _results(options: Namespace) -> Results:
    return Results(RunFolder.open(options.run), options.device, options.threads)


def _require_file_place(path: Path) -> None:
    """Refuse before the work what could not be written after it."""
    if path.is_dir():
        raise RunError(f"{path} is a folder", "give a file to write")
