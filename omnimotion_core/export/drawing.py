"""Tracks drawn over the plate: dots, rings and trails, the same bits every time."""

from dataclasses import dataclass

import cv2
import numpy as np

from omnimotion_core.coordinates import Size, inside, rescale_pixels
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip

_SHIFT = 4  # cv2 draws at sixteenths of a pixel
_PLATE_GAIN = 0.82  # the plate a little darker, so that marks stand out on bright footage
_TRAIL_FADE = (0.12, 0.9)  # opacity of the oldest and of the newest piece of a trail
_HIDDEN_FADE = 0.35  # opacity of a trail's hidden pieces, times the fade
_OUTLINE = (0, 0, 0, 150)


@dataclass(frozen=True, eq=False, kw_only=True)
class Canvas:
    """Where plate pixels land on a picture with square pixels."""

    plate: Size
    size: Size  # of the picture

    @property
    def unit(self) -> float:
        """Line widths grow with the picture: 1.0 at 480 pixels on the shorter side."""
        return max(0.75, min(self.size) / 480.0)

    def place(self, xy: np.ndarray) -> np.ndarray:
        """Plate pixels (..., 2) to picture pixels."""
        return np.asarray(rescale_pixels(xy.astype(np.float64), self.plate, self.size))

    def base(self, rgb: np.ndarray) -> np.ndarray:
        """A working frame (h, w, 3) uint8 as the picture's darkened ground."""
        width, height = self.size
        shrinks = width < rgb.shape[1] and height < rgb.shape[0]
        sized = cv2.resize(rgb, self.size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        return cv2.convertScaleAbs(sized, alpha=_PLATE_GAIN)


def fit_canvas(clip: Clip, *, min_height: int, max_side: int, even: bool = False) -> Canvas:
    """A picture of the clip with square pixels: at least ``min_height`` high unless a side would pass ``max_side``."""
    width, height = float(clip.working_size[0]), float(clip.working_size[1])
    shape = clip.size[0] * clip.pixel_aspect / clip.size[1]  # as shown; the plate's own, the working size is rounded
    width, height = (height * shape, height) if shape * height >= width else (width, width / shape)
    scale = min(max(1.0, min_height / height), max_side / max(width, height))
    step = 2 if even else 1
    size = tuple(max(step, round(side * scale / step) * step) for side in (width, height))
    return Canvas(plate=clip.size, size=(size[0], size[1]))


def drawable(clip: Clip, tracks: Tracks) -> np.ndarray:
    """Where a track may be drawn, seen or hidden, (N, T) bool: on the picture, and in its query's shot."""
    drawn = inside(tracks.positions, tracks.size)
    times = np.clip(tracks.queries[:, 0].astype(int), 0, tracks.num_frames - 1)
    shot = np.zeros(tracks.num_frames, int)
    shot[list(clip.cuts)] = 1
    shot = np.cumsum(shot)
    return np.asarray(drawn & (shot[None, :] == shot[times][:, None]))


def draw_tracks(
    canvas: Canvas,
    rgb: np.ndarray,
    tracks: Tracks,
    t: int,
    *,
    colors: np.ndarray,
    drawn: np.ndarray,
    trail: int,
    radius: float = 2.6,
) -> np.ndarray:
    """A picture of frame t with its tracks, (H, W, 3) uint8 RGB.

    Args:
        rgb: the working frame, (h, w, 3) uint8.
        colors: (N, 3) RGB 0..1.
        drawn: (N, T) bool, as ``drawable`` gives it.
        trail: frames of motion drawn behind each point; fainter with age, faint where the point was hidden.
        radius: of a dot, at 480 pixels on the picture's shorter side. Seen points are dots, hidden ones rings.
    """
    # The marks are one premultiplied RGBA layer, laid over the plate once: old trails never cover new ones twice.
    layer = np.zeros((canvas.size[1], canvas.size[0], 4), np.uint8)
    start = max(0, t - trail)
    spots = np.nan_to_num(canvas.place(tracks.positions[:, start : t + 1]))
    fixed = np.round(np.clip(spots, -1e6, 1e6) * (1 << _SHIFT)).astype(np.int32).tolist()  # cv2 takes plain numbers
    now = drawn[:, t]
    thickness = max(1, round(1.3 * canvas.unit))
    for time in range(start, t):
        joined = np.flatnonzero(now & drawn[:, time] & drawn[:, time + 1])
        fade = np.interp(time, (start, max(t - 1, start + 1)), _TRAIL_FADE) if trail > 1 else _TRAIL_FADE[1]
        seen = tracks.visible[:, time] & tracks.visible[:, time + 1]
        inks = _premultiplied(colors, float(fade) * np.where(seen, 1.0, _HIDDEN_FADE))
        for row in joined.tolist():
            one, other = fixed[row][time - start : time - start + 2]
            cv2.line(layer, one, other, inks[row], thickness, cv2.LINE_AA, _SHIFT)
    size = round(radius * canvas.unit * (1 << _SHIFT))
    edge = max(1, round(canvas.unit)) << _SHIFT
    inks = _premultiplied(colors, np.ones(len(colors)))
    for row in np.flatnonzero(now).tolist():
        centre, color = fixed[row][t - start], inks[row]
        if tracks.visible[row, t]:
            cv2.circle(layer, centre, size + edge, _OUTLINE, -1, cv2.LINE_AA, _SHIFT)
            cv2.circle(layer, centre, size, color, -1, cv2.LINE_AA, _SHIFT)
        else:
            cv2.circle(layer, centre, size + edge // 2, color, thickness, cv2.LINE_AA, _SHIFT)
    return _over(layer, canvas.base(rgb))


def _over(layer: np.ndarray, ground: np.ndarray) -> np.ndarray:
    marked = np.flatnonzero(layer[..., 3].any(axis=1))
    for line in marked:  # most lines of a picture are marked, few pixels of a line: no float copy of the whole
        through = 255 - layer[line, :, 3:].astype(np.uint16)
        ground[line] = np.minimum(255, layer[line, :, :3] + (ground[line] * through + 127) // 255)
    return ground


def _premultiplied(colors: np.ndarray, opacity: np.ndarray) -> list[list[float]]:
    """Colors (N, 3) 0..1 as cv2 takes them: RGBA 0..255, each times its opacity (N,)."""
    rgba = np.column_stack([colors.astype(np.float64) * 255.0, np.full(len(colors), 255.0)])
    inks: list[list[float]] = (rgba * opacity[:, None]).tolist()
    return inks
