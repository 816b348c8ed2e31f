"""``frames.json``, the record of the frame cache: written last, so where it is the cache is whole."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnimotion_core.errors import RunError
from omnimotion_core.files import remove_leftovers, unwritable, write_text
from omnimotion_core.video.clip import Clip

RECORD = "frames.json"
_VERSION = 1


def save_clip(clip: Clip, frames: Sequence[dict[str, Any]]) -> None:
    """Write the record of a cache whose pictures are all there.

    Args:
        clip: what the cache holds.
        frames: for each t its number, source, seconds and the like.
    """
    record = {
        "version": _VERSION, "name": clip.name, "path": clip.path, "sha256": clip.sha256, "size": clip.size,
        "working_size": clip.working_size, "num_frames": clip.num_frames, "first_frame": clip.first_frame,
        "clip_first_frame": clip.clip_first_frame, "fps": clip.fps, "pixel_aspect": clip.pixel_aspect,
        "cuts": clip.cuts, "has_mask": clip.has_mask, "is_sequence": clip.is_sequence, "frames": list(frames),
    }  # fmt: skip
    write_text(clip.folder / RECORD, json.dumps(record, indent=1) + "\n")


def load_clip(folder: Path) -> Clip:
    """The clip whose frame cache is in ``folder``.

    Raises:
        RunError: the cache is absent, incomplete or damaged.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] != _VERSION:
            raise RunError(f"{path} is of version {record['version']}, {_VERSION} is read here", "run prepare again")
        width, height = record["size"]
        working_width, working_height = record["working_size"]
        clip = Clip(
            folder=folder, name=str(record["name"]), path=str(record["path"]), sha256=str(record["sha256"]),
            size=(int(width), int(height)), working_size=(int(working_width), int(working_height)),
            num_frames=int(record["num_frames"]), first_frame=int(record["first_frame"]),
            clip_first_frame=int(record["clip_first_frame"]), fps=float(record["fps"]),
            pixel_aspect=float(record["pixel_aspect"]), cuts=tuple(int(t) for t in record["cuts"]),
            has_mask=bool(record["has_mask"]), is_sequence=bool(record["is_sequence"]),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise RunError(f"{folder} holds no prepared frames", "run prepare first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged", "run prepare again") from error
    for t in range(clip.num_frames):
        for needed in (clip.frame_path(t), *([clip.mask_path(t)] if clip.has_mask else [])):
            if not needed.is_file():
                raise RunError(f"{needed} is missing", "run prepare again")
    return clip


def clear_cache(folder: Path) -> None:
    """Delete the record and the pictures of a cache, the record first, and what a killed writer left."""
    try:
        (folder / RECORD).unlink(missing_ok=True)
        for pattern in ("[0-9]" * 6 + ".png", "[0-9]" * 6 + ".mask.png"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        remove_leftovers(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
