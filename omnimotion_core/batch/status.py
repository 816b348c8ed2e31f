"""Where each clip of a batch stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omnimotion_core.batch.jobs import Job
from omnimotion_core.export.page import duration

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
_SHARES = {"prepare": 0.05, "flow": 0.25, "fit": 0.45, "tracks": 0.05, "export": 0.2}  # of a usual clip's time


@dataclass
class ClipStatus:
    """One clip in a running batch."""

    job: Job
    state: str = WAITING
    stage: str = ""  # that runs, or ran last
    did: list[str] = field(default_factory=list)  # stages that had something to do, each once
    tries: int = 0  # begun so often
    seconds: float = 0.0  # from its first process to its end
    exit_code: int | None = None  # of the process that decided
    problem: str = ""
    remedy: str = ""
    warnings: list[str] = field(default_factory=list)
    _done: dict[str, dict[str, float]] = field(default_factory=dict)  # stage, part → 0..1

    @property
    def share(self) -> float:
        """How much of the clip is done, 0..1, by what its stages usually take."""
        if self.state == DONE:
            return 1.0
        return sum(_SHARES[stage] * sum(parts.values()) / len(parts) for stage, parts in self._done.items() if parts)

    def plan(self, parts: Mapping[str, Sequence[str]]) -> None:
        """Begin: for each stage that is to be done the names of its parts; the other stages are done."""
        self._done = {stage: dict.fromkeys(parts.get(stage, ("",)), 0.0 if stage in parts else 1.0)
                      for stage in _SHARES}  # fmt: skip

    def hear(self, event: Mapping[str, Any], part: str = "") -> None:
        """Take in what a process of this clip says."""
        match event.get("event"):
            case "stage":
                self.stage = str(event.get("stage"))
                if self.stage not in self.did:
                    self.did.append(self.stage)
                for before in list(_SHARES)[: list(_SHARES).index(self.stage)] if self.stage in _SHARES else ():
                    self._done[before] = dict.fromkeys(self._done.get(before, {"": 1.0}), 1.0)
            case "progress":
                done, total = event.get("done", 0), event.get("total", 0)
                parts = self._done.setdefault(str(event.get("stage")), {})
                if str(event.get("stage")) in _SHARES and total:
                    parts[part] = max(parts.get(part, 0.0), done / total)  # each product counts from its own start
            case "warning":
                message = str(event.get("message"))
                if message not in self.warnings:
                    self.warnings.append(message)

    def fail(self, problem: str, remedy: str, exit_code: int | None) -> None:
        """It cannot go on."""
        self.state, self.problem, self.remedy, self.exit_code = FAILED, problem, remedy, exit_code

    @property
    def line(self) -> str:
        """What came of it, in one line."""
        match self.state:
            case "done" if not self.did:
                return f"{self.job.name}: done before"
            case "done":
                return f"{self.job.name}: done in {duration(self.seconds)}"
            case "failed":
                return f"{self.job.name}: failed: {' '.join(f'{self.problem}; {self.remedy}'.split())}"
            case state:
                return f"{self.job.name}: {state}"



def count_states(clips: Sequence[ClipStatus]) -> dict[str, int]:
    """How many clips there are of each state."""
    return {state: sum(clip.state == state for clip in clips)
            for state in (DONE, FAILED, RUNNING, WAITING, CANCELLED)}  # fmt: skip
