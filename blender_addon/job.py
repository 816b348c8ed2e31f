# SPDX-License-Identifier: GPL-3.0-or-later
"""A job: core commands one after another, and how far they are. Needs no Blender."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import events
from .core_process import CoreProcess

STAGE_TITLES = {
    "prepare": "Reading frames", "flow": "Matching frames", "fit": "Fitting motion", "tracks": "Making tracks",
    "export": "Writing passes", "environment": "Making an environment", "torch": "Installing PyTorch",
    "core": "Installing the core", "check": "Checking the core",
}  # fmt: skip
_SETTLING_S = 2.0  # no time left is told before


@dataclass(frozen=True)
class Step:
    """One command of a job."""

    command: Sequence[str]
    environment: Mapping[str, str] | None = None


@dataclass
class Status:
    """How far a job is, for people."""

    text: str = "Starting the core"
    fraction: float = 0.0  # of the whole job, 0..1, never falling
    seconds_left: float | None = None  # of the present stage
    warnings: list[str] = field(default_factory=list)


class Job:
    """Core commands one after another; ``poll`` from a timer until ``outcome`` is there.

    Args:
        title: what people call it, such as the clip's name.
        steps: the commands; the next one starts when one is finished.
        scratch: a folder that ``close`` removes.
    """

    def __init__(self, title: str, steps: Sequence[Step], scratch: Path | None = None) -> None:
        self.title, self.steps, self.scratch = title, list(steps), scratch
        self.status = Status()
        self.artifacts: dict[str, str] = {}
        self.log: list[str] = []
        self.outcome: events.Event | None = None  # one of events.LAST
        self._index = 0
        self._process: CoreProcess | None = None
        self._cancelled = False
        self._stage_began = 0.0
        self._stage = (0, 1)  # index and count

    def poll(self) -> list[events.Event]:
        """Take in what the core said since the last call; starts what is to be started. Does not wait."""
        if self.outcome is not None:
            return []
        if self._process is None:
            if self._cancelled:
                return [self._end(events.Cancelled(resumable=True))]
            try:
                step = self.steps[self._index]
                self._process = CoreProcess(step.command, step.environment)
            except OSError as error:
                reason = error.strerror or str(error)
                return [self._end(events.Failed(f"{self.steps[self._index].command[0]} cannot be started ({reason})",
                                                "check the core in the add-on's preferences"))]  # fmt: skip
        heard = self._process.poll()
        for event in heard:
            self._take(event)
        if self._process.finished:
            self._process.close()
            self._process = None
            last = heard[-1]
            self._index += 1
            if not isinstance(last, events.Finished) or self._index == len(self.steps):
                self._end(last)
        return heard

    @property
    def pid(self) -> int | None:
        """The number of the process that runs now."""
        return self._process.pid if self._process is not None else None

    @property
    def cancelling(self) -> bool:
        """Whether it was asked to stop and has not stopped yet."""
        return self._cancelled and self.outcome is None

    def cancel(self) -> None:
        """Ask it to stop; ``outcome`` comes when it has."""
        self._cancelled = True
        self.status.text, self.status.seconds_left = "Stopping after this step", None
        if self._process is not None:
            self._process.cancel()

    def stop(self) -> None:
        """End it now, with its process; for an ending Blender or another file."""
        if self._process is not None:
            self._process.stop()
            self._process.close()
            self._process = None
        if self.outcome is None:
            self._end(events.Cancelled(resumable=True))

    def run(self, pause_s: float = 0.05) -> events.Event:
        """Do it all and wait; an interrupt (Ctrl-C) cancels it first."""
        while self.outcome is None:
            try:
                self.poll()
                time.sleep(pause_s)
            except KeyboardInterrupt:
                if self._cancelled:
                    self.stop()
                    raise
                self.cancel()
        return self.outcome

    def message(self) -> str:
        """One line for people on how it ended: what is wrong; how to mend it."""
        if isinstance(self.outcome, events.Failed):
            return " ".join(f"{self.outcome.problem}; {self.outcome.remedy}".split())
        if isinstance(self.outcome, events.Cancelled):
            return "Stopped; start it again and it goes on from there" if self.outcome.resumable else "Stopped"
        return "Done"

    def _take(self, event: events.Event) -> None:
        status = self.status
        if isinstance(event, events.Stage) and not self._cancelled:
            self._stage_began = time.monotonic()
            title = STAGE_TITLES.get(event.stage, event.stage)
            status.text = f"{title} ({event.index + 1} of {event.count})" if event.count > 1 else title
            status.seconds_left = None
            self._advance(event.index, event.count, 0.0)
            self._stage = (event.index, event.count)
        elif isinstance(event, events.Progress) and event.total > 0:
            share = min(event.done / event.total, 1.0)
            self._advance(*self._stage, share)
            elapsed = time.monotonic() - self._stage_began
            known = 0 < share < 1 and elapsed > _SETTLING_S and not self._cancelled
            status.seconds_left = elapsed / share * (1 - share) if known else None
        elif isinstance(event, events.Warned):
            status.warnings.append(event.message)
        elif isinstance(event, events.Artifact):
            self.artifacts[event.kind] = event.path
        elif isinstance(event, events.Log):
            self.log.append(event.text)
        elif isinstance(event, events.Noted):
            self.log.append(event.message)

    def _advance(self, index: int, count: int, share: float) -> None:
        whole = (self._index + (index + share) / max(count, 1)) / max(len(self.steps), 1)
        self.status.fraction = max(self.status.fraction, min(whole, 1.0))

    def _end(self, event: events.Event) -> events.Event:
        self.outcome = event
        return event

    def close(self) -> None:
        """Remove its scratch folder, when what is in it was read."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


def duration(seconds: float) -> str:
    """A time left as people say it: ``40 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
