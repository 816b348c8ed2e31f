"""The stages of a job in their order, each of which can be killed and gone on with.

    prepare → flow → fit → tracks → export

A stage's key is a digest of its settings and of the key before it, the first one's of the clip's content too. A stage
that is done with the same key is skipped; another key removes what it and all later stages made. So a job that was
killed, cancelled or given other settings is gone on with by the same command.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnimotion_core.config import Config, digest
from omnimotion_core.devices import (
    choose_device,
    computing,
    describe,
    machine,
    measured,
    package_versions,
    require_graphs,
)
from omnimotion_core.errors import ConfigError, OmniMotionError, RunError
from omnimotion_core.events import Event, Reporter, Warned
from omnimotion_core.files import sha256_of
from omnimotion_core.products import check_settings, is_sequence, product_path, write_painted, write_product
from omnimotion_core.results import Results
from omnimotion_core.run import RUN_VERSION, STAGES, RunFolder

if TYPE_CHECKING:
    from omnimotion_core.model.field import Field
    from omnimotion_core.model.published import PublishedCheckpoint
    from omnimotion_core.model.volumetric import VolumetricField
    from omnimotion_core.video.clip import Clip
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
            run.start(_source_facts(source), config, package_versions())
            _Job(run, reporter, source, checkpoint).do(stages)
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
        _require_before(run, stage)
        source = None
        if stage == "prepare":
            source = identify(run.clip["path"], run.config.video)
            run.start(_source_facts(source), run.config, package_versions())
        if not _is_readable(run, stage):
            run.forget(stage)
        _Job(run, reporter, source).do([stage])
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
    keys = stage_keys(config, {**run.clip, **_source_facts(identify(str(clip), config.video))})
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


def stage_keys(config: Config, clip: Mapping[str, Any]) -> dict[str, str]:
    """What each stage's results depend on, as a digest.

    Raises:
        FlowError: the flow estimator, or the folder of flow, is not there.
    """
    from omnimotion_core.flow.estimators import check_estimator

    video = dataclasses.replace(config.video, mask=None)  # the mask's content counts, not its place
    prepare = digest(RUN_VERSION, clip["sha256"], clip.get("mask_sha256", ""), video)
    flow = digest(prepare, config.flow, config.seed, check_estimator(config.flow.estimator))
    fit = digest(flow, config.model, config.fit, config.seed)
    tracks = digest(fit, config.tracks.max_tracks, config.tracks.max_markers)
    channels = config.export.vectors_map
    export = digest(tracks, config.export, sha256_of(Path(channels)) if channels and os.path.isfile(channels) else "")
    return {"prepare": prepare, "flow": flow, "fit": fit, "tracks": tracks, "export": export}


class _Job:
    """Stages of one run folder, whose lock is held."""

    def __init__(
        self, run: RunFolder, reporter: Reporter, source: "Source | None" = None,
        checkpoint: "PublishedCheckpoint | None" = None,
    ) -> None:  # fmt: skip
        self.run, self.reporter, self.source, self.checkpoint = run, reporter, source, checkpoint
        self.config = run.config
        self.keys = stage_keys(self.config, run.clip)

    def do(self, stages: Sequence[str]) -> None:
        """Do those of ``stages`` that are not done."""
        work: dict[str, Callable[[Reporter], list[Path]]] = {
            "prepare": self._prepare, "flow": self._flow, "fit": self._fit, "tracks": self._tracks,
            "export": self._export,
        }  # fmt: skip
        for index, stage in enumerate(stages):
            self.reporter.check()
            if not self.run.stage_is_done(stage, self.keys[stage]):
                self.reporter.stage(stage, index, len(stages))
                self.run.begin(stage, self.keys[stage])
                with measured() as usage:
                    wrote = work[stage](_keeping_warnings(self.run, stage, self.reporter))
                self.run.finish(stage, wrote, seconds=round(usage.seconds, 3),
                                peak_memory_mb=round(usage.peak_memory_mb, 1))
            elif stage == "export":
                for kind in self.config.export.kinds:
                    self.reporter.artifact(kind, product_path(kind, self.run))
            if stage == "tracks":
                self.reporter.artifact("tracks", self.run.tracks)
                self.reporter.artifact("markers", self.run.markers)

    @property
    def _results(self) -> Results:
        """New for each stage, so that a resumed job and an undisturbed one read the very same files."""
        return Results(self.run)

    def _prepare(self, reporter: Reporter) -> list[Path]:
        from omnimotion_core.video.prepare import prepare

        assert self.source is not None
        clip = prepare(self.source, self.run.frames, self.config.video, reporter)
        if self.checkpoint is not None:
            self.checkpoint.check(clip.num_frames)
        self.run.clip.update(_clip_facts(clip))
        return [self.run.frames / "frames.json", *map(clip.frame_path, (0, clip.num_frames - 1))]

    def _flow(self, reporter: Reporter) -> list[Path]:
        from omnimotion_core.flow.stage import find_correspondences

        results = self._results
        find_correspondences(results.clip, self.run.correspondences, self.config.flow, seed=self.config.seed,
                             threads=results.threads, reporter=reporter, device=self.config.device)
        return [self.run.correspondences]

    def _fit(self, reporter: Reporter) -> list[Path]:
        from omnimotion_core.model.storage import save_field
        from omnimotion_core.optimization.loop import fit
        from omnimotion_core.optimization.volumetric_loop import fit_volumetric

        results = self._results
        self.run.manifest["device"] = describe(results.device, results.threads)
        volumetric = self.config.model.kind == "volumetric"
        with computing(results.device, results.threads if volumetric else 1):
            field: Field | VolumetricField
            if self.config.model.volumetric.imported:
                field = self._imported(results)
            elif volumetric:
                field = fit_volumetric(results.clip, results.correspondences, self.config,
                                       checkpoint=self.run.checkpoint, device=results.device, reporter=reporter)
            else:
                try:
                    field = fit(results.clip, results.correspondences, self.config, checkpoint=self.run.checkpoint,
                                device=results.device, reporter=reporter, threads=results.threads,
                                preview=self._preview(results, reporter))
                finally:
                    with suppress(OSError):  # elsewhere than on Windows a reader does not keep it from going
                        self.run.preview_markers.unlink()
            save_field(field, self.run.model, self.run.model_json)
        return [self.run.model, self.run.model_json]

    def _preview(self, results: Results, reporter: Reporter) -> "Callable[[Field], None] | None":
        """What shows a field that is being fitted: a few tracks in the run folder. None where none are wanted."""
        from omnimotion_core.export.markers import write_markers
        from omnimotion_core.trajectories.query import track_points
        from omnimotion_core.trajectories.seeds import preview_queries

        count = self.config.tracks.preview
        if not count or len(queries := preview_queries(results.clip, count)) == 0:
            return None

        def show(field: "Field") -> None:
            tracks = track_points(field, queries, memory_mb=self.config.tracks.memory_mb)
            path = self.run.preview_markers
            with suppress(RunError):  # a reader keeps it open on Windows: the next one counts
                write_markers(tracks, path, clip_offset=results.clip.offset, max_markers=len(queries))
                reporter.artifact("preview_markers", path)

        return show

    def _imported(self, results: Results) -> "VolumetricField":
        """The field of a checkpoint, in place of a fit."""
        from omnimotion_core.model.motion import FieldShape
        from omnimotion_core.optimization.volumetric_loop import weighed

        if self.checkpoint is None:
            again = f"omnimotion import CHECKPOINT --clip {self.run.clip['path']} --out {self.run.path}"
            raise RunError(f"the field of {self.run.path} came from a checkpoint", f"run `{again}` again")
        field = self.checkpoint.build(FieldShape.of(results.clip)).to(results.device)
        return weighed(field, results.correspondences, self.config.seed)

    def _tracks(self, reporter: Reporter) -> list[Path]:
        from omnimotion_core.export.markers import write_markers
        from omnimotion_core.trajectories.seeds import seed_queries

        results = self._results
        with computing(results.device):
            queries = seed_queries(results.field, results.clip, self.config.tracks)
        tracks = results.query(queries, reporter)
        tracks.save(self.run.tracks)
        write_markers(tracks, self.run.markers, clip_offset=results.clip.offset,
                      max_markers=self.config.tracks.max_markers)
        return [self.run.tracks, self.run.markers]

    def _export(self, reporter: Reporter) -> list[Path]:
        results = self._results
        for kind in self.config.export.kinds:
            write_product(kind, results, product_path(kind, self.run), reporter)
        return [product_path(kind, self.run) for kind in self.config.export.kinds]


def _do_part(run: RunFolder, stage: str, chunk: Chunk, reporter: Reporter, work: Callable[[], None]) -> None:
    """Do one part of a stage beside the others; what was made with other settings goes first."""
    _check_chunk(chunk)
    key = ""

    def begin() -> None:
        nonlocal key
        run.read()
        _require_before(run, stage)
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


def _require_before(run: RunFolder, stage: str) -> None:
    keys = stage_keys(run.config, run.clip)
    for before in STAGES[: STAGES.index(stage)]:
        run.require(before)
        if not run.stage_is_done(before, keys[before]):
            raise RunError(f"stage {before!r} of {run.path} was done with other settings or lost its files",
                           f"run `omnimotion {before} {run.path}` first")


def _is_readable(run: RunFolder, stage: str) -> bool:
    """Whether what a finished stage made can be read; True where it is not finished."""
    if run.manifest["stages"].get(stage, {}).get("state") != "done":
        return True
    results = Results(run, "cpu")
    try:
        match stage:
            case "prepare":
                for t in range(results.clip.num_frames):
                    results.clip.frame(t)
                    results.clip.mask(t)
            case "flow":
                _ = results.correspondences
            case "fit":
                _ = results.field
            case "tracks":
                _ = results.tracks
    except RunError:
        return False
    return True


def _keeping_warnings(run: RunFolder, stage: str, reporter: Reporter) -> Reporter:
    """``reporter``, with every warning written into the manifest too."""

    def emit(event: Event) -> None:
        if isinstance(event, Warned):
            run.warn(stage, event.message)
        reporter.emit(event)

    return Reporter(emit, reporter.cancelled)


def _source_facts(source: "Source") -> dict[str, Any]:
    """What is known of the clip before it is decoded."""
    return {
        "name": source.name, "path": source.path, "sha256": source.sha256, "is_sequence": source.is_sequence,
        "first_frame": source.first_frame, "clip_first_frame": source.clip_first_frame,
        "mask_sha256": source.mask_sha256,
    }  # fmt: skip


def _clip_facts(clip: "Clip") -> dict[str, Any]:
    return {
        "name": clip.name, "size": list(clip.size), "working_size": list(clip.working_size), "frames": clip.num_frames,
        "first_frame": clip.first_frame, "clip_first_frame": clip.clip_first_frame, "fps": clip.fps,
        "pixel_aspect": clip.pixel_aspect, "cuts": list(clip.cuts), "has_mask": clip.has_mask,
    }  # fmt: skip


@contextmanager
def _unlocked() -> Iterator[None]:
    yield
