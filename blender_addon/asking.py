# SPDX-License-Identifier: GPL-3.0-or-later
"""A core that keeps a run's field in memory and answers points at once, for as long as points are asked. No Blender.

Points are put into a folder as files, and answers come back as files of the same name: ``omnimotion query`` does so
where it is given folders. Loading PyTorch and the field takes seconds, an answer takes milliseconds.
"""

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from . import events
from .core_process import CoreProcess, core_command
from .job import Job
from .steps import Point

IDLE_S = 300.0  # after so long without a question the core is let go: it holds memory


class AnsweringCore:
    """A core that waits for points of one run.

    Args:
        python: the interpreter that has the core.
        run: the run folder.
        device: as the core takes it.
    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, python: str, run: Path, device: str) -> None:
        self.key = self.key_of(python, run, device)
        self._folder = Path(tempfile.mkdtemp(prefix="track_everything_"))
        self._numbers = itertools.count(1)
        for name in ("asked", "answered"):
            (self._folder / name).mkdir()
        self._process = CoreProcess(core_command(
            python, "query", str(run), "--points", str(self._folder / "asked"), "--out",
            str(self._folder / "answered"), "--blender", "--device", device, "--events"
        ))  # fmt: skip
        self.used_at = time.monotonic()

    @staticmethod
    def key_of(python: str, run: Path, device: str) -> "tuple[str, str, str, int]":
        """What an answering core answers for: a run that is fitted anew is another one."""
        model = run / "model.safetensors"
        return python, str(run), device, model.stat().st_mtime_ns if model.exists() else 0

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._process.finished

    @property
    def pid(self) -> int:
        """Its process's number."""
        return self._process.pid

    def ask(self, title: str, points: Iterable[Point]) -> "Question":
        """Ask where points go; the job that is given back has ``answer`` when it is finished."""
        self.used_at = time.monotonic()
        name = f"{next(self._numbers):06d}"
        part = self._folder / "asked" / f".{name}.part"
        part.write_text("".join(f"{frame},{x:.9g},{y:.9g}\n" for frame, x, y in points), encoding="utf-8")
        os.replace(part, part.with_name(f"{name}.csv"))
        return Question(title, self, self._folder / "answered" / f"{name}.json")

    def poll(self) -> "list[events.Event]":
        """What it said since the last call."""
        return self._process.poll()

    def close(self) -> None:
        """Let it go."""
        self._process.stop(0.5)
        self._process.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Question(Job):
    """A job that is one question to an answering core."""

    def __init__(self, title: str, core: AnsweringCore, answer: Path) -> None:
        super().__init__(title, [])
        self.answer = answer
        self._core = core

    def poll(self) -> "list[events.Event]":
        """As a job's."""
        if self.outcome is not None:
            return []
        if self._cancelled:
            return [self._end(events.Cancelled(resumable=False))]
        heard = self._core.poll()
        for event in heard:
            self._take(event)
            if isinstance(event, events.Artifact) and Path(event.path).name == self.answer.name:
                self._end(events.Finished())
            elif isinstance(event, events.Warned) and event.message.startswith(f"{self.answer.stem}.csv: "):
                problem, _, remedy = event.message.partition(": ")[2].partition("; ")
                self._end(events.Failed(problem, remedy))
            elif isinstance(event, events.LAST):
                self._end(event)
        return heard

    @property
    def pid(self) -> "int | None":
        """As a job's."""
        return self._core.pid

    def cancel(self) -> None:
        """Wait no longer; the core stays."""
        self._cancelled = True

    def stop(self) -> None:
        """As ``cancel``, at once."""
        if self.outcome is None:
            self._end(events.Cancelled(resumable=False))


_core: "AnsweringCore | None" = None


def ask(python: str, run: Path, device: str, title: str, points: Iterable[Point]) -> Question:
    """Ask the core that waits for this run; one is started where there is none.

    Raises:
        LookupError: it cannot be started; told in one line.
    """
    global _core
    if _core is not None and (_core.key != AnsweringCore.key_of(python, run, device) or not _core.alive):
        close()
    if _core is None:
        try:
            _core = AnsweringCore(python, run, device)
        except OSError as error:
            raise LookupError(f"{python} cannot be started ({error.strerror}); check the core in the add-on's "
                              "preferences") from error  # fmt: skip
    return _core.ask(title, points)


def close() -> None:
    """Let the waiting core go."""
    global _core
    core, _core = _core, None
    if core is not None:
        core.close()


def close_if_idle() -> "float | None":
    """Let it go when nothing was asked for long; seconds until it is to be looked at again, None: not at all."""
    if _core is None:
        return None
    left = _core.used_at + IDLE_S - time.monotonic()
    if left <= 0 or not _core.alive:
        close()
        return None
    return max(left, 1.0)
