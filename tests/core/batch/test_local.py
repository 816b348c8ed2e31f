"""How the local runner decides: who runs when, who waits for whom, and what is done with what fails.

The processes are stand-ins that end when the test says so; real ones are in ``tests/end_to_end/test_batch.py``.
"""

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from omnimotion_core.api import make_config
from omnimotion_core.batch import local
from omnimotion_core.batch.gpus import Gpu, Gpus
from omnimotion_core.batch.jobs import Batch, Job
from omnimotion_core.batch.local import LocalRunner, share_out
from omnimotion_core.batch.process import CoreProcess
from omnimotion_core.batch.status import ClipStatus
from omnimotion_core.errors import ClipError, RunError
from omnimotion_core.events import Cancelled, Reporter
from omnimotion_core.run import STAGES

Answer = Callable[["StandIn"], int | None]  # the exit code; None: it runs until it is asked to stop


class StandIn:
    """A process that does nothing but end as ``answer`` says."""

    alive: set["StandIn"]
    all: list["StandIn"]
    answer: Answer

    def __init__(
        self, arguments: list[str], *, log: Path, environment: Mapping[str, str],
        on_event: Callable[[dict[str, Any]], None], on_end: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.arguments, self.environment, self.tell = arguments, environment, on_event
        self.stage, self.run = arguments[0], arguments[3] if arguments[0] == "track" else arguments[1]
        self.beside = [other.stage for other in StandIn.alive]
        self._on_end, self._asked = on_end, threading.Event()
        StandIn.alive.add(self)
        StandIn.all.append(self)
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        code = StandIn.answer(self)
        if code is None:
            self._asked.wait(30)
            code = 3
        else:
            time.sleep(0.02)
        StandIn.alive.discard(self)
        self._on_end(code)

    def cancel(self) -> None:
        self._asked.set()

    terminate = kill = cancel


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    StandIn.alive, StandIn.all, StandIn.answer = set(), [], staticmethod(lambda process: 0)
    monkeypatch.setattr(local, "CoreProcess", StandIn)
    monkeypatch.setattr(local, "missing_stages", lambda clip, out, config: STAGES)
    yield
    assert not StandIn.alive


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Four clips that run on the CPU."""
    jobs = []
    for name in "abcd":
        (tmp_path / f"{name}.mov").write_bytes(b"")
        jobs.append(Job(name=name, clip=str(tmp_path / f"{name}.mov"), run=tmp_path / name,
                        config=make_config(None, {"device": "cpu", "flow": {"estimator": "dis"}})))  # fmt: skip
    return Batch(source=tmp_path / "jobs.toml", out=tmp_path, jobs=tuple(jobs), retries=1)


def with_jobs(batch: Batch, **changes: Any) -> Batch:
    return dataclasses.replace(batch, jobs=tuple(dataclasses.replace(job, **changes) for job in batch.jobs))


def states(clips: list[ClipStatus]) -> str:
    return " ".join(f"{clip.job.name}:{clip.state}" for clip in clips)


def run(batch: Batch, **options: Any) -> list[ClipStatus]:
    return LocalRunner(batch, **{"workers": 2, "reporter": Reporter(), **options}).run()


def test_a_clip_without_parts_is_one_process_and_no_more_run_than_there_are_workers(batch: Batch) -> None:
    told: list[str] = []
    clips = run(batch, told=lambda clip: told.append(clip.line.split(":")[0]))
    assert states(clips) == "a:done b:done c:done d:done"
    assert [process.stage for process in StandIn.all] == ["track"] * 4
    assert max(len(process.beside) for process in StandIn.all) == 1
    assert sorted(told) == ["a", "b", "c", "d"]
    assert {process.arguments[1] for process in StandIn.all} == {job.clip for job in batch.jobs}


def test_parts_run_side_by_side_and_each_step_waits_for_all_parts_before_it(batch: Batch) -> None:
    clips = run(with_jobs(dataclasses.replace(batch, jobs=batch.jobs[:1]), flow_chunks=3, export_chunks=2), workers=8)
    assert states(clips) == "a:done"
    calls = [" ".join([process.stage, *process.arguments[2:]]) for process in StandIn.all]
    assert calls[0].startswith("prepare --clip")
    assert calls[1:] == ["flow --chunk 1/3", "flow --chunk 2/3", "flow --chunk 3/3", "flow", "fit", "tracks",
                         "export --chunk 1/2", "export --chunk 2/2", "export"]  # fmt: skip
    assert [len(process.beside) for process in StandIn.all] == [0, 0, 1, 2, 0, 0, 0, 0, 1, 0]


def test_only_missing_stages_are_done(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"a": (), "b": ("export",), "c": STAGES[2:], "d": STAGES}
    monkeypatch.setattr(local, "missing_stages", lambda clip, out, config: missing[Path(out).name])
    clips = run(with_jobs(batch, flow_chunks=2, export_chunks=2))
    assert states(clips) == "a:done b:done c:done d:done"
    assert clips[0].line == "a: done before"
    done = {name: [process.stage for process in StandIn.all if Path(process.run).name == name] for name in "abcd"}
    assert done == {"a": [], "b": ["prepare", *["export"] * 3], "c": ["prepare", "fit", "tracks", *["export"] * 3],
                    "d": ["prepare", *["flow"] * 3, "fit", "tracks", *["export"] * 3]}  # fmt: skip


def failing(name: str, code: int, times: int = 99) -> Answer:
    """Ends as ``code`` says for the clip of that name, so many times."""
    left = [times]

    def answer(process: StandIn) -> int:
        if Path(process.run).name != name or not left[0]:
            return 0
        left[0] -= 1
        if code in (1, 2):
            process.tell({"event": "error", "problem": "it is torn", "remedy": "mend it"})
        return code

    return answer


def test_a_clip_that_fails_stops_the_batch_unless_it_keeps_going(batch: Batch) -> None:
    StandIn.answer = staticmethod(failing("b", 2))
    clips = run(batch, workers=1)
    assert states(clips) == "a:done b:failed c:waiting d:waiting"
    assert clips[1].line == "b: failed: it is torn; mend it"
    clips = run(batch, workers=1, keep_going=True)
    assert states(clips) == "a:done b:failed c:done d:done"
    assert (clips[1].tries, clips[1].exit_code) == (1, 2)  # what can be mended is not tried again


def test_a_clip_whose_process_crashes_is_tried_again(batch: Batch) -> None:
    StandIn.answer = staticmethod(failing("b", -signal.SIGKILL, times=1))
    clips = run(batch)
    assert states(clips) == "a:done b:done c:done d:done"
    assert clips[1].tries == 2
    assert clips[1].warnings == ["begun again: the process ended by SIGKILL"]
    StandIn.answer = staticmethod(failing("b", -signal.SIGKILL))
    clips = run(batch, keep_going=True)
    assert (clips[1].state, clips[1].tries, clips[1].exit_code) == ("failed", 2, -9)
    assert "b.log" in clips[1].remedy
    StandIn.answer = staticmethod(failing("b", 1))
    clips = run(dataclasses.replace(batch, retries=3), keep_going=True)
    assert (clips[1].state, clips[1].tries, clips[1].problem) == ("failed", 4, "it is torn")


def test_the_other_parts_of_a_clip_that_failed_are_stopped(batch: Batch) -> None:
    def answer(process: StandIn) -> int | None:
        chunk = process.arguments[-1]
        return {"1/3": 2, "2/3": None, "3/3": None}.get(chunk, 0)

    StandIn.answer = staticmethod(answer)
    clips = run(with_jobs(batch, flow_chunks=3), workers=12, keep_going=True)
    assert {clip.state for clip in clips} == {"failed"}


def test_a_mistyped_path_is_told_before_anything_is_begun(batch: Batch) -> None:
    Path(batch.jobs[2].clip).unlink()
    clips = run(batch)
    assert states(clips) == "a:waiting b:waiting c:failed d:waiting"
    assert "does not exist" in clips[2].problem
    assert StandIn.all == []
    assert states(run(batch, keep_going=True)) == "a:done b:done c:done d:done"  # the stand-in minds no path


def test_what_is_wrong_with_a_clip_that_was_begun_before_is_its_failure(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(clip: str, out: Path, config: object) -> tuple[str, ...]:
        if out.name == "a":
            raise ClipError("it changed", "bring it back")
        return STAGES

    monkeypatch.setattr(local, "missing_stages", look)
    assert states(run(batch, keep_going=True)) == "a:failed b:done c:done d:done"


def test_a_bug_in_a_thread_is_not_lost(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "missing_stages", lambda clip, out, config: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run(batch)


def test_cancelling_stops_every_process_and_says_so(batch: Batch) -> None:
    StandIn.answer = staticmethod(lambda process: None if "/b.mov" in process.arguments[1] else 0)
    runner: list[LocalRunner] = []

    def cancelled() -> bool:
        return any("/b.mov" in process.arguments[1] for process in StandIn.all)

    runner.append(LocalRunner(batch, workers=1, reporter=Reporter(cancelled=cancelled)))
    with pytest.raises(Cancelled):
        runner[0].run()
    assert states(runner[0].clips) == "a:done b:cancelled c:waiting d:waiting"


def test_what_fails_in_the_runner_itself_leaves_no_process_behind(batch: Batch) -> None:
    StandIn.answer = staticmethod(lambda process: 0 if "/a.mov" in process.arguments[1] else None)

    def told(clip: ClipStatus) -> None:
        raise RunError("no space is left", "free some")

    with pytest.raises(RunError, match="no space is left"):
        run(batch, told=told)
    assert len(StandIn.all) >= 2  # that none lives is asserted after every test


def test_a_folder_of_something_else_is_left_as_it_is(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(local, "CoreProcess", StandIn)
    batch.jobs[0].run.mkdir()
    (batch.jobs[0].run / "holiday.jpg").write_bytes(b"")
    run(batch)
    assert [path.name for path in batch.jobs[0].run.iterdir()] == ["holiday.jpg"]


# --- GPUs


def one_gpu(folder: Path) -> Callable[[str], Gpus]:
    """What a machine with one CUDA device has."""

    def make(device: str) -> Gpus:
        gpus = Gpus("cpu")
        if device != "cpu":
            gpus._gpus = [Gpu(kind="cuda", index="5", lock=FileLock(folder / "gpu.lock"))]
        return gpus

    return make


def test_one_process_at_a_time_has_the_gpu_while_others_prepare(batch: Batch, tmp_path: Path) -> None:
    on_gpu = {"fit", "tracks", "export"}

    def answer(process: StandIn) -> int:
        time.sleep(0.1 if process.stage in on_gpu else 0.0)
        return 0

    StandIn.answer = staticmethod(answer)
    config = make_config(None, {"device": "auto", "flow": {"estimator": "dis"}})
    clips = run(with_jobs(batch, config=config, export_chunks=2), workers=2, gpus=one_gpu(tmp_path))
    assert states(clips) == "a:done b:done c:done d:done"
    for process in StandIn.all:
        if process.stage in on_gpu:
            assert not on_gpu.intersection(process.beside)
            assert process.environment["CUDA_VISIBLE_DEVICES"] == "5"
        else:
            assert "CUDA_VISIBLE_DEVICES" not in process.environment
    assert any(on_gpu.intersection(process.beside) for process in StandIn.all if process.stage == "prepare")


def test_a_gpu_that_another_batch_has_is_waited_for(batch: Batch, tmp_path: Path) -> None:
    config = make_config(None, {"device": "auto", "flow": {"estimator": "dis"}})
    one = with_jobs(dataclasses.replace(batch, jobs=batch.jobs[:1]), config=config)
    theirs = FileLock(tmp_path / "gpu.lock")
    theirs.acquire()
    ended: list[ClipStatus] = []
    thread = threading.Thread(target=lambda: ended.extend(run(one, gpus=one_gpu(tmp_path))))
    thread.start()
    until = time.monotonic() + 20
    while [process.stage for process in StandIn.all] != ["prepare", "flow"] and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    assert [process.stage for process in StandIn.all] == ["prepare", "flow"]
    theirs.release()
    thread.join(timeout=20)
    assert states(ended) == "a:done"


# --- shares


@pytest.mark.parametrize(
    ("cores", "memory_gb", "asked", "shares"),
    [(16, 64, 0, (4, 4)), (16, 64, 3, (3, 5)), (2, 64, 0, (2, 1)), (16, 5, 0, (2, 8)), (1, 1, 0, (1, 1)),
     (4, 64, 9, (9, 1))],
)  # fmt: skip
def test_cores_are_shared_out(
    cores: int, memory_gb: int, asked: int, shares: tuple[int, int], batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "choose_threads", lambda asked: cores)
    monkeypatch.setattr(local, "free_memory", lambda: memory_gb << 30)
    assert share_out(batch, asked) == shares
    run(dataclasses.replace(batch, jobs=batch.jobs[:1]), workers=asked)
    assert StandIn.all[0].environment["OMP_NUM_THREADS"].isdecimal()


# --- the real process


def test_a_real_core_speaks_and_ends_and_its_stderr_is_kept(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    codes: list[int] = []
    ended = threading.Event()
    log = tmp_path / "logs" / "a.log"

    def on_end(code: int) -> None:
        codes.append(code)
        ended.set()

    process = CoreProcess(["fit", str(tmp_path / "absent")], log=log, environment={}, on_event=events.append,
                          on_end=on_end)  # fmt: skip
    assert ended.wait(60)
    assert codes == [2]
    assert [event["event"] for event in events] == ["started", "error"]
    assert "is no run folder" in events[-1]["problem"]
    assert "is no run folder" in log.read_text()
    for stop in (process.cancel, process.terminate, process.kill):
        stop()  # of one that is gone: nothing happens


def test_batch_is_imported_without_torch() -> None:
    modules = ("jobs", "graph", "local", "runner", "farm", "contact_sheet")
    code = ("import sys\n" + "\n".join(f"import omnimotion_core.batch.{name}" for name in modules)
            + "\nprint(json.dumps(sorted({'torch', 'rich'} & set(sys.modules))))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", f"import json\n{code}"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [], done.stderr


