"""Pictures in and out: warped plates and paint keep their kind, float as EXR and whole numbers as 16-bit PNG.

While they are worked on, pictures are (H, W, 4) float32, color multiplied by alpha; whole numbers are 0..1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnimotion_core.errors import ExportError
from omnimotion_core.export.exr import Attribute, check_compression
from omnimotion_core.export.png import read_png_facts, write_png
from omnimotion_core.export.sequences import ExrContent, is_written, same_origin, write_content
from omnimotion_core.video.clip import Clip
from omnimotion_core.video.picture import Picture, PictureFacts

_LARGEST = float(np.finfo(np.float16).max)  # what plates hold for infinitely bright


@dataclass(frozen=True, kw_only=True)
class PictureKind:
    """How pictures of a sequence are stored."""

    is_float: bool
    is_half: bool

    @classmethod
    def of(cls, facts: PictureFacts | None) -> "PictureKind":
        """As a source is stored; None: a movie."""
        return cls(is_float=facts is not None and facts.is_float, is_half=facts is not None and facts.is_half)

    @property
    def suffix(self) -> str:
        """Of the files."""
        return ".exr" if self.is_float else ".png"


def as_premultiplied(picture: Picture) -> np.ndarray:
    """A picture as it is worked on; what is no number is 0."""
    if picture.facts.is_float:
        rgb = np.nan_to_num(picture.rgb, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)
        alpha = None if picture.alpha is None else np.clip(np.nan_to_num(picture.alpha, nan=0.0), 0.0, 1.0)
    else:
        rgb = picture.rgb.astype(np.float32) / np.float32(65535)
        alpha = None if picture.alpha is None else picture.alpha.astype(np.float32) / np.float32(65535)
    out = np.ones((*rgb.shape[:2], 4), np.float32)
    out[..., :3] = rgb
    if alpha is not None:
        out[..., 3] = alpha
        if not picture.premultiplied:
            out[..., :3] *= out[..., 3:]
    return out


def write_picture(
    path: Path, rgba: np.ndarray, kind: PictureKind, attributes: Mapping[str, Attribute], clip: Clip, compression: str
) -> None:
    """Write color (as it is to be stored) and alpha, (H, W, 4) float32.

    Raises:
        ExportError: the file cannot be written.
    """
    if kind.is_float:
        if kind.is_half:
            rgba = np.clip(rgba, -_LARGEST, _LARGEST)
        channels = {letter: rgba[..., index] for index, letter in enumerate("RGBA")}
        write_content(path, _content(kind, attributes, compression), channels, clip)
        return
    whole = np.floor(np.clip(rgba, 0.0, 1.0) * np.float32(65535) + np.float32(0.5)).astype(np.uint16)
    write_png(path, whole, _text(attributes), pixel_aspect=clip.pixel_aspect)


def is_picture_written(
    path: Path, kind: PictureKind, attributes: Mapping[str, Attribute], clip: Clip, compression: str
) -> bool:
    """Whether ``path`` is whole and what ``write_picture`` would write."""
    check_compression(compression)
    if kind.is_float:
        return is_written(path, _content(kind, attributes, compression), clip)
    try:
        facts = read_png_facts(path)
    except ExportError:
        return False
    return facts.size == clip.size and same_origin(facts.text, _text(attributes))


def straight(rgba: np.ndarray) -> np.ndarray:
    """Color divided by alpha, as PNG wants it; black where alpha is 0."""
    out = rgba.copy()
    alpha = rgba[..., 3:]
    np.divide(rgba[..., :3], alpha, out=out[..., :3], where=alpha > 0)
    out[..., :3] *= alpha > 0
    return out


def _content(kind: PictureKind, attributes: Mapping[str, Attribute], compression: str) -> ExrContent:
    return ExrContent(
        attributes=_of_color(attributes), channels=list("RGBA"), half=frozenset("RGBA" if kind.is_half else ""),
        compression=compression,
    )  # fmt: skip


def _text(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {name: str(value) for name, value in _of_color(attributes).items()}


def _of_color(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """Header entries without the one that calls the pixels data."""
    return {name: value for name, value in attributes.items() if name != "colorInteropID"}
