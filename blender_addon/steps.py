# SPDX-License-Identifier: GPL-3.0-or-later
"""The core's commands that a job is made of, from what Blender knows. Needs no Blender."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core_process import core_command
from .job import Step

_MOVIES = (".mov", ".mp4", ".mkv", ".avi", ".m4v", ".webm", ".mxf", ".mpg", ".mpeg", ".ogv")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".dpx")

Point = tuple[int, float, float]  # the source's frame number, x and y as fractions of the frame, y up


@dataclass(frozen=True)
class TrackOrder:
    """What ``omnimotion track`` is asked for."""

    footage: str  # absolute path
    run: Path
    preset: str
    device: str
    frames: "tuple[int, int] | None" = None  # source's numbers, first and last; None: all
    mask: "str | None" = None
    max_tracks: int = 4000  # of the overlay
    max_markers: int = 500
    passes: bool = False  # motion vectors too
    rounds: int = 1  # of flow and fit; `paper` knows none but the first
    preview: int = 0  # tracks that are shown while they improve


def track_step(python: str, order: TrackOrder, scratch: Path) -> Step:
    """The whole job on a clip; ``scratch`` gets its settings."""
    settings: dict[str, Any] = {
        "tracks": {"max_tracks": max(order.max_tracks, order.max_markers), "max_markers": order.max_markers,
                   "preview": order.preview},
        "export": {"kinds": ["vectors:blender", "report"] if order.passes else ["report"]},
    }  # fmt: skip
    if order.rounds > 1 and order.preset != "paper":
        settings["fit"] = {"rounds": order.rounds}
    config = scratch / "settings.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    arguments = ["track", order.footage, "--out", str(order.run), "--preset", order.preset, "--device", order.device,
                 "--config", str(config)]  # fmt: skip
    if order.frames is not None:
        # one word: argparse would take a first frame below 0 for an option
        arguments.append(f"--frames={order.frames[0]}-{order.frames[1]}")
    if order.mask is not None:
        arguments += ["--mask", order.mask]
    return Step(core_command(python, *arguments, "--events"))


def query_step(python: str, run: Path, points: Iterable[Point], out: Path, scratch: Path, device: str) -> Step:
    """Where points go, as markers in ``out``; ``scratch`` gets the points."""
    file = scratch / "points.csv"
    file.write_text("".join(f"{frame},{x:.9g},{y:.9g}\n" for frame, x, y in points), encoding="utf-8")
    return Step(core_command(python, "query", str(run), "--points", str(file), "--blender", "--out", str(out),
                             "--device", device, "--events"))  # fmt: skip


def export_step(python: str, run: Path, kind: str, device: str) -> Step:
    """Passes of a finished run, into its own folder."""
    return Step(core_command(python, "export", str(run), "--to", kind, "--device", device, "--events"))


def run_name(clip: str, footage: str) -> str:
    """A folder name for the run of a clip: safe on every system, another one for other footage of the same name."""
    safe = re.sub(r"[^\w.-]+", "_", clip).strip("._") or "clip"
    return f"{safe[:60]}-{hashlib.sha256(footage.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def footage_of(names: "list[str]") -> "list[str]":
    """Of sorted file names: the movies, and the first file of each sequence of two pictures or more."""
    found, sequences = [], dict[tuple[str, str], list[tuple[int, str]]]()
    for name in names:
        stem, extension = os.path.splitext(name)
        number = re.search(r"(\d+)([^\d]*)$", stem)
        if name.startswith("."):
            continue
        if extension.lower() in _MOVIES:
            found.append(name)
        elif extension.lower() in _PICTURES and number is not None:
            key = stem[: number.start()], number[2] + extension
            sequences.setdefault(key, []).append((int(number[1]), name))
    found += [min(files)[1] for files in sequences.values() if len(files) > 1]
    return sorted(found)


@dataclass(frozen=True)
class RunFacts:
    """What a run folder tells of its clip."""

    path: Path
    size: tuple[int, int]
    first_number: int  # the source's number of the first tracked frame: a file's number, counted from 1 in a movie
    clip_first_number: int  # of the whole footage's first frame
    num_frames: int
    fitted: bool
    name: str  # the beginning of the file names of its passes
    shown_at: dict[int, int]  # movies: number → clip frame at which Blender shows it, where the rate varies

    @property
    def numbers(self) -> range:
        """The source's numbers of the tracked frames."""
        return range(self.first_number, self.first_number + self.num_frames)


def read_run(path: Path) -> RunFacts:
    """The facts of a run folder.

    Raises:
        LookupError: it is none, or its clip is not prepared; told in one line.
    """
    try:
        manifest = json.loads((path / "run.json").read_text(encoding="utf-8"))
        clip, stages = manifest["clip"], manifest["stages"]
        return RunFacts(
            path=path, size=(int(clip["size"][0]), int(clip["size"][1])), first_number=int(clip["first_frame"]),
            clip_first_number=int(clip["clip_first_frame"]), num_frames=int(clip["frames"]),
            fitted=stages.get("fit", {}).get("state") == "done", name=str(clip["name"]),
            shown_at=_shown_at(path / "frames" / "frames.json"),
        )  # fmt: skip
    except OSError as error:
        raise LookupError(f"{path} is no run folder; choose one that holds run.json") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise LookupError(f"{path} holds no finished run ({error!r}); track the clip again") from error


def _shown_at(path: Path) -> dict[int, int]:
    """Empty where every frame is shown at its own number."""
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
        shown = {int(frame["number"]): int(frame["blender_frame"]) for frame in frames if "blender_frame" in frame}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # an imported or thinned-out run: what varies cannot be told
    return shown if any(number != frame for number, frame in shown.items()) else {}
