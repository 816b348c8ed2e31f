"""The plate held still: every frame drawn where its surfaces are in a reference frame.

Paint on it, and the ``from`` maps of ``stmap`` put the paint back into the moving shot.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omnimotion_core.config import ExportConfig
from omnimotion_core.coordinates import inside
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.frame_motion import Flow
from omnimotion_core.export.pictures import (
    PictureKind,
    as_premultiplied,
    is_picture_written,
    write_picture,
)
from omnimotion_core.export.sequences import (
    Origin,
    chosen_frames,
    frame_name,
    header,
    reference_indices,
    sequence_path,
)
from omnimotion_core.export.warp import positions, read_bilinear
from omnimotion_core.trajectories.dense import DenseFlow
from omnimotion_core.video.clip import Clip
from omnimotion_core.video.frames import read_plates
from omnimotion_core.video.source import Source

KIND = "stabilized"
_DEFAULTS = ExportConfig()


def write_stabilized(
    flow: Flow, clip: Clip, source: Source, folder: Path, *, reporter: Reporter, origin: Origin,
    frames: Sequence[int] | None = None, settings: ExportConfig = _DEFAULTS,
) -> list[Path]:  # fmt: skip
    """Write ``<clip>.stabilized.to_<reference>.<frame>`` for each of ``settings.references``.

    Float plates become EXR, others 16-bit PNG; values are those of the plate. Alpha is 1 where the reference frame's
    surface is seen in the frame; color is kept where it is not, since it may be of use, and black outside the plate.
    Whole files of the same run are kept.

    Args:
        flow: the dense motion from one frame (index t) to another at plate resolution.
        source: the footage that the clip was made of, unchanged.
        frames: indices t of those to write; all when not given.
    Returns:
        The files in the order of frames.
    Raises:
        ConfigError: a reference frame is not in the clip.
        ClipError: the footage cannot be read.
        ExportError: the footage has another size than the clip, or a file cannot be written.
        Cancelled: the user asked to stop.
    """
    references, chosen = reference_indices(clip, settings.references), chosen_frames(clip, frames)
    kind = PictureKind.of(source.picture)
    places = {
        (t, r): sequence_path(clip, folder, f"{KIND}.to_{frame_name(clip, r)}", t, kind.suffix)
        for t in chosen for r in references
    }  # fmt: skip
    heads = {
        (t, r): header(clip, t, origin, KIND, units="as the plate", y_axis="down")
        | {"te/reference": clip.first_frame + r, "te/direction": "to reference"}
        for t, r in places
    }  # fmt: skip
    packing = settings.compression
    missing = {key for key, path in places.items() if not is_picture_written(path, kind, heads[key], clip, packing)}
    wanted = {clip.first_frame + t: t for t, _ in missing}
    plates = read_plates(source, wanted)
    for done, t in enumerate(chosen):
        if clip.first_frame + t in wanted:
            number, picture = next(plates)
            if wanted[number] != t or picture.rgb.shape[:2] != clip.size[::-1]:
                raise ExportError(f"{source.path} is {picture.rgb.shape[1]}x{picture.rgb.shape[0]}, the clip was "
                                  f"{clip.size[0]}x{clip.size[1]}", "track the clip again")
            plate = as_premultiplied(picture)
            for r in references:
                if (t, r) in missing:
                    write_picture(places[t, r], stabilize(plate, flow(r, t)), kind, heads[t, r], clip, packing)
        reporter.progress("export", done + 1, len(chosen))
    return list(places.values())


def stabilize(plate: np.ndarray, dense: DenseFlow) -> np.ndarray:
    """Frame ``dense.target`` (H, W, 4) drawn at the pixels of frame ``dense.source``; alpha 0 where it is not seen."""
    at = positions(dense)
    out = read_bilinear(plate, at)
    height, width = dense.vectors.shape[:2]
    out[~inside(at, (width, height))] = 0.0
    out[..., 3] *= dense.visible
    return out
