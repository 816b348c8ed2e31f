"""The one guard over OpenEXR: no other module imports it.

OpenEXR's Python module writes strided arrays wrong without an error, changes the dicts it is given, turns overflow
into infinities, and gives back a truncated file as a file without parts. ``write_exr`` and ``read_exr`` make each of
these impossible or an error.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from omnimotion_core.errors import ExportError, RunError
from omnimotion_core.files import write_atomically

Attribute = str | int | float | Fraction

# What may carry data. PXR24 rounds 32-bit floats to 24 bits (0.0005 px at 16 px) and leaves half alone; DWAA, DWAB, B44
# and B44A are made for pictures and may damage vectors by whole pixels, so they are not offered.
COMPRESSIONS = {
    "NONE": OpenEXR.NO_COMPRESSION,
    "RLE": OpenEXR.RLE_COMPRESSION,
    "ZIPS": OpenEXR.ZIPS_COMPRESSION,
    "ZIP": OpenEXR.ZIP_COMPRESSION,
    "PIZ": OpenEXR.PIZ_COMPRESSION,
    "PXR24": OpenEXR.PXR24_COMPRESSION,
}
MAX_SIDE = 16384  # a header may claim any size: larger ones are refused before memory is taken for them
MAX_CHANNELS = 256
CHANNEL_NAME = r"[A-Za-z0-9_.-]{1,31}"  # more than 31 letters need a newer kind of file
_MAX_HALF = float(np.finfo(np.float16).max)
_STRUCTURE = {"channels", "compression", "dataWindow", "displayWindow", "lineOrder", "name", "pixelAspectRatio", "type"}
_DAMAGED = "it is damaged or truncated: write it again, or copy it again from where it came"


@dataclass(frozen=True, eq=False, kw_only=True)
class ExrFile:
    """What an EXR file holds."""

    channels: dict[str, np.ndarray]  # (H, W) float16, float32 or uint32, of all parts, row 0 on top
    attributes: dict[str, Any]  # the first part's header
    compression: str  # of the first part, one of COMPRESSIONS, or OpenEXR's own name of another
    num_parts: int


def write_exr(
    path: Path,
    channels: Mapping[str, np.ndarray],
    attributes: Mapping[str, Attribute],
    *,
    compression: str = "ZIP",
    pixel_aspect: float = 1.0,
    half: Collection[str] = (),
    multipart: bool = False,
) -> None:
    """Write a scanline file, as a whole or not at all, and check what was written.

    Args:
        path: the file; an existing one is replaced.
        channels: name → (H, W) float32 or float16, row 0 on top, strided or not; neither dict nor arrays are changed.
        attributes: header entries beside those that describe the picture itself.
        compression: one of ``COMPRESSIONS``.
        pixel_aspect: width of a pixel divided by its height.
        half: names of float32 channels to be stored as float16.
        multipart: a part for each layer (what stands before a name's last dot), named by it; channels without a
            layer are the part ``rgba``. Channels keep their whole names, since some readers ignore a part's.
    Raises:
        ExportError: a channel or attribute cannot be stored unharmed, or the file cannot be written.
    """
    check_compression(compression)
    pixels = _checked_channels(path, channels, half)
    header = {
        **_checked_attributes(path, attributes),
        "type": OpenEXR.scanlineimage,
        "compression": COMPRESSIONS[compression],
        "pixelAspectRatio": float(pixel_aspect),
    }
    layers = _layers(pixels) if multipart else {}
    expected = {name: array.shape for name, array in pixels.items()}
    try:
        with write_atomically(path) as temporary:
            parts = [OpenEXR.Part(dict(header), layer, name) for name, layer in layers.items()]
            with OpenEXR.File(parts) if multipart else OpenEXR.File(header, pixels) as file:
                file.write(str(temporary))
            written = _header_shapes(temporary)
            if written != expected:
                raise ExportError(f"{path} came out as {written}, not {expected}", "report this as a bug")
    except RunError as error:  # what write_atomically tells of the file system
        raise ExportError(error.problem, error.remedy) from error
    except RuntimeError as error:  # what OpenEXR tells of the same
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            raise ExportError(
                f"no space is left for {path}", "free some disk space and run the same command again"
            ) from error
        raise ExportError(f"{path} cannot be written ({error})", "choose another folder") from error


def check_compression(name: str) -> None:
    """Raise ``ExportError`` where a compression is unknown or may damage data."""
    if name not in COMPRESSIONS:
        raise ExportError(f"compression {name!r} may damage data or is unknown",
                          f"use one of {', '.join(COMPRESSIONS)}")


@contextmanager
def compressing_with(threads: int) -> Iterator[None]:
    """Let OpenEXR compress and decompress on so many threads; its own default is the calling thread alone."""
    before = OpenEXR.global_thread_count()
    OpenEXR.set_global_thread_count(0 if threads <= 1 else threads)
    try:
        yield
    finally:
        OpenEXR.set_global_thread_count(before)


def read_exr(path: Path) -> ExrFile:
    """All channels of all parts, and the header.

    A channel name that two parts share is given as ``part.name`` from its second part on.

    Raises:
        ExportError: the file is absent, no EXR file, damaged, truncated, or claims an absurd size.
    """
    shapes = _header_shapes(path)
    channels: dict[str, np.ndarray] = {}
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            for part in file.parts:
                for name, channel in part.channels.items():
                    channels[name if name not in channels else f"{part.name()}.{name}"] = channel.pixels
            attributes, num_parts = dict(file.parts[0].header) if file.parts else {}, len(file.parts)
    except RuntimeError as error:
        raise ExportError(f"{path} cannot be read ({error})", _DAMAGED) from error
    # OpenEXR leaves out the parts that it cannot decode and says so only on standard error
    if {name: array.shape for name, array in channels.items()} != shapes:
        raise ExportError(f"{path} holds {len(channels)} of its {len(shapes)} channels", _DAMAGED)
    kind = attributes["compression"]
    compression = next((name for name, known in COMPRESSIONS.items() if known == kind), str(kind))
    return ExrFile(channels=channels, attributes=attributes, compression=compression, num_parts=num_parts)


def _checked_channels(path: Path, channels: Mapping[str, np.ndarray], half: Collection[str]) -> dict[str, np.ndarray]:
    """A dict of our own, which OpenEXR may change, with contiguous arrays, which it only reads."""
    if not channels or len(channels) > MAX_CHANNELS:
        raise ExportError(f"{path.name} would hold {len(channels)} channels", f"write 1 to {MAX_CHANNELS}")
    if unknown := set(half) - set(channels):
        raise ExportError(f"{path.name} has no {sorted(unknown)} to store as half", f"name some of {list(channels)}")
    shape = next(iter(channels.values())).shape
    if len(shape) != 2 or not all(1 <= side <= MAX_SIDE for side in shape):
        raise ExportError(f"{path.name}: a channel's shape is {shape}", f"give (height, width), each 1 to {MAX_SIDE}")
    checked = {}
    for name, array in channels.items():
        if not re.fullmatch(CHANNEL_NAME, name):
            raise ExportError(f"{path.name}: channel name {name!r}", "use 1 to 31 letters, digits, '.', '_' and '-'")
        if array.shape != shape:
            raise ExportError(f"{path.name}: channel {name} is {array.shape}, not {shape}", "give all one size")
        if array.dtype not in (np.float32, np.float16):
            raise ExportError(f"{path.name}: channel {name} is {array.dtype}", "convert it to float32 or float16")
        if not np.isfinite(array).all():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            raise ExportError(f"{path.name}: channel {name} has {bad} values that are not finite", "mend or mask them")
        if name in half and (largest := float(np.abs(array).max())) > _MAX_HALF:
            raise ExportError(f"{path.name}: channel {name} reaches {largest:g}, half ends at 65504", "store floats")
        checked[name] = np.ascontiguousarray(array, dtype=np.float16 if name in half else array.dtype)
    return checked


def _layers(pixels: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The channels of each part."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in pixels.items():
        layers.setdefault(name.rpartition(".")[0] or "rgba", {})[name] = array
    return layers


def _checked_attributes(path: Path, attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    for name, value in attributes.items():
        if name in _STRUCTURE:
            raise ExportError(f"{path.name}: attribute {name} describes the picture itself", "choose another name")
        if not isinstance(value, (str, int, float, Fraction)) or isinstance(value, bool):
            raise ExportError(f"{path.name}: attribute {name} is {value!r}", "give text, a number or a Fraction")
    return dict(attributes)


def _header_shapes(path: Path) -> dict[str, tuple[int, int]]:
    """Name → (height, width) of every channel that the headers promise; names as ``read_exr`` gives them."""
    if not path.is_file():
        raise ExportError(f"{path} is not a file", "name an EXR file that is there")
    shapes: dict[str, tuple[int, int]] = {}
    try:
        with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
            for part in file.parts:
                (x0, y0), (x1, y1) = part.header["dataWindow"]
                shape = (int(y1) - int(y0) + 1, int(x1) - int(x0) + 1)
                names = [channel.name for channel in part.header["channels"]]
                if not all(1 <= side <= MAX_SIDE for side in shape) or len(shapes) + len(names) > MAX_CHANNELS:
                    raise ExportError(
                        f"{path} claims {len(names)} channels of {shape[1]}x{shape[0]} pixels",
                        f"use files of at most {MAX_CHANNELS} channels and {MAX_SIDE} pixels a side",
                    )
                for name in names:
                    shapes[name if name not in shapes else f"{part.name()}.{name}"] = shape
    except RuntimeError as error:
        raise ExportError(f"{path} is not an EXR file that can be read", _DAMAGED) from error
    if not shapes:
        raise ExportError(f"{path} holds no channels", _DAMAGED)
    return shapes
