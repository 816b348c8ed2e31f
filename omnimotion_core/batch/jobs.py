"""What is to be done: a jobs file in TOML, or a folder of clips, as one checked record for each clip.

    out = "runs"                        # run folders, report and logs; relative paths begin at this file
    preset = "draft"                    # any setting of a clip may stand here, for all of them
    export = ["vectors:blender", "report"]

    [settings.fit]                      # as `track --config` takes them
    steps = 300

    [[clip]]
    path = "plates/sh010.####.exr"
    frames = "1001-1048"

    [[clip]]
    path = "plates/sh020.mov"
    name = "sh020_fg"
    mask = "mattes/sh020.####.png"
"""

import json
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnimotion_core.api import make_config
from omnimotion_core.config import Config
from omnimotion_core.errors import ConfigError, OmniMotionError
from omnimotion_core.files import safe_name
from omnimotion_core.flow.estimators import BUILT_IN, check_estimator
from omnimotion_core.products import check_kinds
from omnimotion_core.video.movie import MOVIE_SUFFIXES
from omnimotion_core.video.sequence import is_image, is_pattern, sequences_of_folder, split_number

REPORT, CONTACT_SHEET, LOGS = "report.json", "report.html", "logs"  # in the batch's folder, beside the runs
MAX_CHUNKS = 1000

_SETTINGS = {  # of a clip, or at the top for all clips
    "preset": str, "settings": dict, "frames": (str, list), "flow": str, "weights": str, "mask": str, "seed": int,
    "device": str, "threads": int, "allow_gaps": bool, "export": list, "flow_chunks": int, "export_chunks": int,
}  # fmt: skip
_CLIP = {"path": str, "name": str, "out": str, **_SETTINGS}
_TOP = {"out": str, "retries": int, "clip": list, **_SETTINGS}
_KINDS = {str: "text", dict: "a table", list: "a list", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One clip's job."""

    name: str  # safe as part of a file name, unlike all others of the batch
    clip: str  # absolute
    run: Path  # the run folder, absolute
    config: Config
    flow_chunks: int = 1
    export_chunks: int = 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """All jobs, and where what is told of them goes."""

    source: Path  # the jobs file, or the folder of clips
    out: Path  # gets the report, the contact sheet and the logs
    jobs: tuple[Job, ...]
    retries: int = 1  # how often a clip is begun again that ended by no fault of its own

    @property
    def report(self) -> Path:
        """What came of every clip, for programs."""
        return self.out / REPORT

    @property
    def contact_sheet(self) -> Path:
        """What came of every clip, for people."""
        return self.out / CONTACT_SHEET

    def log(self, job: Job) -> Path:
        """What a clip's processes say beside their events."""
        return self.out / LOGS / f"{job.name}.log"


def read_jobs(path: str | Path, *, out: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> Batch:
    """The jobs of a jobs file, or one for each clip of a folder.

    Args:
        path: a TOML file, or a folder with movies and image sequences, in it or in folders directly below.
        out: in place of the file's ``out``. Without any: ``runs`` beside a file, ``FOLDER-runs`` beside a folder.
        changes: settings, named as in the file, that count for every clip whatever the file says.
    Raises:
        ConfigError: the file or the folder cannot be read, a key is unknown, a value cannot be used, or two clips
            would be written to the same place; told with the clip and the key.
    """
    source = Path(os.path.abspath(path))
    try:
        is_folder = stat.S_ISDIR(os.stat(source).st_mode)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path} cannot be read ({reason})", "give a jobs file or a folder of clips") from error
    if is_folder:
        table: dict[str, Any] = {"out": f"{source}-runs", "clip": _clips_of(source)}
    else:
        table = _read_table(source)
    place = str(source)
    _check_keys(table, _TOP, place)
    clips = table.get("clip", [])
    if not clips:
        raise ConfigError(f"{place} names no clip", 'add some: [[clip]] and below it path = "plates/sh010.####.exr"')
    retries = table.get("retries", 1)
    if retries < 0:
        raise ConfigError(f"{place}: retries is {retries}", "set it to 0 or more")
    folder = Path(os.path.abspath(out if out is not None else source.parent / table.get("out", "runs")))
    general = {key: table[key] for key in _SETTINGS if key in table}
    jobs = [_job(clip, f"{place}: clip {number}", general, changes or {}, source.parent, folder)
            for number, clip in enumerate(clips, 1)]  # fmt: skip
    batch = Batch(source=source, out=folder, jobs=tuple(jobs), retries=retries)
    _check_places(batch)
    return batch


def _read_table(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{source} cannot be read ({error.strerror})", "check its permissions") from error
    except ValueError as error:  # TOML's errors tell the line and the column
        raise ConfigError(f"{source} is no TOML: {error}", "mend it there") from error


def _clips_of(folder: Path) -> list[dict[str, str]]:
    """The movies and sequences of a folder and of those directly below it, as clips of a jobs file."""
    found: list[tuple[str, str]] = []  # name, path
    try:
        with os.scandir(folder) as entries:
            below = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read ({error.strerror})", "check its permissions") from error
    for entry in below:
        if entry.is_dir():
            if not (Path(entry.path) / "run.json").exists():
                sequences = sequences_of_folder(Path(entry.path))
                alone = len(sequences) == 1
                found += [(entry.name if alone else f"{entry.name}-{one.title}", f"{entry.path}/{pattern}")
                          for pattern, one in sequences.items()]  # fmt: skip
        elif entry.name.lower().endswith(MOVIE_SUFFIXES):
            found.append((os.path.splitext(entry.name)[0], entry.path))
    found += [(one.title, str(folder / pattern)) for pattern, one in sequences_of_folder(folder).items()]
    if not found:
        raise ConfigError(f"the folder {folder} holds no movie and no image sequence",
                          "give a folder of clips, or a jobs file (TOML)")  # fmt: skip
    names = [name.casefold() for name, _ in found]
    return [{"path": path, "name": safe_name(name if names.count(name.casefold()) == 1 else os.path.basename(path))}
            for name, path in found]  # fmt: skip


def _job(
    table: Any, place: str, general: Mapping[str, Any], changes: Mapping[str, Any], base: Path, out: Path
) -> Job:
    if not isinstance(table, dict):
        raise ConfigError(f"{place} is {table!r}", 'write [[clip]] and below it path = "plates/sh010.####.exr"')
    if isinstance(table.get("path"), str):
        place = f"{place} ({os.path.basename(table['path'])})"
    _check_keys(table, _CLIP, place)
    if not table.get("path"):
        raise ConfigError(f"{place} has no path", 'add path = "plates/sh010.####.exr"')
    values = {**general, **table, **changes}
    values["settings"] = _merged(general.get("settings", {}), table.get("settings", {}), changes.get("settings", {}))
    for key in ("flow_chunks", "export_chunks"):
        if not 1 <= values.get(key, 1) <= MAX_CHUNKS:
            raise ConfigError(f"{place}: {key} is {values[key]}", f"set it between 1 and {MAX_CHUNKS}")
    clip = os.path.abspath(base / table["path"])
    name = table.get("name") or safe_name(_title(clip))
    if safe_name(name) != name:
        raise ConfigError(f"{place}: name is {name!r}", "use letters, digits, dots, underscores and dashes, a letter "
                          "or digit first")  # fmt: skip
    run = os.path.abspath(base / table["out"]) if "out" in table else out / name
    try:
        config = _config(values, base, place)
        check_kinds(config.export.kinds)
        check_estimator(config.flow.estimator)
    except OmniMotionError as error:
        raise ConfigError(f"{place}: {error.problem}", error.remedy) from error
    return Job(name=name, clip=clip, run=Path(run), config=config, flow_chunks=values.get("flow_chunks", 1),
               export_chunks=values.get("export_chunks", 1))  # fmt: skip


def _config(values: Mapping[str, Any], base: Path, place: str) -> Config:
    settings = dict(values["settings"])
    if "export" in values:
        settings["export"] = {**settings.get("export", {}), "kinds": values["export"]}
    paths = {key: str(base / values[key]) for key in ("mask", "weights") if key in values}
    flow = values.get("flow")
    if flow is not None and flow not in BUILT_IN and (os.path.basename(flow) != flow or (base / flow).exists()):
        flow = str(base / flow)
    return make_config(
        values.get("preset"), settings, frames=_frames(values.get("frames"), place), flow=flow,
        weights=paths.get("weights"), mask=paths.get("mask"), seed=values.get("seed"), device=values.get("device"),
        threads=values.get("threads"), allow_gaps=values.get("allow_gaps"),
    )  # fmt: skip


def _frames(value: Any, place: str) -> tuple[int, int] | None:
    if value is None:
        return None
    numbers: Sequence[Any] = value if isinstance(value, list) else value.split("-")
    try:
        first, last = (int(number) for number in numbers)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{place}: frames is {value!r}", 'write "1001-1048" or [1001, 1048]') from error
    return first, last


def _title(clip: str) -> str:
    """What a clip is called by its path: the name without frame number and ending, or the folder's."""
    name = os.path.basename(clip)
    if not is_image(name):  # a movie, or a folder with a sequence
        return os.path.splitext(name)[0] if name.lower().endswith(MOVIE_SUFFIXES) else name
    number = split_number(name)
    before = name[: _pattern_start(name)] if is_pattern(name) else number[0] if number else os.path.splitext(name)[0]
    return before.rstrip("._- ") or os.path.basename(os.path.dirname(clip))


def _pattern_start(name: str) -> int:
    return min(at for at in (name.find(sign) for sign in ("#", "@", "%", "$F")) if at >= 0)


def _merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables laid over each other, the last on top."""
    merged: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = _merged(merged[key], value) if both else value
    return merged


def _check_keys(table: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{place}: {key!r} is no key", f"use {', '.join(known)}")
        kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"{place}: {key} is {json.dumps(value, default=str)}",
                              f"give {' or '.join(_KINDS[kind] for kind in kinds)}")  # fmt: skip


def _check_places(batch: Batch) -> None:
    """Two clips may not meet in one folder, nor in a file of the batch's own; Windows does not tell cases apart."""
    taken = {_place(path): f"the batch's {path.name}"
             for path in (batch.out, batch.report, batch.contact_sheet, batch.out / LOGS)}  # fmt: skip
    logs: dict[str, str] = {}
    for number, job in enumerate(batch.jobs, 1):
        what = f"clip {number} ({job.name})"
        place = _place(job.run)
        if place in taken:
            raise ConfigError(f"{batch.source}: {taken[place]} and {what} would both be written to {job.run}",
                              "give one of them another name or out")  # fmt: skip
        if job.name.casefold() in logs:
            raise ConfigError(f"{batch.source}: {logs[job.name.casefold()]} and {what} have the same name",
                              "give one of them another name")  # fmt: skip
        taken[place] = logs[job.name.casefold()] = what


def _place(path: Path) -> str:
    return os.path.realpath(path).casefold()
