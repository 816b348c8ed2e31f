"""Depth as a sequence of EXR files: which surface lies before which."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from omnimotion_core.config import ExportConfig
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.exr import check_compression
from omnimotion_core.export.sequences import (
    ExrContent,
    Origin,
    chosen_frames,
    header,
    is_written,
    sequence_path,
    write_content,
)
from omnimotion_core.video.clip import Clip

KIND = "depth"
_DEFAULTS = ExportConfig()


def write_depth(
    depth: Callable[[int], np.ndarray], clip: Clip, folder: Path, *, reporter: Reporter, origin: Origin,
    frames: Sequence[int] | None = None, settings: ExportConfig = _DEFAULTS,
) -> list[Path]:  # fmt: skip
    """Write ``<clip>.depth.<frame>.exr`` with the channel ``Z``, float32; whole files of the same run are kept.

    Args:
        depth: of every pixel of a frame (index t), (H, W) float32: smaller is nearer, comparable within the clip.
        frames: indices t of those to write; all when not given.
    Returns:
        The files in the order of frames.
    Raises:
        ExportError: the depth is not finite or not of the plate's size, or a file cannot be written.
        Cancelled: the user asked to stop.
    """
    check_compression(settings.compression)
    chosen, paths = chosen_frames(clip, frames), []
    for done, t in enumerate(chosen):
        path = sequence_path(clip, folder, KIND, t)
        content = ExrContent(
            attributes=header(clip, t, origin, KIND, units="order within the run, smaller is nearer", y_axis="up"),
            channels=["Z"], compression=settings.compression,
        )  # fmt: skip
        if not is_written(path, content, clip):
            values = depth(t)
            if values.shape != clip.size[::-1]:
                raise ExportError(f"the depth of frame {t} is {values.shape}, not {clip.size[::-1]}",
                                  "give it at the plate's resolution")
            write_content(path, content, {"Z": values.astype(np.float32, copy=False)}, clip)
        paths.append(path)
        reporter.progress("export", done + 1, len(chosen))
    return paths
