"""2D tracks as text for other programs: which there are, and their files. Needs numpy alone.

Every file holds the tracks that ``markers.json`` would hold, under the same names, so that a track can be found again
in any program. What a format says of gaps, half pixels, axes and frame numbers stands where it is written:
``track_matchmove``, ``track_compositing``, ``track_data``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from omnimotion_core.errors import ExportError
from omnimotion_core.export.track_compositing import to_after_effects, to_nuke
from omnimotion_core.export.track_data import to_csv, to_json, to_usd
from omnimotion_core.export.track_matchmove import to_3dequalizer, to_mmsolver, to_pftrack, to_syntheyes
from omnimotion_core.export.track_set import TrackSet, choose_track_set
from omnimotion_core.files import write_atomically
from omnimotion_core.trajectories.tracks import Tracks


@dataclass(frozen=True, kw_only=True)
class TrackFormat:
    """How one program wants tracks."""

    ending: str  # of its files' names, after the clip's
    to_text: Callable[[TrackSet], str]


TRACK_FORMATS: Mapping[str, TrackFormat] = {
    "nuke": TrackFormat(ending=".nuke.nk", to_text=to_nuke),
    "3de": TrackFormat(ending=".3de.txt", to_text=to_3dequalizer),
    "syntheyes": TrackFormat(ending=".syntheyes.txt", to_text=to_syntheyes),
    "pftrack": TrackFormat(ending=".pftrack.2dt", to_text=to_pftrack),
    "ae": TrackFormat(ending=".ae.txt", to_text=to_after_effects),
    "mmsolver": TrackFormat(ending=".mmsolver.uv", to_text=to_mmsolver),
    "json": TrackFormat(ending=".tracks.json", to_text=to_json),
    "csv": TrackFormat(ending=".tracks.csv", to_text=to_csv),
    "usd": TrackFormat(ending=".tracks.usda", to_text=to_usd),
}


def track_file_name(clip_name: str, program: str) -> str:
    """``<clip>.nuke.nk`` and so on; ``clip_name`` is safe in file names."""
    return f"{clip_name}{TRACK_FORMATS[program].ending}"


def write_track_text(
    tracks: Tracks, path: Path, program: str, *, max_tracks: int, clip_offset: int, pixel_aspect: float
) -> None:
    """Write the best tracks for one program, as a whole file or not at all.

    Args:
        program: one of ``TRACK_FORMATS``.
        max_tracks: at most so many; ``choose_tracks`` says which. Nuke's Tracker becomes slow beyond some hundred.
        clip_offset: frames of the clip before the first tracked one.
        pixel_aspect: width of a plate's pixel divided by its height.
    Raises:
        ExportError: the program is unknown, or no track is seen in two frames.
        RunError: the file cannot be written.
    """
    if program not in TRACK_FORMATS:
        raise ExportError(f"{program!r} is no program that tracks are written for",
                          f"use one of {', '.join(TRACK_FORMATS)}")
    chosen = choose_track_set(tracks, max_tracks, clip_offset=clip_offset, pixel_aspect=pixel_aspect)
    text = TRACK_FORMATS[program].to_text(chosen)
    with write_atomically(path) as temporary:
        temporary.write_bytes(text.encode("ascii"))  # as bytes: Windows would turn CR LF into CR CR LF
