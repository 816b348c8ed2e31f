"""What a running job says, as records and as JSON lines.

Under ``--events`` standard output carries one JSON object a line: first ``started`` with the protocol's
number, then ``stage``, ``progress``, ``note``, ``warning`` and ``artifact``, last exactly one of ``finished``,
``cancelled`` and ``error``. A reader skips events and fields it does not know and refuses another protocol.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

PROTOCOL = 1


class Cancelled(Exception):
    """The user asked the job to stop; what is done is kept and the same command goes on from it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events; ``name`` is the value of the line's ``event`` field."""

    name: ClassVar[str]

    def to_json(self) -> str:
        """One line, without its newline, pure ASCII."""
        return json.dumps({"event": self.name, **dataclasses.asdict(self)})


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """The first line: the core runs and speaks this protocol."""

    name = "started"
    protocol: int = PROTOCOL
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage(Event):
    """A stage begins: prepare, flow, fit, tracks or export."""

    name = "stage"
    stage: str
    index: int = 0  # of this stage, from 0
    count: int = 1  # stages in this job


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """``done`` of ``total`` units of a stage are finished."""

    name = "progress"
    stage: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Noted(Event):
    """Something of interest that is no reason to act: what was decided, the terms of something used."""

    name = "note"
    message: str


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something the user should know that does not stop the job."""

    name = "warning"
    message: str


@dataclass(frozen=True, kw_only=True)
class Artifact(Event):
    """A file or folder is complete."""

    name = "artifact"
    kind: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The last line of a job that did all it was asked."""

    name = "finished"
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CancelledEvent(Event):
    """The last line of a job that was cancelled; ``resumable`` tells that the same command goes on."""

    name = "cancelled"
    resumable: bool = True


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The last line of a job that could not go on."""

    name = "error"
    problem: str
    remedy: str


class Reporter:
    """How a stage speaks: it reports progress between steps, and is told there to stop.

    Args:
        emit: receives every event; the default drops them.
        cancelled: asked between steps; a true answer raises ``Cancelled`` in the stage.
    """

    def __init__(
        self, emit: Callable[[Event], None] = lambda event: None, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        self.emit, self.cancelled = emit, cancelled

    def stage(self, stage: str, index: int = 0, count: int = 1) -> None:
        """Tell that ``stage`` begins."""
        self.emit(Stage(stage=stage, index=index, count=count))

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far ``stage`` is; raises ``Cancelled`` when the user asked to stop."""
        self.emit(Progress(stage=stage, done=done, total=total))
        self.check()

    def check(self) -> None:
        """Raise ``Cancelled`` when the user asked to stop."""
        if self.cancelled():
            raise Cancelled

    def note(self, message: str) -> None:
        """Tell what was decided, or the terms of something that is used."""
        self.emit(Noted(message=message))

    def warning(self, message: str) -> None:
        """Tell something that does not stop the job."""
        self.emit(Warned(message=message))

    def artifact(self, kind: str, path: object) -> None:
        """Tell that a file or folder is complete."""
        self.emit(Artifact(kind=kind, path=str(path)))
