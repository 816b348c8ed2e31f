"""The graph of a batch on this machine: worker processes that share its cores, and one process a GPU."""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from omnimotion_core.batch.gpus import Gpu, Gpus
from omnimotion_core.batch.graph import settings_arguments, steps_of
from omnimotion_core.batch.jobs import Batch, Job
from omnimotion_core.batch.process import CoreProcess
from omnimotion_core.batch.status import CANCELLED, DONE, RUNNING, WAITING, ClipStatus
from omnimotion_core.devices import choose_threads, free_memory
from omnimotion_core.errors import ClipError, OmniMotionError, RunError
from omnimotion_core.events import Reporter
from omnimotion_core.flow.weights import find_best
from omnimotion_core.pipeline import missing_stages
from omnimotion_core.run import RunFolder
from omnimotion_core.video.sequence import is_pattern, sequence_of_pattern

MEMORY_A_WORKER = 2 << 30  # bytes that a clip of usual size needs
GRACE_S = 20.0  # a process that was asked to stop has this long, and as long again before it is killed
FREE_WAIT_S = 60.0  # so long a clip waits for the processes of a batch that was killed to let go of its folder
_TICK_S = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """One process to be run."""

    index: int  # of the clip
    arguments: list[str]
    part: str = ""  # of its stage, K/N
    needs_gpu: bool = False


@dataclass(kw_only=True, eq=False)
class _Running:
    work: Work
    process: CoreProcess
    gpu: Gpu | None
    tries: int  # of its clip when this began
    last: Mapping[str, Any] = field(default_factory=dict)  # its last event


class LocalRunner:
    """Runs a batch; everything is decided in the thread that calls ``run``.

    Args:
        batch: the jobs.
        workers: processes at once; 0: as many as cores and memory allow.
        keep_going: go on with other clips where one failed.
        reporter: may cancel.
        show: called with all clips whenever one of them has moved; often.
        told: called with a clip when it has ended.
        gpus: for a device setting the GPUs that it means.
    """

    def __init__(
        self, batch: Batch, *, workers: int = 0, keep_going: bool = False, reporter: Reporter,
        show: Callable[[Sequence[ClipStatus]], None] = lambda clips: None,
        told: Callable[[ClipStatus], None] = lambda clip: None, gpus: Callable[[str], Gpus] = Gpus,
    ) -> None:  # fmt: skip
        self.batch, self.keep_going, self.reporter = batch, keep_going, reporter
        self.clips = [ClipStatus(job) for job in batch.jobs]
        self.workers, self.threads = share_out(batch, workers)
        self._show, self._told = show, told
        self._gpus = {device: gpus(device) for device in sorted({job.config.device for job in batch.jobs})}
        self._looking: set[int] = set()
        self._levels: dict[int, list[list[Work]]] = {}  # what a clip that runs has still to do, in order
        self._running: list[_Running] = []
        self._began: dict[int, float] = {}
        self._messages: queue.Queue[Callable[[], None]] = queue.Queue()
        self._stopping = False  # begin no other clip
        self._cancelling = False

    def run(self) -> list[ClipStatus]:
        """Do what is missing.

        Raises:
            RunError: a log cannot be written.
            Cancelled: the user asked to stop; the same batch goes on.
        """
        if not self.keep_going:  # a mistyped path is told now and not in the middle of the night
            self._look_for_footage()
        try:
            while True:
                self.reporter.check()
                self._start_what_can()
                if not self._running and not self._looking and all(clip.state != RUNNING for clip in self.clips):
                    return self.clips  # a clip that runs without a process waits for a GPU
                self._take_in()
                self._show(self.clips)
        except BaseException:
            self._stop_all()
            raise

    # --- beginning

    def _look_for_footage(self) -> None:
        for index, job in enumerate(self.batch.jobs):
            try:
                if not os.path.lexists(job.clip):
                    if not is_pattern(os.path.basename(job.clip)):
                        raise ClipError(f"{job.clip} does not exist", "check the path of the movie or image sequence")
                    sequence_of_pattern(Path(job.clip))
            except ClipError as error:
                self._found_unusable(index, error.problem, error.remedy)

    def _start_what_can(self) -> None:
        """Start processes while there are free workers, earlier clips first."""
        for index, clip in enumerate(self.clips):
            if len(self._running) + len(self._looking) >= self.workers:
                return
            if clip.state == WAITING and index not in self._looking and not self._stopping:
                self._looking.add(index)
                threading.Thread(target=self._look, args=(index,), name=f"look-{clip.job.name}", daemon=True).start()
            elif clip.state == RUNNING:
                self._start_level(index)

    def _look(self, index: int) -> None:
        """In a thread, since it reads the whole clip: what is missing of a clip that was begun before."""
        job = self.batch.jobs[index]
        try:
            missing = missing_stages(job.clip, job.run, job.config)
            if missing and RunFolder(job.run).manifest_path.exists():
                self._wait_for(job)
        except OmniMotionError as error:
            self._messages.put(partial(self._found_unusable, index, error.problem, error.remedy))
        except Exception as error:  # noqa: BLE001  # a thread's error must reach the loop, where it is raised
            self._messages.put(partial(_raise, error))
        else:
            self._messages.put(partial(self._found, index, missing))

    def _wait_for(self, job: Job) -> None:
        """Until nobody writes in the run folder, but not for ever: the process that is then refused tells why."""
        run, until = RunFolder(job.run), time.monotonic() + FREE_WAIT_S
        while os.access(run.path, os.W_OK) and time.monotonic() < until and not self.reporter.cancelled():
            try:
                with run.lock():
                    return
            except RunError:
                time.sleep(_TICK_S)

    def _found(self, index: int, missing: Sequence[str]) -> None:
        self._looking.discard(index)
        clip = self.clips[index]
        if not missing:
            clip.state, clip.exit_code = DONE, 0
            self._told(clip)
            return
        if not clip.tries:
            with suppress(OSError):  # what cannot be removed cannot be written either, which is told then
                self.batch.log(clip.job).unlink(missing_ok=True)
        clip.state = RUNNING
        clip.tries += 1
        self._began.setdefault(index, time.monotonic())
        self._levels[index] = levels = self._plan(index, missing)
        parts: dict[str, list[str]] = {stage: [""] for stage in missing}
        for level in levels:
            if level[0].part:
                parts[level[0].arguments[0]] = [work.part for work in level]
        clip.plan(parts)

    def _found_unusable(self, index: int, problem: str, remedy: str) -> None:
        self._looking.discard(index)
        self.clips[index].fail(problem, remedy, 2)
        self._has_failed(index)

    def _plan(self, index: int, missing: Sequence[str]) -> list[list[Work]]:
        """The processes of a clip in their order, those of one level side by side.

        Where neither parts nor a GPU ask for processes of their own, one does the whole clip.
        """
        job = self.clips[index].job
        steps = [step for step in steps_of(job) if step.stage in missing or step.stage == "prepare"]
        gpus = len(self._gpus[job.config.device]) > 0
        if not gpus and not any(step.parts for step in steps):
            arguments = ["track", job.clip, "--out", str(job.run), *settings_arguments(job.config)]
            return [[Work(index=index, arguments=arguments)]]
        levels = []
        for step in steps:
            needs_gpu = gpus and step.may_use_gpu and (step.stage != "flow" or _flow_is_learned(job))
            chunks = [f"{number}/{step.parts}" for number in range(1, step.parts + 1)] or [""]
            levels.append([Work(index=index, arguments=step.arguments(chunk), part=chunk, needs_gpu=needs_gpu)
                           for chunk in chunks])  # fmt: skip
        return levels

    def _start_level(self, index: int) -> None:
        for work in list(self._levels[index][0] if self._levels[index] else ()):
            if len(self._running) >= self.workers:
                return
            if any(running.work is work for running in self._running):
                continue
            gpu = self._gpus[self.clips[index].job.config.device].take() if work.needs_gpu else None
            if work.needs_gpu and gpu is None:
                return
            self._start(work, gpu)

    def _start(self, work: Work, gpu: Gpu | None) -> None:
        environment = {"OMP_NUM_THREADS": str(self.threads), **(gpu.environment if gpu else {})}
        running: list[_Running] = []  # the process speaks before it is known here; the queue keeps its words
        process = CoreProcess(
            work.arguments, log=self.batch.log(self.clips[work.index].job), environment=environment,
            on_event=lambda event: self._messages.put(lambda: self._hear(running[0], event)),
            on_end=lambda code: self._messages.put(lambda: self._end(running[0], code)),
        )  # fmt: skip
        running.append(_Running(work=work, process=process, gpu=gpu, tries=self.clips[work.index].tries))
        self._running.append(running[0])

    # --- hearing

    def _take_in(self) -> None:
        """Wait a moment for messages and act on all there are."""
        try:
            self._messages.get(timeout=_TICK_S)()
            while True:
                self._messages.get_nowait()()
        except queue.Empty:
            pass

    def _hear(self, running: _Running, event: Mapping[str, Any]) -> None:
        running.last = event
        self.clips[running.work.index].hear(event, running.work.part)

    def _end(self, running: _Running, code: int) -> None:
        self._running.remove(running)
        if running.gpu is not None:
            running.gpu.lock.release()
        index = running.work.index
        clip = self.clips[index]
        if clip.state != RUNNING or clip.tries != running.tries:
            return  # another part of the clip has failed before
        clip.seconds = time.monotonic() - self._began[index]
        levels = self._levels[index]
        if code != 0:
            levels.clear()
            if self._cancelling:
                clip.state, clip.exit_code = CANCELLED, code
            else:
                self._has_ended_badly(index, running, code)
            return
        levels[0].remove(running.work)
        if not levels[0]:
            del levels[0]
        if not levels:
            clip.state, clip.exit_code = DONE, 0
            self._told(clip)

    def _has_ended_badly(self, index: int, running: _Running, code: int) -> None:
        clip = self.clips[index]
        for other in self._running:
            if other.work.index == index:
                other.process.cancel()
        last = running.last
        if last.get("event") == "error":
            clip.fail(str(last.get("problem")), str(last.get("remedy")), code)
        else:
            clip.fail(f"the process ended {_how(code)}",
                      f"see {self.batch.log(clip.job)}; where memory ran out, use fewer --jobs", code)  # fmt: skip
        if code != 2 and clip.tries <= self.batch.retries:  # what can be mended stays wrong until somebody mends it
            clip.warnings.append(f"begun again: {clip.problem}")
            clip.state, clip.problem, clip.remedy, clip.exit_code = WAITING, "", "", None
        else:
            self._has_failed(index)

    def _has_failed(self, index: int) -> None:
        self._stopping = self._stopping or not self.keep_going
        self._told(self.clips[index])

    # --- ending

    def _stop_all(self) -> None:
        """Ask all processes to stop, then make them; what they did is kept."""
        self._cancelling = True
        for act in (CoreProcess.cancel, CoreProcess.terminate, CoreProcess.kill):
            for running in self._running:
                act(running.process)
            until = time.monotonic() + GRACE_S
            while self._running and time.monotonic() < until:
                try:
                    with suppress(Exception):  # what fails now, a full disk say, must not leave processes behind
                        self._take_in()
                except KeyboardInterrupt:  # asked again: no more patience
                    break
        for clip in self.clips:
            if clip.state == RUNNING:
                clip.state = CANCELLED


def share_out(batch: Batch, workers: int) -> tuple[int, int]:
    """Processes at once and the threads of each, by the cores that this process may use and the memory that is free.

    Args:
        workers: asked for; 0: as it fits.
    """
    cores = choose_threads(0)
    tasks = sum(max(job.flow_chunks, job.export_chunks) for job in batch.jobs)
    workers = workers or max(1, min(cores, tasks, free_memory() // MEMORY_A_WORKER))
    return workers, max(1, cores // workers)


def _flow_is_learned(job: Job) -> bool:
    return job.config.flow.estimator != "auto" or find_best() is not None


def _how(code: int) -> str:
    """How a process without a last word ended."""
    if code < 0:
        try:
            return f"by {signal.Signals(-code).name}"
        except ValueError:
            return f"by signal {-code}"
    return f"with exit code {code}"


def _raise(error: BaseException) -> NoReturn:
    raise error
