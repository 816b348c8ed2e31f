# SPDX-License-Identifier: GPL-3.0-or-later
"""Many clips one after another: all of the .blend, or those of a folder."""

import os
from pathlib import Path
from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty

from . import running
from .operators import Settings, track_task
from .running import ModalJob, Task
from .steps import footage_of


class Batch(ModalJob, bpy.types.Operator):
    """Track many clips, one after another, with the settings of the panel"""

    bl_idname = "omnimotion.batch"
    bl_label = "Track Many Clips"
    bl_options = {"UNDO"}  # noqa: RUF012

    source: EnumProperty(
        name="Clips",
        items=(
            ("FILE", "All Clips", "Every clip of this file"),
            ("FOLDER", "Folder", "Every movie and image sequence of a folder, opened as clips"),
        ),
    )
    directory: StringProperty(name="Folder", subtype="DIR_PATH", options={"SKIP_SAVE"})

    _asking = False

    @classmethod
    def poll(cls, context: "bpy.types.Context") -> bool:
        """Grey where it may not be pressed."""
        return running.allowed(cls)

    def invoke(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """The button: asks for the folder where one is needed."""
        if self.source == "FOLDER" and not self.directory:
            self._asking = True
            context.window_manager.fileselect_add(self)  # calls execute
            return {"RUNNING_MODAL"}
        return self._start(context, self.begin_modal)

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """From a script, and without a window: waits."""
        if self._asking:
            # what the file browser calls may not become modal: the operator is called again when it is gone
            directory = self.directory
            bpy.app.timers.register(lambda: _invoke_later(directory), first_interval=0.1)
            return {"FINISHED"}
        return self._start(context, lambda _, tasks: running.run_blocking(self, tasks))

    def _start(self, context: "bpy.types.Context", begin: Any) -> set[str]:
        try:
            tasks = self._tasks(context)
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}
        result: set[str] = begin(context, tasks)
        return result

    def _tasks(self, context: "bpy.types.Context") -> list[Task]:
        clips = list(bpy.data.movieclips) if self.source == "FILE" else open_folder(bpy.path.abspath(self.directory))
        if not clips:
            raise LookupError("this file has no clips; open some in the Movie Clip Editor")
        settings = Settings.of(context)
        settings.values["output"] = ""  # one folder would not do for all
        if settings.seed_mode == "SELECTED":
            settings.values["seed_mode"] = "GRID"
        return [track_task(context, clip, settings) for clip in clips]


def _invoke_later(directory: str) -> None:
    window = bpy.context.window_manager.windows[0]
    with bpy.context.temp_override(window=window):
        bpy.ops.omnimotion.batch("INVOKE_DEFAULT", source="FOLDER", directory=directory)


def open_folder(folder: str) -> "list[bpy.types.MovieClip]":
    """Open what a folder holds as clips: each movie, and each sequence by its first file.

    Raises:
        LookupError: there is no such folder, or nothing in it that Blender can show.
    """
    try:
        names = footage_of(sorted(os.listdir(folder)))
    except OSError as error:
        raise LookupError(f"{folder} cannot be read ({error.strerror}); choose another folder") from error
    clips = []
    for name in names:
        try:
            clip = bpy.data.movieclips.load(str(Path(folder) / name), check_existing=True)
        except RuntimeError:  # no footage, whatever its name says
            continue
        clip.use_fake_user = True  # shown nowhere, it would not be saved
        clips.append(clip)
    if not clips:
        raise LookupError(f"{folder} holds no movie and no sequence of pictures; choose another folder")
    return clips


def register() -> None:
    """The operator."""
    bpy.utils.register_class(Batch)


def unregister() -> None:
    """Take it back."""
    bpy.utils.unregister_class(Batch)
