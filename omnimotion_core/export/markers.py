"""Tracks for Blender's Movie Clip Editor: ``markers.json``, already in Blender's convention. Needs numpy alone.

The file::

    {"format": "omnimotion.markers", "version": 1,
     "size": [1920, 1080],           plate, pixels
     "fps": 24.0,                    0 where unknown
     "clip_frames": [1, 48],         Blender's clip frames (1-based) that were tracked, first and last
     "tracks": [
       {"name": "te00042",           unique; 42 is the row in tracks.npz
        "weight": 0.91,              mean confidence where the point is seen, 0..1
        "color": [0.2, 0.7, 0.9],    the weight as a color, display-referred RGB, 0..1
        "keyed_frame": 7,            the marker that was asked for; null where the point is not seen there
        "frames": [4, 5, 6, 7, 8],   of the markers, rising; clip frame = tracked frame t + 1 + clip_offset
        "co": [0.1, 0.9, …],         x, y of each marker: fractions of width and height, bottom-left corner (0, 0)
        "mute": [true, false, …]},   of each marker
       …]}

Between markers Blender holds the one before; or, in 4.2 and 5.0 as measured, sometimes the one after. So each run of
frames in which a point is seen is closed on both sides, as Blender's own tracker does: a muted marker at the first
frame of the gap that follows, one at the last frame of the gap before (a gap of one frame has one), and one after the
end. A clip has no frame before 1, so a track that is seen there begins unmuted. A muted marker repeats the nearest
seen position: where a point cannot be seen, none is claimed. Points off the frame count as not seen.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.coordinates import Size, marker_to_pixel, pixel_to_marker
from omnimotion_core.errors import ExportError
from omnimotion_core.export.colors import confidence_color
from omnimotion_core.export.selection import choose_tracks, track_name, usable
from omnimotion_core.files import write_text
from omnimotion_core.trajectories.tracks import Tracks

FORMAT, VERSION = "omnimotion.markers", 1


@dataclass(frozen=True, eq=False, kw_only=True)
class MarkerTrack:
    """One track as Blender holds it."""

    name: str
    weight: float  # 0..1
    color: tuple[float, float, float]  # display-referred RGB, 0..1
    keyed_frame: int | None
    frames: np.ndarray  # (M,) int64, clip frames, rising
    co: np.ndarray  # (M, 2) float64, fractions of the frame, y up
    mute: np.ndarray  # (M,) bool


@dataclass(frozen=True, eq=False, kw_only=True)
class MarkerFile:
    """What ``markers.json`` holds."""

    size: Size
    fps: float
    clip_frames: tuple[int, int]  # first and last
    tracks: tuple[MarkerTrack, ...]


def write_markers(tracks: Tracks, path: Path, *, clip_offset: int, max_markers: int) -> None:
    """Write the best ``max_markers`` tracks as a whole file or not at all.

    Args:
        clip_offset: frames of the clip before the first tracked one.
        max_markers: Blender's editor slows down beyond some hundred; ``choose_tracks`` says which are taken.
    Raises:
        RunError: the file cannot be written.
    """
    seen = usable(tracks)
    rows = choose_tracks(tracks, max_markers)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "size": list(tracks.size),
        "fps": tracks.fps if np.isfinite(tracks.fps) else 0.0,
        "clip_frames": [clip_offset + 1, clip_offset + tracks.num_frames],
        "tracks": [_track(tracks, int(row), seen[row], clip_offset) for row in rows],
    }
    write_text(path, json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n")


def queries_of_markers(points: np.ndarray, size: Size, first_frame: int) -> np.ndarray:
    """Places that Blender asks about, as queries (N, 3) float32 of (t, x, y).

    Args:
        points: (N, 3) as (source's frame number, x, y), the last two being fractions of the frame, y up.
        size: of the plate.
        first_frame: the source's number of frame t = 0.
    """
    pixels = marker_to_pixel(points[:, 1:].astype(np.float64), size)
    return np.column_stack([points[:, 0] - first_frame, pixels]).astype(np.float32)


def read_markers(path: Path) -> MarkerFile:
    """Read ``markers.json``.

    Raises:
        ExportError: the file is absent, damaged or of another version.
    """
    remedy = "export the markers again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ExportError(f"{path} is {content['format']} {content['version']}, not {FORMAT} {VERSION}", remedy)
        size, clip_frames = content["size"], content["clip_frames"]
        return MarkerFile(
            size=(int(size[0]), int(size[1])),
            fps=float(content["fps"]),
            clip_frames=(int(clip_frames[0]), int(clip_frames[1])),
            tracks=tuple(_read_track(entry) for entry in content["tracks"]),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ExportError(f"{path} cannot be read as markers ({error})", remedy) from error


def _track(tracks: Tracks, row: int, seen: np.ndarray, clip_offset: int) -> dict[str, Any]:
    """One entry of the file; ``seen`` (T,) has a true value."""
    shown = np.flatnonzero(seen)
    breaks = np.diff(shown) > 1
    starts, ends = shown[np.append(True, breaks)], shown[np.append(breaks, True)]  # of each run, its first and last
    leads = starts[(starts + clip_offset > 0) & ~np.isin(starts - 1, ends + 1)]
    times = np.concatenate([leads - 1, shown, ends + 1])
    sources = np.concatenate([leads, shown, ends])  # the frame whose position the marker has
    mute = np.repeat([True, False, True], [len(leads), len(shown), len(ends)])
    order = np.argsort(times, kind="stable")
    co = pixel_to_marker(tracks.positions[row, sources[order]].astype(np.float64), tracks.size)
    weight = float(np.clip(tracks.confidence[row, shown].mean(dtype=np.float64), 0.0, 1.0))
    queried = int(tracks.queries[row, 0])
    return {
        "name": track_name(row),
        "weight": round(weight, 4),
        "color": [round(float(value), 3) for value in confidence_color(np.asarray(weight))],
        "keyed_frame": queried + 1 + clip_offset if seen[queried] else None,
        "frames": (times[order] + 1 + clip_offset).tolist(),
        "co": [round(value, 7) for value in co.ravel().tolist()],  # 0.0004 px at 4096 wide
        "mute": mute[order].tolist(),
    }


def _read_track(entry: dict[str, Any]) -> MarkerTrack:
    frames = np.asarray(entry["frames"], np.int64)
    mute = np.asarray(entry["mute"], bool)
    co = np.asarray(entry["co"], np.float64).reshape(-1, 2)
    if not len(frames) == len(mute) == len(co) or np.any(np.diff(frames) <= 0):
        raise ValueError(f"track {entry['name']}: frames, co and mute do not fit together")
    red, green, blue = (float(value) for value in entry["color"])
    return MarkerTrack(
        name=str(entry["name"]),
        weight=float(entry["weight"]),
        color=(red, green, blue),
        keyed_frame=None if entry["keyed_frame"] is None else int(entry["keyed_frame"]),
        frames=frames,
        co=co,
        mute=mute,
    )
