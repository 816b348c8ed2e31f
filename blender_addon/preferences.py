# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: which Python has the core, and its installation."""

import sys
from pathlib import Path

import bpy
from bpy.props import EnumProperty, StringProperty

from . import installation, running
from .installation import BROKEN, CHECKING, MISSING, READY, Checker, CoreState

checker = Checker()


class TrackEverythingPreferences(bpy.types.AddonPreferences):
    """Blender's user preferences of the add-on."""

    bl_idname = __package__

    python: StringProperty(
        name="Core's Python", subtype="FILE_PATH",
        description="An interpreter that has the core; empty: the environment that the button below makes",
        update=lambda self, context: checker.start(installation.chosen_python(self.python)),
    )  # fmt: skip
    base_python: StringProperty(
        name="Python", subtype="FILE_PATH",
        description="Makes the core's environment, 3.11 to 3.13; empty: Blender's own where it serves",
    )  # fmt: skip
    source: EnumProperty(
        name="From",
        items=(("PYPI", "PyPI", "The Python package index"), ("DISK", "Disk", "A wheel or a folder with the source")),
    )
    source_path: StringProperty(name="Wheel or Folder", subtype="FILE_PATH")
    build: EnumProperty(
        name="For",
        items=(
            ("CPU", "CPU", f"Serves every machine: {installation.SIZES['CPU']}"),
            ("CUDA", "NVIDIA GPU", f"Much faster where there is one: {installation.SIZES['CUDA']}"),
        ),
    )
    torch_index: StringProperty(
        name="PyTorch From", description="A package index for PyTorch in place of the usual one, such as a studio's own"
    )

    def draw(self, context: "bpy.types.Context") -> None:
        """Blender's call to draw them."""
        layout = self.layout
        state = core_state(context)
        row = layout.row()
        row.alert = state.kind not in (READY, CHECKING)
        row.label(text=state.text, icon=ICONS[state.kind])
        row.operator("omnimotion.check_core", icon="FILE_REFRESH", text="Check")
        if state.kind == READY and len(state.devices) > 1:
            layout.label(text="Devices: " + ", ".join(state.devices))
        layout.prop(self, "python")
        box = layout.box()
        box.enabled = not running.is_running()
        row = box.row()
        row.prop(self, "source", expand=True)
        if self.source == "DISK":
            box.prop(self, "source_path")
        if sys.platform != "darwin":  # Apple's GPU is in the one build there is
            row = box.row()
            row.prop(self, "build", expand=True)
            box.label(text=f"About {installation.SIZES[self.build]}")
        box.prop(self, "base_python")
        box.prop(self, "torch_index")
        if not online(context) and (self.source == "PYPI" or self.torch_index or state.kind == MISSING):
            box.label(text="Blender's online access is off: Preferences, System, Network", icon="INFO")
        here = installation.is_installed(installation.own_environment())
        box.operator("omnimotion.install_core", text="Repair the Core" if here else "Install the Core", icon="IMPORT")
        draw_status(layout, context)
        for line in installation.last_lines(running.last_log, 8):
            layout.label(text=line)


ICONS = {READY: "CHECKMARK", CHECKING: "SORTTIME", MISSING: "IMPORT", BROKEN: "ERROR", "WRONG_VERSION": "ERROR"}


def preferences(context: "bpy.types.Context") -> "TrackEverythingPreferences":
    """The add-on's preferences, wherever it is installed."""
    return context.preferences.addons[__package__].preferences


def core_python(context: "bpy.types.Context") -> str:
    """The Python that is to have the core."""
    return installation.chosen_python(bpy.path.abspath(preferences(context).python))


def core_state(context: "bpy.types.Context") -> CoreState:
    """What is known of the core now; does not wait, asks nothing."""
    python = core_python(context)
    if not Path(python).exists():
        given = preferences(context).python
        return CoreState(MISSING, f"There is no Python at {given}" if given else "The core is not installed", python)
    if checker.running:
        return CoreState(CHECKING, "Checking the core", python)
    known = checker.known(python)
    if known is not None:
        return known
    return CoreState(CHECKING, "The core was not checked yet", python)


def require_core(context: "bpy.types.Context") -> str:
    """The Python that has the core.

    Raises:
        LookupError: it is known not to serve; told in one line.
    """
    state = core_state(context)
    if state.kind in (READY, CHECKING):  # where it was not checked the job itself tells
        return state.python
    raise LookupError(f"{state.text}; open the add-on's preferences")


def online(context: "bpy.types.Context") -> bool:
    """Whether Blender allows the add-on to use the network; before 4.2 there was no such switch."""
    return bool(getattr(bpy.app, "online_access", True))


def draw_status(layout: "bpy.types.UILayout", context: "bpy.types.Context") -> None:
    """Progress of what runs, or the end of what ran; of the panel and of the preferences."""
    status = context.window_manager.track_everything
    if status.running:
        box = layout.box()
        box.label(text=status.title)
        text = status.text or "Starting the core"
        if hasattr(layout, "progress"):  # since 4.0
            box.progress(factor=status.fraction, text=f"{status.fraction:.0%}")
        else:
            box.prop(status, "fraction", slider=True)
        box.label(text=text)
        box.operator("omnimotion.cancel", icon="CANCEL", text="Cancel")
    elif status.result:
        row = layout.row()
        row.alert = status.failed
        row.label(text=status.result, icon="ERROR" if status.failed else "INFO")
    for warning in status.warnings.splitlines():
        layout.label(text=warning, icon="ERROR")


def register() -> None:
    """The preferences."""
    bpy.utils.register_class(TrackEverythingPreferences)


def unregister() -> None:
    """Take them back."""
    bpy.utils.unregister_class(TrackEverythingPreferences)
