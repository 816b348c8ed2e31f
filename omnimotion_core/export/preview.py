"""A movie that shows what was tracked: trails over the plate, playable in a browser."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from omnimotion_core.errors import ExportError, RunError
from omnimotion_core.events import Reporter
from omnimotion_core.export.colors import position_color
from omnimotion_core.export.drawing import Canvas, draw_tracks, drawable, fit_canvas
from omnimotion_core.export.frame_rate import exact_frame_rate
from omnimotion_core.export.selection import choose_tracks, first_seen
from omnimotion_core.files import write_atomically
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip

TRAIL_FRAMES = 12
MAX_TRACKS = 400  # more of them hide the plate
_MIN_HEIGHT, _MAX_SIDE = 480, 1920
_DEFAULT_RATE = Fraction(24)


def write_preview(
    clip: Clip, tracks: Tracks, path: Path, *, reporter: Reporter, max_tracks: int = MAX_TRACKS
) -> None:
    """Write an H.264 movie (``.mp4``, square pixels) of the clip with its tracks, as a whole or not at all.

    Each track has a color by where it begins, a trail of its last ``TRAIL_FRAMES`` frames, and a dot where it is
    seen or a ring where it is hidden. Nothing is drawn off the frame or beyond the track's own shot.

    Args:
        path: ends in ``.mp4``.
        reporter: hears stage "export" frame by frame.
        max_tracks: so many are drawn; ``choose_tracks`` says which.
    Raises:
        ExportError: the movie cannot be written.
        Cancelled: the user asked to stop; nothing is left.
    """
    chosen = tracks.select(choose_tracks(tracks, max_tracks))
    canvas = fit_canvas(clip, min_height=_MIN_HEIGHT, max_side=_MAX_SIDE, even=True)
    try:
        with write_atomically(path) as temporary:
            _encode(temporary, canvas.size, exact_frame_rate(clip.fps) or _DEFAULT_RATE,
                    _pictures(clip, chosen, canvas, reporter))
    except RunError as error:
        raise ExportError(error.problem, error.remedy) from error
    except av.FFmpegError as error:
        raise ExportError(f"{path} cannot be written ({error})", "free some disk space") from error


def _pictures(clip: Clip, tracks: Tracks, canvas: Canvas, reporter: Reporter) -> Iterator[np.ndarray]:
    drawn = drawable(clip, tracks)
    colors = position_color(first_seen(tracks), tracks.size)
    for t in range(clip.num_frames):
        yield draw_tracks(canvas, clip.rgb8(t), tracks, t, colors=colors, drawn=drawn, trail=TRAIL_FRAMES)
        reporter.progress("export", t + 1, clip.num_frames)


def _encode(path: Path, size: tuple[int, int], rate: Fraction, pictures: Iterator[np.ndarray]) -> None:
    """Pictures (H, W, 3) uint8 RGB as H.264; faststart puts the index first, so that browsers play at once."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream: VideoStream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"  # the one that every browser decodes
        stream.options = {"crf": "18", "preset": "veryfast", "threads": "1"}  # one thread: the same bits everywhere
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries = context.color_trc = 1  # BT.709, said so that no player guesses
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
