# SPDX-License-Identifier: GPL-3.0-or-later
"""The job's settings, which the panel shows and the operators take, and what the panel is told of a running job."""

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

SETUPS = (
    ("VECTOR_BLUR", "Motion Blur", "The clip through Vector Blur"),
    ("DISPLACE", "Displace", "Each frame moved to where the one before it was, by its own motion"),
    ("MAP_UV", "Map UV", "A picture made over the reference frame that follows the clip"),
)


class JobSettings:
    """Mixed into the scene's settings and into the operator, so that scripts need no panel."""

    preset: EnumProperty(
        name="Quality",
        items=(
            ("draft", "Draft", "A first look, several times faster"),
            ("standard", "Standard", "For the shot"),
            ("paper", "Paper", "OmniMotion's own model: hours on a good GPU"),
        ),
        default="standard",
    )
    frame_mode: EnumProperty(
        name="Frames",
        items=(
            ("CLIP", "Clip", "The whole clip"),
            ("SCENE", "Scene", "What the scene's frame range shows of it"),
            ("CUSTOM", "Custom", "Scene frames of your own"),
        ),
        default="CLIP",
    )
    frame_first: IntProperty(name="First", description="Scene frame", default=1)
    frame_last: IntProperty(name="Last", description="Scene frame", default=250)
    region: EnumProperty(
        name="Region",
        items=(
            ("FRAME", "Whole Frame", "Everything in the picture"),
            ("ANNOTATION_IN", "Inside Annotation", "Inside of what is drawn on the clip"),
            ("ANNOTATION_OUT", "Outside Annotation", "Outside of what is drawn on the clip"),
            ("MASK_IN", "Inside Mask", "Inside of a mask"),
            ("MASK_OUT", "Outside Mask", "Outside of a mask"),
        ),
        default="FRAME",
    )
    mask: StringProperty(name="Mask", description="Name of the mask")
    seed_mode: EnumProperty(
        name="Points",
        items=(
            ("GRID", "Grid", "Evenly over the picture, and again where something comes into view"),
            ("FEATURES", "Features", "Where Blender's Detect Features finds corners"),
            ("SELECTED", "Selected Tracks", "Where the selected tracks have a marker: each is followed anew"),
        ),
        default="GRID",
    )
    max_tracks: IntProperty(
        name="Markers",
        description="Tracks in Blender at most; its editor slows down beyond some hundred, the overlay does not",
        default=500, min=1, soft_max=2000, max=20000,
    )  # fmt: skip
    density: IntProperty(
        name="Overlay Points", description="Points of the overlay, which costs Blender little", default=4000,
        min=100, soft_max=10000, max=50000,
    )  # fmt: skip
    passes: BoolProperty(
        name="Passes", description="Write the EXR motion vectors too, for Set Up Compositor", default=False
    )
    rounds: IntProperty(
        name="Rounds",
        description="More are more exact: what one round has found guides the next, and each takes as long again. Not "
        "at Paper",
        default=1, min=1, max=4,
    )  # fmt: skip
    preview: BoolProperty(
        name="Preview", description="Draw some tracks over the clip while they improve", default=True
    )
    device: EnumProperty(
        name="Device",
        items=(
            ("auto", "Automatic", "The GPU where there is one that serves"),
            ("cpu", "CPU", "The processor"),
            ("cuda", "CUDA", "An NVIDIA GPU"),
            ("mps", "Metal", "Apple's GPU"),
        ),
        default="auto",
    )
    output: StringProperty(
        name="Run Folder", subtype="DIR_PATH",
        description="Where the run is kept and gone on with; empty: a folder of the clip's own",
    )  # fmt: skip


class OverlaySettings:
    """What the overlay shows."""

    show: BoolProperty(
        name="Overlay", description="Draw the motion of the run over the clip", default=False,
        update=lambda self, context: _redraw(),
    )  # fmt: skip
    color_by: EnumProperty(
        name="Color",
        items=(
            ("MOTION", "Motion", "Direction as hue, speed as strength"),
            ("CONFIDENCE", "Confidence", "Red: unsure, green: sure"),
            ("DEPTH", "Depth", "Bright: near, dark: far, within this run"),
        ),
        default="MOTION", update=lambda self, context: _redraw(),
    )  # fmt: skip
    trail: IntProperty(
        name="Trail", description="Frames before the present one", default=8, min=0, max=100,
        update=lambda self, context: _redraw(),
    )  # fmt: skip
    least_confidence: FloatProperty(
        name="Confidence", description="Points below this are left out", default=0.0, min=0.0, max=1.0,
        subtype="FACTOR", update=lambda self, context: _redraw(),
    )  # fmt: skip
    opacity: FloatProperty(
        name="Opacity", default=0.8, min=0.0, max=1.0, subtype="FACTOR", update=lambda self, context: _redraw(),
    )  # fmt: skip


class TrackEverythingSettings(JobSettings, bpy.types.PropertyGroup):
    """Saved with the scene."""

    confidence: FloatProperty(
        name="Confidence", description="Tracks below this are meant", default=0.5, min=0.0, max=1.0, subtype="FACTOR"
    )
    best_count: IntProperty(name="Tracks", description="Tracks for the camera solver", default=40, min=8, max=500)
    setup: EnumProperty(
        name="Setup",
        items=SETUPS,
    )


class TrackEverythingOverlay(OverlaySettings, bpy.types.PropertyGroup):
    """Of the session, not of the file."""


class TrackEverythingStatus(bpy.types.PropertyGroup):
    """What the panel shows of a job: of the session, so that neither undo nor a file holds it."""

    running: BoolProperty()
    fraction: FloatProperty(name="Progress", min=0.0, max=1.0, subtype="FACTOR")
    title: StringProperty()
    text: StringProperty()
    result: StringProperty()  # the last job's end in one line
    failed: BoolProperty()
    warnings: StringProperty()  # one a line


def _redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "CLIP_EDITOR":
                area.tag_redraw()


_CLASSES = (TrackEverythingSettings, TrackEverythingOverlay, TrackEverythingStatus)


def register() -> None:
    """Settings on the scene, the rest on the window manager."""
    for one in _CLASSES:
        bpy.utils.register_class(one)
    bpy.types.Scene.track_everything = PointerProperty(type=TrackEverythingSettings)
    bpy.types.WindowManager.track_everything = PointerProperty(type=TrackEverythingStatus)
    bpy.types.WindowManager.track_everything_overlay = PointerProperty(type=TrackEverythingOverlay)


def unregister() -> None:
    """Take them back."""
    del bpy.types.WindowManager.track_everything_overlay
    del bpy.types.WindowManager.track_everything
    del bpy.types.Scene.track_everything
    for one in reversed(_CLASSES):
        bpy.utils.unregister_class(one)
