"""Motion vectors for compositors: a sequence of files, laid out as each program expects.

A frame without a neighbor (the clip's ends, and both sides of a hard cut) has zero vectors in that direction, as
Blender and Fusion write it, and its other neighbor alone decides visibility and confidence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from omnimotion_core.config import ExportConfig
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.exr import Attribute, check_compression, read_exr
from omnimotion_core.export.flo import read_flo_facts, write_flo
from omnimotion_core.export.frame_motion import Flow, FrameMotion, frame_motion
from omnimotion_core.export.png import read_png_facts, write_png
from omnimotion_core.export.sequences import (
    ExrContent,
    Origin,
    chosen_frames,
    frame_name,
    header,
    is_written,
    same_origin,
    sequence_path,
    write_content,
)
from omnimotion_core.export.vector_map import CUSTOM, find_preset, parse_map
from omnimotion_core.export.vector_presets import PRESETS, Preset
from omnimotion_core.video.clip import Clip

__all__ = ["PRESETS", "FrameMotion", "frame_motion", "read_motion_vectors", "vectors_path", "write_motion_vectors"]

_DEFAULTS = ExportConfig()
_TOP_16 = 65534.0  # what rsmb-16 calls 1, so that zero is a whole number


def write_motion_vectors(
    flow: Flow,
    clip: Clip,
    folder: Path,
    preset: str,
    *,
    reporter: Reporter,
    tool_version: str,
    run_digest: str,
    frames: Sequence[int] | None = None,
    settings: ExportConfig = _DEFAULTS,
) -> list[Path]:
    """Write the files of every frame; one that is already there, whole and of the same run is kept.

    Args:
        flow: the dense motion from one frame (index t) to another at plate resolution.
        folder: gets ``<clip>.<preset>.<frame>.exr``, the frame being the source's number; ``rsmb-16`` is
            ``….forward.<frame>.png`` and ``….backward.<frame>.png``, ``flo`` is ``….<frame>_<neighbor>.flo``.
        preset: one of ``PRESETS``, or ``custom``.
        reporter: hears stage "export" frame by frame; its cancelling leaves the finished files. It is warned of motion
            that ``rsmb-16`` cannot hold.
        tool_version: for the header.
        run_digest: equal for equal vectors; goes into the header and decides what is kept.
        frames: indices t of those to write; all when not given.
        settings: compression, parts and what single presets ask for.
    Returns:
        The files in the order of frames.
    Raises:
        ExportError: the preset is unknown, the flow is not finite or of another size, or a file cannot be written.
        Cancelled: the user asked to stop.
    """
    layout = find_preset(preset, settings)
    check_compression(settings.compression)
    chosen, paths, clipped = chosen_frames(clip, frames), [], []
    for done, t in enumerate(chosen):
        job = _FrameJob(layout=layout, preset=preset, clip=clip, t=t, folder=folder, settings=settings,
                        origin=Origin(tool_version=tool_version, run_digest=run_digest))  # fmt: skip
        if not job.is_written():
            motion = frame_motion(flow, clip, t, distances=layout.distances, with_depth=layout.with_depth)
            if job.write(layout.to_channels(motion)):
                clipped.append(clip.first_frame + t)
        paths.extend(job.paths)
        reporter.progress("export", done + 1, len(chosen))
    if clipped:
        reporter.warning(f"in {len(clipped)} frames, from {clipped[0]} on, something moves by more than the "
                         f"{settings.max_displace:g} pixels that {preset} holds and is cut there; raise "
                         "export.max_displace")
    return paths


def read_motion_vectors(path: Path) -> FrameMotion:
    """The canonical motion in an EXR file of any preset; parts that it does not hold are as ``from_channels`` says.

    Raises:
        ExportError: the file is damaged, or not one of ours.
    """
    file = read_exr(path)
    preset = _preset_of(file.attributes)
    if preset is None:
        raise ExportError(f"{path} has no known te/preset in its header", "give a file that this program wrote")
    neighbors = str(file.attributes.get("te/neighbors", ""))
    try:
        return preset.from_channels(file.channels, "next" in neighbors, "previous" in neighbors)
    except KeyError as error:
        raise ExportError(f"{path} has no channel {error}", "write it again") from error


def vectors_path(clip: Clip, folder: Path, preset: str, t: int) -> Path:
    """The EXR file of frame t: ``<clip>.<preset>.<frame>.exr``."""
    return sequence_path(clip, folder, preset, t)


def _preset_of(attributes: Mapping[str, object]) -> Preset | None:
    name, ceiling = str(attributes.get("te/preset")), attributes.get("te/max_displace")
    if name == CUSTOM:
        try:
            return parse_map(json.loads(str(attributes.get("te/map"))), "te/map")
        except (ValueError, ExportError):
            return None
    if name not in PRESETS:
        return None
    return find_preset(name, ExportConfig(
        max_displace=ceiling if isinstance(ceiling, float) and ceiling > 0 else _DEFAULTS.max_displace,
        flip_v=attributes.get("te/y_axis") == "down",
    ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _FrameJob:
    """The files of one frame."""

    layout: Preset
    preset: str
    clip: Clip
    t: int
    folder: Path
    settings: ExportConfig
    origin: Origin

    @property
    def paths(self) -> list[Path]:
        """One EXR file, or one file for each direction."""
        if self.layout.container == "exr":
            return [vectors_path(self.clip, self.folder, self.preset, self.t)]
        return list(self._directions().values())

    def is_written(self) -> bool:
        """Whether all of them are there, whole and of the same run and layout."""
        if self.layout.container == "exr":
            return is_written(self.paths[0], self._content(), self.clip)
        wanted = self._facts()
        for path in self.paths:
            if self.layout.container == "flo":
                found = read_flo_facts(path)
            else:
                try:
                    facts = read_png_facts(path)
                except ExportError:
                    return False
                found = dict(facts.text) if facts.size == self.clip.size else {}
            if not same_origin(found, wanted):
                return False
        return True

    def write(self, channels: Mapping[str, np.ndarray]) -> bool:
        """Write them; returns whether some motion did not fit and was cut."""
        if self.layout.container == "exr":
            write_content(self.paths[0], self._content(), channels, self.clip)
            return False
        clipped = False
        for direction, path in self._directions().items():
            if self.layout.container == "flo":
                flow = np.stack([channels[f"{direction}.{axis}"] for axis in "uv"], axis=-1)
                write_flo(path, flow, self._facts())
                continue
            prefix = "" if direction == "forward" else f"{direction}."
            values = np.stack([channels[f"{prefix}{letter}"] for letter in "RGBA"], axis=-1)
            if not np.isfinite(values).all():
                raise ExportError(f"{path.name}: some vectors are not finite", "mend or mask them")
            clipped |= bool(((values[..., :2] < -0.5) | (values[..., :2] >= _TOP_16 + 0.5)).any())
            np.clip(values[..., :2], 0.0, _TOP_16, out=values[..., :2])
            write_png(path, np.floor(values + np.float32(0.5)).astype(np.uint16), self._facts(),
                      pixel_aspect=self.clip.pixel_aspect)
        return clipped

    def _directions(self) -> dict[str, Path]:
        """Each direction's file; of flo only those that have a neighbor."""
        if self.layout.container == "png":
            return {
                direction: sequence_path(self.clip, self.folder, f"{self.preset}.{direction}", self.t, ".png")
                for direction in ("forward", "backward")
            }
        shot = next(segment for segment in self.clip.segments if self.t in segment)
        here = frame_name(self.clip, self.t)
        return {
            direction: self.folder / f"{self.clip.name}.{self.preset}.{here}_{frame_name(self.clip, near)}.flo"
            for direction, near in (("forward", self.t + 1), ("backward", self.t - 1)) if near in shot
        }

    def _header(self) -> dict[str, Attribute]:
        attributes = header(self.clip, self.t, self.origin, self.preset, units=self.layout.units,
                            y_axis=self.layout.y_axis)  # fmt: skip
        return attributes | {"te/direction": self.layout.direction} | dict(self.layout.facts)

    def _content(self) -> ExrContent:
        return ExrContent(
            attributes=self._header(), channels=list(self.layout.channels), half=self.layout.half,
            compression=self.settings.compression, multipart=self.settings.multipart,
        )  # fmt: skip

    def _facts(self) -> dict[str, Attribute]:
        """The header for files that hold text alone."""
        def plain(value: Attribute) -> Attribute:
            return str(value) if isinstance(value, Fraction) or self.layout.container == "png" else value

        return {name: plain(value) for name, value in self._header().items()}
