# SPDX-License-Identifier: GPL-3.0-or-later
"""Track Everything itself, Cancel, and Import."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
from bpy.props import StringProperty

from . import asking, installation, region, running, seeds
from .choosing import Candidate, choose
from .footage import ClipReference, chosen_frames, examine, shown_clip, source_range
from .job import Job
from .markers import import_markers, read_file, row_of, seen_of
from .preferences import require_core
from .properties import JobSettings
from .running import ButtonJob, Task
from .steps import TrackOrder, query_step, read_run, run_name, track_step

PREVIEWED = 48  # tracks: enough to see what moves how, read and drawn in no time
SEEDED = "markers.blender.json"  # in the run folder: markers of points that Blender chose


class TrackEverything(JobSettings, ButtonJob, bpy.types.Operator):
    """Follow every pixel of the clip over the whole shot; what is set here goes before the panel's settings"""

    bl_idname = "omnimotion.track_everything"
    bl_label = "Track Everything"
    bl_options = {"UNDO"}  # noqa: RUF012 - not REGISTER: redoing the last step would track the clip again

    clip: StringProperty(name="Clip", description="Name of the clip; empty: the one that is shown")

    def _start(self, context: "bpy.types.Context", begin: Any) -> set[str]:
        clip = shown_clip(context, self.clip)
        if clip is None and self.clip:
            self.report({"ERROR"}, f"there is no clip {self.clip!r}; give the name of one in this file")
            return {"CANCELLED"}
        if clip is None:
            self.report({"ERROR"}, "no clip is shown; open one in the Movie Clip Editor")
            return {"CANCELLED"}
        result: set[str] = begin(context, [track_task(context, clip, Settings.of(context, self))])
        return result


class Cancel(bpy.types.Operator):
    """Stop after the present step; the same button goes on from there"""

    bl_idname = "omnimotion.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context: "bpy.types.Context") -> bool:
        """Grey where nothing runs."""
        return running.is_running()

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """Ask it to stop."""
        running.cancel()
        return {"FINISHED"}


class ImportRun(bpy.types.Operator):
    """Read the tracks of a finished run, such as one that a farm made, into the clip"""

    bl_idname = "omnimotion.import_run"
    bl_label = "Import Run"
    bl_options = {"UNDO"}  # noqa: RUF012

    directory: StringProperty(name="Run Folder", subtype="DIR_PATH", options={"SKIP_SAVE"})
    clip: StringProperty(name="Clip", description="Name of the clip; empty: the one that is shown")

    def invoke(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """Ask for the folder."""
        if self.directory:
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """Read it."""
        try:
            clip = shown_clip(context, self.clip)
            if clip is None:
                raise LookupError("no clip is shown; open one in the Movie Clip Editor")
            run = read_run(Path(os.path.abspath(bpy.path.abspath(self.directory))))
            count = import_markers(clip, run, read_file(run.path / "markers.json"))
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}
        self.report({"INFO"}, f"{count} tracks of {run.path.name} are in {clip.name}")
        return {"FINISHED"}


@dataclass(frozen=True)
class Settings:
    """The settings of one job, taken when its button is pressed."""

    values: "dict[str, Any]"

    @classmethod
    def of(cls, context: "bpy.types.Context", operator: "bpy.types.Operator | None" = None) -> "Settings":
        """Those that the operator was given, else the scene's."""
        scene = context.scene.track_everything
        names = JobSettings.__annotations__
        given = operator.properties if operator is not None else None
        return cls({
            name: getattr(operator if given is not None and given.is_property_set(name) else scene, name)
            for name in names
        })  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


def track_task(context: "bpy.types.Context", clip: "bpy.types.MovieClip", settings: Settings) -> Task:
    """A clip tracked, and its tracks in Blender."""
    reference, scene_name = ClipReference.of(clip), context.scene.name
    run = run_folder(clip, settings.output)
    names: list[str] = []  # of the points that Blender chose

    def start() -> Job:
        python = require_core(bpy.context)
        asking.close()  # it has the field's file open, which is to be replaced
        clip = reference.find()
        scene = bpy.data.scenes.get(scene_name) or bpy.context.scene
        footage = examine(clip)
        frames = chosen_frames(footage, settings.frame_mode, scene, (settings.frame_first, settings.frame_last))
        mask = region.write_region(clip, footage, frames, settings.region, settings.mask,
                                   run.with_name(f"{run.name}-region"))  # fmt: skip
        scratch = Path(tempfile.mkdtemp(prefix="track_everything_"))
        order = TrackOrder(
            footage=footage.path, run=run, preset=settings.preset, device=settings.device,
            frames=source_range(footage, frames), mask=mask, max_tracks=settings.density,
            max_markers=settings.max_tracks, passes=settings.passes, rounds=settings.rounds,
            preview=PREVIEWED if settings.preview and not bpy.app.background else 0,
        )  # fmt: skip
        steps = [track_step(python, order, scratch)]
        points = _seeds(clip, footage, frames, settings, scene)
        if points is not None:
            names[:] = [name for name, *_ in points]
            asked = [(footage.number(frame), x, y) for _, frame, x, y in points]
            steps.append(query_step(python, run, asked, run / SEEDED, scratch, settings.device))
        return Job(reference.name, steps, scratch)

    def done(job: Job) -> str:
        facts = read_run(run)
        try:
            clip = reference.find()
        except LookupError as error:
            remedy = "open the clip again and import them"
            raise LookupError(f"{error.args[0]}, its tracks are in {run}; {remedy}") from error
        content = read_file(run / ("markers.json" if settings.seed_mode == "GRID" else SEEDED))
        if settings.seed_mode == "FEATURES":
            content["tracks"] = _best(content["tracks"], settings.max_tracks)
        elif settings.seed_mode == "SELECTED":
            content["tracks"] = _named(content["tracks"], names)
        count = import_markers(clip, facts, content)
        if clip.users == 0:  # Blender would not save it
            clip.use_fake_user = True
        return f"{count} tracks over {facts.num_frames} frames of {clip.name}"

    return Task(reference.name, start, done, reference)


def run_folder(clip: "bpy.types.MovieClip", output: str = "") -> Path:
    """Where a clip's run is kept: as given, else beside the .blend, else in the user's folder."""
    footage = os.path.abspath(bpy.path.abspath(clip.filepath, library=clip.library))
    if output.strip():
        return Path(os.path.abspath(bpy.path.abspath(output.strip())))
    name = run_name(clip.name, footage)
    if bpy.data.filepath:
        return Path(bpy.path.abspath("//")) / "track_everything" / name
    return installation.home() / "runs" / name


def _seeds(
    clip: "bpy.types.MovieClip", footage: Any, frames: "tuple[int, int]", settings: Settings, scene: "bpy.types.Scene"
) -> "list[seeds.Seed] | None":
    if settings.seed_mode == "SELECTED":
        return seeds.selected_tracks(clip, frames, scene.frame_current)
    if settings.seed_mode == "FEATURES":
        return seeds.detected_features(clip, footage, frames, settings.max_tracks)
    return None


def _best(entries: "list[dict[str, Any]]", count: int) -> "list[dict[str, Any]]":
    """The longest and surest of the file's tracks, spread over the frame, in the file's order."""
    candidates = [Candidate(entry["weight"], seen_of(entry)) for entry in entries]
    return [entries[index] for index in sorted(choose(candidates, count))]


def _named(entries: "list[dict[str, Any]]", names: "list[str]") -> "list[dict[str, Any]]":
    """The file's tracks under the names of the tracks that they began from; the file numbers them by their points."""
    return [{**entry, "name": names[row_of(entry)]} for entry in entries]


_CLASSES = (TrackEverything, Cancel, ImportRun)


def register() -> None:
    """All three, and what ends jobs."""
    for one in _CLASSES:
        bpy.utils.register_class(one)
    running.register()


def unregister() -> None:
    """Take them back."""
    running.unregister()
    for one in reversed(_CLASSES):
        bpy.utils.unregister_class(one)
