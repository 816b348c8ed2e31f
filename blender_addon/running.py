# SPDX-License-Identifier: GPL-3.0-or-later
"""The one job that runs at a time, and the modal operators that look after it.

Threads hear the core, a timer asks them, the main thread alone touches Blender. Every way out goes through ``_finish``.
"""

import atexit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bpy
from bpy.app.handlers import persistent

from . import asking, events
from .footage import ClipReference
from .job import Job, duration

TICK_S = 0.1


@dataclass(frozen=True)
class Task:
    """Something to run: made when its turn comes, since Blender's data may have changed until then."""

    title: str
    start: Callable[[], Job]  # raises LookupError, told in one line
    done: Callable[[Job], str]  # after it is finished, on the main thread: what was reached; may raise LookupError
    clip: "ClipReference | None" = None  # over which its preview is drawn


@dataclass
class Result:
    """How a task ended."""

    title: str
    ok: bool
    cancelled: bool
    text: str  # one line
    warnings: list[str] = field(default_factory=list)


class Runner:
    """Tasks one after another; a failed one does not keep the next from running, a cancelled one does."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)
        self.results: list[Result] = []
        self.job: Job | None = None
        self.cancelled = False

    @property
    def alive(self) -> bool:
        """Whether there is something left to do."""
        return len(self.results) < len(self.tasks)

    @property
    def task(self) -> Task:
        """The one whose turn it is, or was last."""
        return self.tasks[min(len(self.results), len(self.tasks) - 1)]

    def step(self) -> None:
        """Look once at what runs, and go on to the next task where it has ended."""
        if not self.alive:
            return
        task = self.task
        try:
            if self.job is None:
                if self.cancelled:
                    self._conclude(Result(task.title, False, True, "Not started"))
                    return
                self.job = task.start()
            self.job.poll()
            if self.job.outcome is None:
                return
            if isinstance(self.job.outcome, events.Finished):
                self._conclude(Result(task.title, True, False, task.done(self.job), self.job.status.warnings))
            else:
                stopped = isinstance(self.job.outcome, events.Cancelled)
                self.cancelled = self.cancelled or stopped
                self._conclude(Result(task.title, False, stopped, self.job.message(), self.job.status.warnings))
        except LookupError as error:
            self._conclude(Result(task.title, False, False, str(error.args[0])))

    def cancel(self) -> None:
        """Ask to stop, the present task and all that follow."""
        self.cancelled = True
        if self.job is not None:
            self.job.cancel()

    def stop(self) -> None:
        """End what runs now."""
        self.cancelled = True
        if self.job is not None:
            self.job.stop()
        while self.alive:
            self.step()

    def _conclude(self, result: Result) -> None:
        if self.job is not None:
            self.job.close()
        self.job = None
        self.results.append(result)

    def summary(self) -> Result:
        """All results in one."""
        if len(self.results) == 1:
            return self.results[0]
        good = sum(result.ok for result in self.results)
        failed = [f"{result.title}: {result.text}" for result in self.results if not result.ok]
        text = f"{good} of {len(self.tasks)} clips done" + (f"; {failed[0]}" if failed else "")
        warnings = [f"{result.title}: {text}" for result in self.results for text in result.warnings]
        return Result("Batch", not failed, self.cancelled, text, warnings)


_runner: Runner | None = None
last_log: list[str] = []  # of the job that runs, or ran last


def is_running() -> bool:
    """Whether a job runs."""
    return _runner is not None


def running_job() -> Job | None:
    """The job that runs now."""
    return _runner.job if _runner is not None else None


def preview() -> "tuple[ClipReference, Path] | None":
    """The tracks that the running job shows while they improve, and the clip that they belong to."""
    if _runner is None or _runner.job is None or _runner.task.clip is None:
        return None
    path = _runner.job.artifacts.get("preview_markers")
    return None if path is None else (_runner.task.clip, Path(path))


def begin(tasks: Sequence[Task]) -> Runner:
    """Take the one place; raises ``LookupError`` where it is taken."""
    global _runner
    if _runner is not None:
        raise LookupError("a job runs already; wait for it or cancel it")
    _runner = Runner(tasks)
    last_log.clear()
    show(_runner)
    return _runner


def cancel() -> None:
    """Ask what runs to stop."""
    if _runner is not None:
        _runner.cancel()
        show(_runner)


def end() -> None:
    """Give the place back; what still runs is ended."""
    global _runner
    runner, _runner = _runner, None
    if runner is not None:
        runner.stop()
        show(runner)


def show(runner: Runner) -> None:
    """Tell the panel and the status bar where it is."""
    manager = bpy.context.window_manager
    status = manager.track_everything
    status.running = runner.alive and runner is _runner
    if runner.job is not None:
        last_log[:] = runner.job.log
        job = runner.job.status
        count = f" ({len(runner.results) + 1} of {len(runner.tasks)})" if len(runner.tasks) > 1 else ""
        left = f", {duration(job.seconds_left)} left" if job.seconds_left is not None else ""
        status.title, status.text = runner.task.title + count, job.text + left
        status.fraction = (len(runner.results) + job.fraction) / len(runner.tasks)
        status.warnings = "\n".join(job.warnings)
    elif not runner.alive:
        result = runner.summary()
        status.result, status.failed = result.text, not result.ok and not result.cancelled
        status.warnings, status.text, status.fraction = "\n".join(result.warnings), "", 0.0
    elif not runner.results:
        status.result, status.warnings, status.text, status.fraction = "", "", "Starting the core", 0.0
    words = f"Track Everything: {status.title}, {status.fraction:.0%}, {status.text} (ESC over the clip cancels)"
    for window in manager.windows:
        window.workspace.status_text_set(words if status.running else None)
        for area in window.screen.areas:
            if area.type in ("CLIP_EDITOR", "PREFERENCES"):
                area.tag_redraw()


def run_blocking(operator: "bpy.types.Operator", tasks: Sequence[Task]) -> set[str]:
    """Do it all at once, for scripts and for Blender without a window; prints how far it is."""
    try:
        runner = begin(tasks)
    except LookupError as error:
        operator.report({"ERROR"}, str(error.args[0]))
        return {"CANCELLED"}
    told = ""
    try:
        while runner.alive:
            runner.step()
            if runner.job is not None:
                words = f"{runner.task.title}: {runner.job.status.text}"
                if words != told:
                    told = words
                    print(f"Track Everything: {words}", flush=True)
                _pause(runner.job)
    finally:
        end()
    return report(operator, runner)


def _pause(job: Job) -> None:
    import time

    try:
        time.sleep(0.02)
    except KeyboardInterrupt:
        if job.cancelling:
            raise
        job.cancel()


def report(operator: "bpy.types.Operator", runner: Runner) -> set[str]:
    """Tell how it ended, in one line."""
    result = runner.summary()
    for text in result.warnings:
        operator.report({"WARNING"}, text)
    if result.ok:
        operator.report({"INFO"}, result.text)
        return {"FINISHED"}
    # an ERROR would raise in scripts, where a cancelled job is no error
    operator.report({"WARNING"} if result.cancelled else {"ERROR"}, result.text)
    return {"FINISHED"} if any(one.ok for one in runner.results) else {"CANCELLED"}


class ModalJob:
    """Mixed into operators: starts tasks and looks after them from a timer."""

    _timer: "bpy.types.Timer | None" = None
    _runner: Runner | None = None

    def begin_modal(self, context: "bpy.types.Context", tasks: Sequence[Task]) -> set[str]:
        """Start and return to Blender; without a window there is no timer, so that it is done at once."""
        if bpy.app.background or context.window is None:
            return run_blocking(self, tasks)
        try:
            self._runner = begin(tasks)
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))  # type: ignore[attr-defined]
            return {"CANCELLED"}
        self._timer = context.window_manager.event_timer_add(TICK_S, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """Blender's call at each event."""
        runner = self._runner
        if runner is None or runner is not _runner:  # another file was opened meanwhile
            return self._finish(context)
        if event.type == "ESC" and event.value == "PRESS" and _over_clip(context, event):
            cancel()
            return {"RUNNING_MODAL"}
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        runner.step()
        show(runner)
        return {"PASS_THROUGH"} if runner.alive else self._finish(context)

    def cancel(self, context: "bpy.types.Context") -> None:
        """Blender's call when it takes the operator away: its window closes, another file comes."""
        self._finish(context, tell=False)

    def _finish(self, context: "bpy.types.Context", *, tell: bool = True) -> set[str]:
        if self._timer is not None:
            context.window_manager.event_timer_remove(self._timer)
            self._timer = None
        runner, self._runner = self._runner, None
        if runner is None:
            return {"CANCELLED"}
        if runner is _runner:
            end()
        return report(self, runner) if tell else {"CANCELLED"}


def allowed(operator: "type[bpy.types.Operator]") -> bool:
    """Whether a job may be started now; says why not."""
    if is_running():
        operator.poll_message_set("A job runs: wait for it or cancel it")
        return False
    return True


class ButtonJob(ModalJob):
    """Mixed into operators whose ``_start(context, begin)`` hands their tasks to ``begin``: modal, or waiting."""

    @classmethod
    def poll(cls, context: "bpy.types.Context") -> bool:
        """Grey where it may not be pressed."""
        return allowed(cls)

    def invoke(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """The button: goes on beside Blender."""
        return self._start(context, self.begin_modal)  # type: ignore[attr-defined]

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """From a script, and without a window: waits."""
        wait = lambda _, tasks: run_blocking(self, tasks)  # noqa: E731
        return self._start(context, wait)  # type: ignore[attr-defined]



def _over_clip(context: "bpy.types.Context", event: "bpy.types.Event") -> bool:
    return any(
        area.type == "CLIP_EDITOR" and area.x <= event.mouse_x < area.x + area.width
        and area.y <= event.mouse_y < area.y + area.height
        for area in context.window.screen.areas
    )  # fmt: skip


@persistent  # type: ignore[untyped-decorator, unused-ignore]
def _before_load(*_: object) -> None:
    end()
    asking.close()


def register() -> None:
    """End with the file, and with Blender."""
    bpy.app.handlers.load_pre.append(_before_load)
    atexit.register(_at_exit)


def unregister() -> None:
    """End what runs."""
    end()
    atexit.unregister(_at_exit)
    bpy.app.handlers.load_pre.remove(_before_load)


def _at_exit() -> None:
    if _runner is not None and _runner.job is not None:
        _runner.job.stop()
    asking.close()
