"""The core as a process: heard, cancelled, killed, gone; on a real process each time."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from blender_addon import core_process, events
from blender_addon.core_process import CoreProcess, clean_environment, core_command

SPEAKER = Path(__file__).with_name("speaker.py")
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def speaker(*acts: str) -> list[str]:
    return [sys.executable, "-I", str(SPEAKER), *acts]


def hear(process: CoreProcess, until: type | None = None, wait_s: float = 20.0) -> list[events.Event]:
    """What it says until its last event, or until one of a kind."""
    heard: list[events.Event] = []
    end = time.monotonic() + wait_s
    while not process.finished and time.monotonic() < end:
        began = time.monotonic()
        heard += process.poll()
        assert time.monotonic() - began < 1.0, "poll waited"
        if until is not None and any(isinstance(event, until) for event in heard):
            return heard
        time.sleep(0.01)
    assert process.finished, heard
    return heard


@pytest.fixture(autouse=True)
def _seen_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every process of a test is let go of at its end."""
    started: list[CoreProcess] = []
    begin = CoreProcess.__init__

    def remember(self: CoreProcess, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        begin(self, command, environment)
        started.append(self)

    monkeypatch.setattr(CoreProcess, "__init__", remember)
    yield
    for process in started:
        process._see_out()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_process, "GRACE_S", 0.3)
    monkeypatch.setattr(core_process, "KILL_S", 0.3)


def gone(pid: int) -> bool:
    """Whether a process ends within seconds; one that nobody has seen out counts."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_everything_said_arrives_in_order_and_the_log_too() -> None:
    process = CoreProcess(speaker("started", "stage=fit", "progress=30", "log=a word of torch", "print=no json",
                                  "bytes=ff414e", "artifact=/a b/ü.json", "finished"))  # fmt: skip
    heard = hear(process)
    said = [event for event in heard if not isinstance(event, events.Log)]
    assert said == [events.Started(1, "0"), events.Stage("fit", 1, 4), events.Progress("fit", 30, 100),
                    events.Artifact("markers", "/a b/ü.json"), events.Finished(1.0)]  # fmt: skip
    logged = {"a word of torch", "no json"}
    for _ in range(100):  # what went to standard error has a reader of its own, and may come after the last event
        if logged <= set(process.log):
            break
        time.sleep(0.05)
        assert process.poll() == []
    assert logged <= set(process.log)


def test_a_core_that_is_asked_to_stop_answers() -> None:
    process = CoreProcess(speaker("started", "obey"))
    hear(process, events.Started)
    process.cancel()
    assert hear(process)[-1] == events.Cancelled(resumable=True)


@posix
@pytest.mark.usefixtures("_impatient")
def test_a_core_that_does_not_answer_is_killed_after_the_grace_time() -> None:
    process = CoreProcess(speaker("started", "deaf"))
    hear(process, events.Stage)
    process.cancel()
    assert hear(process)[-1] == events.Cancelled(resumable=True)


@posix
@pytest.mark.usefixtures("_impatient")
def test_stop_leaves_no_process() -> None:
    for act in ("obey", "deaf"):
        process = CoreProcess(speaker("started", "stage=x", act))
        hear(process, events.Stage)
        process.stop(0.2)
        assert gone(process.pid)


@posix
def test_a_killed_core_is_one_clear_line() -> None:
    process = CoreProcess(speaker("started", "log=the last word", f"die={int(signal.SIGKILL)}"))
    last = hear(process)[-1]
    assert last == events.Failed(
        "the core was ended by signal 9 without a word (the last word)", "start again: it goes on where it was"
    )


def test_a_core_that_ends_without_a_word_is_one_clear_line() -> None:
    last = hear(CoreProcess(speaker("started", "exit=7")))[-1]
    assert isinstance(last, events.Failed)
    assert "code 7" in last.problem


def test_nothing_is_heard_after_the_last_event() -> None:
    assert hear(CoreProcess(speaker("started", "error=a problem", "finished")))[-1] == events.Failed(
        "a problem", "mend it"
    )


def test_another_protocol_ends_the_core() -> None:
    process = CoreProcess(speaker("started=2", "obey"))
    last = hear(process)[-1]
    assert isinstance(last, events.Failed)
    assert "protocol" in last.problem
    process.stop(0.2)
    assert gone(process.pid)


@posix
def test_a_program_that_holds_the_pipes_does_not_hold_us() -> None:
    process = CoreProcess(speaker("started", "child", "exit=1"))
    assert isinstance(hear(process, wait_s=10)[-1], events.Failed)


def test_a_missing_program_raises() -> None:
    with pytest.raises(OSError, match="no-such-python"):
        CoreProcess([str(SPEAKER.with_name("no-such-python"))])


def test_the_environment_is_cleaned_of_blenders_python() -> None:
    dirty = {"PYTHONPATH": "x", "PYTHONHOME": "x", "VIRTUAL_ENV": "x", "PIP_TARGET": "x", "PIP_INDEX_URL": "mirror",
             "PATH": "p", "HOME": "h"}  # fmt: skip
    assert clean_environment(dirty) == {"PATH": "p", "HOME": "h"}
    assert clean_environment(dirty, keep_pip=True) == {"PATH": "p", "HOME": "h", "PIP_INDEX_URL": "mirror"}


def test_the_core_gets_the_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    heard = hear(CoreProcess(speaker("started", "environment", "finished")))
    [note] = [event for event in heard if isinstance(event, events.Noted)]
    assert "PYTHONPATH" not in json.loads(note.message)


def test_the_real_core_stops_when_its_parent_is_killed(
    tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    run = tmp_path / "läufe mit raum" / "run"
    command = core_command(sys.executable, "track", str(tiny_clip), "--out", str(run), "--config", str(tiny_settings),
                           "--events")  # fmt: skip
    parent = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from blender_addon.core_process import CoreProcess\n"
        "process = CoreProcess(sys.argv[2:]); print(process.pid, flush=True)\n"
        "while True:\n"
        "    for event in process.poll(): print(type(event).__name__, flush=True)\n"
        "    time.sleep(0.01)\n"
    )
    root = str(SPEAKER.parent.parent.parent)
    with subprocess.Popen([sys.executable, "-c", parent, root, *command], stdout=subprocess.PIPE, text=True) as blender:
        assert blender.stdout is not None
        pid = int(blender.stdout.readline())
        while blender.stdout.readline().strip() != "Progress":
            pass
        blender.kill()
    assert gone(pid)
