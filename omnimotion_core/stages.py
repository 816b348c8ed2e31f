"""The stages of a job in their order, each of which can be killed and gone on with.

    prepare → flow → fit → tracks → export

A stage's key is a digest of its settings and of the key before it, the first one's of the clip's content too. A stage
that is done with the same key is skipped; another key removes what it and all later stages made. So a job that was
killed, cancelled or given other settings is gone on with by the same command.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnimotion_core.config import Config, digest
from omnimotion_core.devices import computing, describe, give_back_memory, measured
from omnimotion_core.errors import RunError
from omnimotion_core.events import Event, Reporter, Warned
from omnimotion_core.files import sha256_of
from omnimotion_core.products import product_path, write_product
from omnimotion_core.results import Results
from omnimotion_core.run import RUN_VERSION, STAGES, RunFolder

if TYPE_CHECKING:
    from omnimotion_core.model.field import Field
    from omnimotion_core.model.published import PublishedCheckpoint
    from omnimotion_core.model.volumetric import VolumetricField
    from omnimotion_core.video.clip import Clip
    from omnimotion_core.video.source import Source


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


class StagesJob:
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
                give_back_memory()  # flow's threads would keep a gigabyte from the fit
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
        from omnimotion_core.optimization.rounds import fit_in_rounds
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
                    field = fit_in_rounds(results.clip, self.run.correspondences, self.config, rounds=self.run.rounds,
                                          checkpoint=self.run.checkpoint, device=results.device, reporter=reporter,
                                          threads=results.threads, preview=self._preview(results, reporter))
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


def require_before(run: RunFolder, stage: str) -> None:
    """Raise ``RunError`` where a stage before ``stage`` is not done with the run's own settings."""
    keys = stage_keys(run.config, run.clip)
    for before in STAGES[: STAGES.index(stage)]:
        run.require(before)
        if not run.stage_is_done(before, keys[before]):
            raise RunError(f"stage {before!r} of {run.path} was done with other settings or lost its files",
                           f"run `omnimotion {before} {run.path}` first")


def is_readable(run: RunFolder, stage: str) -> bool:
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
                if run.config.fit.rounds > 1:  # else what it was fitted to is the flow stage's
                    _ = results.fitted_to
            case "tracks":
                _ = results.tracks
    except RunError:
        return False
    return True


def source_facts(source: "Source") -> dict[str, Any]:
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


def _keeping_warnings(run: RunFolder, stage: str, reporter: Reporter) -> Reporter:
    """``reporter``, with every warning written into the manifest too."""

    def emit(event: Event) -> None:
        if isinstance(event, Warned):
            run.warn(stage, event.message)
        reporter.emit(event)

    return Reporter(emit, reporter.cancelled)
