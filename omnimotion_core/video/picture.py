"""Reads one picture file; the only module that knows OpenImageIO.

The plate is the display window: a cropped or overscanned data window is laid into it, so frames that a renderer
cropped one by one still have one size. An orientation tag is not applied, since compositors and Blender's movie
clips do not apply it to sequences either.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813 - the name all its own examples use

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import ClipError

MAX_SIDE = 16384  # pixels; more is taken for a damaged or hostile header
MAX_CHANNELS = 256
_FORMATS = ("png", "jpeg", "tiff", "openexr", "dpx")
_REMEDY = "replace the file, or leave its frame out"


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """What a picture's header tells."""

    size: Size  # of the display window
    pixel_aspect: float  # width of a pixel divided by its height
    fps: float | None
    is_float: bool
    has_alpha: bool
    is_half: bool = False  # float of 16 bits


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """A picture as stored, straight color values and coverage apart."""

    facts: PictureFacts
    rgb: np.ndarray  # (H, W, 3), uint16 0..65535 or, in float plates, float32 scene-linear
    alpha: np.ndarray | None  # (H, W), the same kind
    premultiplied: bool  # rgb lies over black already


def read_facts(path: Path) -> PictureFacts:
    """Read the header only.

    Raises:
        ClipError: the file is no picture that can be read, or larger than the caps.
    """
    image = _open(path)
    try:
        return _facts(image, _choose_channels(image, path), path)
    finally:
        image.close()


def read_picture(path: Path) -> Picture:
    """Read the color picture of a file: R, G, B wherever they are, else one grey channel; and its alpha.

    Raises:
        ClipError: the file is no picture that can be read, is damaged or larger than the caps.
    """
    image = _open(path)
    try:
        channels = _choose_channels(image, path)
        facts, spec = _facts(image, channels, path), image.spec()
        wanted = [*channels.color, *([channels.alpha] if channels.alpha is not None else [])]
        first, last = min(wanted), max(wanted) + 1
        kind = np.dtype(np.float32 if facts.is_float else np.uint16)
        data = image.read_image(channels.subimage, 0, first, last, oiio.FLOAT if facts.is_float else oiio.UINT16)
        if data is None:
            raise _damaged(path, image.geterror())
        data = np.asarray(data, kind).reshape(spec.height, spec.width, last - first)
        plane = _into_display_window(data, spec)
        rgb = plane[..., [channel - first for channel in channels.color]]
        alpha = plane[..., channels.alpha - first] if channels.alpha is not None else None
        straight = bool(spec.get_int_attribute("oiio:UnassociatedAlpha", 0))
        return Picture(facts=facts, rgb=rgb, alpha=alpha, premultiplied=not straight)
    finally:
        image.close()


def read_channels(path: Path) -> dict[str, np.ndarray]:
    """Read every channel of every part by its name, each (H, W) float32 as stored, unscaled and uncropped.

    For pictures that hold data, such as motion vectors.

    Raises:
        ClipError: the file is no picture that can be read, is damaged or larger than the caps.
    """
    image = _open(path)
    try:
        channels: dict[str, np.ndarray] = {}
        subimage = 0
        while image.seek_subimage(subimage, 0):
            spec = image.spec()
            _check_caps(spec, path)
            data = image.read_image(subimage, 0, 0, spec.nchannels, oiio.FLOAT)
            if data is None:
                raise _damaged(path, image.geterror())
            planes = np.asarray(data, np.float32).reshape(spec.height, spec.width, spec.nchannels)
            for index, name in enumerate(spec.channelnames):
                channels.setdefault(name, np.ascontiguousarray(planes[..., index]))
            subimage += 1
        return channels
    finally:
        image.close()


@dataclass(frozen=True, kw_only=True)
class _Channels:
    subimage: int
    color: tuple[int, int, int]  # channel indices; three times the same: grey
    alpha: int | None


def _open(path: Path) -> oiio.ImageInput:
    try:
        if path.stat().st_size == 0:
            raise ClipError(f"{path} is empty (0 bytes)", _REMEDY)
        with path.open("rb"):
            pass  # tells permission apart from damage
    except OSError as error:
        raise ClipError(f"{path} cannot be read ({error.strerror})", "check the file and its permissions") from error
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in str(path)):  # bytes that are no text; OpenImageIO takes text
        raise ClipError(f"the name {str(path)!a} is not valid UTF-8", "rename the files or their folder")
    hints = oiio.ImageSpec()
    hints.attribute("oiio:UnassociatedAlpha", 1)  # straight values as stored; see over_black
    image = oiio.ImageInput.open(str(path), hints)
    if image is None:
        raise _damaged(path, oiio.geterror())
    if image.format_name() not in _FORMATS:
        kind = image.format_name()
        image.close()
        raise ClipError(f"{path} holds a {kind} picture", "convert it to PNG, JPEG, TIFF, EXR or DPX")
    return image


def _damaged(path: Path, reason: str) -> ClipError:
    detail = f" ({reason.strip().splitlines()[0]})" if reason.strip() else ""
    return ClipError(f"{path} cannot be read as a picture{detail}", _REMEDY)


def _choose_channels(image: oiio.ImageInput, path: Path) -> _Channels:
    """Where the color is: the first part with R, G, B (whatever layer prefix), else the first part's first channel."""
    subimage = 0
    while image.seek_subimage(subimage, 0):
        names = list(image.spec().channelnames)
        _check_caps(image.spec(), path)
        for prefix in dict.fromkeys(name[:-1] for name in names if name[-1:] in ("R", "r")):
            by_name = {name.lower(): index for index, name in reversed(list(enumerate(names)))}
            color = [by_name.get(f"{prefix}{letter}".lower()) for letter in "rgb"]
            if None not in color:
                red, green, blue = (index for index in color if index is not None)
                return _Channels(subimage=subimage, color=(red, green, blue), alpha=by_name.get(f"{prefix}a".lower()))
        subimage += 1
    image.seek_subimage(0, 0)
    spec = image.spec()
    names = list(spec.channelnames)
    grey = next((index for index, name in enumerate(names) if name.rsplit(".", 1)[-1] == "Y"), 0)
    alpha = spec.alpha_channel if spec.alpha_channel >= 0 and spec.alpha_channel != grey else None
    return _Channels(subimage=0, color=(grey, grey, grey), alpha=alpha)


def _check_caps(spec: oiio.ImageSpec, path: Path) -> None:
    largest = max(spec.width, spec.height, spec.full_width, spec.full_height)
    if largest > MAX_SIDE:
        raise ClipError(f"{path} has a side of {largest} px, at most {MAX_SIDE} are read", "shrink the plate")
    if spec.nchannels > MAX_CHANNELS:
        raise ClipError(f"{path} has {spec.nchannels} channels, at most {MAX_CHANNELS} are read", "keep the color only")
    if spec.depth > 1 or spec.deep:
        raise ClipError(f"{path} is a deep or volume picture", "flatten it to a plain one")


def _facts(image: oiio.ImageInput, channels: _Channels, path: Path) -> PictureFacts:
    image.seek_subimage(channels.subimage, 0)
    spec = image.spec()
    _check_caps(spec, path)
    aspect = spec.get_float_attribute("PixelAspectRatio", 1.0)
    return PictureFacts(
        size=(spec.full_width or spec.width, spec.full_height or spec.height),
        pixel_aspect=round(float(aspect), 6) if 0.1 <= aspect <= 10 else 1.0,  # the rest is rubbish in the header
        fps=_frame_rate(spec),
        is_float=str(spec.format) in ("half", "float", "double"),
        has_alpha=channels.alpha is not None,
        is_half=str(spec.format) == "half",
    )


def _frame_rate(spec: oiio.ImageSpec) -> float | None:
    """Frames per second where the header tells them: EXR's rational, DPX's two float fields."""
    rate = spec.getattribute("FramesPerSecond")
    if isinstance(rate, tuple) and len(rate) == 2 and rate[1]:
        rate = rate[0] / rate[1]
    for value in (rate, spec.getattribute("dpx:FrameRate"), spec.getattribute("dpx:TemporalRate")):
        if isinstance(value, int | float) and 1 <= value <= 1000:
            return float(value)
    return None


def _into_display_window(data: np.ndarray, spec: oiio.ImageSpec) -> np.ndarray:
    """The data window (h, w, C) laid into the display window, black around it, cut where it reaches over."""
    left, top = spec.x - spec.full_x, spec.y - spec.full_y
    width, height = spec.full_width or spec.width, spec.full_height or spec.height
    if (left, top, spec.width, spec.height) == (0, 0, width, height):
        return data
    plane = np.zeros((height, width, data.shape[2]), data.dtype)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + spec.width, width), min(top + spec.height, height)
    if x1 > x0 and y1 > y0:
        plane[y0:y1, x0:x1] = data[y0 - top : y1 - top, x0 - left : x1 - left]
    return plane
