# SPDX-License-Identifier: GPL-3.0-or-later
"""Points to follow that Blender knows: its detected features, or its selected tracks."""

import bpy

from .footage import Footage, clip_editor
from .markers import OBJECT, view_tracks

_LOOKS = 3  # frames, evenly over the range, at which features are detected
_DETECTED = "Track Everything Features"  # for the time of the detection

Seed = tuple[str, int, float, float]  # a name, a clip frame, and the place as fractions of the frame


def selected_tracks(clip: "bpy.types.MovieClip", frames: "tuple[int, int]", scene_frame: int) -> list[Seed]:
    """A point of each selected track: where it is at the scene's present frame, else where it is first seen.

    Raises:
        LookupError: none is selected, or none is seen within ``frames``.
    """
    active = clip.tracking.objects.active
    chosen = [track for track in active.tracks if track.select] if active is not None else []
    if not chosen:
        raise LookupError("no track is selected; select some, or take another choice under Points")
    now, seeds = scene_frame - clip.frame_start + 1, []
    views = {view.name: view for view in view_tracks(active.tracks)}
    for track in chosen:
        seen = {frame: co for frame, co in views[track.name].seen.items() if frames[0] <= frame <= frames[1]}
        if seen:
            frame = now if now in seen else min(seen)
            seeds.append((track.name, frame, *seen[frame]))
    if not seeds:
        raise LookupError(f"no selected track is seen in clip frames {frames[0]} to {frames[1]}; choose other frames")
    return seeds


def detected_features(
    clip: "bpy.types.MovieClip", footage: Footage, frames: "tuple[int, int]", count: int
) -> list[Seed]:
    """Corners that Blender's own Detect Features finds at some frames, about ``count`` in each.

    Raises:
        LookupError: it finds none.
    """
    active = clip.tracking.objects.active
    name = active.name if active is not None else ""
    spacing = max(int((footage.size[0] * footage.size[1] / max(count, 1)) ** 0.5 / 2), 4)  # pixels
    last = frames[1] - frames[0]
    looks = sorted({frames[0] + last * k // (_LOOKS - 1) for k in range(_LOOKS)})
    target = clip.tracking.objects.new(_DETECTED)  # it becomes the active one
    try:
        with clip_editor(bpy.context, clip) as space:
            before = space.clip_user.frame_current
            for frame in looks:
                space.clip_user.frame_current = frame + footage.frame_start - 1
                bpy.ops.clip.detect_features(placement="FRAME", margin=2, threshold=0.05, min_distance=spacing)
            space.clip_user.frame_current = before
        seeds = [(f"{view.name} {frame}", frame, *co) for view in view_tracks(target.tracks)
                 for frame, co in view.seen.items()]  # fmt: skip
    finally:
        clip.tracking.objects.remove(target)
        if name in clip.tracking.objects and name != OBJECT:
            clip.tracking.objects.active = clip.tracking.objects[name]
    if not seeds:
        raise LookupError("no features were found; take Grid under Points")
    return seeds
