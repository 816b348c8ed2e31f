"""2D tracks as Nuke's Tracker and as After Effects' keyframes. Needs numpy alone.

Nuke: a script with one ``Tracker4`` node, to be pasted or inserted. Frames are the source's numbers; positions are
pixels from the bottom-left corner, y up. A point has keys only where it is seen; in between Nuke would draw a curve,
so the track's ``enable`` is off there. Source: the layout of the 31 columns as Nuke 7 to 16 write it.

After Effects: text to be pasted onto a layer, one ``Point Control`` effect a track, in the order of the other files,
since keyframe data holds no names. Frames are counted from 0 at the clip's first one; positions are pixels from the
top-left corner, y down. A gap has no keys; After Effects interpolates over it.
"""

from fractions import Fraction

import numpy as np

from omnimotion_core.coordinates import pixel_to_lower_left, pixel_to_raster
from omnimotion_core.export.frame_rate import exact_frame_rate
from omnimotion_core.export.track_set import TrackSet, runs_of

_COLUMNS = (  # kind, shown, width, name of the column; a Tracker4 lists them before its tracks
    "5 1 20 enable e", "3 1 75 name name", "2 1 58 track_x track_x", "2 1 58 track_y track_y",
    "2 1 63 offset_x offset_x", "2 1 63 offset_y offset_y", "4 1 27 T T", "4 1 27 R R", "4 1 27 S S",
    "2 0 45 error error", "1 1 0 error_min error_min", "1 1 0 error_max error_max",
    *(f"1 1 0 {box}_{side} {box}_{side}" for box in ("pattern", "search") for side in "xyrt"),
    "2 1 0 key_track key_track",
    *(f"2 1 0 key_{box}_{side} key_{box}_{side}" for box in ("search", "track") for side in "xyrt"),
    *(f"2 1 0 key_centre_offset_{axis} key_centre_offset_{axis}" for axis in "xy"),
)  # fmt: skip
_BOXES = "1 0 -32 -32 32 32 -22 -22 22 22"  # error_min, error_max, and Nuke's own pattern and search boxes
_NUM_KEYED = 11  # the columns from key_track on, which only Nuke's own tracking fills
_UNKNOWN_RATE = Fraction(24)


def to_nuke(tracks: TrackSet) -> str:
    """A Nuke script with one Tracker4 node."""
    xy, first = pixel_to_lower_left(tracks.xy, tracks.size), tracks.first_frame
    rows = []
    for row, name in enumerate(tracks.names):
        runs = runs_of(tracks.seen[row])
        x, y = (_curve(xy[row, :, axis], runs, first) for axis in (0, 1))
        off = f"{{curve K x{first} 0}}"
        keys = " ".join(["{}"] * _NUM_KEYED)
        rows.append(f' {{ {_enable(runs, tracks.seen.shape[1], first)} "{name}" {x} {y} {off} {off} 1 0 0 '
                    f"{{curve x{first} 0}} {_BOXES} {keys} }}")  # fmt: skip
    columns = "\n".join(f" {{ {column} 1 }}" for column in _COLUMNS)
    center = f"{tracks.size[0] / 2:g} {tracks.size[1] / 2:g}"
    return "\n".join([
        "set cut_paste_input [stack 0]", "version 12.0 v1", "push $cut_paste_input", "Tracker4 {",
        f" tracks {{ {{ 1 {len(_COLUMNS)} {len(tracks.names)} }}", "{", columns, "}", "{", *rows, "}", "}",
        f" reference_frame {first}", f" center {{{center}}}", " name TrackEverything1", " selected true", "}", "",
    ])  # fmt: skip


def to_after_effects(tracks: TrackSet) -> str:
    """After Effects' keyframe data."""
    frames, xy = tracks.clip_frames(0), pixel_to_raster(tracks.xy)
    rate = exact_frame_rate(tracks.fps) or _UNKNOWN_RATE
    lines = [
        "Adobe After Effects 8.0 Keyframe Data", "", f"\tUnits Per Second\t{float(rate):.10g}",
        f"\tSource Width\t{tracks.size[0]}", f"\tSource Height\t{tracks.size[1]}",
        f"\tSource Pixel Aspect Ratio\t{tracks.pixel_aspect:.6g}",
        f"\tComp Pixel Aspect Ratio\t{tracks.pixel_aspect:.6g}", "",
    ]  # fmt: skip
    for row in range(len(tracks.names)):
        lines += [f"Effects\tPoint Control #{row + 1}\tPoint #2", "\tFrame\tX pixels\tY pixels"]
        lines += [f"\t{frames[t]}\t{xy[row, t, 0]:.4f}\t{xy[row, t, 1]:.4f}" for t in np.flatnonzero(tracks.seen[row])]
        lines.append("")
    return "\r\n".join([*lines, "", "End of Keyframe Data", ""])


def _curve(values: np.ndarray, runs: list[range], first: int) -> str:
    """A curve with a key at every frame of the runs; values follow each other from the last ``x<frame>`` on."""
    keys = (f"x{first + run.start} " + " ".join(f"{values[t]:.4f}" for t in run) for run in runs)
    return "{curve " + " ".join(keys) + "}"


def _enable(runs: list[range], num_frames: int, first: int) -> str:
    """A curve of steps: 1 while the point is seen, else 0."""
    steps = {} if runs[0].start == 0 else {0: 0}
    for run in runs:
        steps[run.start] = 1
        if run.stop < num_frames:
            steps[run.stop] = 0
    return "{curve K " + " ".join(f"x{first + t} {value}" for t, value in steps.items()) + "}"
