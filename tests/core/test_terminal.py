"""Events reach a terminal, a log and a parent process; a parent's word or death reaches the job."""

import io
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from omnimotion_core.events import CancelledEvent, Failed, Finished, Progress, Reporter, Stage, Warned
from omnimotion_core.terminal import CancelOnStdin, TerminalSink


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_progress_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    with TerminalSink(stream, clock) as sink:
        sink(Stage(stage="fit", index=2, count=5))
        for done in range(1, 101):
            clock.now += 0.5
            sink(Progress(stage="fit", done=done, total=100))
        sink(Finished(seconds=50.04))
    assert stream.getvalue().splitlines() == [
        "3/5 fit",
        "3/5 fit: 20/100, 42 s left",  # 19 units in the 10 s since the stage began
        "3/5 fit: 40/100, 31 s left",
        "3/5 fit: 60/100, 20 s left",
        "3/5 fit: 80/100, 10 s left",
        "3/5 fit: 100/100, 50.0 s",
        "done in 50.0 s",
    ]


def test_a_slow_first_step_promises_nothing() -> None:
    stream, clock = io.StringIO(), Clock()
    with TerminalSink(stream, clock) as sink:
        for done, seconds in ((0, 0.1), (1, 15.0), (999, 10.0), (1000, 0.01)):
            clock.now += seconds
            sink(Progress(stage="fit", done=done, total=2000))
    assert stream.getvalue().splitlines()[1:3] == ["fit: 1/2000", "fit: 999/2000, 25 s left"]


def test_the_time_left_of_a_resumed_stage_counts_only_what_is_new() -> None:
    stream, clock = io.StringIO(), Clock()
    sink = TerminalSink(stream, clock)
    sink(Stage(stage="fit"))
    sink(Progress(stage="fit", done=900, total=1000))
    clock.now = 10.0
    sink(Progress(stage="fit", done=910, total=1000))
    assert "fit: 910/1000, 90 s left" in stream.getvalue()


def test_a_stage_that_broke_off_is_not_told_as_done() -> None:
    stream = io.StringIO()
    with TerminalSink(stream) as sink:
        sink(Stage(stage="flow"))
        sink(Progress(stage="flow", done=8, total=8))
        sink(Stage(stage="fit"))
        sink(Progress(stage="fit", done=3, total=8))
        sink(CancelledEvent())
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "flow", "flow: 8/8", "fit", "cancelled; the same command goes on from here",
    ]  # fmt: skip


def test_messages_are_written_as_they_are() -> None:
    stream = io.StringIO()
    with TerminalSink(stream) as sink:
        reporter = Reporter(sink)
        reporter.note("[12] pairs")
        reporter.warning("a [bold]cut[/bold] :smile: at 12")
        reporter.artifact("markers", "/runs/" + "long " * 50 + "[x]/markers.json")
        sink(Failed(problem="clip.mov holds 1 frame", remedy="choose a longer clip"))
    assert stream.getvalue().splitlines() == [
        "[12] pairs",
        "warning: a [bold]cut[/bold] :smile: at 12",
        "markers: /runs/" + "long " * 50 + "[x]/markers.json",
        "error: clip.mov holds 1 frame; choose a longer clip",
    ]


def test_a_terminal_gets_a_bar_per_stage_with_warnings_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    with TerminalSink(stream) as sink:
        for index, stage in enumerate(("flow", "fit")):
            sink(Stage(stage=stage, index=index, count=2))
            sink(Progress(stage=stage, done=4, total=8))
            sink(Warned(message=f"look at {stage}"))
            sink(Progress(stage=stage, done=8, total=8))
        sink(CancelledEvent())
    shown = stream.getvalue()
    assert "1/2 flow" in shown
    assert "2/2 fit" in shown
    assert "look at fit" in shown
    assert "8/8" in shown
    assert "cancelled; the same command goes on from here" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor that was hidden is shown again


def test_a_second_job_in_one_terminal_does_not_draw_the_first_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with TerminalSink(stream) as sink:
        sink(Stage(stage="first"))
        sink(Finished())
        before = stream.tell()
        sink(Stage(stage="second"))
    assert "first" not in stream.getvalue()[before:]
    assert "second" in stream.getvalue()[before:]


def run_child(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_no_print_breaks_the_stream_of_json_lines() -> None:
    child = run_child("""
        import ctypes, os, subprocess, sys
        from omnimotion_core.events import Finished, Started, Warned
        from omnimotion_core.terminal import JsonSink
        with JsonSink() as sink:
            sink(Started(version="1"))
            print("from Python")
            sys.stdout.write("half a line")
            os.write(1, b"from C level\\n")
            libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.cdll.msvcrt
            libc.printf(b"from printf\\n")
            libc.fflush(None)
            subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
            sink(Warned(message="schön"))
            sink(Finished())
            print("unflushed at the end")
        print("after the job")
    """)
    out, err = child.communicate(timeout=60)
    *lines, last = out.decode("ascii").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "warning", "finished"]
    assert json.loads(lines[1])["message"] == "schön"
    assert last == "after the job"  # standard output is given back
    for text in ("from Python", "half a line", "from C level", "from printf", "from a child", "unflushed at the end"):
        assert text in err.decode()
    assert child.returncode == 0


def test_lines_arrive_while_the_job_runs() -> None:
    child = run_child("""
        from omnimotion_core.events import Progress
        from omnimotion_core.terminal import JsonSink
        with JsonSink() as sink:
            sink(Progress(stage="fit", done=1, total=2))
            input()
            sink(Progress(stage="fit", done=2, total=2))
    """)
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["done"] == 1  # the child waits for us: it has not ended yet
    out, err = child.communicate(b"go on\n", timeout=60)
    assert json.loads(out)["done"] == 2, err


def test_a_reader_that_goes_away_cancels_the_job() -> None:
    child = run_child("""
        import sys
        from omnimotion_core.events import Cancelled, CancelledEvent, Reporter
        from omnimotion_core.terminal import JsonSink
        sink = JsonSink()
        with sink:
            reporter = Reporter(sink, lambda: sink.closed)
            try:
                for step in range(1_000_000):
                    reporter.progress("fit", step, 1_000_000)
            except Cancelled:
                sink(CancelledEvent())
                sys.exit(3)
    """)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=60) == 3
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.stdin is not None
    child.stdin.close()


def wait_until_cancelled(listener: CancelOnStdin) -> bool:
    end = time.monotonic() + 10.0
    while not listener.cancelled() and time.monotonic() < end:
        time.sleep(0.005)
    return listener.cancelled()


@pytest.fixture
def pipe() -> "tuple[int, io.FileIO]":
    reading, writing = os.pipe()
    return reading, io.FileIO(writing, "w")


def test_the_command_cancels_also_in_pieces(pipe: "tuple[int, io.FileIO]") -> None:
    reading, writer = pipe
    listener = CancelOnStdin(reading).start()
    for piece in (b'{"comm', b'and": "can', b'cel"}'):
        writer.write(piece)
        time.sleep(0.02)
    assert not listener.cancelled()  # the line is not whole yet
    writer.write(b"\r\n")
    assert wait_until_cancelled(listener)
    writer.close()
    os.close(reading)


def test_junk_does_not_cancel(pipe: "tuple[int, io.FileIO]") -> None:
    reading, writer = pipe
    listener = CancelOnStdin(reading).start()
    junk = [b"cancel", b"", b"\xff\xfe", b'["cancel"]', b'{"command": "pause"}', b'"command"', b"[" * 50_000, b"null"]
    for line in [*junk, b"x" * 200_000]:
        writer.write(line + b"\n")
    time.sleep(0.1)
    assert not listener.cancelled()
    writer.write(b'{"id": 1, "command": "cancel"}\n')
    assert wait_until_cancelled(listener)
    writer.close()
    os.close(reading)


def test_the_end_of_the_stream_cancels(pipe: "tuple[int, io.FileIO]") -> None:
    reading, writer = pipe
    listener = CancelOnStdin(reading).start()
    time.sleep(0.05)
    assert not listener.cancelled()
    writer.close()
    assert wait_until_cancelled(listener)
    os.close(reading)


def test_no_stream_at_all_cancels(pipe: "tuple[int, io.FileIO]") -> None:
    reading, writer = pipe
    writer.close()
    os.close(reading)
    assert wait_until_cancelled(CancelOnStdin(reading).start())


def test_a_listener_does_not_hold_up_the_exit() -> None:
    child = run_child("""
        from omnimotion_core.terminal import CancelOnStdin
        CancelOnStdin().start()
        print("done")
    """)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.wait(timeout=60) == 0  # stdin is still open: the thread still reads
    assert child.stdout.read().split() == [b"done"]
    assert child.stderr.read() == b""
    for stream in (child.stdin, child.stdout, child.stderr):
        stream.close()
