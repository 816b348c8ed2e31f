# SPDX-License-Identifier: GPL-3.0-or-later
"""A point picked in the editor becomes a track: the fitted run answers, nothing is tracked again."""

import bpy
from bpy.props import FloatProperty, IntProperty, StringProperty

from . import asking, running
from .footage import ClipReference, examine, shown_clip
from .job import Job
from .markers import add_track, read_file, require_run, require_same_footage
from .preferences import require_core
from .running import ModalJob, Task
from .steps import read_run

NO_FRAME = -(2**31)


class TrackPoint(ModalJob, bpy.types.Operator):
    """Click on a point of the clip: its whole trajectory becomes a track"""

    bl_idname = "omnimotion.track_point"
    bl_label = "Track a Point"
    bl_options = {"UNDO"}  # noqa: RUF012

    x: FloatProperty(name="X", description="Fraction of the width, from the left", options={"SKIP_SAVE"})
    y: FloatProperty(name="Y", description="Fraction of the height, from the bottom", options={"SKIP_SAVE"})
    frame: IntProperty(name="Frame", description="Scene frame; the present one when not given", default=NO_FRAME,
                       options={"SKIP_SAVE"})  # fmt: skip
    clip: StringProperty(name="Clip", description="Name of the clip; empty: the one that is shown")

    _picking = False

    @classmethod
    def poll(cls, context: "bpy.types.Context") -> bool:
        """Grey where it may not be pressed."""
        return running.allowed(cls)

    def invoke(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """Wait for a click, or go on where the point is given."""
        try:
            require_run(shown_clip(context, self.clip))
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}
        if self.properties.is_property_set("x"):
            return self.begin_modal(context, [self._task(context)])
        if bpy.app.background or context.window is None:
            return self.execute(context)
        self._picking = True
        context.window.cursor_modal_set("CROSSHAIR")
        context.workspace.status_text_set("Click on a point of the clip to track it; ESC or right click: leave")
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """Blender's call at each event."""
        if not self._picking:
            return ModalJob.modal(self, context, event)
        if event.type in {"ESC", "RIGHTMOUSE"}:
            self._leave(context)
            return {"CANCELLED"}
        if event.type != "LEFTMOUSE" or event.value != "PRESS":
            return {"PASS_THROUGH"}
        place = _place_under(context, event)
        if place is None:
            return {"PASS_THROUGH"}
        self._leave(context)
        frame = context.scene.frame_current
        # an operator of its own looks after the job: this one has its handler already
        bpy.ops.omnimotion.track_point("INVOKE_DEFAULT", x=place[0], y=place[1], frame=frame, clip=self.clip)
        return {"FINISHED"}

    def cancel(self, context: "bpy.types.Context") -> None:
        """Blender's call when it takes the operator away."""
        if self._picking:
            self._leave(context)
        ModalJob.cancel(self, context)

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """From a script: waits."""
        try:
            return running.run_blocking(self, [self._task(context)])
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}

    def _leave(self, context: "bpy.types.Context") -> None:
        self._picking = False
        context.window.cursor_modal_restore()
        context.workspace.status_text_set(None)

    def _task(self, context: "bpy.types.Context") -> Task:
        clip = shown_clip(context, self.clip)
        frame = self.frame if self.frame != NO_FRAME else context.scene.frame_current
        return point_task(clip, frame, (self.x, self.y), context.scene.track_everything.device)


def point_task(
    clip: "bpy.types.MovieClip | None", scene_frame: int, place: "tuple[float, float]", device: str
) -> Task:
    """A point's trajectory asked of the clip's run.

    Raises:
        LookupError: the clip has no run.
    """
    run = require_run(clip)
    reference = ClipReference.of(clip)
    def start() -> Job:
        clip, facts = reference.find(), read_run(run)
        footage = examine(clip)
        require_same_footage(clip, footage, facts)
        number = footage.number_shown(footage.clip_frame_at(scene_frame), facts)
        if number not in facts.numbers:
            ends = facts.numbers[0], facts.numbers[-1]
            first, last = (footage.clip_frame(number) + footage.frame_start - 1 for number in ends)
            raise LookupError(f"frame {scene_frame} was not tracked; go to one from {first} to {last}")
        if not (0 <= place[0] <= 1 and 0 <= place[1] <= 1):
            raise LookupError("the point is beside the picture; click on the picture")
        question = asking.ask(require_core(bpy.context), run, device, reference.name, [(number, *place)])
        if not bpy.app.timers.is_registered(asking.close_if_idle):
            bpy.app.timers.register(asking.close_if_idle, first_interval=asking.IDLE_S, persistent=True)
        return question

    def done(job: Job) -> str:
        assert isinstance(job, asking.Question)
        entries = read_file(job.answer)["tracks"]
        if not entries:
            raise LookupError("the point is seen in fewer than two frames; pick another one")
        name = add_track(reference.find(), read_run(run), entries[0], "Point")
        seen = sum(not mute for mute in entries[0]["mute"])
        return f"{name} is seen in {seen} frames"

    return Task(reference.name, start, done)


def _place_under(context: "bpy.types.Context", event: "bpy.types.Event") -> "tuple[float, float] | None":
    """Where on the clip the mouse is, as fractions of the frame; None where it is over something else."""
    for area in context.window.screen.areas:
        if area.type != "CLIP_EDITOR":
            continue
        regions = {region.type: region for region in area.regions}
        over = [region for region in area.regions if region.type != "WINDOW" and region.width > 1
                and 0 <= event.mouse_x - region.x < region.width
                and 0 <= event.mouse_y - region.y < region.height]  # fmt: skip
        window = regions["WINDOW"]
        x, y = event.mouse_x - window.x, event.mouse_y - window.y
        if not over and 0 <= x < window.width and 0 <= y < window.height:
            u, v = window.view2d.region_to_view(x, y)
            return (u, v) if 0 <= u <= 1 and 0 <= v <= 1 else None
    return None


def register() -> None:
    """The operator."""
    bpy.utils.register_class(TrackPoint)


def unregister() -> None:
    """Take it back."""
    asking.close()
    if bpy.app.timers.is_registered(asking.close_if_idle):
        bpy.app.timers.unregister(asking.close_if_idle)
    bpy.utils.unregister_class(TrackPoint)
