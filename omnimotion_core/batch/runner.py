"""A whole batch on this machine, with its report and its contact sheet."""

from collections.abc import Sequence
from contextlib import ExitStack

from omnimotion_core.batch.contact_sheet import write_contact_sheet
from omnimotion_core.batch.jobs import LOGS, Batch
from omnimotion_core.batch.local import LocalRunner
from omnimotion_core.batch.report import BatchReport, drop_empty_logs
from omnimotion_core.batch.status import DONE, FAILED, WAITING, ClipStatus
from omnimotion_core.batch.views import BatchEvents, BatchTable
from omnimotion_core.errors import BatchError
from omnimotion_core.events import Reporter


def run_batch(
    batch: Batch, *, workers: int = 0, keep_going: bool = False, as_events: bool = False, reporter: Reporter
) -> None:
    """Do what is missing of every clip; ``report.json`` and ``report.html`` tell what came of it, however it ends.

    Args:
        batch: the jobs.
        workers: processes at once; 0: as many as cores and memory allow.
        keep_going: go on with other clips where one failed.
        as_events: tell the reporter in place of a person.
        reporter: may cancel.
    Raises:
        RunError: the batch's folder cannot be written.
        BatchError: clips failed, or were not begun since another had failed.
        Cancelled: the user asked to stop; the same batch goes on.
    """
    report = BatchReport(batch)
    with ExitStack() as stack:
        view = BatchEvents(reporter) if as_events else stack.enter_context(BatchTable())

        def told(clip: ClipStatus) -> None:
            view.told(clip)
            report.write(runner.clips, ended=False)

        runner = LocalRunner(
            batch, workers=workers, keep_going=keep_going, reporter=reporter, show=view.show, told=told
        )
        report.write(runner.clips, ended=False)  # a folder that may not be written is told before the work
        try:
            runner.run()
        finally:
            drop_empty_logs(batch.out / LOGS)
            write_contact_sheet(batch.contact_sheet, report.write(runner.clips, ended=True))
        view.wrote("batch", batch.report)
        view.wrote("contact sheet", batch.contact_sheet)
    _raise_what_failed(batch, runner.clips)


def _raise_what_failed(batch: Batch, clips: Sequence[ClipStatus]) -> None:
    failed = [clip for clip in clips if clip.state == FAILED]
    if not failed:
        assert all(clip.state == DONE for clip in clips)
        return
    waiting = sum(clip.state == WAITING for clip in clips)
    which = f"{failed[0].job.name}: {failed[0].problem}; {failed[0].remedy}" if len(failed) == 1 else (
        ", ".join(clip.job.name for clip in failed[:5]) + (", …" if len(failed) > 5 else "")
    )  # fmt: skip
    left = f", {waiting} were not begun" if waiting else ""
    again = "then run the same command again" + (", or with --keep-going" if waiting else "")
    raise BatchError(f"{len(failed)} of {len(clips)} clips failed{left} ({which})", f"see {batch.report}, {again}")
