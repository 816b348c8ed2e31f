"""The footage as a stream of display-referred pictures, whichever kind it is."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnimotion_core.errors import ClipError
from omnimotion_core.video.color import display_from_linear, find_white, over_black
from omnimotion_core.video.movie import decode_movie
from omnimotion_core.video.picture import Picture, PictureFacts, read_picture
from omnimotion_core.video.sequence import FrameFile
from omnimotion_core.video.source import Source

_EXPOSURE_FRAMES = 5  # frames spread over a float shot that settle its one exposure


@dataclass(frozen=True, eq=False, kw_only=True)
class SourceFrame:
    """One frame of the footage."""

    number: int  # in the footage
    rgb: np.ndarray  # (H, W, 3) uint16, display-referred, over black
    name: str  # of the file it comes from
    seconds: float  # since the clip's first frame
    pts: int | None = None  # of a movie, as stored
    repeated: bool = False  # stands in for a missing file
    transposed: bool = False  # a rotation tag exchanged width and height
    interlaced: bool = False


def read_frames(source: Source) -> Iterator[SourceFrame]:
    """The tracked frames of ``source`` in order, one at a time.

    Raises:
        ClipError: a frame is missing, damaged, or of another size or kind than the first.
    """
    return _movie_frames(source) if source.movie else _sequence_frames(source)


def read_plates(source: Source, numbers: Collection[int]) -> Iterator[tuple[int, Picture]]:
    """Some of the tracked frames as they are stored, in order: number in the footage and picture.

    Raises:
        ClipError: a frame is missing, damaged, or of another size or kind than the first.
    """
    if source.movie:
        for frame in decode_movie(Path(source.path), source.first_frame, max(numbers)) if numbers else ():
            if frame.number in numbers:
                height, width = frame.rgb.shape[:2]
                facts = PictureFacts(size=(width, height), pixel_aspect=source.pixel_aspect, fps=source.fps,
                                     is_float=False, has_alpha=False)
                yield frame.number, Picture(facts=facts, rgb=frame.rgb, alpha=None, premultiplied=True)
        return
    assert source.picture is not None
    for file in source.files:
        if file.number in numbers:
            picture = read_picture(file.path)
            _check_same(file.path, picture.facts, source.picture)
            yield file.number, picture


def _movie_frames(source: Source) -> Iterator[SourceFrame]:
    path, size = Path(source.path), None
    for frame in decode_movie(path, source.first_frame, source.last_frame):
        size = size or frame.rgb.shape
        if frame.rgb.shape != size:
            raise ClipError(
                f"{path} changes from {size[1]}x{size[0]} to {frame.rgb.shape[1]}x{frame.rgb.shape[0]} at frame "
                f"{frame.number}", "choose frames of one size",
            )  # fmt: skip
        yield SourceFrame(
            number=frame.number, rgb=frame.rgb, name=path.name, seconds=frame.seconds, pts=frame.pts,
            transposed=frame.transposed, interlaced=frame.interlaced,
        )  # fmt: skip


def _sequence_frames(source: Source) -> Iterator[SourceFrame]:
    assert source.picture is not None
    white = _white(source.files) if source.picture.is_float else 1.0
    for file in source.files:
        picture = read_picture(file.path)
        _check_same(file.path, picture.facts, source.picture)
        yield SourceFrame(
            number=file.number, rgb=_display(picture, white), name=file.path.name, repeated=file.repeated,
            seconds=(file.number - source.clip_first_frame) / source.fps,
        )  # fmt: skip


def _white(files: tuple[FrameFile, ...]) -> float:
    """One exposure for the whole shot, from frames spread over it: matching wants constant brightness."""
    spread = np.unique(np.linspace(0, len(files) - 1, _EXPOSURE_FRAMES).round().astype(int))
    return find_white(_linear(read_picture(files[t].path)) for t in spread)


def _linear(picture: Picture) -> np.ndarray:
    """Scene-linear values over black."""
    if picture.alpha is None or picture.premultiplied:
        return picture.rgb
    return np.asarray(picture.rgb * np.clip(np.nan_to_num(picture.alpha), 0.0, 1.0)[..., None])


def _display(picture: Picture, white: float) -> np.ndarray:
    if picture.facts.is_float:
        return display_from_linear(_linear(picture), white)
    if picture.alpha is None or picture.premultiplied:
        return picture.rgb
    return over_black(picture.rgb, picture.alpha)


def _check_same(path: Path, facts: PictureFacts, first: PictureFacts) -> None:
    if facts.size != first.size:
        raise ClipError(
            f"{path} is {facts.size[0]}x{facts.size[1]}, the frames before it are {first.size[0]}x{first.size[1]}",
            "give frames of one size",
        )
    if facts.is_float != first.is_float:
        kind = "a float" if facts.is_float else "an integer"
        raise ClipError(f"{path} is {kind} picture and the first frame is not", "give frames of one kind")
