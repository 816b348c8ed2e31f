"""Where a job's events go: a person's terminal, or a parent process that reads JSON lines; and how both stop it.

A sink is called with every event (``Reporter(emit=sink, cancelled=...)``) and is left as a context manager.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from omnimotion_core.events import Artifact, CancelledEvent, Event, Failed, Finished, Noted, Progress, Stage, Warned

if TYPE_CHECKING:
    from rich.progress import TaskID

STDIN, STDOUT, STDERR = 0, 1, 2  # file descriptors: C code writes to these, whatever sys.stdout is
QUIET_S = 10.0  # between two plain progress lines of a stage
LONGEST_LINE = 65536  # bytes of one command; a longer line is junk and is not kept


class TerminalSink:
    """Shows events to a person on stderr: a bar with the time left for each stage, messages above it.

    Where stderr is no terminal (a log file, a farm) it writes plain lines instead, and progress only now and then.

    Args:
        stream: a terminal or a log; stderr when not given.
        clock: seconds from any origin.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        # rich is only wanted once something is shown: importing it costs a tenth of `omnimotion --help`
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = Console(file=stream) if stream is not None else Console(stderr=True)
        self._interactive = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bars = Bars(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left", style="dim"), TimeRemainingColumn(),
            console=self._console, refresh_per_second=4,
            redirect_stdout=False,  # stdout may be a file or a pipe that wants its own bytes
        )  # fmt: skip
        self._clock = clock
        self._stage = self._title = ""
        self._task: TaskID | None = None  # the stage's bar
        self._first: int | None = None  # units done when the stage first spoke: a resumed one begins in the middle
        self._done = self._total = 0
        self._began = self._spoke = clock()

    def __call__(self, event: Event) -> None:
        match event:
            case Stage():
                self._end_stage()
                self._begin_stage(event.stage, f"{event.index + 1}/{event.count} " if event.count > 1 else "")
            case Progress():
                self._advance(event)
            case Noted():
                self._say(event.message)
            case Warned():
                self._say(f"warning: {event.message}", "yellow")
            case Artifact():
                self._say(f"{event.kind}: {event.path}")
            case Finished():
                self._end_stage()
                self.close()
                self._say(f"done in {event.seconds:.1f} s")
            case CancelledEvent():
                self.close()
                self._say("cancelled" + ("; the same command goes on from here" if event.resumable else ""))
            case Failed():
                self.close()
                self._say(f"error: {event.problem}; {event.remedy}", "red")

    def close(self) -> None:
        """Leave the last bar as it is and give the terminal's cursor back; more events may follow."""
        self._stage, self._task = "", None
        if self._bars.live.is_started:
            self._bars.stop()
        for task in self._bars.task_ids:  # drawn already: a later stage must not draw them again
            self._bars.remove_task(task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin_stage(self, stage: str, number: str) -> None:
        self._stage, self._title = stage, f"{number}{stage}"
        self._first, self._done, self._total = None, 0, 0
        self._began = self._spoke = self._clock()
        if self._interactive:
            self._bars.start()
            self._task = self._bars.add_task(self._title, total=None)
        else:
            self._say(self._title)

    def _advance(self, event: Progress) -> None:
        if event.stage != self._stage:
            self._end_stage()
            self._begin_stage(event.stage, "")
        self._done, self._total = event.done, event.total
        if self._first is None:
            self._first = event.done
            if self._task is not None:
                self._bars.reset(self._task, total=event.total, completed=event.done)
        if self._task is not None:
            self._bars.update(self._task, completed=event.done, total=event.total)
        elif self._clock() - self._spoke >= QUIET_S and event.done < event.total:
            self._spoke = self._clock()
            fresh = event.done - self._first
            text = f"{self._title}: {event.done}/{event.total}"
            if fresh * 100 >= event.total:  # the first step may have waited for loops to be compiled
                left_s = (self._spoke - self._began) * (event.total - event.done) / fresh
                text += f", {left_s:.0f} s left"
            self._say(text)

    def _end_stage(self) -> None:
        if not self._stage:
            return
        if self._task is not None:
            self._bars.stop_task(self._task)
            self._task = None
        else:
            share = f"{self._done}/{self._total}, " if self._total else ""
            self._say(f"{self._title}: {share}{self._clock() - self._began:.1f} s")
        self._stage = ""

    def _say(self, line: str, style: str | None = None) -> None:
        # soft_wrap: a path broken over two lines can be neither copied nor searched for
        self._console.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


class JsonSink:
    """Writes events as JSON lines to the standard output the process was started with, which nothing else reaches.

    While it is entered, file descriptor 1 points at stderr, so that a print of ours, of a library or of C code
    cannot break a line.
    """

    def __init__(self) -> None:
        self.closed = False  # nobody reads any more: a reason to cancel
        self._fd: int | None = None
        self._lock = threading.Lock()  # stages may report from threads

    def __enter__(self) -> Self:
        _flush(sys.stdout)
        self._fd = os.dup(STDOUT)  # not inherited: a child of ours cannot keep the reader waiting for the end
        os.dup2(STDERR, STDOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._fd is not None
        _flush(sys.stdout)
        os.dup2(self._fd, STDOUT)
        os.close(self._fd)
        self._fd = None

    def __call__(self, event: Event) -> None:
        line = f"{event.to_json()}\n".encode("ascii")
        with self._lock:
            if self.closed:
                return
            assert self._fd is not None, "the sink is used inside `with`"
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError:  # the reader is gone, or the disk of a redirected file is full
                self.closed = True


class CancelOnStdin:
    """Asks a job to stop when the parent process writes ``{"command": "cancel"}``, or is gone: the end of stdin.

    Lines that say something else are skipped.

    Args:
        fd: the file descriptor to read.
    """

    def __init__(self, fd: int = STDIN) -> None:
        self._fd, self._asked = fd, threading.Event()

    def start(self) -> Self:
        """Begin to listen, in a thread that does not keep the process alive."""
        threading.Thread(target=self._listen, name="cancel-on-stdin", daemon=True).start()
        return self

    def cancelled(self) -> bool:
        """Whether to stop."""
        return self._asked.is_set()

    def _listen(self) -> None:
        # os.read and not sys.stdin: at exit Python would wait for the lock of a stream that a daemon thread reads
        kept = b""
        with contextlib.suppress(OSError):  # no standard input at all is the same as its end
            while received := os.read(self._fd, 4096):
                *lines, kept = (kept + received).split(b"\n")
                if any(map(_asks_to_cancel, lines)):
                    break
                kept = kept if len(kept) <= LONGEST_LINE else b""
        self._asked.set()


def _asks_to_cancel(line: bytes) -> bool:
    try:
        command = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return False
    return isinstance(command, dict) and command.get("command") == "cancel"


def _flush(stream: TextIO | None) -> None:
    """What was printed before descriptor 1 moves goes where it was meant to go."""
    with contextlib.suppress(OSError):
        if stream is not None and not stream.closed:
            stream.flush()
