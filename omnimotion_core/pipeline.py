"""What is done to a clip or a run folder: the whole job, one stage or a part of it, and products of a finished run."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnimotion_core.config import Config
from omnimotion_core.devices import choose_device, machine, package_versions, require_graphs
from omnimotion_core.errors import ConfigError, OmniMotionError
from omnimotion_core.events import Reporter
from omnimotion_core.products import check_settings, is_sequence, product_path, write_painted, write_product
from omnimotion_core.results import Results
from omnimotion_core.run import STAGES, RunFolder
from omnimotion_core.stages import StagesJob, is_readable, require_before, source_facts, stage_keys

if TYPE_CHECKING:
    from omnimotion_core.model.published import PublishedCheckpoint
    from omnimotion_core.video.source import Source

Chunk = tuple[int, int]  # (k, n): the k-th of n parts, k from 1


def track(
    clip: str | Path, out: str | Path, config: Config, *, reporter: Reporter, stages: Sequence[str] = STAGES
) -> RunFolder:
    """Do the job on a clip, or go on with it; what is refused is refused before anything is written.

    Args:
        clip: a movie or an image sequence.
        out: the run folder, made where it is absent.
        config: all settings.
        reporter: hears the job and may cancel it.
        stages: those to do, from ``prepare`` on.
    Raises:
        OmniMotionError: the clip, the settings or the folder cannot be used.
        Cancelled: the user asked to stop; the same call goes on.
    """
    from omnimotion_core.flow.estimators import check_estimator, require_estimator
    from omnimotion_core.video.source import identify

    check_settings(config.export.kinds, config.export)
    check_estimator(config.flow.estimator)
    require_estimator(config.flow)
    if "fit" in stages:
        require_graphs(config.fit.volumetric.run, choose_device(config.device))
    return _track(identify(str(clip), config.video), out, config, reporter, stages)


def import_checkpoint(
    checkpoint: str | Path, clip: str | Path, out: str | Path, config: Config, *, reporter: Reporter
) -> RunFolder:
    """Make a run folder of a checkpoint that OmniMotion's published code has saved, or go on with it.

    The clip is prepared and matched as for a fit, since confidence comes from what its matches say of the field.

    Args:
        checkpoint: the ``.pth`` file.
        clip: the footage that it was fitted to, the same frames.
        out: the run folder, made where it is absent.
        config: all settings; those of the model are the checkpoint's.
        reporter: hears the job and may cancel it.
    Raises:
        OmniMotionError: the checkpoint, the clip, the settings or the folder cannot be used.
        Cancelled: the user asked to stop; the same call goes on.
    """
    from omnimotion_core.model.published import read_published
    from omnimotion_core.video.source import identify

    choose_device(config.device)
    read = read_published(Path(checkpoint))
    model = dataclasses.replace(config.model, kind="volumetric", volumetric=read.networks)
    source = identify(str(clip), config.video)
    return _track(source, out, dataclasses.replace(config, model=model), reporter, STAGES[:-1], read)


def _track(
    source: "Source", out: str | Path, config: Config, reporter: Reporter, stages: Sequence[str],
    checkpoint: "PublishedCheckpoint | None" = None,
) -> RunFolder:  # fmt: skip
    """Do the stages on a source; where the clip cannot be used, a folder that held no run before is left as it was."""
    run = RunFolder(out)
    run.create()
    with run.lock():
        new = not run.manifest_path.exists()
        try:
            run.start(source_facts(source), config, package_versions())
            StagesJob(run, reporter, source, checkpoint).do(stages)
        except OmniMotionError:
            if new and run.manifest.get("stages", {}).get("prepare", {}).get("state") != "done":
                run.discard()
            raise
    return run


def run_stage(
    out: str | Path, stage: str, *, reporter: Reporter, chunk: Chunk | None = None, device: str | None = None,
    threads: int | None = None,
) -> RunFolder:  # fmt: skip
    """Do one stage of a run folder, with the settings and on the clip that are written in it.

    Unlike ``track`` it looks whether what the stage made earlier can still be read, and makes it again where not.

    Args:
        out: the run folder.
        stage: one of ``STAGES``; those before it must be done.
        reporter: hears the job and may cancel it.
        chunk: only for ``flow`` and ``export``: one of several parts, which may run at the same time. When all are
            there, the stage without a chunk finishes it.
        device, threads: in place of the run's own settings, which they become.
    Raises:
        OmniMotionError: the folder cannot be used, or a stage before is not done.
        Cancelled: the user asked to stop; the same call goes on.
    """
    from omnimotion_core.video.source import identify

    run = RunFolder.open(out)
    changes = machine(device, threads)
    if chunk is not None:
        part = {"flow": _find_part, "export": _export_part}[stage]
        _do_part(run, stage, chunk, reporter, lambda: part(run, chunk, reporter, changes))
        return run
    if stage in ("fit", "tracks", "export"):
        chosen = choose_device(run.config.override(changes).device)
        if stage != "export":
            require_graphs(run.config.fit.volumetric.run, chosen)
    with run.lock():
        run.read()
        run.manifest["config"] = run.config.override(changes).to_dict()
        require_before(run, stage)
        source = None
        if stage == "prepare":
            source = identify(run.clip["path"], run.config.video)
            run.start(source_facts(source), run.config, package_versions())
        if not is_readable(run, stage):
            run.forget(stage)
        StagesJob(run, reporter, source).do([stage])
    return run


def missing_stages(clip: str | Path, out: str | Path, config: Config) -> tuple[str, ...]:
    """Those stages that ``track`` would do; reads and hashes the clip where there is a run folder, writes nothing.

    Raises:
        OmniMotionError: the clip or the run folder cannot be used.
    """
    from omnimotion_core.video.source import identify

    run = RunFolder(out)
    if not run.manifest_path.exists():
        return STAGES
    run.read()
    keys = stage_keys(config, {**run.clip, **source_facts(identify(str(clip), config.video))})
    done = [run.stage_is_done(stage, keys[stage]) for stage in STAGES]
    return STAGES[(*done, False).index(False) :]


def export(
    run: RunFolder, kinds: Sequence[str], *, out: str | Path | None = None, reporter: Reporter,
    results: Results | None = None, chunk: Chunk | None = None,
) -> dict[str, Path]:  # fmt: skip
    """Write products of a finished run.

    Args:
        run: its manifest read.
        kinds: of ``products.known_kinds``.
        out: another folder than the run's own; gets a folder for each kind.
        results: of this run, where they are at hand.
        reporter: hears the job and may cancel it.
        chunk: only the k-th of n parts of the frames; the kinds must be sequences.
    Returns:
        Each kind's file, or folder of a sequence.
    Raises:
        OmniMotionError: a kind is unknown, a stage is missing, or a file cannot be written.
        Cancelled: the user asked to stop.
    """
    results = results or Results(run)
    check_settings(kinds, results.config.export)
    run.require("tracks")
    paths = {kind: product_path(kind, run, None if out is None else Path(os.path.abspath(out))) for kind in kinds}
    frames = None
    lock = run.lock()
    if chunk is not None:
        _check_chunk(chunk)
        whole = next((kind for kind in kinds if not is_sequence(kind)), None)
        if whole is not None:
            raise ConfigError(f"{whole} has no parts", "give --chunk with kinds that have a file for each frame")
        frames = chunk_frames(results.clip.num_frames, chunk)
        lock = run.lock_part(_part_name("export", chunk), run.read)
    with _unlocked() if out is not None else lock:
        reporter.stage("export")
        for kind, path in paths.items():
            write_product(kind, results, path, reporter, frames)
    return paths


def propagate(
    run: RunFolder, images: Mapping[int, str | Path], out: str | Path, *, reporter: Reporter,
    results: Results | None = None,
) -> Path:  # fmt: skip
    """Carry a matte or paint to every frame of a fitted run.

    Args:
        run: its manifest read.
        images: the source's frame number → the picture that was made on that frame, of the plate's size.
        out: the folder that gets a picture for each frame.
        results: of this run, where they are at hand.
        reporter: hears the job and may cancel it.
    Returns:
        The folder.
    Raises:
        OmniMotionError: a picture or a frame cannot be used, or a file cannot be written.
        Cancelled: the user asked to stop; the same call goes on.
    """
    run.require("fit")
    folder = Path(os.path.abspath(out))
    reporter.stage("export")
    write_painted({number: Path(path) for number, path in images.items()}, results or Results(run), folder, reporter)
    return folder


def chunk_frames(num_frames: int, chunk: Chunk) -> range:
    """The indices t of the k-th of n parts, neighbors; none where there are more parts than frames."""
    number, count = chunk
    return range((number - 1) * num_frames // count, number * num_frames // count)


def _do_part(run: RunFolder, stage: str, chunk: Chunk, reporter: Reporter, work: Callable[[], None]) -> None:
    """Do one part of a stage beside the others; what was made with other settings goes first."""
    _check_chunk(chunk)
    key = ""

    def begin() -> None:
        nonlocal key
        run.read()
        require_before(run, stage)
        key = stage_keys(run.config, run.clip)[stage]
        if run.manifest["stages"].get(stage, {}).get("key") != key:
            run.begin(stage, key)

    with run.lock_part(_part_name(stage, chunk), begin):
        if not run.stage_is_done(stage, key):
            reporter.stage(stage)
            work()


def _find_part(run: RunFolder, chunk: Chunk, reporter: Reporter, changes: Mapping[str, Any]) -> None:
    from omnimotion_core.flow.stage import find_correspondences

    results = Results(run, **changes)
    find_correspondences(results.clip, run.correspondences, results.config.flow, seed=results.config.seed,
                         threads=results.threads, reporter=reporter, chunk=chunk, device=results.config.device)


def _export_part(run: RunFolder, chunk: Chunk, reporter: Reporter, changes: Mapping[str, Any]) -> None:
    """The part's frames of each sequence; single files are left to the stage without a chunk."""
    results = Results(run, **changes)
    check_settings(results.config.export.kinds, results.config.export)
    frames = chunk_frames(results.clip.num_frames, chunk)
    for kind in results.config.export.kinds:
        if is_sequence(kind):
            write_product(kind, results, product_path(kind, run), reporter, frames)


def _check_chunk(chunk: Chunk) -> None:
    number, count = chunk
    if not 1 <= number <= count:
        raise ConfigError(f"chunk is {number}/{count}", "give K/N with K from 1 to N, such as 2/8")


def _part_name(stage: str, chunk: Chunk) -> str:
    return f"{stage}-{chunk[0]}-of-{chunk[1]}"


@contextmanager
def _unlocked() -> Iterator[None]:
    yield
