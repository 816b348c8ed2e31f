"""2D tracks as the text files of programs that solve cameras. Needs numpy alone.

Each has only the frames in which a point is seen: a gap is a jump in the frame numbers. Frames are counted from the
clip's first one, as these programs do, but for mmSolver, which keeps the numbers of the source.

===========  ============================================================  ===========================================
program      a key                                                         positions
===========  ============================================================  ===========================================
3DEqualizer  ``frame x y``, frames from 1                                  pixels, bottom-left corner (0, 0), y up
SynthEyes    ``name frame u v outcome``, frames from 0                     -1..1 between outer pixels' centres, y down
PFTrack 5    ``frame x y residual``, frames from 0; lines end in CR LF     pixels, bottom-left pixel (0, 0), y up
mmSolver     ``frame u v weight``, the source's numbers                    fractions, bottom-left corner (0, 0), y up
===========  ============================================================  ===========================================

Sources: what Tracksperanto (SynthEyes, PFTrack, 3DEqualizer) and mmSolver's own reader take.
"""

from collections.abc import Iterator

import numpy as np

from omnimotion_core.coordinates import (
    pixel_to_centered,
    pixel_to_lower_left,
    pixel_to_marker,
    pixel_to_normalized,
)
from omnimotion_core.export.track_set import TrackSet

_RED = 0  # a point's color in 3DEqualizer
_TRACKED, _KEYED = 7, 15  # SynthEyes' outcomes: bits run 1, enabled 2, usable 4, key 8


def to_3dequalizer(tracks: TrackSet) -> str:
    """The file of *Import 2D Tracks* of 3DEqualizer 4."""
    frames, xy = tracks.clip_frames(1), pixel_to_lower_left(tracks.xy, tracks.size)
    lines = [f"{len(tracks.names)}"]
    for name, row, shown in _rows(tracks):
        lines += [name, f"{_RED}", f"{len(shown)}"]
        lines += [f"{frames[t]} {xy[row, t, 0]:.6f} {xy[row, t, 1]:.6f}" for t in shown]
    return _text(lines)


def to_syntheyes(tracks: TrackSet) -> str:
    """The file of *Import 2-D tracker paths* of SynthEyes, sorted by track, then by frame."""
    frames, uv = tracks.clip_frames(0), pixel_to_normalized(tracks.xy, tracks.size)
    lines = []
    for name, row, shown in _rows(tracks):
        begins = np.append(True, np.diff(shown) > 1)  # SynthEyes wants a key there, or its solves go astray
        lines += [
            f"{name} {frames[t]} {uv[row, t, 0]:.8f} {uv[row, t, 1]:.8f} {_KEYED if begin else _TRACKED}"
            for t, begin in zip(shown, begins, strict=True)
        ]
    return _text(lines)


def to_pftrack(tracks: TrackSet) -> str:
    """The ``.2dt`` file of PFTrack 5 and later, one camera."""
    frames, xy = tracks.clip_frames(0), pixel_to_centered(tracks.xy, tracks.size)
    lines: list[str] = []
    for name, row, shown in _rows(tracks):
        lines += ["", "", f'"{name}"', '"Primary"', f"{len(shown)}"]
        lines += [f"{frames[t]} {xy[row, t, 0]:.3f} {xy[row, t, 1]:.3f} 0.000" for t in shown]
    return _text(lines, "\r\n")


def to_mmsolver(tracks: TrackSet) -> str:
    """The ``.uv`` file, version 1, of mmSolver's *Load Markers*: the weight is the confidence."""
    frames, uv = tracks.numbers, pixel_to_marker(tracks.xy, tracks.size)
    lines = [f"{len(tracks.names)}"]
    for name, row, shown in _rows(tracks):
        lines += [name, f"{len(shown)}"]
        lines += [
            f"{frames[t]} {uv[row, t, 0]:.9f} {uv[row, t, 1]:.9f} {tracks.confidence[row, t]:.4f}" for t in shown
        ]
    return _text(lines)


def _rows(tracks: TrackSet) -> Iterator[tuple[str, int, np.ndarray]]:
    """Each track's name, row and the t at which it is seen."""
    for row, name in enumerate(tracks.names):
        yield name, row, np.flatnonzero(tracks.seen[row])


def _text(lines: list[str], end: str = "\n") -> str:
    return end.join([*lines, ""])
