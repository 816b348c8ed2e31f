"""Movies by one sequential decode; the only module that knows PyAV.

Nothing is ever sought: frame n is the n-th picture that the decoder hands out, which is what Blender shows at
constant rate and what seeking readers miss in streams with reordered frames, variable rate or transport streams.
Only containers that hold their own pictures are opened: lists and URLs could make the decoder open other files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from omnimotion_core.errors import ClipError
from omnimotion_core.video.color import over_black
from omnimotion_core.video.picture import MAX_SIDE

MOVIE_SUFFIXES = (  # by which a folder's movies are known; a movie that is named may end as it likes
    ".mov", ".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mxf", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".ogv", ".3gp",
)  # fmt: skip
_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": f"{_MOV},matroska,webm,avi,mxf,mpegts,mpeg,ogg"}
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_MATRICES = {  # AVColorSpace to swscale's tables
    1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020, 10: Colorspace.BT2020,
}  # fmt: skip
_HD_HEIGHT = 720  # untagged pictures of this height or more follow BT.709, smaller ones BT.601
_EXACT = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)  # fmt: skip  # without these an 8-bit picture is up to 3/255 off


@dataclass(frozen=True, kw_only=True)
class MovieFacts:
    """What a movie's headers tell."""

    fps: float
    pixel_aspect: float  # of the stored picture: width of a pixel divided by its height
    expected_frames: int  # 0: not told


@dataclass(frozen=True, eq=False, kw_only=True)
class MovieFrame:
    """One decoded picture, upright."""

    number: int  # counted from 1
    rgb: np.ndarray  # (H, W, 3) uint16, display-referred
    pts: int | None  # as the container stores it
    seconds: float  # since the movie's first picture
    transposed: bool  # a rotation tag exchanged width and height
    interlaced: bool


def read_movie_facts(path: Path) -> MovieFacts:
    """Read the headers.

    Raises:
        ClipError: this is no movie, holds no picture track, or is larger than the caps.
    """
    with _open(path) as (container, stream):
        aspect = stream.sample_aspect_ratio
        return MovieFacts(
            fps=_frame_rate(stream), pixel_aspect=float(aspect) if aspect else 1.0,
            expected_frames=_expected_frames(container, stream),
        )  # fmt: skip


def decode_movie(path: Path, first: int = 1, last: int | None = None) -> Iterator[MovieFrame]:
    """The movie's pictures from number ``first`` to ``last`` (None: to the end), in the order they are shown.

    Raises:
        ClipError: the movie cannot be opened, or breaks off or is damaged before ``last``.
    """
    with _open(path) as (container, stream):
        fps, start, number, end = _frame_rate(stream), 0.0, 0, 0.0
        promised = len(stream.index_entries) if container.format.name == _MOV else 0
        packets = _Packets(container, stream)

        def shortage() -> str:
            """What is told but not there; nothing while all may be."""
            if packets.damage or packets.count < promised:
                return packets.damage or f"{promised - packets.count} of {promised} pictures are missing from the file"
            declared = _duration(container, stream)
            # A frame's length is seldom stored outside MOV, so the last one may be longer than it seems.
            is_short = not promised and declared - end > max(0.25, 2.5 / fps)
            return f"{declared:.2f} s are declared, {end:.2f} s are there" if is_short else ""

        for frame in packets:
            seconds = _seconds(frame, number + 1, fps)
            if packets.is_ending and number and seconds - start > end + 0.5 / fps and shortage():
                break  # pictures that are shown before this one come after it in the file, and are lost
            number += 1
            start = seconds if number == 1 else start
            end = max(end, seconds - start + max(1 / fps, _length(frame)))
            if number >= first:
                yield _picture(frame, number, seconds - start)
            if number == last:
                return
        if number == 0 and not packets.damage:
            raise ClipError(f"{path} holds no picture that can be decoded", "choose another movie, or convert it")
        if reason := shortage():
            raise _broken(path, number, reason)


class _Packets:
    """Decoded frames of a stream; afterwards ``count`` packets were read and ``damage`` tells what ended it early.

    ``is_ending`` once nothing more is read and the decoder gives what it still holds.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.container, self.stream = container, stream
        self.count, self.damage, self.is_ending = 0, "", False

    def __iter__(self) -> Iterator[VideoFrame]:
        started = False
        try:
            for packet in self.container.demux(self.stream):
                if packet.is_corrupt and started:
                    self.damage = "a picture is cut off"
                    break
                self.count += packet.size > 0
                self.is_ending = packet.size == 0
                for frame in packet.decode():
                    started = True
                    if frame.is_corrupt:
                        self.damage = "a picture is damaged"
                        return
                    yield frame
            else:
                return
        except av.FFmpegError as error:
            self.damage = error.strerror or "decoder error"
        yield from self._rest()

    def _rest(self) -> Iterator[VideoFrame]:
        """Whole pictures that the decoder still holds when a later one turned out damaged."""
        self.is_ending = True
        try:
            for frame in self.stream.codec_context.decode(None):
                if not frame.is_corrupt:
                    frame.time_base = frame.time_base or self.stream.time_base  # the decoder alone does not know it
                    yield frame
        except av.FFmpegError:
            return  # the first damage is the one to tell


def _broken(path: Path, readable: int, reason: str) -> ClipError:
    remedy = f"choose frames within 1-{readable}, or get a whole copy" if readable > 1 else "get a whole copy"
    return ClipError(f"{path} is damaged or cut short: {readable} frames can be read ({reason})", remedy)


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its picture track."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
        if empty:
            raise ClipError(f"{path} is empty (0 bytes)", "choose another file")
        container = av.open(str(path), metadata_errors="replace", container_options=_OPTIONS)
    except av.FFmpegError as error:
        raise ClipError(
            f"{path} is not a movie that can be read ({error.strerror})",
            "give a whole MOV, MP4, MKV, WebM, AVI, MXF or MPEG file, or an image sequence",
        ) from error
    except OSError as error:
        raise ClipError(f"{path} cannot be read ({error.strerror})", "check the file and its permissions") from error
    with container:
        tracks = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not tracks:
            raise ClipError(f"{path} holds no moving picture", "choose a movie with a picture track")
        stream = tracks[0]
        context = stream.codec_context
        if max(context.width, context.height) > MAX_SIDE:
            raise ClipError(f"{path} is {context.width}x{context.height}, at most {MAX_SIDE} px a side are read",
                            "shrink the movie")
        yield container, stream


def _frame_rate(stream: VideoStream) -> float:
    """The constant rate, or the one that libav guesses and Blender goes by where the rate varies."""
    for rate in (stream.guessed_rate, stream.average_rate):
        if rate and 1 <= rate <= 1000:
            return float(rate)
    return 24.0


def _duration(container: InputContainer, stream: VideoStream) -> float:
    """Seconds that the headers promise; 0 where they do not."""
    if "mpeg" in container.format.name:  # transport and program streams: guessed from what is there
        return 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "").split(":")  # Matroska's, one a track
    try:
        if len(tag) == 3:
            return 3600 * int(tag[0]) + 60 * int(tag[1]) + float(tag[2])
    except ValueError:
        pass  # free text: anything may stand there
    alone = len(container.streams) == 1  # else the sound may be longer than the picture
    return float(container.duration * Fraction(1, av.time_base)) if container.duration and alone else 0.0


def _expected_frames(container: InputContainer, stream: VideoStream) -> int:
    if container.format.name == _MOV and len(stream.index_entries):
        return len(stream.index_entries)
    return round(_duration(container, stream) * _frame_rate(stream))


def _seconds(frame: VideoFrame, number: int, fps: float) -> float:
    if frame.pts is None or not frame.time_base:  # AVI stores none
        return (number - 1) / fps
    return float(frame.pts * frame.time_base)


def _length(frame: VideoFrame) -> float:
    """Seconds that the frame is shown; 0 where that is not told."""
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0


def _picture(frame: VideoFrame, number: int, seconds: float) -> MovieFrame:
    upright, transposed = _upright(_rgb(frame), _display_matrix(frame))
    return MovieFrame(
        number=number, rgb=upright, pts=frame.pts, seconds=seconds, transposed=transposed,
        interlaced=frame.interlaced_frame,
    )  # fmt: skip


def _rgb(frame: VideoFrame) -> np.ndarray:
    """The stored picture as (H, W, 3) uint16, laid over black where it has alpha.

    YUV goes by its tagged matrix and range; untagged HD is BT.709, which swscale's default is not.
    """
    space = frame.colorspace
    if space == _UNSPECIFIED:
        matrix = Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601
    else:
        matrix = _MATRICES.get(space, Colorspace.ITU709)
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") or frame.format.is_rgb
    has_alpha = any(component.is_alpha for component in frame.format.components)
    converted = frame.reformat(
        format="rgba64le" if has_alpha else "rgb48le", interpolation=int(_EXACT),
        src_colorspace=int(matrix), dst_colorspace=int(matrix),
        src_color_range=int(ColorRange.JPEG if full else ColorRange.MPEG), dst_color_range=int(ColorRange.JPEG),
    )  # fmt: skip
    pixels = np.asarray(converted.to_ndarray())
    return over_black(pixels[..., :3], pixels[..., 3]) if has_alpha else pixels


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the rotation tag: a stored point (x, y) is shown at (a x + c y, b x + d y)."""
    side_data: Any = frame.side_data  # by index only: lookup by kind and iteration trip over kinds it does not know
    for entry in (side_data[index] for index in range(len(side_data))):
        if entry.type is SideDataType.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(entry), np.int32)[:5].tolist()
            return a, b, c, d
    return 1, 0, 0, 1


def _upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> tuple[np.ndarray, bool]:
    """The picture turned in quarter turns and mirrored as the matrix tells, and whether its sides changed places."""
    a, b, c, d = matrix
    transposed = abs(b) > abs(a)
    if transposed:
        picture, flip_x, flip_y = picture.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    picture = picture[:, ::-1] if flip_x else picture
    picture = picture[::-1] if flip_y else picture
    return np.ascontiguousarray(picture), transposed
