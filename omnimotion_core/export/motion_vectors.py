"""Motion vectors for compositors: one EXR file a frame, laid out as each program expects.

Inside, a frame's motion has one canonical form, ``FrameMotion``. A preset is a pair of pure functions: from it to
EXR channels, and back.

``blender``: a single part without layer prefix, float32, which Blender 3.4 to 5.x reads as one pass ``Vector`` (with
``R, G, B, A`` absent) and two gray passes. In pixels of the plate, x right, y *up*::

    Vector.X, Vector.Y = position in the previous frame - position here
    Vector.Z, Vector.W = position here - position in the next frame
    visibility.Y       = 1 where the pixel's surface is seen in both neighbors, else 0
    confidence.Y       = 0..1, the lesser of both directions

Source: Cycles' own Vector pass, measured for a known motion in Blender 4.2, 4.5, 5.0 and 5.2. Groups of two channels
are left out on purpose: Blender up to 4.2 reads rubbish from them.

A frame without a neighbor (the clip's ends, and both sides of a hard cut) has zero vectors in that direction, as
Blender and Fusion write it, and its other neighbor alone decides visibility and confidence.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omnimotion_core.errors import ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.exr import Attribute, read_exr, write_exr
from omnimotion_core.export.frame_rate import exact_frame_rate
from omnimotion_core.video.clip import Clip

if TYPE_CHECKING:
    from omnimotion_core.trajectories.dense import DenseFlow  # which loads torch; publishing reads vectors without


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameMotion:
    """Where a frame's pixels go next and where they were before, in pixels of the plate, y down."""

    forward: np.ndarray  # (H, W, 2) float32, (dx, dy): position in the next frame - position here; zero without one
    backward: np.ndarray  # (H, W, 2) float32, (dx, dy): position in the previous frame - position here; likewise
    visibility: np.ndarray  # (H, W) float32, 1: seen in every neighbor there is, 0: hidden in one, or no neighbor
    confidence: np.ndarray  # (H, W) float32, 0..1, the lesser over the neighbors there are
    has_next: bool
    has_previous: bool


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How one program wants a frame's motion."""

    to_channels: Callable[[FrameMotion], dict[str, np.ndarray]]
    from_channels: Callable[[Mapping[str, np.ndarray], bool, bool], FrameMotion]  # also has_next, has_previous
    y_axis: str  # header: up or down
    direction: str  # header: what the channels mean
    compression: str = "ZIP"


def _to_blender(motion: FrameMotion) -> dict[str, np.ndarray]:
    return {
        "Vector.X": motion.backward[..., 0],
        "Vector.Y": -motion.backward[..., 1],
        "Vector.Z": -motion.forward[..., 0],
        "Vector.W": motion.forward[..., 1],
        "visibility.Y": motion.visibility,
        "confidence.Y": motion.confidence,
    }


def _from_blender(channels: Mapping[str, np.ndarray], has_next: bool, has_previous: bool) -> FrameMotion:
    return FrameMotion(
        forward=np.stack([-channels["Vector.Z"], channels["Vector.W"]], axis=-1),
        backward=np.stack([channels["Vector.X"], -channels["Vector.Y"]], axis=-1),
        visibility=channels["visibility.Y"],
        confidence=channels["confidence.Y"],
        has_next=has_next,
        has_previous=has_previous,
    )


PRESETS: Mapping[str, Preset] = {
    "blender": Preset(
        to_channels=_to_blender,
        from_channels=_from_blender,
        y_axis="up",
        direction="XY previous-current, ZW current-next",
    ),
}


def write_motion_vectors(
    flow: Callable[[int, int], "DenseFlow"],
    clip: Clip,
    folder: Path,
    preset: str,
    *,
    reporter: Reporter,
    tool_version: str,
    run_digest: str,
) -> list[Path]:
    """Write a file for every frame; one that is already there, whole and of the same run is kept.

    Args:
        flow: the dense motion from one frame (index t) to another at plate resolution.
        folder: gets ``<clip>.<preset>.<frame>.exr``, the frame being the source's number.
        preset: one of ``PRESETS``.
        reporter: hears stage "export" frame by frame; its cancelling leaves the finished files.
        tool_version: for the header.
        run_digest: equal for equal vectors; goes into the header and decides what is kept.
    Returns:
        The files in the order of frames.
    Raises:
        ExportError: the preset is unknown, the flow is not finite or of another size, or a file cannot be written.
        Cancelled: the user asked to stop.
    """
    if preset not in PRESETS:
        raise ExportError(f"{preset!r} is no preset for motion vectors", f"use one of {', '.join(PRESETS)}")
    layout = PRESETS[preset]
    paths = []
    for t in range(clip.num_frames):
        path = vectors_path(clip, folder, preset, t)
        if not _is_written(path, clip, t, run_digest):
            write_exr(
                path,
                layout.to_channels(frame_motion(flow, clip, t)),
                _attributes(clip, t, preset, tool_version, run_digest),
                compression=layout.compression,
                pixel_aspect=clip.pixel_aspect,
            )
        paths.append(path)
        reporter.progress("export", t + 1, clip.num_frames)
    return paths


def read_motion_vectors(path: Path) -> FrameMotion:
    """The canonical motion in a file of any preset.

    Raises:
        ExportError: the file is damaged, or not one of ours.
    """
    file = read_exr(path)
    preset = PRESETS.get(str(file.attributes.get("te/preset")))
    if preset is None:
        raise ExportError(f"{path} has no known te/preset in its header", "give a file that this program wrote")
    neighbors = str(file.attributes.get("te/neighbors", ""))
    try:
        return preset.from_channels(file.channels, "next" in neighbors, "previous" in neighbors)
    except KeyError as error:
        raise ExportError(f"{path} has no channel {error}", "write it again") from error


def vectors_path(clip: Clip, folder: Path, preset: str, t: int) -> Path:
    """The file of frame t: ``<clip>.<preset>.<frame>.exr``."""
    return folder / f"{clip.name}.{preset}.{clip.first_frame + t:04d}.exr"


def frame_motion(flow: Callable[[int, int], "DenseFlow"], clip: Clip, t: int) -> FrameMotion:
    """The canonical motion of frame t; nothing reaches across a cut.

    Raises:
        ExportError: the flow is not of the plate's size.
    """
    shape = (clip.size[1], clip.size[0])
    shot = next(segment for segment in clip.segments if t in segment)
    vectors = {t + 1: np.zeros((*shape, 2), np.float32), t - 1: np.zeros((*shape, 2), np.float32)}
    neighbors = [neighbor for neighbor in vectors if neighbor in shot]
    visibility = confidence = np.full(shape, 1.0 if neighbors else 0.0, np.float32)
    for neighbor in neighbors:
        dense = flow(t, neighbor)
        if dense.vectors.shape != (*shape, 2):
            raise ExportError(
                f"the flow from frame {t} to {neighbor} is {dense.vectors.shape}, not {(*shape, 2)}",
                "give it at the plate's resolution",
            )
        vectors[neighbor] = dense.vectors.astype(np.float32, copy=False)
        visibility = np.minimum(visibility, dense.visible)
        confidence = np.minimum(confidence, dense.confidence)
    return FrameMotion(
        forward=vectors[t + 1],
        backward=vectors[t - 1],
        visibility=visibility.astype(np.float32, copy=False),
        confidence=confidence.astype(np.float32, copy=False),
        has_next=t + 1 in neighbors,
        has_previous=t - 1 in neighbors,
    )


def _attributes(clip: Clip, t: int, preset: str, tool_version: str, run_digest: str) -> dict[str, Attribute]:
    shot = next(segment for segment in clip.segments if t in segment)
    attributes: dict[str, Attribute] = {
        "te/version": tool_version,
        "te/run": run_digest,
        "te/preset": preset,
        "te/clip": clip.name,
        "te/clip_sha256": clip.sha256,
        "te/frame": clip.first_frame + t,
        "te/source_range": f"{clip.first_frame}-{clip.first_frame + clip.num_frames - 1}",
        "te/neighbors": ",".join(name for name, near in (("next", t + 1), ("previous", t - 1)) if near in shot),
        "te/direction": PRESETS[preset].direction,
        "te/units": "pixels",
        "te/y_axis": PRESETS[preset].y_axis,
        "colorInteropID": "data",  # never to be color-managed
    }
    rate = exact_frame_rate(clip.fps)
    if rate is not None:
        attributes["framesPerSecond"] = rate
    return attributes


def _is_written(path: Path, clip: Clip, t: int, run_digest: str) -> bool:
    """Whether ``path`` is whole and holds what this run would write."""
    if not path.is_file():
        return False
    try:
        file = read_exr(path)
    except ExportError:
        return False  # a damaged file is simply written again
    found: dict[str, Any] = {name: file.attributes.get(name) for name in ("te/run", "te/frame", "te/clip_sha256")}
    wanted = {"te/run": run_digest, "te/frame": clip.first_frame + t, "te/clip_sha256": clip.sha256}
    shape = next(iter(file.channels.values())).shape
    return found == wanted and shape == clip.size[::-1] and math.isclose(
        file.attributes["pixelAspectRatio"], clip.pixel_aspect, rel_tol=1e-5
    )
