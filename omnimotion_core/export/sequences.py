"""What all sequences of files have in common: names, headers, and which files of an earlier run are kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.errors import ConfigError, ExportError
from omnimotion_core.export.exr import Attribute, read_exr, write_exr
from omnimotion_core.export.frame_rate import exact_frame_rate
from omnimotion_core.video.clip import Clip

_DECIDES = ("te/run", "te/preset", "te/frame", "te/clip_sha256", "te/max_displace", "te/map", "te/reference",
            "te/references", "te/picture", "te/sources", "te/y_axis")  # fmt: skip  # who differs here is written again


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What made the files, for their headers."""

    tool_version: str
    run_digest: str  # equal for equal results of a run; decides what is kept


@dataclass(frozen=True, eq=False, kw_only=True)
class ExrContent:
    """What one EXR file is to hold, but for the pixels."""

    attributes: Mapping[str, Attribute]
    channels: Sequence[str]
    half: frozenset[str] = frozenset()
    compression: str = "ZIP"
    multipart: bool = False


def sequence_path(clip: Clip, folder: Path, kind: str, t: int, suffix: str = ".exr") -> Path:
    """The file of frame t: ``<clip>.<kind>.<frame>.exr``, the frame being the source's number."""
    return folder / f"{clip.name}.{kind}.{frame_name(clip, t)}{suffix}"


def frame_name(clip: Clip, t: int) -> str:
    """The source's number of frame t as file names have it, at least four digits."""
    return f"{clip.first_frame + t:04d}"


def chosen_frames(clip: Clip, frames: Sequence[int] | None) -> list[int]:
    """The frames (indices t) to write, rising; None: all.

    Raises:
        ExportError: the clip has no such frame.
    """
    chosen = range(clip.num_frames) if frames is None else sorted(set(frames))
    for t in chosen:
        if not 0 <= t < clip.num_frames:
            raise ExportError(f"frame {t} is not in the clip", f"give frames from 0 to {clip.num_frames - 1}")
    return list(chosen)


def reference_indices(clip: Clip, references: Sequence[int]) -> list[int]:
    """Indices t of reference frames that are given by the source's numbers, rising; the first frame where none is.

    Raises:
        ConfigError: the clip has no such frame.
    """
    last = clip.first_frame + clip.num_frames - 1
    for number in references:
        if not clip.first_frame <= number <= last:
            raise ConfigError(f"reference frame {number} is not in the clip",
                              f"give frames from {clip.first_frame} to {last}")
    return sorted({number - clip.first_frame for number in references}) or [0]


def header(clip: Clip, t: int, origin: Origin, kind: str, *, units: str, y_axis: str) -> dict[str, Attribute]:
    """The header entries that every file has."""
    shot = next(segment for segment in clip.segments if t in segment)
    attributes: dict[str, Attribute] = {
        "te/version": origin.tool_version,
        "te/run": origin.run_digest,
        "te/preset": kind,
        "te/clip": clip.name,
        "te/clip_sha256": clip.sha256,
        "te/frame": clip.first_frame + t,
        "te/source_range": f"{clip.first_frame}-{clip.first_frame + clip.num_frames - 1}",
        "te/neighbors": ",".join(name for name, near in (("next", t + 1), ("previous", t - 1)) if near in shot),
        "te/units": units,
        "te/y_axis": y_axis,
        "colorInteropID": "data",  # never to be color-managed
    }
    rate = exact_frame_rate(clip.fps)
    if rate is not None:
        attributes["framesPerSecond"] = rate
    return attributes


def write_content(path: Path, content: ExrContent, channels: Mapping[str, np.ndarray], clip: Clip) -> None:
    """Write one file of a sequence; raises as ``write_exr`` does."""
    write_exr(
        path, channels, content.attributes, compression=content.compression, pixel_aspect=clip.pixel_aspect,
        half=content.half, multipart=content.multipart,
    )  # fmt: skip


def is_written(path: Path, content: ExrContent, clip: Clip) -> bool:
    """Whether ``path`` is whole and holds what this run would write, in the same layout."""
    if not path.is_file():
        return False
    try:
        file = read_exr(path)
    except ExportError:
        return False  # a damaged file is simply written again
    layers = {name.rpartition(".")[0] for name in content.channels}
    kinds = {name: np.float16 if name in content.half else np.float32 for name in content.channels}
    return (
        same_origin(file.attributes, content.attributes)
        and {name: array.dtype.type for name, array in file.channels.items()} == kinds
        and next(iter(file.channels.values())).shape == clip.size[::-1]
        and file.compression == content.compression
        and file.num_parts == (len(layers) if content.multipart else 1)
        and math.isclose(file.attributes["pixelAspectRatio"], clip.pixel_aspect, rel_tol=1e-5)
    )


def same_origin(found: Mapping[str, Any], wanted: Mapping[str, Attribute]) -> bool:
    """Whether two headers are of the same run, frame and layout; a file keeps 32-bit floats."""
    for name in _DECIDES:
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, float) and isinstance(other, float):
            if not math.isclose(one, other, rel_tol=1e-6):
                return False
        elif one != other:
            return False
    return True
