"""What a run folder says of itself and of its clip, as publishing needs it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import ExportError, RunError
from omnimotion_core.export.markers import read_markers
from omnimotion_core.files import safe_name
from omnimotion_core.run import RunFolder
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.cache import RECORD


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A finished run's facts, from its manifest."""

    folder: Path
    name: str  # the clip's, safe in file names
    clip_path: Path  # where the footage was; of a sequence, its first file
    sha256: str  # of the tracked footage
    is_sequence: bool
    size: Size  # of the plate
    pixel_aspect: float
    fps: float  # 0 where unknown
    first_frame: int  # the source's numbers of the tracked frames
    last_frame: int
    clip_offset: int  # frames of the clip before the first tracked one
    digest: str  # equal for equal fields; EXR headers carry it as te/run
    tool_version: str  # of the program that tracked
    max_markers: int

    @property
    def frames(self) -> range:
        """The source's numbers of the tracked frames."""
        return range(self.first_frame, self.last_frame + 1)

    @property
    def run(self) -> RunFolder:
        """The places of its files."""
        return RunFolder(self.folder)


def read_facts(folder: Path | str) -> RunFacts:
    """The facts of a run folder whose tracks are finished.

    Raises:
        RunError: there is no run folder, its manifest is damaged, or its tracks are not finished.
    """
    run = RunFolder.open(folder)
    run.require("tracks")
    name = run.clip.get("name")
    if not isinstance(name, str) or safe_name(name) != name:
        raise RunError(f"{run.manifest_path} is damaged: {name!r} is no name for files",
                       f"run `omnimotion prepare {run.path}` again")
    try:
        clip, stages = run.clip, run.manifest["stages"]
        first, fps = int(clip["first_frame"]), float(clip["fps"])
        return RunFacts(
            folder=run.path, name=name, clip_path=Path(clip["path"]), sha256=clip["sha256"],
            is_sequence=bool(clip["is_sequence"]), size=(int(clip["size"][0]), int(clip["size"][1])),
            pixel_aspect=float(clip["pixel_aspect"]), fps=fps if math.isfinite(fps) else 0.0, first_frame=first,
            last_frame=first + int(clip["frames"]) - 1, clip_offset=first - int(clip["clip_first_frame"]),
            digest=str(stages["fit"]["key"]), tool_version=str(run.manifest["packages"].get("omnimotion", "")),
            max_markers=run.config.tracks.max_markers,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunError(f"{run.manifest_path} is damaged: {type(error).__name__} {error}",
                       f"run `omnimotion prepare {run.path}` again") from error


def read_record(facts: RunFacts) -> dict[str, Any]:
    """``frames.json``, the record of the working frames.

    Raises:
        RunError: it is absent or damaged.
    """
    path = facts.run.frames / RECORD
    try:
        record = json.loads(path.read_bytes())
        _ = record["sha256"], [entry["source"] for entry in record["frames"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is absent or damaged", f"run `omnimotion prepare {facts.folder}`") from error
    return dict(record)


def footage_files(facts: RunFacts) -> list[Path]:
    """The files that were tracked, in the order in which the clip's hash takes them.

    Raises:
        RunError: the record of the working frames is absent or damaged.
    """
    if not facts.is_sequence:
        return [facts.clip_path]
    return [facts.clip_path.parent / str(entry["source"]) for entry in read_record(facts)["frames"]]


def problem_of_tracks(facts: RunFacts) -> str | None:
    """Why ``tracks.npz`` and ``markers.json`` do not fit the clip; None where they do."""
    try:
        tracks, markers = Tracks.load(facts.run.tracks), read_markers(facts.run.markers)
    except (RunError, ExportError) as error:
        return error.problem
    num_frames, first = len(facts.frames), facts.clip_offset + 1
    last = first + num_frames - 1
    if (tracks.first_frame, tracks.num_frames) != (facts.first_frame, num_frames):
        return (f"the tracks cover {tracks.num_frames} frames from {tracks.first_frame} on, the clip has {num_frames} "
                f"from {facts.first_frame} on")
    if markers.clip_frames != (first, last):
        return f"the markers cover the clip frames {markers.clip_frames}, not {(first, last)}"
    for what, size in (("tracks", tracks.size), ("markers", markers.size)):
        if size != facts.size:
            return f"the {what} are of a plate of {size[0]}x{size[1]}, it is {facts.size[0]}x{facts.size[1]}"
    if not np.isfinite(tracks.positions[tracks.visible]).all():
        return "a point that is seen has no position"
    if not ((tracks.confidence >= 0) & (tracks.confidence <= 1)).all():
        return "confidence is not in 0..1 everywhere"
    return None if markers.tracks else "no track is seen in two frames"
