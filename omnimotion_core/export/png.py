"""16-bit PNG pictures with a header of text, which OpenCV alone does not write.

Source: W3C, Portable Network Graphics (third edition): chunks, tEXt, pHYs.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from omnimotion_core.errors import ExportError, RunError
from omnimotion_core.files import write_atomically

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(_SIGNATURE) + 12 + 13  # the chunk IHDR
_DAMAGED = "it is damaged or truncated: write it again"


@dataclass(frozen=True, kw_only=True)
class PngFacts:
    """What a PNG file tells of itself."""

    size: tuple[int, int]  # (width, height)
    text: dict[str, str]


def write_png(path: Path, rgba: np.ndarray, text: Mapping[str, object], *, pixel_aspect: float = 1.0) -> None:
    """Write a 16-bit picture with straight alpha, as a whole or not at all.

    Args:
        rgba: (H, W, 4) uint16.
        text: keyword → value, of Latin letters; other letters become question marks.
        pixel_aspect: width of a pixel divided by its height.
    Raises:
        ExportError: the file cannot be written.
    """
    assert rgba.dtype == np.uint16, rgba.dtype
    assert rgba.shape[2:] == (4,), rgba.shape
    whole, data = cv2.imencode(
        ".png", cv2.cvtColor(np.ascontiguousarray(rgba), cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    assert whole, rgba.shape
    extra = [_chunk(b"tEXt", b"\0".join(part.encode("latin-1", "replace").replace(b"\0", b"?") for part in
                                        (name, str(value)))) for name, value in text.items()]
    if pixel_aspect != 1.0:
        ratio = Fraction(pixel_aspect).limit_denominator(10_000)  # pixels per unit, so height before width
        extra.append(_chunk(b"pHYs", struct.pack(">IIB", ratio.denominator, ratio.numerator, 0)))
    encoded = data.tobytes()
    try:
        with write_atomically(path) as temporary:
            temporary.write_bytes(b"".join([encoded[:_HEADER_END], *extra, encoded[_HEADER_END:]]))
    except RunError as error:
        raise ExportError(error.problem, error.remedy) from error


def read_png_facts(path: Path) -> PngFacts:
    """Size and text of a PNG file, every byte of which is checked by its chunks' checksums.

    Raises:
        ExportError: the file is absent, no PNG file, damaged or truncated.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror})", "name a file that is there") from error
    chunks = list(_chunks(data, path))
    text = [body.partition(b"\0") for kind, body in chunks if kind == b"tEXt"]
    if [kind for kind, _ in chunks[:1]] != [b"IHDR"] or chunks[-1][0] != b"IEND" or len(chunks[0][1]) != 13:
        raise ExportError(f"{path} is not a whole PNG file", _DAMAGED)
    width, height = struct.unpack(">II", chunks[0][1][:8])
    return PngFacts(
        size=(width, height), text={name.decode("latin-1"): value.decode("latin-1") for name, _, value in text}
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    if not data.startswith(_SIGNATURE):
        raise ExportError(f"{path} is not a PNG file", _DAMAGED)
    at = len(_SIGNATURE)
    while at < len(data):
        if at + 12 > len(data):
            raise ExportError(f"{path} is not a whole PNG file", _DAMAGED)
        (length,) = struct.unpack_from(">I", data, at)
        kind, body, check = data[at + 4 : at + 8], data[at + 8 : at + 8 + length], data[at + 8 + length :][:4]
        if check != struct.pack(">I", zlib.crc32(kind + body)):
            raise ExportError(f"{path} is not a whole PNG file", _DAMAGED)
        yield kind, body
        at += 12 + length
