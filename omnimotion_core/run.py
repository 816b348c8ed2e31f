"""The run folder: where its files are, what its manifest says, and the lock that keeps two writers apart.

``run.json`` holds ``version``, ``clip`` (the footage's facts), ``config``, ``stages`` (for each stage ``state``
``started`` or ``done``, ``key``, ``warnings``, and when done ``wrote``, ``seconds`` and ``peak_memory_mb``), ``device``
and ``packages``. A stage's key is a digest of all that its results depend on: other settings, another key.
"""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from omnimotion_core.config import Config
from omnimotion_core.errors import ConfigError, RunError
from omnimotion_core.files import remove_leftovers, unwritable, write_text

RUN_VERSION = 1
STAGES = ("prepare", "flow", "fit", "tracks", "export")

_LOCK = ".lock"
_PART_WAIT_S = 10.0  # a part waits this long for another part that is at the manifest; that takes milliseconds


class RunFolder:
    """A run folder on disk.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(os.path.abspath(path))  # not resolve(): a studio's links are meant to stay
        self.frames = self.path / "frames"
        self.correspondences = self.path / "correspondences"
        self.checkpoint = self.path / "checkpoint"
        self.rounds = self.path / "rounds"
        self.model = self.path / "model.safetensors"
        self.model_json = self.path / "model.json"
        self.tracks = self.path / "tracks.npz"
        self.markers = self.path / "markers.json"
        self.preview_markers = self.path / "preview.json"
        self.exr = self.path / "exr"
        self.track_texts = self.path / "tracks"
        self.preview = self.path / "preview.mp4"
        self.report = self.path / "report.html"
        self.published = self.path / "omnimotion.pth"
        self.manifest_path = self.path / "run.json"
        self.manifest: dict[str, Any] = {}
        self._made: list[Path] = []  # folders that `create` made, innermost first

    def outputs(self, stage: str) -> tuple[Path, ...]:
        """The files and folders that ``stage`` writes."""
        return {
            "prepare": (self.frames,),
            "flow": (self.correspondences,),
            "fit": (self.checkpoint, self.rounds, self.model, self.model_json, self.preview_markers),
            "tracks": (self.tracks, self.markers),
            "export": (self.exr, self.track_texts, self.preview, self.report, self.published),
        }[stage]

    # --- the manifest

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """A run folder that exists, its manifest read.

        Raises:
            RunError: there is none, its manifest is damaged, or a newer version wrote it.
        """
        run = cls(path)
        run.read()
        return run

    def read(self) -> None:
        """Read the manifest again; raises as ``open`` does."""
        try:
            manifest = json.loads(self.manifest_path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"{self.path} is no run folder", "make it with `omnimotion track CLIP --out RUN`") from error
        except OSError as error:
            raise RunError(f"{self.manifest_path} cannot be read ({error.strerror})",
                           "choose a run folder that you may read") from error
        except ValueError as error:
            raise self._damaged("it is not JSON") from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("version"), int):
            raise self._damaged("it has no version")
        if manifest["version"] > RUN_VERSION:
            raise RunError(f"{self.path} is of version {manifest['version']}, this omnimotion knows run folders up to "
                           f"version {RUN_VERSION}", "update omnimotion, or track into another folder")
        for part in ("clip", "config", "stages", "device", "packages"):
            if not isinstance(manifest.get(part), dict):
                raise self._damaged(f"its {part!r} is missing")
        for name in ("path", "sha256"):
            if not isinstance(manifest["clip"].get(name), str):
                raise self._damaged(f"its clip has no {name!r}")
        if not all(isinstance(entry, dict) for entry in manifest["stages"].values()):
            raise self._damaged("a stage of it is no table")
        self.manifest = manifest

    def _damaged(self, reason: str) -> RunError:
        return RunError(f"{self.manifest_path} is damaged: {reason}", f"delete {self.path} and track the clip again")

    def write(self) -> None:
        """Write the manifest, as a whole or not at all."""
        write_text(self.manifest_path, json.dumps(self.manifest, indent=1) + "\n")

    @property
    def config(self) -> Config:
        """The settings that the run was made with."""
        try:
            return Config().override(self.manifest["config"])
        except ConfigError as error:
            raise self._damaged(error.problem) from error

    @property
    def clip(self) -> dict[str, Any]:
        """The clip's facts: ``path``, ``sha256`` and, once it is prepared, size, fps, frames and more."""
        facts: dict[str, Any] = self.manifest["clip"]
        return facts

    @property
    def warnings(self) -> list[str]:
        """What the stages warned of, in their order."""
        return [text for stage in STAGES for text in self.manifest["stages"].get(stage, {}).get("warnings", [])]

    # --- creating

    def create(self) -> None:
        """Make the folder, or accept one that is empty or a run folder.

        Raises:
            RunError: the path is a file or a folder with other things in it, or may not be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file, not a folder", "give --out a new folder or a run folder")
        try:
            missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            if not self.manifest_path.exists():
                strangers = sorted(name for name in os.listdir(self.path) if not name.startswith((_LOCK, ".run.")))
                if strangers:
                    raise RunError(f"{self.path} is no run folder but holds {strangers[0]!r}",
                                   "give --out a new folder or a run folder")
        except OSError as error:
            raise unwritable(self.path, error) from error

    def start(self, clip: Mapping[str, Any], config: Config, packages: Mapping[str, str]) -> None:
        """Write the manifest of a job on ``clip``, keeping the stages that an earlier job on it finished.

        Args:
            clip: ``path``, ``sha256``, ``is_sequence`` and more facts.
        Raises:
            RunError: the folder belongs to another clip.
        """
        before: dict[str, Any] = {}
        if self.manifest_path.exists():
            self.read()
            self._require_same_clip(clip, config)
            before = self.manifest
        self.manifest = {
            "version": RUN_VERSION, "clip": {**before.get("clip", {}), **clip}, "config": config.to_dict(),
            "stages": before.get("stages", {}), "device": before.get("device", {}), "packages": dict(packages),
        }  # fmt: skip
        self.write()

    def _require_same_clip(self, clip: Mapping[str, Any], config: Config) -> None:
        same_path = self.clip["path"] == clip["path"]
        # a sequence's hash is that of the frames asked for, so another range of the same files changes it too
        another_range = same_path and clip.get("is_sequence") and self.config.video.frames != config.video.frames
        if self.clip["sha256"] != clip["sha256"] and not another_range:
            what = "an older state of this clip" if same_path else f"another clip, {self.clip['path']}"
            raise RunError(f"{self.path} belongs to {what}", "choose another folder, or delete this one first")

    def discard(self) -> None:
        """Take back what a job that failed at its start made here; only for a folder that held no run before."""
        for stage in STAGES:
            self._remove_outputs(stage)
        self.manifest_path.unlink(missing_ok=True)
        remove_leftovers(self.path)
        with suppress(OSError):  # Windows keeps a lock file that is held; an empty folder with it does no harm
            for lock in self.path.glob(f"{_LOCK}*"):
                lock.unlink()
            for folder in self._made:
                folder.rmdir()

    # --- stages

    def stage_is_done(self, stage: str, key: str) -> bool:
        """Whether ``stage`` was finished with ``key`` and what it wrote is still there."""
        entry = self.manifest["stages"].get(stage, {})
        wanted = [self.path / name for name in entry.get("wrote", [])]
        return entry.get("state") == "done" and entry.get("key") == key and all(path.exists() for path in wanted)

    def require(self, stage: str) -> None:
        """Raise ``RunError`` where ``stage`` is not finished."""
        if self.manifest["stages"].get(stage, {}).get("state") != "done":
            raise RunError(f"stage {stage!r} of {self.path} is not finished",
                           f"run `omnimotion {stage} {self.path}` first")

    def begin(self, stage: str, key: str) -> None:
        """Note that ``stage`` runs; results of it made with another key, and of all stages after it, go first."""
        entry = self.manifest["stages"].get(stage, {})
        same = entry.get("key") == key
        stale = STAGES[STAGES.index(stage) + same :]
        for name in stale:
            self.manifest["stages"].pop(name, None)
        self.write()  # before anything is removed: a kill in between must not leave a stage called done
        for name in stale:
            self._remove_outputs(name)
        self.manifest["stages"][stage] = {"state": "started", "key": key,
                                          "warnings": entry.get("warnings", []) if same else []}
        self.write()

    def forget(self, stage: str) -> None:
        """Note that ``stage`` has to be done again from its start."""
        self.manifest["stages"].pop(stage, None)
        self.write()

    def warn(self, stage: str, message: str) -> None:
        """Keep a warning of a stage that runs; a killed job's warnings are kept too."""
        warnings = self.manifest["stages"][stage]["warnings"]
        if message not in warnings:
            warnings.append(message)
            self.write()

    def finish(self, stage: str, wrote: Iterable[Path], **facts: float) -> None:
        """Note that ``stage`` is done: the paths that must stay for it to count, and facts such as its seconds."""
        names = sorted(path.relative_to(self.path).as_posix() for path in wrote)
        self.manifest["stages"][stage].update(state="done", wrote=names, **facts)
        self.write()

    def _remove_outputs(self, stage: str) -> None:
        try:
            for path in self.outputs(stage):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error

    # --- the lock

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other writer out of the folder; a killed holder's lock is free.

        Raises:
            RunError: another process writes here, or the folder may not be written.
        """
        with self._hold(_LOCK, 0.0):
            for part in self.path.glob(f"{_LOCK}-*"):
                if not part.name.endswith(".json"):
                    with self._hold(part.name, 0.0):
                        part.unlink(missing_ok=True)
            folders = (self.path, self.frames, self.correspondences, self.checkpoint, self.track_texts)
            for folder in (*folders, *self.exr.glob("*"), *self.rounds.glob("**")):
                remove_leftovers(folder)
            yield

    @contextmanager
    def lock_part(self, part: str, before: Callable[[], None]) -> Iterator[None]:
        """Keep out whoever writes all of the folder or the same ``part``; other parts may be written beside it.

        Args:
            part: a name that is safe in a file name, such as ``flow-2-of-8``.
            before: called while nobody else is at the manifest.
        """
        with ExitStack() as stack:
            with self._hold(_LOCK, _PART_WAIT_S):
                before()
                stack.enter_context(self._hold(f"{_LOCK}-{part}", 0.0))
            yield

    @contextmanager
    def _hold(self, name: str, wait_s: float) -> Iterator[None]:
        holder = self.path / f"{name}.json"  # beside the lock: Windows lets nobody read a locked file
        lock = FileLock(self.path / name, timeout=wait_s)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(f"{self.path} is in use by {_holder(holder)}",
                           "wait for it or end it, or choose another folder") from error
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            write_text(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()


def _holder(path: Path) -> str:
    try:
        facts = json.loads(path.read_bytes())
        return f"process {facts['pid']} on {facts['host']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"  # it has only just taken the lock
