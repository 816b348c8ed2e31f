"""The tracks that a text file for another program holds, before they take that program's shape. Needs numpy alone."""

from dataclasses import dataclass

import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import ExportError
from omnimotion_core.export.selection import choose_tracks, track_name, usable
from omnimotion_core.trajectories.tracks import Tracks


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackSet:
    """N tracks over T frames, and what files for other programs tell of their clip."""

    names: tuple[str, ...]  # letters and digits alone, unique: every program takes them as they are
    xy: np.ndarray  # (N, T, 2) float64, pixels of the plate, y down; finite, also where a point is hidden
    seen: np.ndarray  # (N, T) bool: visible and on the picture
    confidence: np.ndarray  # (N, T) float64, 0..1
    size: Size  # of the plate
    first_frame: int  # the source's number of t = 0
    clip_offset: int  # frames of the clip before t = 0
    fps: float  # 0 where unknown
    pixel_aspect: float

    @property
    def numbers(self) -> np.ndarray:
        """(T,) the source's frame numbers."""
        return self.first_frame + np.arange(self.seen.shape[1])

    def clip_frames(self, first: int) -> np.ndarray:
        """(T,) frame numbers of a program that calls the clip's first frame ``first``."""
        return first + self.clip_offset + np.arange(self.seen.shape[1])


def choose_track_set(tracks: Tracks, count: int, *, clip_offset: int, pixel_aspect: float) -> TrackSet:
    """The best ``count`` tracks, those that ``markers.json`` holds for the same count.

    Args:
        clip_offset: frames of the clip before the first tracked one.
        pixel_aspect: width of a plate's pixel divided by its height.
    Raises:
        ExportError: no track is seen in two frames.
    """
    rows = choose_tracks(tracks, count)
    if not len(rows):
        raise ExportError("no track is seen in two frames", "track another part of the clip, or mask less of it")
    seen = usable(tracks)[rows]
    return TrackSet(
        names=tuple(track_name(int(row)) for row in rows),
        xy=_finite(tracks.positions[rows].astype(np.float64), seen),
        seen=seen,
        confidence=np.clip(np.nan_to_num(tracks.confidence[rows].astype(np.float64)), 0.0, 1.0),
        size=tracks.size,
        first_frame=tracks.first_frame,
        clip_offset=clip_offset,
        fps=tracks.fps if np.isfinite(tracks.fps) else 0.0,
        pixel_aspect=pixel_aspect,
    )


def runs_of(seen: np.ndarray) -> list[range]:
    """The runs of frames in which ``seen`` (T,) is true, as ranges of t."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
    return [range(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _finite(xy: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Positions with what is not finite, which only a hidden point can be, replaced by the nearest seen one."""
    for row, t in np.argwhere(~np.isfinite(xy).all(axis=-1)):
        shown = np.flatnonzero(seen[row])
        xy[row, t] = xy[row, shown[np.abs(shown - t).argmin()]]
    return xy
