# SPDX-License-Identifier: GPL-3.0-or-later
"""Plane tracks of Blender's own from tracks of a run that lie on one plane."""

import bpy
from bpy.props import FloatVectorProperty, IntProperty, StringProperty

from .choosing import Candidate, choose
from .footage import clip_editor, examine
from .markers import OBJECT, TrackView, view_tracks
from .picking import NO_FRAME
from .plane_motion import contains, fitted, is_convex, mapped, on_one_plane
from .selecting import OnTracks, tracked_clip

_MOST = 60  # tracks of a plane; more of them only average
_TOLERANCE = 0.002  # of the frame's width: how far from the plane's motion a track may be


class PlaneTrack(OnTracks, bpy.types.Operator):
    """Make a plane track of the selected tracks, or of the best ones, without those that move otherwise"""

    bl_idname = "omnimotion.plane_track"
    bl_label = "Plane Track"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    corners: FloatVectorProperty(
        name="Corners", size=8, options={"SKIP_SAVE"},
        description="x and y of the four corners, one after another around the plane, as fractions of the frame from "
        "the bottom left; not given: around the selected tracks, or around the best ones",
    )  # fmt: skip
    frame: IntProperty(name="Frame", description="Scene frame of the corners; the present one when not given",
                       default=NO_FRAME, options={"SKIP_SAVE"})  # fmt: skip
    clip: StringProperty(name="Clip", options={"HIDDEN"})

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """Make it."""
        clip = tracked_clip(context, self.clip)
        scene_frame = context.scene.frame_current if self.frame == NO_FRAME else self.frame
        quad = None
        if self.properties.is_property_set("corners"):
            quad = [(self.corners[2 * k], self.corners[2 * k + 1]) for k in range(4)]
        try:
            names = tracks_on_plane(clip, examine(clip).clip_frame_at(scene_frame), quad)
            plane = make_plane(context, clip, names, scene_frame, quad)
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}
        frames = [marker.frame for marker in plane.markers if not marker.mute]
        words = f"{plane.name} follows {len(names)} tracks, clip frames {min(frames)} to {max(frames)}"
        self.report({"INFO"}, words)
        return {"FINISHED"}


def tracks_on_plane(
    clip: "bpy.types.MovieClip", frame: int, quad: "list[tuple[float, float]] | None"
) -> "set[str]":
    """Names of the tracks that a plane is made of.

    Args:
        frame: clip frame.
        quad: corners that they lie between there; None: the selected ones, or all where fewer than four are selected.
    Raises:
        LookupError: the corners cross, or fewer than four tracks are seen there and move as one plane.
    """
    tracks = clip.tracking.objects[OBJECT].tracks
    views = [view for view in view_tracks(tracks) if frame in view.seen]
    where = f"clip frame {frame}"
    if quad is not None:
        if not is_convex(quad):
            raise LookupError("the corners do not go around an area; give four, one after another around the plane")
        views = [view for view in views if contains(quad, view.seen[frame])]
        where += " between the corners"
    else:
        selected = [view for view in views if tracks[view.name].select]
        views = selected if len(selected) >= 4 else views
    views = [views[index] for index in choose([Candidate(view.weight, view.seen) for view in views], _MOST)]
    if len(views) < 4:
        raise LookupError(f"{len(views)} tracks are seen in {where}, a plane needs 4; choose another frame or area")
    found = on_one_plane([_square(view, clip) for view in views], frame, _TOLERANCE)
    if len(found) < 4:
        raise LookupError(f"no 4 tracks in {where} move as one plane; choose another frame or area")
    return {views[index].name for index in found}


def make_plane(
    context: "bpy.types.Context", clip: "bpy.types.MovieClip", names: "set[str]", scene_frame: int,
    quad: "list[tuple[float, float]] | None",
) -> "bpy.types.MovieTrackingPlaneTrack":  # fmt: skip
    """A plane track of these tracks, its corners around them or, where given, as they are in ``scene_frame``.

    Raises:
        LookupError: Blender makes none.
    """
    target = clip.tracking.objects[OBJECT]
    clip.tracking.objects.active = target
    _select(target, names)
    before = len(target.plane_tracks)
    with clip_editor(context, clip) as space:
        user, shown = space.clip_user, space.clip_user.frame_current
        user.frame_current = scene_frame  # without a window nothing else sets it
        try:
            bpy.ops.clip.create_plane_track()
        except RuntimeError as error:
            reason = " ".join(str(error).split()).removeprefix("Error: ")
            raise LookupError(f"no plane track was made ({reason}); choose another frame or area") from error
        finally:
            user.frame_current = shown
    if len(target.plane_tracks) == before:
        raise LookupError("no plane track was made; choose another frame or area")
    plane = target.plane_tracks.active
    _select(target, names)  # Blender has deselected them
    # Blender's own motion counts muted markers, which stand still: the corners are moved anew by what is seen
    frame = examine(clip).clip_frame_at(scene_frame)
    seen = [view.seen for view in view_tracks(target.tracks) if view.name in names]
    corners = quad or [(corner[0], corner[1]) for corner in plane.markers.find_frame(frame).corners]
    for marker in plane.markers:
        both = [one for one in seen if marker.frame in one]
        try:
            matrix = fitted([one[frame] for one in both], [one[marker.frame] for one in both])
            marker.corners = [mapped(matrix, corner) for corner in corners]
        except ZeroDivisionError:  # too few are seen
            marker.mute = True
    return plane


def _select(target: "bpy.types.MovieTrackingObject", names: "set[str]") -> None:
    for track in target.tracks:
        track.select = track.name in names


def _square(view: TrackView, clip: "bpy.types.MovieClip") -> "dict[int, tuple[float, float]]":
    """Its places with the frame's width as the unit of both axes."""
    aspect = clip.size[1] / clip.size[0]
    return {frame: (x, y * aspect) for frame, (x, y) in view.seen.items()}


def register() -> None:
    """The operator."""
    bpy.utils.register_class(PlaneTrack)


def unregister() -> None:
    """Take it back."""
    bpy.utils.unregister_class(PlaneTrack)
