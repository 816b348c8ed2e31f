"""How a running batch is shown: a live table for a person, lines in a log, events for a parent process."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from omnimotion_core.batch.status import DONE, FAILED, RUNNING, WAITING, ClipStatus, count_states
from omnimotion_core.events import Reporter
from omnimotion_core.export.page import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_ROWS = 24  # of the table; more running clips are counted
_REDRAW_S = 0.25
_STAGE = "batch"  # of the events
_PARTS = 100  # of a clip, in the progress of the events


class BatchTable:
    """One table on stderr that follows the batch: a row for each clip that runs, the rest counted.

    A line for each clip that has ended stays above it. Where stderr is no terminal there are only these lines.

    Args:
        stream: a terminal or a log; stderr when not given.
        clock: seconds from any origin.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream) if stream is not None else Console(stderr=True)
        self._clock, self._began, self._drawn = clock, clock(), -_REDRAW_S
        interactive = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if interactive else None

    def __enter__(self) -> "BatchTable":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, clips: Sequence[ClipStatus]) -> None:
        """Draw the table anew, a few times a second at most."""
        if self._live is not None and self._clock() - self._drawn >= _REDRAW_S:
            self._drawn = self._clock()
            self._live.update(self._table(clips), refresh=True)

    def told(self, clip: ClipStatus) -> None:
        """A clip has ended."""
        self._say(clip.line, "red" if clip.state == FAILED else None)

    def wrote(self, kind: str, path: Path) -> None:
        """A file of the batch is there."""
        self._say(f"{kind}: {path}")

    def _say(self, line: str, style: str | None = None) -> None:
        # soft_wrap: a path broken over two lines can be neither copied nor searched for
        self._console.print(_printable(line), style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _table(self, clips: Sequence[ClipStatus]) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for title, wide in (("clip", 30), ("stage", 8), ("", 30), ("", 4)):
            table.add_column(title, max_width=wide, no_wrap=True)
        running = [clip for clip in clips if clip.state == RUNNING]
        for clip in running[:_MOST_ROWS]:
            bar = ProgressBar(total=1.0, completed=clip.share, width=30)
            table.add_row(Text(clip.job.name), Text(clip.stage or "starts"), bar, f"{100 * clip.share:.0f}%")
        if len(running) > _MOST_ROWS:
            table.add_row(Text(f"and {len(running) - _MOST_ROWS} more"))
        summary = Text(self._summary(clips))  # no caption of the table: that breaks at the table's width
        return Group(table, summary) if running else summary

    def _summary(self, clips: Sequence[ClipStatus]) -> str:
        counts = [f"{count} {name}" for name, count in count_states(clips).items() if count]
        taken = self._clock() - self._began
        shares = [clip.share for clip in clips if clip.did and clip.state != FAILED]
        waiting = sum(clip.state == WAITING for clip in clips)
        text = f"{len(clips)} clips: {', '.join(counts)} · {duration(taken)}"
        if sum(shares) > 0.02:  # those that wait take as long as those that were begun, on average
            total = taken * (len(shares) + waiting) / sum(shares)
            text += f" · about {duration(max(0.0, total - taken))} left"
        return text


class BatchEvents:
    """Says as events what the table shows: progress in hundredths of a clip, a note or a warning for each."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._said = reporter, -1
        reporter.stage(_STAGE)

    def show(self, clips: Sequence[ClipStatus]) -> None:
        """Tell how far all clips are together, where that has changed."""
        done = sum(_PARTS if clip.state in (DONE, FAILED) else int(_PARTS * clip.share) for clip in clips)
        if done > self._said:
            self._said = done
            self._reporter.progress(_STAGE, done, _PARTS * len(clips))

    def told(self, clip: ClipStatus) -> None:
        """A clip has ended."""
        (self._reporter.warning if clip.state == FAILED else self._reporter.note)(clip.line)
        if clip.state == DONE:
            self._reporter.artifact("run", clip.job.run)

    def wrote(self, kind: str, path: Path) -> None:
        """A file of the batch is there."""
        self._reporter.artifact(kind, path)


def _printable(line: str) -> str:
    """Without what a terminal would obey: a clip's name may hold anything."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)
