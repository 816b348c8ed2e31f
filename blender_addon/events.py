# SPDX-License-Identifier: GPL-3.0-or-later
"""One JSON line of the core's standard output → one event record; needs neither Blender nor the core.

The core speaks protocol 1: first ``started``, then ``stage``, ``progress``, ``note``, ``warning`` and ``artifact``,
last exactly one of ``finished``, ``cancelled`` and ``error``. Events and fields that a newer core adds are skipped.
"""

import dataclasses
import json
from dataclasses import dataclass

PROTOCOL = 1


class ProtocolError(Exception):
    """The core speaks another protocol than this add-on: one of the two must be updated."""


@dataclass(frozen=True)
class Started:
    """The core runs and speaks our protocol."""

    protocol: int
    version: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage begins."""

    stage: str
    index: int = 0  # from 0
    count: int = 1


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` units of a stage are finished."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Noted:
    """Something of interest that is no reason to act."""

    message: str


@dataclass(frozen=True)
class Warned:
    """Something the artist should know; the job goes on."""

    message: str


@dataclass(frozen=True)
class Artifact:
    """A file or folder is complete."""

    kind: str
    path: str


@dataclass(frozen=True)
class Finished:
    """The job did all it was asked."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Cancelled:
    """The job stopped as asked; ``resumable``: the same job goes on from there."""

    resumable: bool = True


@dataclass(frozen=True)
class Failed:
    """The job could not go on."""

    problem: str
    remedy: str


@dataclass(frozen=True)
class Log:
    """A line that is no event we can read: shown in the log, so that nothing the core says is lost."""

    text: str


Event = Started | Stage | Progress | Noted | Warned | Artifact | Finished | Cancelled | Failed | Log
LAST = (Finished, Cancelled, Failed)  # after one of these the core says nothing more

_RECORDS = {
    "started": Started, "stage": Stage, "progress": Progress, "note": Noted, "warning": Warned,
    "artifact": Artifact, "finished": Finished, "cancelled": Cancelled, "error": Failed,
}  # fmt: skip


def parse_line(line: str) -> Event | None:
    """The event that a line of the core's standard output carries.

    Returns:
        None for an empty line and for an event of a newer core; ``Log`` for a line that is no JSON object
        or lacks what its event needs.
    Raises:
        ProtocolError: the core speaks another protocol.
    """
    text = line.strip()
    if not text:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return Log(text)
    if not isinstance(values, dict) or not isinstance(values.get("event"), str):
        return Log(text)
    record = _RECORDS.get(values["event"])
    if record is None:
        return None
    if record is Started and values.get("protocol") != PROTOCOL:
        raise ProtocolError(
            f"the core speaks protocol {values.get('protocol')!r}, this add-on {PROTOCOL}; update the older of the two"
        )
    known = {field.name: field for field in dataclasses.fields(record)}
    given = {name: value for name, value in values.items() if name in known}
    try:
        event: Event = record(**given)
    except TypeError:  # a field without default is missing
        return Log(text)
    return event if all(_fits(value, known[name].type) for name, value in given.items()) else Log(text)


def _fits(value: object, kind: object) -> bool:
    """Whether a value out of JSON may stand in a field of type ``kind``."""
    if isinstance(value, bool):  # Python counts True as a number, JSON does not
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    return type(value) is kind
