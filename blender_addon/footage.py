# SPDX-License-Identifier: GPL-3.0-or-later
"""A movie clip of Blender as the core sees it: its path, and which of its frames is which number of the source.

    clip frame       = scene frame - clip.frame_start + 1
    source's number  = number in the file name (1 in a movie) + clip frame - 1 + clip.frame_offset

as measured in Blender 3.4 to 5.2. Clip frames count from 1; markers stand at clip frames.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import bpy

from .steps import RunFacts


@dataclass(frozen=True)
class Footage:
    """The facts of a clip."""

    path: str  # absolute: the movie, or the file of the sequence that the clip names
    is_sequence: bool
    first_number: int  # the source's number of clip frame 1
    duration: int  # clip frames
    size: tuple[int, int]
    frame_start: int  # scene frame of clip frame 1

    def number(self, clip_frame: int) -> int:
        """The source's number of a clip frame."""
        return self.first_number + clip_frame - 1

    def clip_frame(self, number: int) -> int:
        """The inverse of ``number``."""
        return number - self.first_number + 1

    def clip_frame_at(self, scene_frame: int) -> int:
        """The clip frame that is shown at a scene frame."""
        return scene_frame - self.frame_start + 1

    def number_shown(self, clip_frame: int, run: RunFacts) -> int:
        """``number``, also of a movie whose rate varies, which Blender shows by time."""
        number = self.number(clip_frame)
        return next((there for there, frame in run.shown_at.items() if frame == number), number)

    def clip_frames(self, core_frames: "list[int]", run: RunFacts) -> "list[int]":
        """Clip frames of what the core counts from the first file of all; may repeat where the rate varies."""
        shift = run.clip_first_number - self.first_number
        if not run.shown_at:
            return [frame + shift for frame in core_frames] if shift else core_frames
        numbers = (run.clip_first_number + frame - 1 for frame in core_frames)
        return [self.clip_frame(run.shown_at.get(number, number)) for number in numbers]


def examine(clip: "bpy.types.MovieClip | None") -> Footage:
    """The facts of a clip.

    Raises:
        LookupError: there is no clip, or its footage is not there; told in one line.
    """
    if clip is None:
        raise LookupError("no clip is shown; open one in the Movie Clip Editor")
    path = os.path.abspath(bpy.path.abspath(clip.filepath, library=clip.library))
    if not os.path.exists(path):  # Blender's own is_missing stays False
        raise LookupError(f"the footage of {clip.name} is not at {path}; relink it")
    width, height = clip.size
    if width < 1 or height < 1 or clip.frame_duration < 1:
        raise LookupError(f"Blender cannot read {path}; choose footage that it shows")
    sequence = clip.source == "SEQUENCE"
    named = 1
    if sequence:
        digits = re.findall(r"\d+", os.path.splitext(os.path.basename(path))[0])
        if not digits:
            raise LookupError(f"{clip.name} is a single picture; choose a sequence of numbered pictures or a movie")
        named = int(digits[-1])
    return Footage(path, sequence, named + clip.frame_offset, clip.frame_duration, (width, height), clip.frame_start)


def chosen_frames(footage: Footage, mode: str, scene: "bpy.types.Scene", custom: tuple[int, int]) -> tuple[int, int]:
    """The first and last clip frame to track.

    Args:
        mode: ``CLIP``, ``SCENE`` (what of the clip the scene's range shows) or ``CUSTOM``.
        custom: scene frames.
    Raises:
        LookupError: fewer than two frames are left.
    """
    first, last = 1, footage.duration
    if mode != "CLIP":
        start, end = (scene.frame_start, scene.frame_end) if mode == "SCENE" else custom
        first, last = max(footage.clip_frame_at(start), 1), min(footage.clip_frame_at(end), footage.duration)
        if last <= first:
            shown = f"{footage.frame_start} to {footage.frame_start + footage.duration - 1}"
            raise LookupError(f"frames {start} to {end} show {max(last - first + 1, 0)} frames of the clip; "
                              f"choose two or more within {shown}")  # fmt: skip
    if last <= first:
        raise LookupError("the clip has one frame; choose a longer one")
    return first, last


def source_range(footage: Footage, frames: tuple[int, int]) -> "tuple[int, int] | None":
    """The frames as the core wants them; None: the whole movie, whose length the core finds better than a header."""
    if not footage.is_sequence and frames == (1, footage.duration) and footage.first_number == 1:
        return None
    return footage.number(frames[0]), footage.number(frames[1])


@dataclass(frozen=True)
class ClipReference:
    """A clip that may be renamed, undone or deleted while a job runs; Blender's own reference would dangle."""

    name: str
    uid: int  # 0 before Blender 4.1
    filepath: str

    @classmethod
    def of(cls, clip: "bpy.types.MovieClip") -> "ClipReference":
        """The reference of a clip."""
        return cls(clip.name, getattr(clip, "session_uid", 0), clip.filepath)

    def find(self) -> "bpy.types.MovieClip":
        """The clip as it is now.

        Raises:
            LookupError: it is gone.
        """
        clips = list(bpy.data.movieclips)
        for clip in clips:
            if self.uid and getattr(clip, "session_uid", 0) == self.uid:
                return clip
        same = [clip for clip in clips if clip.filepath == self.filepath]
        for clip in [*(clip for clip in same if clip.name == self.name), *same]:
            return clip
        raise LookupError(f"the clip {self.name} is gone")


def shown_clip(context: "bpy.types.Context", name: str = "") -> "bpy.types.MovieClip | None":
    """The clip of that name; without a name the one in the editor, else the scene's, else the only one."""
    if name:
        return bpy.data.movieclips.get(name)
    space = context.space_data
    if space is not None and space.type == "CLIP_EDITOR" and space.clip is not None:
        return space.clip
    if context.scene.active_clip is not None:
        return context.scene.active_clip
    return bpy.data.movieclips[0] if len(bpy.data.movieclips) == 1 else None


@contextmanager
def clip_editor(context: "bpy.types.Context", clip: "bpy.types.MovieClip") -> "Iterator[bpy.types.SpaceClipEditor]":
    """A clip editor that shows ``clip`` in tracking mode, as Blender's own tracking operators want their context.

    The one that is there is taken; else the largest area is turned into one for as long as the block lasts.
    """
    window = context.window or context.window_manager.windows[0]
    areas = sorted(window.screen.areas, key=lambda area: (area.type != "CLIP_EDITOR", -area.width * area.height))
    area = context.area if context.area is not None and context.area.type == "CLIP_EDITOR" else areas[0]
    before = area.type
    area.type = "CLIP_EDITOR"
    space = area.spaces.active
    clip_before, mode = space.clip, space.mode
    try:
        space.clip, space.mode = clip, "TRACKING"
        region = next(region for region in area.regions if region.type == "WINDOW")
        with context.temp_override(window=window, area=area, region=region):
            yield space
    finally:
        space.mode = mode
        if before != "CLIP_EDITOR":
            area.type = before
        elif clip_before is not None:
            space.clip = clip_before
