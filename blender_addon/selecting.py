# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with the tracks: the best of them for the camera solver and for stabilization, others out of sight."""

from array import array

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, StringProperty

from .choosing import Candidate, best_keyframes, choose
from .footage import clip_editor, shown_clip
from .markers import OBJECT, view_tracks

_CAMERA = "Camera"
_ROUNDS = 4  # of solving and dropping tracks
_FINE_PX = 0.5  # tracks with less of an error are never dropped
_LEAST = 12  # tracks are kept for the solver, which wants 8
_STEADY = 6  # tracks are enough for stabilization; more of them only average


class OnTracks:
    """Mixed into operators on the tracks of a run."""

    @classmethod
    def poll(cls, context: "bpy.types.Context") -> bool:
        """Grey where there are no tracks of ours."""
        clip = shown_clip(context)
        if clip is None or OBJECT not in clip.tracking.objects:
            cls.poll_message_set("The clip has no tracks of Track Everything yet")  # type: ignore[attr-defined]
            return False
        return True


class BestForSolve(OnTracks, bpy.types.Operator):
    """Copy the longest and surest tracks, spread over the frame, to the Camera object, and choose its keyframes"""

    bl_idname = "omnimotion.best_for_solve"
    bl_label = "Best Tracks to Camera"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    clip: StringProperty(name="Clip", options={"HIDDEN"})
    count: IntProperty(name="Tracks", description="0: as the panel says", default=0, min=0, max=500)
    solve: BoolProperty(
        name="Solve", description="Solve the camera too, and drop the tracks that do not move with the scene",
        default=False,
    )  # fmt: skip

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """Copy them."""
        clip = tracked_clip(context, self.clip)
        count = self.count or context.scene.track_everything.best_count
        try:
            names = copy_best(clip, count)
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}
        camera = clip.tracking.objects[_CAMERA]
        views = [Candidate(view.weight, view.seen) for view in view_tracks(camera.tracks) if view.name in names]
        keyframes = best_keyframes(views)
        if keyframes is None:
            self.report({"WARNING"}, f"{len(names)} tracks copied, but the solver needs two frames that share 8")
            return {"FINISHED"}
        camera.keyframe_a, camera.keyframe_b = keyframes
        clip.tracking.settings.use_keyframe_selection = False
        words = f"{len(names)} tracks are in Camera, keyframes {keyframes[0]} and {keyframes[1]}"
        if self.solve:
            try:
                left = solve_and_clean(context, clip)
            except LookupError as error:
                self.report({"ERROR"}, str(error.args[0]))
                return {"CANCELLED"}
            words = f"Solved with {left} tracks to {clip.tracking.reconstruction.average_error:.2f} px"
        self.report({"INFO"}, words)
        return {"FINISHED"}


class ByConfidence(OnTracks, bpy.types.Operator):
    """Select or hide the tracks whose confidence is low"""

    bl_idname = "omnimotion.by_confidence"
    bl_label = "Tracks by Confidence"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    clip: StringProperty(name="Clip", options={"HIDDEN"})
    action: EnumProperty(
        name="Action",
        items=(
            ("SELECT", "Select", "Select the tracks below it, deselect the others"),
            ("HIDE", "Hide", "Hide the tracks below it, show the others"),
            ("SHOW", "Show All", "Show all tracks"),
        ),
    )
    below: FloatProperty(name="Below", description="-1: as the panel says", default=-1.0, min=-1.0, max=1.0)

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """Do it."""
        clip = tracked_clip(context, self.clip)
        below = self.below if self.below >= 0 else context.scene.track_everything.confidence
        count = 0
        for track in clip.tracking.objects[OBJECT].tracks:
            low = track.weight < below
            count += low
            if self.action == "SELECT":
                track.select = low
            else:
                track.hide = low and self.action == "HIDE"
        low_ones = f"{count} tracks below {below:.2f}"
        words = {"SELECT": f"{low_ones} selected", "HIDE": f"{low_ones} hidden", "SHOW": "All tracks shown"}
        self.report({"INFO"}, words[self.action])
        return {"FINISHED"}


class Stabilize(OnTracks, bpy.types.Operator):
    """Set up Blender's 2D stabilization with the longest and surest tracks"""

    bl_idname = "omnimotion.stabilize"
    bl_label = "Stabilize by Best Tracks"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    clip: StringProperty(name="Clip", options={"HIDDEN"})
    rotation: BoolProperty(name="Rotation", description="Hold the picture's rotation and scale too", default=True)

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """Set it up."""
        clip = tracked_clip(context, self.clip)
        try:
            names = copy_best(clip, _STEADY)
            tracking = clip.tracking
            for track in tracking.objects[_CAMERA].tracks:
                track.select = track.name in names
            stabilization = tracking.stabilization
            stabilization.use_2d_stabilization = True
            stabilization.use_stabilize_rotation = self.rotation
            stabilization.use_stabilize_scale = self.rotation
            with clip_editor(context, clip):
                bpy.ops.clip.stabilize_2d_add()
                if self.rotation:
                    bpy.ops.clip.stabilize_2d_rotation_add()
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}
        self.report({"INFO"}, f"The clip is held by {len(names)} tracks")
        return {"FINISHED"}


def tracked_clip(context: "bpy.types.Context", name: str) -> "bpy.types.MovieClip":
    """The clip that ``poll`` has seen, or the one that is named.

    Raises:
        RuntimeError: it has no tracks of ours; as operators tell scripts.
    """
    clip = shown_clip(context, name)
    if clip is None or OBJECT not in clip.tracking.objects:
        raise RuntimeError(f"{name or 'the clip'} has no tracks of {OBJECT}; track it first")
    return clip


def copy_best(clip: "bpy.types.MovieClip", count: int) -> "set[str]":
    """Copy the best tracks to the Camera object, in place of those that were copied there before.

    Returns:
        Their names.
    Raises:
        LookupError: no track is seen in two frames.
    """
    objects = clip.tracking.objects
    source = objects[OBJECT].tracks
    views = view_tracks(source)
    chosen = choose([Candidate(view.weight, view.seen) for view in views], count)
    if not chosen:
        raise LookupError("no track is seen in two frames; track the clip first")
    camera = objects.get(_CAMERA) or next(one for one in objects if one.is_camera)
    objects.active = camera
    ours = {view.name for view in views}
    _delete(clip, camera, ours)
    for index in chosen:
        _copy(source[views[index].name], camera.tracks)
    return {views[index].name for index in chosen}


def solve_and_clean(context: "bpy.types.Context", clip: "bpy.types.MovieClip") -> int:
    """Solve the camera, drop the tracks that fit it worst, and again, as it is done by hand: things that move, slips.

    Returns:
        How many tracks are left.
    Raises:
        LookupError: there is no solution.
    """
    camera = next(one for one in clip.tracking.objects if one.is_camera)
    for again in range(_ROUNDS, -1, -1):
        with clip_editor(context, clip):
            try:
                bpy.ops.clip.solve_camera()
            except RuntimeError as error:
                reason = " ".join(str(error).split()).removeprefix("Error: ")
                raise LookupError(f"no camera was found ({reason}); choose other keyframes or more tracks") from error
        errors = sorted((track.average_error, track.name) for track in camera.tracks if track.has_bundle)
        bound = max(_FINE_PX, 2 * errors[len(errors) // 2][0]) if errors else 0.0
        worst = {name for error, name in errors if error > bound}
        if not again or not worst or len(camera.tracks) - len(worst) < _LEAST:
            break
        _delete(clip, camera, worst)
    return len(camera.tracks)


def _delete(clip: "bpy.types.MovieClip", camera: "bpy.types.MovieTrackingObject", names: "set[str]") -> None:
    """Delete tracks of the Camera object by name, by the operator: there is no other way."""
    if not any(track.name in names for track in camera.tracks):
        return
    clip.tracking.objects.active = camera
    for track in camera.tracks:
        track.select = track.name in names
    with clip_editor(bpy.context, clip):
        bpy.ops.clip.delete_track()


def _copy(track: "bpy.types.MovieTrackingTrack", tracks: "bpy.types.MovieTrackingObjectTracks") -> None:
    count = len(track.markers)
    frames, co, flags = [0] * count, array("f", bytes(8 * count)), [False] * count
    track.markers.foreach_get("frame", frames)
    track.markers.foreach_get("co", co)
    made = tracks.new(name=track.name, frame=frames[0])
    for frame in frames[1:]:
        made.markers.insert_frame(frame)
    made.markers.foreach_set("co", co)
    for name in ("mute", "is_keyed"):
        track.markers.foreach_get(name, flags)
        made.markers.foreach_set(name, flags)
    made.weight, made.use_custom_color, made.color = track.weight, True, track.color


_CLASSES = (BestForSolve, ByConfidence, Stabilize)


def register() -> None:
    """The three operators."""
    for one in _CLASSES:
        bpy.utils.register_class(one)


def unregister() -> None:
    """Take them back."""
    for one in reversed(_CLASSES):
        bpy.utils.unregister_class(one)
