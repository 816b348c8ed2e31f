"""The graph of a batch: for each clip a chain of steps, each whole or in parts that may run at the same time.

    prepare → flow 1/N … N/N → flow → fit → tracks → export 1/M … M/M → export

A step follows all parts of the step before it; clips know nothing of each other. Each part is one call of the command
line, which does nothing where its work is done: so whatever runs the graph may run any of it again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omnimotion_core.batch.jobs import Job
from omnimotion_core.config import Config
from omnimotion_core.products import is_sequence


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage of one clip, or the shared-out part of one."""

    job: Job
    stage: str
    parts: int = 0  # so many run side by side; 0: the stage as a whole, which ends it
    may_use_gpu: bool  # where the clip's device is one

    @property
    def name(self) -> str:
        """Unlike that of the clip's other steps."""
        return f"{self.stage}-parts" if self.parts else self.stage

    @property
    def needs_gpu(self) -> bool:
        """Whether a farm's host must have a GPU: only where the clip's ``device`` says so, for every step runs without.
        """
        return self.may_use_gpu and self.job.config.device == "cuda"

    def arguments(self, chunk: str = "") -> list[str]:
        """What the command ``omnimotion`` is called with.

        Args:
            chunk: K/N for one of the parts; a farm's own placeholder may stand for K.
        """
        assert bool(chunk) == bool(self.parts)
        run = str(self.job.run)
        if self.stage == "prepare":
            return ["prepare", run, "--clip", self.job.clip, *settings_arguments(self.job.config)]
        return [self.stage, run, *(["--chunk", chunk] if chunk else [])]


def steps_of(job: Job) -> tuple[Step, ...]:
    """The chain of a clip, in its order."""
    config = job.config
    flow_may_use_gpu = config.flow.estimator != "dis" and "/" not in config.flow.estimator.replace("\\", "/")

    def steps() -> Iterator[Step]:
        yield Step(job=job, stage="prepare", may_use_gpu=False)
        if job.flow_chunks > 1:
            yield Step(job=job, stage="flow", parts=job.flow_chunks, may_use_gpu=flow_may_use_gpu)
        yield Step(job=job, stage="flow", may_use_gpu=flow_may_use_gpu)
        yield Step(job=job, stage="fit", may_use_gpu=True)
        yield Step(job=job, stage="tracks", may_use_gpu=True)
        if job.export_chunks > 1 and any(map(is_sequence, config.export.kinds)):
            yield Step(job=job, stage="export", parts=job.export_chunks, may_use_gpu=True)
        yield Step(job=job, stage="export", may_use_gpu=True)

    return tuple(steps())


def settings_arguments(config: Config) -> list[str]:
    """The arguments that make ``config`` from its preset, in one line of ASCII."""
    changes = _difference(config.to_dict(), Config.from_preset(config.preset).to_dict())
    return ["--preset", config.preset, *(["--config", _one_line(changes)] if changes else [])]


def _difference(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            if inner := _difference(value, base[key]):
                found[key] = inner
        elif value != base[key]:
            found[key] = value
    return found


def _one_line(changes: Mapping[str, Any]) -> str:
    """JSON without two braces in a row, within texts too: farms' templates give these a meaning."""
    text, quoted = [], False
    for token in json.dumps(changes).replace("\\\\", "\\u005c").replace('\\"', "\\u0022"):
        quoted ^= token == '"'
        if token in "{}":
            text.append(f"\\u{ord(token):04x}" if quoted else f"{token} " if token == "}" else token)
        else:
            text.append(token)
    return "".join(text).rstrip()
