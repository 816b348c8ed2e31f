# SPDX-License-Identifier: GPL-3.0-or-later
"""The tab *Track Everything* in the Movie Clip Editor's sidebar: it draws, it decides nothing."""

import bpy

from . import installation
from .footage import shown_clip
from .markers import OBJECT, run_of
from .preferences import ICONS, core_state, draw_status

_CATEGORY = "Track Everything"


class _Panel:
    bl_space_type = "CLIP_EDITOR"
    bl_region_type = "UI"
    bl_category = _CATEGORY

    @classmethod
    def poll(cls, context: "bpy.types.Context") -> bool:
        """Shown wherever there is a clip editor."""
        return context.space_data is not None and context.space_data.type == "CLIP_EDITOR"


class TrackPanel(_Panel, bpy.types.Panel):
    """The job: its settings, its button, its progress."""

    bl_idname = "TRACKEVERYTHING_PT_track"
    bl_label = "Track Everything"

    def draw(self, context: "bpy.types.Context") -> None:
        """Blender's call to draw it."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        settings = context.scene.track_everything
        state = core_state(context)
        if state.kind not in (installation.READY, installation.CHECKING):
            box = layout.box()
            box.label(text=state.text, icon=ICONS[state.kind])
            box.operator("preferences.addon_show", text="Set Up the Core", icon="PREFERENCES").module = __package__
        layout.prop(settings, "preset")
        layout.prop(settings, "frame_mode")
        if settings.frame_mode == "CUSTOM":
            column = layout.column(align=True)
            column.prop(settings, "frame_first")
            column.prop(settings, "frame_last")
        layout.prop(settings, "region")
        if settings.region.startswith("MASK"):
            layout.prop_search(settings, "mask", bpy.data, "masks")
        layout.prop(settings, "seed_mode")
        layout.prop(settings, "max_tracks")
        layout.prop(settings, "passes")
        layout.prop(settings, "device")
        row = layout.row()
        row.scale_y = 1.6
        row.operator("omnimotion.track_everything", icon="TRACKER")
        draw_status(layout, context)
        run = run_of(shown_clip(context))
        if run is not None:
            layout.label(text=run.name, icon="FILE_FOLDER")


class AdvancedPanel(_Panel, bpy.types.Panel):
    """What is seldom changed."""

    bl_idname = "TRACKEVERYTHING_PT_advanced"
    bl_label = "More"
    bl_parent_id = "TRACKEVERYTHING_PT_track"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: "bpy.types.Context") -> None:
        """Blender's call to draw it."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        settings = context.scene.track_everything
        row = layout.row()
        row.enabled = settings.preset != "paper"
        row.prop(settings, "rounds")
        layout.prop(settings, "preview")
        layout.prop(settings, "density")
        layout.prop(settings, "output")
        layout.operator("omnimotion.import_run", icon="IMPORT")
        column = layout.column(align=True)
        column.operator("omnimotion.batch", text="Track All Clips", icon="RENDERLAYERS").source = "FILE"
        column.operator("omnimotion.batch", text="Track a Folder", icon="FILE_FOLDER").source = "FOLDER"


class TracksPanel(_Panel, bpy.types.Panel):
    """What is done with the tracks."""

    bl_idname = "TRACKEVERYTHING_PT_tracks"
    bl_label = "Tracks"

    def draw(self, context: "bpy.types.Context") -> None:
        """Blender's call to draw it."""
        layout = self.layout
        settings = context.scene.track_everything
        clip = shown_clip(context)
        if clip is not None and OBJECT in clip.tracking.objects:
            layout.label(text=f"{len(clip.tracking.objects[OBJECT].tracks)} tracks", icon="TRACKER")
        layout.operator("omnimotion.track_point", icon="CURSOR")
        column = layout.column(align=True)
        column.prop(settings, "confidence")
        row = column.row(align=True)
        row.operator("omnimotion.by_confidence", text="Select").action = "SELECT"
        row.operator("omnimotion.by_confidence", text="Hide").action = "HIDE"
        row.operator("omnimotion.by_confidence", text="Show All").action = "SHOW"
        column = layout.column(align=True)
        column.prop(settings, "best_count")
        column.operator("omnimotion.best_for_solve", icon="TRACKING").solve = False
        column.operator("omnimotion.best_for_solve", text="Solve Camera", icon="OUTLINER_OB_CAMERA").solve = True
        layout.operator("omnimotion.stabilize", icon="VIEW_PAN")
        layout.operator("omnimotion.plane_track", icon="MESH_PLANE")


class PassesPanel(_Panel, bpy.types.Panel):
    """Motion vectors for the compositor."""

    bl_idname = "TRACKEVERYTHING_PT_passes"
    bl_label = "Passes"

    def draw(self, context: "bpy.types.Context") -> None:
        """Blender's call to draw it."""
        layout = self.layout
        settings = context.scene.track_everything
        layout.prop(settings, "setup")
        layout.operator("omnimotion.export_vectors", icon="EXPORT")
        layout.operator("omnimotion.setup_compositor", icon="NODE_COMPOSITING")


class OverlayPanel(_Panel, bpy.types.Panel):
    """The motion of the run, drawn over the clip."""

    bl_idname = "TRACKEVERYTHING_PT_overlay"
    bl_label = "Overlay"

    def draw_header(self, context: "bpy.types.Context") -> None:
        """Blender's call to draw its header."""
        self.layout.prop(context.window_manager.track_everything_overlay, "show", text="")

    def draw(self, context: "bpy.types.Context") -> None:
        """Blender's call to draw it."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        overlay = context.window_manager.track_everything_overlay
        layout.active = overlay.show
        for name in ("color_by", "trail", "least_confidence", "opacity"):
            layout.prop(overlay, name)


_CLASSES = (TrackPanel, AdvancedPanel, TracksPanel, PassesPanel, OverlayPanel)


def _draw_menu(self: "bpy.types.Menu", context: "bpy.types.Context") -> None:
    self.layout.separator()
    self.layout.operator("omnimotion.track_everything")
    self.layout.operator("omnimotion.track_point")


def register() -> None:
    """The panels, and two entries in the editor's menu Track."""
    for one in _CLASSES:
        bpy.utils.register_class(one)
    bpy.types.CLIP_MT_track.append(_draw_menu)


def unregister() -> None:
    """Take them back."""
    bpy.types.CLIP_MT_track.remove(_draw_menu)
    for one in reversed(_CLASSES):
        bpy.utils.unregister_class(one)
