"""Paint or a matte, made on one frame or on a few, carried to every frame of the shot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnimotion_core.config import ExportConfig
from omnimotion_core.errors import ConfigError, ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.frame_motion import Flow
from omnimotion_core.export.pictures import (
    PictureKind,
    as_premultiplied,
    is_picture_written,
    straight,
    write_picture,
)
from omnimotion_core.export.sequences import (
    Origin,
    chosen_frames,
    header,
    reference_indices,
    sequence_path,
)
from omnimotion_core.export.warp import blend_weights, positions, read_bilinear
from omnimotion_core.files import sha256_of
from omnimotion_core.trajectories.dense import DenseFlow
from omnimotion_core.video.clip import Clip
from omnimotion_core.video.picture import read_picture

KIND = "propagated"
_DEFAULTS = ExportConfig()


@dataclass(frozen=True, eq=False, kw_only=True)
class Painted:
    """A picture that was made on one frame."""

    t: int  # frame index
    rgba: np.ndarray  # (H, W, 4) float32, color multiplied by alpha
    kind: PictureKind
    sha256: str  # of its file


def read_painted(images: Mapping[int, Path], clip: Clip) -> list[Painted]:
    """The pictures of frames that are given by the source's numbers.

    Raises:
        ConfigError: none is given, or a frame is not in the clip.
        ClipError: a file is no picture that can be read.
        ExportError: a picture is not of the plate's size, or they are of different kinds.
    """
    if not images:
        raise ConfigError("no painted frame is given", "add --frame N --image FILE")
    painted = []
    for t, number in zip(reference_indices(clip, list(images)), sorted(images), strict=True):
        path = images[number]
        picture = read_picture(path)
        if picture.rgb.shape[:2] != clip.size[::-1]:
            raise ExportError(
                f"{path} is {picture.rgb.shape[1]}x{picture.rgb.shape[0]}, the plate is {clip.size[0]}x{clip.size[1]}",
                "give a picture of the plate's size",
            )
        painted.append(Painted(t=t, rgba=as_premultiplied(picture), kind=PictureKind.of(picture.facts),
                               sha256=sha256_of(path)))  # fmt: skip
    if len({one.kind for one in painted}) > 1:
        raise ExportError("the pictures are of different kinds (whole numbers, half, float)", "give all of one kind")
    return painted


def write_propagated(
    flow: Flow, clip: Clip, painted: Sequence[Painted], folder: Path, *, reporter: Reporter, origin: Origin,
    frames: Sequence[int] | None = None, settings: ExportConfig = _DEFAULTS,
) -> list[Path]:  # fmt: skip
    """Write ``<clip>.propagated.<frame>``, float pictures as EXR and others as 16-bit PNG.

    Alpha is that of the picture, and 0 where its surface is not seen in the frame. Whole files of the same run and
    pictures are kept.

    Args:
        flow: the dense motion from one frame (index t) to another at plate resolution.
        painted: one or more; ``carry`` tells how several are blended.
        frames: indices t of those to write; all when not given.
    Returns:
        The files in the order of frames.
    Raises:
        ExportError: a file cannot be written.
        Cancelled: the user asked to stop.
    """
    kind, chosen, paths = painted[0].kind, chosen_frames(clip, frames), []
    sources = ",".join(f"{clip.first_frame + one.t}:{one.sha256}" for one in painted)
    for done, t in enumerate(chosen):
        path = sequence_path(clip, folder, KIND, t, kind.suffix)
        attributes = header(clip, t, origin, KIND, units="as the picture", y_axis="down") | {"te/sources": sources}
        if not is_picture_written(path, kind, attributes, clip, settings.compression):
            rgba = carry(painted, [flow(t, one.t) for one in painted])
            write_picture(path, rgba if kind.is_float else straight(rgba), kind, attributes, clip, settings.compression)
        paths.append(path)
        reporter.progress("export", done + 1, len(chosen))
    return paths


def carry(painted: Sequence[Painted], flows: Sequence[DenseFlow]) -> np.ndarray:
    """Pictures drawn at the pixels of one frame, (H, W, 4) float32, color multiplied by alpha.

    Color counts where its surface is seen, by confidence, by nearness in time and by its own alpha; alpha is the
    largest of those that are seen. So pictures that are solid dissolve into each other, and what is painted on one
    alone keeps its strength. On the frame that one of them was made on it is unchanged, and the others fill what it
    leaves empty.

    Args:
        painted: the pictures.
        flows: from that one frame to each of theirs.
    """
    own = [one for one, dense in zip(painted, flows, strict=True) if dense.source == dense.target]
    away = [k for k, dense in enumerate(flows) if dense.source != dense.target]
    if own and away:
        return _fill(own[0].rgba, carry([painted[k] for k in away], [flows[k] for k in away]))
    weights = blend_weights(flows)
    read = np.stack([read_bilinear(one.rgba, positions(dense)) for one, dense in zip(painted, flows, strict=True)])
    if len(painted) == 1:
        return np.asarray(read[0] * weights[0][..., None])
    strength = (weights * read[..., 3]).sum(axis=0)
    straight_color = (read[..., :3] * weights[..., None]).sum(axis=0) / np.where(strength > 0, strength, 1)[..., None]
    alpha = np.where(weights > 0, read[..., 3], 0).max(axis=0)
    return np.concatenate([straight_color * alpha[..., None], alpha[..., None]], axis=-1)


def _fill(own: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """``own`` with the color of ``rest`` up to the larger alpha of both."""
    missing = np.maximum(rest[..., 3:] - own[..., 3:], 0.0)
    share = np.divide(missing, rest[..., 3:], out=np.zeros_like(missing), where=missing > 0)
    return np.asarray(own + rest * share)
