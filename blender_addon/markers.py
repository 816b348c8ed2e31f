# SPDX-License-Identifier: GPL-3.0-or-later
"""``markers.json`` of the core → tracks of a movie clip, and tracks → what other tools of the add-on want to know.

The file is in Blender's convention already. Only its clip frames may be counted from another file: those are shifted.
"""

import json
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from .footage import Footage, examine
from .steps import RunFacts

OBJECT = "Track Everything"  # the tracking object
RUN_KEY = "track_everything_run"  # on the clip: the folder of its run
_FORMAT, _VERSION = "omnimotion.markers", 1
_QUIET = 100  # from so many tracks on Blender's editor is slow unless their paths and patterns are hidden


def read_file(path: Path) -> "dict[str, Any]":
    """The content of ``markers.json``.

    Raises:
        LookupError: it is absent, damaged or of another version; told in one line.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        given = content["format"], content["version"]
        for entry in content["tracks"]:
            count = len(entry["frames"])
            if len(entry["co"]) != 2 * count or len(entry["mute"]) != count or count == 0:
                raise ValueError(f"track {entry['name']} is damaged")
    except OSError as error:
        raise LookupError(f"{path} is not there; track the clip first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LookupError(f"{path} cannot be read as markers ({error}); track the clip again") from error
    if given != (_FORMAT, _VERSION):
        raise LookupError(f"{path} is {given[0]} {given[1]}, not {_FORMAT} {_VERSION}; update the add-on")
    return content


def import_markers(clip: "bpy.types.MovieClip", run: RunFacts, content: Mapping[str, Any]) -> int:
    """Put all tracks of a file into the clip's tracking object, in place of those of an earlier run.

    Returns:
        How many tracks there are.
    Raises:
        LookupError: the run is of footage of another size.
    """
    footage = examine(clip)
    require_same_footage(clip, footage, run)
    stale = clip.tracking.objects.get(OBJECT)
    if stale is not None:
        clip.tracking.objects.remove(stale)
    target = clip.tracking.objects.new(OBJECT)
    for entry in content["tracks"]:
        write_track(target.tracks, entry, lambda frames: footage.clip_frames(frames, run))
    remember_run(clip, run.path)
    if len(content["tracks"]) >= _QUIET:
        _quieten(clip)
    return len(target.tracks)


def add_track(clip: "bpy.types.MovieClip", run: RunFacts, entry: Mapping[str, Any], name: str) -> str:
    """Put one more track into the clip's tracking object; returns the name that Blender gave it."""
    footage = examine(clip)
    require_same_footage(clip, footage, run)
    target = clip.tracking.objects.get(OBJECT) or clip.tracking.objects.new(OBJECT)
    track = write_track(target.tracks, {**entry, "name": name}, lambda frames: footage.clip_frames(frames, run))
    for other in target.tracks:
        other.select = False
    track.select = True
    target.tracks.active = track
    return str(track.name)


def write_track(
    tracks: "bpy.types.MovieTrackingObjectTracks", entry: Mapping[str, Any], place: Callable[[list[int]], list[int]]
) -> "bpy.types.MovieTrackingTrack":
    """One entry of the file as a track, deselected.

    Args:
        place: the file's clip frames → this clip's; of markers that fall on one frame the first counts.
    """
    frames, co, mute = place(entry["frames"]), entry["co"], entry["mute"]
    keyed = None if entry["keyed_frame"] is None else place([entry["keyed_frame"]])[0]
    if len(set(frames)) < len(frames):
        kept = [0, *(i for i in range(1, len(frames)) if frames[i] > frames[i - 1])]
        co = [value for i in kept for value in co[2 * i : 2 * i + 2]]
        frames, mute = [frames[i] for i in kept], [mute[i] for i in kept]
    # a name of its own for each: Blender's search for a free one is quadratic
    track = tracks.new(name=entry["name"], frame=frames[0])
    insert = track.markers.insert_frame
    for frame in frames[1:]:
        insert(frame)
    # insert_frame(co=...) would clamp to the picture
    track.markers.foreach_set("co", array("f", co))
    track.markers.foreach_set("mute", mute)
    track.markers.foreach_set("is_keyed", [frame == keyed for frame in frames])
    track.weight = entry["weight"]
    track.use_custom_color = True
    track.color = entry["color"]
    track.select = track.select_anchor = track.select_pattern = track.select_search = False
    return track


def row_of(entry: Mapping[str, Any]) -> int:
    """Which of the points that were asked for an entry of the file answers."""
    return int(str(entry["name"]).removeprefix("te"))


def seen_of(entry: Mapping[str, Any]) -> "dict[int, tuple[float, float]]":
    """Frame → place of an entry of the file, where it is seen."""
    co = entry["co"]
    shown = enumerate(zip(entry["frames"], entry["mute"], strict=True))
    return {frame: (co[2 * i], co[2 * i + 1]) for i, (frame, mute) in shown if not mute}


def require_same_footage(clip: "bpy.types.MovieClip", footage: Footage, run: RunFacts) -> None:
    """Raise ``LookupError`` where a run cannot be of this clip."""
    if footage.size != run.size:
        sizes = ["x".join(map(str, size)) for size in (run.size, footage.size)]
        raise LookupError(f"the run is of {sizes[0]} footage, {clip.name} is {sizes[1]}; choose its own run")


def remember_run(clip: "bpy.types.MovieClip", run: Path) -> None:
    """Note the run on the clip, relative to the .blend where there is one, so that both can be moved together."""
    path = str(run)
    if bpy.data.filepath:
        try:
            path = bpy.path.relpath(path)
        except ValueError:  # on another drive
            path = str(run)
    clip[RUN_KEY] = path


def run_of(clip: "bpy.types.MovieClip | None") -> "Path | None":
    """The run that was noted on the clip, if its folder is still there."""
    noted = clip.get(RUN_KEY) if clip is not None else None
    if clip is None or not isinstance(noted, str):
        return None
    path = Path(bpy.path.abspath(noted, library=clip.library))
    return path if (path / "run.json").is_file() else None


def require_run(clip: "bpy.types.MovieClip | None") -> Path:
    """The run of the clip.

    Raises:
        LookupError: there is no clip, it was not tracked, or the run's folder is gone.
    """
    if clip is None:
        raise LookupError("no clip is shown; open one in the Movie Clip Editor")
    run = run_of(clip)
    if run is None:
        noted = clip.get(RUN_KEY)
        raise LookupError(f"the run {noted} is gone; track {clip.name} again" if noted
                          else f"{clip.name} is not tracked yet; press Track Everything first")  # fmt: skip
    return run


@dataclass(frozen=True)
class TrackView:
    """What is known of one of Blender's tracks."""

    name: str
    weight: float
    seen: "dict[int, tuple[float, float]]"  # clip frame → position where its marker is not muted


def view_tracks(tracks: "bpy.types.MovieTrackingObjectTracks") -> "list[TrackView]":
    """All tracks, read in bulk."""
    views = []
    for track in tracks:
        count = len(track.markers)
        frames, co, mute = [0] * count, array("f", bytes(8 * count)), [False] * count
        track.markers.foreach_get("frame", frames)
        track.markers.foreach_get("co", co)
        track.markers.foreach_get("mute", mute)
        seen = {frames[i]: (co[2 * i], co[2 * i + 1]) for i in range(count) if not mute[i]}
        views.append(TrackView(track.name, track.weight, seen))
    return views


def _quieten(clip: "bpy.types.MovieClip") -> None:
    """Hide paths and patterns in the editors that show the clip: drawing them takes five times as long as all else."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            space = area.spaces.active
            if area.type == "CLIP_EDITOR" and space.clip == clip:
                space.show_track_path = space.show_marker_pattern = space.show_marker_search = False
                area.tag_redraw()
