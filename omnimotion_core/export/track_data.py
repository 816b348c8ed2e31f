"""2D tracks for scripts and for scenes: JSON, CSV and USD. Needs numpy alone.

JSON and CSV hold every frame, with the estimate also where a point is hidden, which ``visible`` tells: positions are
pixels of the plate, (x, y), y down, (0, 0) the centre of the top-left pixel; frames are the source's numbers.

USD: text (``.usda``) with one ``Points`` prim, in a unit a pixel: x right, y up, the picture's bottom-left corner is
the origin, z = 0; time codes are the source's frame numbers. Points cannot come and go in USD, so a hidden one has
width 0, and ``primvars:visible`` 0. It is written by hand: the layer is a handful of arrays, and USD's library is a
wheel of 30 MB with a release for few platforms.
"""

import json
from collections.abc import Iterable

import numpy as np

from omnimotion_core.coordinates import pixel_to_lower_left
from omnimotion_core.export.frame_rate import exact_frame_rate
from omnimotion_core.export.track_set import TrackSet

FORMAT, VERSION = "omnimotion.tracks", 1


def to_json(tracks: TrackSet) -> str:
    """One object; ``tracks`` has for each track its name and lists over the frames."""
    first, last = int(tracks.numbers[0]), int(tracks.numbers[-1])
    content = {
        "format": FORMAT, "version": VERSION, "size": list(tracks.size), "pixel_aspect": tracks.pixel_aspect,
        "fps": tracks.fps, "frames": [first, last],
        "tracks": [
            {
                "name": name,
                "xy": [[round(x, 4), round(y, 4)] for x, y in tracks.xy[row].tolist()],
                "visible": tracks.seen[row].tolist(),
                "confidence": [round(value, 4) for value in tracks.confidence[row].tolist()],
            }
            for row, name in enumerate(tracks.names)
        ],
    }  # fmt: skip
    return json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"


def to_csv(tracks: TrackSet) -> str:
    """A header line, then a line for each track and frame."""
    lines = ["track,frame,x,y,visible,confidence"]
    frames = tracks.numbers.tolist()
    for row, name in enumerate(tracks.names):
        rows = zip(frames, tracks.xy[row].tolist(), tracks.seen[row].tolist(), tracks.confidence[row].tolist(),
                   strict=True)  # fmt: skip
        lines += [f"{name},{frame},{x:.4f},{y:.4f},{visible:d},{sure:.4f}" for frame, (x, y), visible, sure in rows]
    return "\n".join([*lines, ""])


def to_usd(tracks: TrackSet) -> str:
    """A USD layer with the prim ``/Tracks``."""
    xy, frames = pixel_to_lower_left(tracks.xy, tracks.size), tracks.numbers.tolist()
    rate = exact_frame_rate(tracks.fps)
    rates = [f"    {name} = {float(rate):.10g}" for name in ("framesPerSecond", "timeCodesPerSecond") if rate]
    names = ", ".join(f'"{name}"' for name in tracks.names)
    times = range(len(frames))
    points = (", ".join(f"({x:.4f}, {y:.4f}, 0)" for x, y in xy[:, t].tolist()) for t in times)
    extent = (_extent(xy[:, t]) for t in times)
    widths = (", ".join("1" if seen else "0" for seen in tracks.seen[:, t].tolist()) for t in times)
    visible = (", ".join("1" if seen else "0" for seen in tracks.seen[:, t].tolist()) for t in times)
    confidence = (", ".join(f"{value:.4f}" for value in tracks.confidence[:, t].tolist()) for t in times)
    vertex = ' (\n        interpolation = "vertex"\n    )'
    return "\n".join([
        "#usda 1.0", "(", '    defaultPrim = "Tracks"', f"    startTimeCode = {frames[0]}",
        f"    endTimeCode = {frames[-1]}", *rates, "    metersPerUnit = 1", '    upAxis = "Y"', ")", "",
        'def Points "Tracks"', "{",
        f"    custom int2 te:size = ({tracks.size[0]}, {tracks.size[1]})",
        f"    custom double te:pixelAspectRatio = {tracks.pixel_aspect:.9g}",
        f"    int64[] ids = [{', '.join(str(row) for row in range(len(tracks.names)))}]",
        f"    string[] primvars:name = [{names}]{vertex}",
        _samples("float3[] extent", frames, extent),
        _samples("point3f[] points", frames, points),
        _samples("float[] widths", frames, widths),
        f"    int[] primvars:visible{vertex}",
        _samples("int[] primvars:visible", frames, visible),
        f"    float[] primvars:confidence{vertex}",
        _samples("float[] primvars:confidence", frames, confidence),
        "}", "",
    ])  # fmt: skip


def _samples(attribute: str, frames: list[int], arrays: Iterable[str]) -> str:
    values = "".join(f"        {frame}: [{array}],\n" for frame, array in zip(frames, arrays, strict=True))
    return f"    {attribute}.timeSamples = {{\n{values}    }}"


def _extent(xy: np.ndarray) -> str:
    """The box around the points, half a width wider."""
    low, high = xy.min(axis=0) - 0.5, xy.max(axis=0) + 0.5
    return f"({low[0]:.4f}, {low[1]:.4f}, -0.5), ({high[0]:.4f}, {high[1]:.4f}, 0.5)"
