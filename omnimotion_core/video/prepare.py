"""The one pass over the footage that makes the frame cache, from which every later stage reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omnimotion_core.config import VideoConfig
from omnimotion_core.coordinates import Size
from omnimotion_core.errors import ClipError
from omnimotion_core.events import Reporter
from omnimotion_core.files import write_atomically
from omnimotion_core.video.cache import clear_cache, save_clip
from omnimotion_core.video.clip import Clip
from omnimotion_core.video.content import check_content, thumbnail
from omnimotion_core.video.cuts import find_cuts
from omnimotion_core.video.frames import SourceFrame, read_frames
from omnimotion_core.video.source import Source

MIN_SIDE = 16  # pixels of the working frames
_UNEVEN = 0.25  # an interval that departs by more of the usual one makes the rate variable


def prepare(source: Source, folder: Path, config: VideoConfig, reporter: Reporter) -> Clip:
    """Decode the tracked frames once, in order, into ``folder``.

    Writes 000000.png and on (16-bit display-referred RGB at working size), with a mask also 000000.mask.png, and last
    frames.json. A cache that is there already is made anew; on any failure the folder is left without one.

    Args:
        source: as ``identify`` found it with the same ``config``.
        folder: the frame cache.
        config: working size and limits.
        reporter: hears of progress, variable frame rate, interlacing and cuts.
    Raises:
        ClipError: the footage breaks off, changes its size, is too short, or shows nothing to track.
        RunError: the folder cannot be written.
        Cancelled: the reporter was asked to stop.
    """
    clear_cache(folder)
    try:
        return _pass_over(source, folder, config, reporter)
    except BaseException:
        clear_cache(folder)
        raise


def _pass_over(source: Source, folder: Path, config: VideoConfig, reporter: Reporter) -> Clip:
    frames: list[SourceFrame] = []  # without their pictures
    thumbnails: list[np.ndarray] = []
    size: Size = (0, 0)
    masked = False
    for t, frame in enumerate(read_frames(source)):
        if t >= config.max_frames:
            raise ClipError(f"{source.path} holds more than {config.max_frames} frames",
                            "choose a part with frames A-B, or raise video.max_frames")
        size = (frame.rgb.shape[1], frame.rgb.shape[0])
        picture = shrink(frame.rgb, working_size(size, config.long_side))
        write_png(folder / f"{t:06d}.png", picture[..., ::-1])
        thumbnails.append(thumbnail(picture))
        if source.mask is not None:
            matte = source.mask.read(frame.number, (picture.shape[1], picture.shape[0]))
            masked = masked or bool((matte >= 128).any())
            write_png(folder / f"{t:06d}.mask.png", matte)
        frames.append(_without_picture(frame))
        reporter.progress("prepare", t + 1, max(source.expected_frames, t + 1))
    _check_count(source, frames)
    reporter.progress("prepare", len(frames), len(frames))  # a header may have promised more
    if source.mask is not None and not masked:
        raise ClipError(f"the mask {source.mask.path} is black in all frames", "paint white what is to be tracked")
    check_content(source.name, thumbnails)
    cuts = find_cuts(thumbnails)
    aspect = 1 / source.pixel_aspect if frames[0].transposed else source.pixel_aspect
    clip = Clip(
        folder=folder, name=source.name, path=source.path, sha256=source.sha256, size=size,
        working_size=working_size(size, config.long_side), num_frames=len(frames), first_frame=source.first_frame,
        clip_first_frame=source.clip_first_frame, fps=source.fps, pixel_aspect=aspect, cuts=cuts,
        has_mask=source.mask is not None, is_sequence=source.is_sequence,
    )  # fmt: skip
    _warn(clip, source, frames, reporter)
    save_clip(clip, [_entry(frame, source) for frame in frames])
    return clip


def working_size(size: Size, long_side: int) -> Size:
    """The working frames' (width, height): the longer side at most ``long_side``, never enlarged, no side below 16.

    Raises:
        ClipError: the plate itself is smaller.
    """
    if min(size) < MIN_SIDE:
        raise ClipError(f"the picture is {size[0]}x{size[1]}", f"give footage of at least {MIN_SIDE} px a side")
    scale = min(1.0, long_side / max(size))
    return max(MIN_SIDE, round(size[0] * scale)), max(MIN_SIDE, round(size[1] * scale))


def shrink(picture: np.ndarray, size: Size) -> np.ndarray:
    """A picture (H, W, 3) uint16 averaged down to ``size`` (width, height), edges on edges."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG, (h, w) grey or (h, w, 3) BGR, 8 or 16 bit, lightly compressed."""
    whole, data = cv2.imencode(".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert whole, pixels.shape
    with write_atomically(path) as temporary:
        temporary.write_bytes(data.tobytes())


def blender_frame(seconds: float, fps: float) -> int:
    """The clip frame, from 1, at which Blender shows a picture of that time: it counts time at a constant rate."""
    return round(seconds * fps) + 1


def _without_picture(frame: SourceFrame) -> SourceFrame:
    return SourceFrame(
        number=frame.number, rgb=np.empty((0, 0, 3), np.uint16), name=frame.name, seconds=frame.seconds,
        pts=frame.pts, repeated=frame.repeated, transposed=frame.transposed, interlaced=frame.interlaced,
    )  # fmt: skip


def _entry(frame: SourceFrame, source: Source) -> dict[str, Any]:
    entry: dict[str, Any] = {"number": frame.number, "source": frame.name, "seconds": round(frame.seconds, 6)}
    if source.is_sequence:
        return {**entry, "repeated": frame.repeated}
    return {**entry, "pts": frame.pts, "blender_frame": blender_frame(frame.seconds, source.fps)}


def _check_count(source: Source, frames: Sequence[SourceFrame]) -> None:
    last = source.last_frame
    if last is not None and (not frames or frames[-1].number < last):
        held = frames[-1].number if frames else f"fewer than {source.first_frame}"
        raise ClipError(f"{source.path} holds {held} frames and frames {source.first_frame}-{last} were asked for",
                        "choose frames that the movie holds")
    if len(frames) < 2:
        raise ClipError(f"{source.path} holds {len(frames)} frame", "choose a clip of two frames or more")


def _warn(clip: Clip, source: Source, frames: Sequence[SourceFrame], reporter: Reporter) -> None:
    repeated = [frame.number for frame in frames if frame.repeated]
    if repeated:
        reporter.warning(f"{len(repeated)} missing files of {clip.name} are replaced by the frame before, from "
                         f"{repeated[0]} on; Blender ends an image sequence at its first gap")
    if any(frame.interlaced for frame in frames):
        reporter.warning(f"{clip.name} is interlaced; deinterlace it for better tracks")
    if not source.is_sequence and _varies(frames):
        late = max(frames, key=lambda frame: abs(blender_frame(frame.seconds, clip.fps) - frame.number))
        reporter.warning(
            f"{clip.name} has a variable frame rate: every coded frame is tracked once and counted as stored, while "
            f"Blender counts time at {clip.fps:.3f} fps, so that frame {late.number} is Blender's frame "
            f"{blender_frame(late.seconds, clip.fps)} (blender_frame in frames.json); convert the movie to a constant "
            "rate before using the tracks there"
        )
    if clip.cuts:
        listed = ", ".join(str(clip.first_frame + t) for t in clip.cuts[:10]) + (" ..." if len(clip.cuts) > 10 else "")
        reporter.warning(f"{clip.name} has {len(clip.cuts)} hard cut(s), a new shot begins at frame {listed}; "
                         "each shot is tracked on its own")


def _varies(frames: Sequence[SourceFrame]) -> bool:
    intervals = np.diff([frame.seconds for frame in frames])
    usual = float(np.median(intervals))
    return usual <= 0 or bool((np.abs(intervals - usual) > _UNEVEN * usual).any())
