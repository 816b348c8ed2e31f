"""A core of its own for a piece of work: its events as they come, a polite stop, and then a kill."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omnimotion_core.events import PROTOCOL
from omnimotion_core.files import unwritable

Heard = Callable[[dict[str, Any]], None]


class CoreProcess:
    """A running ``omnimotion`` under ``--events``; it stops by itself when this process is gone.

    Args:
        arguments: of the command line, without ``--events``.
        log: what it writes to stderr is added there.
        environment: variables on top of this process's own.
        on_event: called from a thread with each event, a table as ``docs/formats.md`` tells them.
        on_end: called from that thread last, with the exit code.
    Raises:
        RunError: the log cannot be written, or the process cannot be started.
    """

    def __init__(
        self, arguments: list[str], *, log: Path, environment: Mapping[str, str], on_event: Heard,
        on_end: Callable[[int], None],
    ) -> None:  # fmt: skip
        # -P: as with the installed command, a json.py in the working directory is not ours
        command = [sys.executable, "-P", "-m", "omnimotion_core", arguments[0], "--events", *arguments[1:]]
        own_group: dict[str, Any] = {"start_new_session": True}  # Ctrl-C reaches the runner alone, which then asks
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as errors:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                    env={**os.environ, **_own_package(), **environment}, **own_group,
                )  # fmt: skip
        except OSError as error:
            raise unwritable(log, error) from error
        self._on_event, self._on_end = on_event, on_end
        threading.Thread(target=self._listen, name=f"core-{self._process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def cancel(self) -> None:
        """Ask it to stop between two steps; what is done is kept."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended by itself
            self._process.stdin.write(b'{"command": "cancel"}\n')
            self._process.stdin.close()

    def terminate(self) -> None:
        """Ask the system to stop it."""
        with contextlib.suppress(OSError):
            self._process.terminate()

    def kill(self) -> None:
        """Stop it at once."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = _parse(line)
            if event is not None:
                self._on_event(event)
        self._process.stdout.close()
        code = self._process.wait()
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._on_end(code)


def _parse(line: bytes) -> dict[str, Any] | None:
    """One line's event; None where it is none, or speaks another protocol."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    if event["event"] == "started" and event.get("protocol") != PROTOCOL:
        return {"event": "error", "problem": f"the core speaks protocol {event.get('protocol')}, not {PROTOCOL}",
                "remedy": "install one version of omnimotion"}  # fmt: skip
    return event


def _own_package() -> dict[str, str]:
    """So that the child finds this very package where it is used from a checkout."""
    parent = str(Path(__file__).resolve().parent.parent.parent)
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": parent if not before else os.pathsep.join((parent, before))}
