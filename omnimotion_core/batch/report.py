"""What came of a batch, for programs: ``report.json``, written anew whenever a clip has ended."""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omnimotion_core import __version__
from omnimotion_core.batch.jobs import Batch
from omnimotion_core.batch.status import ClipStatus, count_states
from omnimotion_core.errors import OmniMotionError
from omnimotion_core.files import write_text
from omnimotion_core.products import product_path
from omnimotion_core.run import RunFolder

FORMAT, VERSION = "omnimotion.batch", 1


class BatchReport:
    """Writes the report of a batch.

    Args:
        batch: the jobs.
        began: when the batch began.
    """

    def __init__(self, batch: Batch, began: datetime | None = None) -> None:
        self.batch, self.began = batch, began or datetime.now(UTC)

    def write(self, clips: Sequence[ClipStatus], *, ended: bool) -> dict[str, Any]:
        """Write it as it stands and give it back.

        Raises:
            RunError: the folder cannot be written.
        """
        report = {
            "format": FORMAT, "version": VERSION, "omnimotion": __version__, "jobs": str(self.batch.source),
            "host": socket.gethostname(), "began": self.began.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self.began).total_seconds(), 1), "ended": ended,
            "counts": count_states(clips), "clips": [self._entry(clip) for clip in clips],
        }  # fmt: skip
        write_text(self.batch.report, json.dumps(report, indent=1) + "\n")
        return report

    def _entry(self, clip: ClipStatus) -> dict[str, Any]:
        job = clip.job
        log = self.batch.log(job)
        entry: dict[str, Any] = {
            "name": job.name, "state": clip.state, "exit_code": clip.exit_code, "clip": job.clip, "run": str(job.run),
            "preset": job.config.preset, "did": clip.did, "tries": clip.tries, "seconds": round(clip.seconds, 1),
            "problem": clip.problem, "remedy": clip.remedy, "warnings": list(clip.warnings),
            "log": str(log) if log.exists() else None,
        }  # fmt: skip
        with suppress(OmniMotionError):  # none yet, or damaged: then the state tells enough
            run = RunFolder.open(job.run)
            entry["warnings"] += [text for text in run.warnings if text not in clip.warnings]
            entry["stages"] = {stage: facts.get("seconds") for stage, facts in run.manifest["stages"].items()}
            entry |= {key: run.clip.get(key) for key in ("frames", "first_frame", "size", "fps")}
            entry["products"] = {kind: str(path) for kind in job.config.export.kinds
                                 if (path := product_path(kind, run)).exists()}  # fmt: skip
        return entry


def drop_empty_logs(folder: Path) -> None:
    """Delete the logs of processes that had nothing to say."""
    with suppress(OSError):
        for log in folder.glob("*.log"):
            if log.stat().st_size == 0:
                log.unlink()
        folder.rmdir()  # where it is empty
