"""STMaps: for every pixel, where in another frame its picture is; a compositor warps anything by them.

For each reference frame R two maps of every frame::

    <clip>.stmap.from_R.<frame>.exr   pulls R's picture into the frame: paint on R once, and it sticks to the shot
    <clip>.stmap.to_R.<frame>.exr     pulls the frame's picture onto R: the shot stabilized; the first map undoes it

    R, G = (x + 1/2) / width, (y + 1/2) / height of the source position, y up from the bottom-left corner; B = 0
    A    = from_R: how much R counts among the references, which adds up to 1 where one is seen; to_R: 1 where seen
    visibility.Y, confidence.Y       1 where the surface is seen in both frames, else 0; 0..1

Source: Foundry's STMap; measured to be the identity of Blender's Map UV, which wants A as its third channel.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omnimotion_core.config import ExportConfig
from omnimotion_core.coordinates import pixel_to_marker
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.exr import check_compression
from omnimotion_core.export.frame_motion import Flow
from omnimotion_core.export.sequences import (
    ExrContent,
    Origin,
    chosen_frames,
    frame_name,
    header,
    is_written,
    reference_indices,
    sequence_path,
    write_content,
)
from omnimotion_core.export.warp import blend_weights, positions
from omnimotion_core.trajectories.dense import DenseFlow
from omnimotion_core.video.clip import Clip

KIND = "stmap"
_TRUST = ("visibility.Y", "confidence.Y")
_DEFAULTS = ExportConfig()


def write_stmaps(
    flow: Flow, clip: Clip, folder: Path, *, reporter: Reporter, origin: Origin, frames: Sequence[int] | None = None,
    settings: ExportConfig = _DEFAULTS,
) -> list[Path]:  # fmt: skip
    """Write both maps of every frame for each of ``settings.references``; whole files of the same run are kept.

    Args:
        flow: the dense motion from one frame (index t) to another at plate resolution.
        frames: indices t of those to write; all when not given.
    Returns:
        The files in the order of frames.
    Raises:
        ConfigError: a reference frame is not in the clip.
        ExportError: the flow is not finite or of another size, or a file cannot be written.
        Cancelled: the user asked to stop.
    """
    check_compression(settings.compression)
    references, chosen = reference_indices(clip, settings.references), chosen_frames(clip, frames)
    paths: list[Path] = []
    for done, t in enumerate(chosen):
        places = {
            (direction, r): stmap_path(clip, folder, direction, r, t)
            for direction in ("from", "to") for r in references
        }  # fmt: skip
        contents = {key: _content(clip, t, origin, *key, references, settings) for key in places}
        missing = {key for key, path in places.items() if not is_written(path, contents[key], clip)}
        if any(direction == "from" for direction, _ in missing):
            flows = [_checked(flow(t, r), clip) for r in references]
            for r, dense, weights in zip(references, flows, blend_weights(flows), strict=True):
                if ("from", r) in missing:
                    write_content(places["from", r], contents["from", r], stmap_channels(dense, weights), clip)
        for r in references:
            if ("to", r) in missing:
                dense = _checked(flow(r, t), clip)
                write_content(places["to", r], contents["to", r], stmap_channels(dense, dense.visible), clip)
        paths.extend(places.values())
        reporter.progress("export", done + 1, len(chosen))
    return paths


def stmap_channels(dense: DenseFlow, alpha: np.ndarray) -> dict[str, np.ndarray]:
    """The channels of the map that reads ``dense.target``'s picture at the pixels of ``dense.source``."""
    height, width = dense.vectors.shape[:2]
    st = pixel_to_marker(positions(dense), (width, height)).astype(np.float32)  # an STMap's axes are a marker's
    return {
        "R": st[..., 0], "G": st[..., 1], "B": np.zeros((height, width), np.float32),
        "A": alpha.astype(np.float32), "visibility.Y": dense.visible.astype(np.float32),
        "confidence.Y": dense.confidence.astype(np.float32, copy=False),
    }  # fmt: skip


def stmap_path(clip: Clip, folder: Path, direction: str, reference: int, t: int) -> Path:
    """The map of frame t ``from`` or ``to`` a reference frame (both indices)."""
    return sequence_path(clip, folder, f"{KIND}.{direction}_{frame_name(clip, reference)}", t)


def _content(
    clip: Clip, t: int, origin: Origin, direction: str, reference: int, references: Sequence[int],
    settings: ExportConfig,
) -> ExrContent:  # fmt: skip
    picture = {"from": reference, "to": t}[direction]  # the frame whose picture is read
    attributes = header(clip, t, origin, KIND, units="fractions of width and height", y_axis="up") | {
        "te/reference": clip.first_frame + reference,
        "te/direction": f"{direction} reference",
        "te/picture": clip.first_frame + picture,
    }
    if direction == "from":
        attributes["te/references"] = ",".join(str(clip.first_frame + r) for r in references)
    return ExrContent(
        attributes=attributes, channels=["R", "G", "B", "A", *_TRUST], half=frozenset(_TRUST),
        compression=settings.compression, multipart=settings.multipart,
    )  # fmt: skip


def _checked(dense: DenseFlow, clip: Clip) -> DenseFlow:
    if dense.vectors.shape[:2] != clip.size[::-1]:
        raise ExportError(
            f"the flow from frame {dense.source} to {dense.target} is {dense.vectors.shape[:2]}, not {clip.size[::-1]}",
            "give it at the plate's resolution",
        )
    return dense
