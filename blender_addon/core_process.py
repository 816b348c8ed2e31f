# SPDX-License-Identifier: GPL-3.0-or-later
"""The core as a program of its own: started, heard line by line in threads, stopped. Needs no Blender.

No function here waits for the core: threads put what it says into a queue, ``poll`` empties it. The core stops by
itself when its standard input ends, so it does not outlive a Blender that crashed.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from . import events

GRACE_S = 20.0  # a core that was asked to stop first ends its step and writes a checkpoint
KILL_S = 5.0  # from being told to being killed
_KEPT_LINES = 200  # of the log


def clean_environment(environment: Mapping[str, str] | None = None, *, keep_pip: bool = False) -> dict[str, str]:
    """The environment for another Python than Blender's: without what would lead it to Blender's modules.

    Args:
        environment: in place of this process's own.
        keep_pip: keep pip's settings, where a studio names its own mirror, but for those that choose another target.
    """
    source = os.environ if environment is None else environment
    pip = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_ROOT")
    return {
        name: value for name, value in source.items()
        if not name.upper().startswith(("PYTHON", "__PYVENV")) and name.upper() not in ("VIRTUAL_ENV", *pip)
        and (keep_pip or not name.upper().startswith("PIP_"))
    }  # fmt: skip


def core_command(python: str, *arguments: str) -> list[str]:
    """How ``python`` runs the core, apart from its user's own packages and in UTF-8 on every system."""
    return [python, "-I", "-X", "utf8", "-m", "omnimotion_core", *arguments]


class CoreProcess:
    """A running core, or another program that speaks its lines.

    Args:
        command: the program and its arguments, ``--events`` among them.
        environment: its environment; a clean one when not given.
    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._heard: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        self._last: events.Event | None = None
        self._stop_at: float | None = None
        self._gone_at: float | None = None
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean_environment() if environment is None else dict(environment), **_apart(),
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, events.parse_line), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, _as_log), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def poll(self) -> list[events.Event]:
        """What was said since the last call; the last event of all is one of ``events.LAST``, also when it crashed."""
        heard: list[events.Event] = []
        over = self._is_over()
        while self._last is None:
            try:
                event = self._heard.get_nowait()
            except queue.Empty:
                if over:
                    event = self._ended()
                else:
                    self._press()
                    break
            if isinstance(event, events.Log):
                self.log.append(event.text)
            if isinstance(event, events.LAST):
                self._last = event
            heard.append(event)
        if self._last is not None:
            self._keep_late_lines()
        return heard

    def _keep_late_lines(self) -> None:
        """Standard error has a reader of its own, whose lines may come after the last event."""
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._heard.get_nowait()
                if isinstance(event, events.Log):
                    self.log.append(event.text)

    @property
    def finished(self) -> bool:
        """Whether the last event was given out."""
        return self._last is not None

    def cancel(self) -> None:
        """Ask it to stop; where it does not within the grace time, ``poll`` ends it."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + GRACE_S
            self._say({"command": "cancel"})

    def stop(self, grace_s: float = 2.0) -> None:
        """End it now: asked first, then told, then killed. Returns when it is gone; for an ending Blender."""
        self._stop_at = self._stop_at or time.monotonic()
        self._say({"command": "cancel"})
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        for act, wait_s in ((None, grace_s), (self._process.terminate, 1.0), (self._kill, 5.0)):
            if act is not None:
                with contextlib.suppress(OSError):
                    act()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)
                return

    def close(self) -> None:
        """Let go of a process that has said its last; a thread sees it out."""
        threading.Thread(target=self._see_out, daemon=True).start()

    def _see_out(self) -> None:
        try:
            self._process.wait(GRACE_S)  # PyTorch takes its time to end
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(1.0)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _read(self, pipe: IO[bytes], parse: Callable[[str], "events.Event | None"]) -> None:
        """Thread: every line of a pipe into the queue; another protocol ends the core."""
        for line in pipe:
            text = line.decode("utf-8", "replace")
            try:
                event = parse(text)
            except events.ProtocolError as error:
                problem, _, remedy = str(error).partition("; ")
                self._heard.put(events.Failed(problem, remedy))
                self._kill()
                return
            if event is not None:
                self._heard.put(event)

    def _is_over(self) -> bool:
        """Whether it is gone and read to the end; a program that it left behind may hold its pipes for ever."""
        if self._process.poll() is None:
            return False
        self._gone_at = self._gone_at or time.monotonic()
        return time.monotonic() > self._gone_at + 3.0 or not any(reader.is_alive() for reader in self._readers)

    def _press(self) -> None:
        """End a core that was asked to stop and did not: told after the grace time, killed a little later."""
        if self._stop_at is None or time.monotonic() < self._stop_at:
            return
        with contextlib.suppress(OSError):
            if time.monotonic() < self._stop_at + KILL_S:
                self._process.terminate()
            else:
                self._kill()

    def _ended(self) -> events.Event:
        """The last event of a process that went without one."""
        if self._stop_at is not None:
            return events.Cancelled(resumable=True)
        code = self._process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        words = next((line for line in reversed(self.log) if line.strip()), "")
        remedy = "start again: it goes on where it was"
        return events.Failed(f"the core {how} without a word" + (f" ({words.strip()[:200]})" if words else ""), remedy)

    def _say(self, message: Mapping[str, str]) -> None:
        with contextlib.suppress(OSError, ValueError):  # it may be gone already
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _kill(self) -> None:
        """Kill it with all that it started."""
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(self.pid)], capture_output=True, check=False,
                           creationflags=subprocess.CREATE_NO_WINDOW)  # fmt: skip
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _as_log(line: str) -> events.Log | None:
    text = line.rstrip()
    return events.Log(text) if text else None


def _apart() -> dict[str, Any]:
    """Popen's arguments for a program without a window of its own, which a Ctrl-C in Blender's terminal spares."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
