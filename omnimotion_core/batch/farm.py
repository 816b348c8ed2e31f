"""The graph of a batch written for a farm's engine; these engines schedule, we do not.

Every task is one call of ``omnimotion`` on the host that the engine chose, on folders that all hosts see at the same
path. Tasks do nothing where their work is done, so any of them may be run again, and all of them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from omnimotion_core.batch import flamenco, openjd, slurm
from omnimotion_core.batch.graph import Step, steps_of
from omnimotion_core.batch.jobs import Batch, Job
from omnimotion_core.errors import ConfigError, RunError
from omnimotion_core.files import write_text

Writer = Callable[[str, Mapping[Job, tuple[Step, ...]], str], str]
ENGINES: Mapping[str, Writer] = {
    "openjd": openjd.to_template, "slurm": slurm.to_script, "flamenco": flamenco.to_job_type,
}  # fmt: skip


def write_farm(engine: str, batch: Batch, path: Path, *, command: str = "omnimotion") -> None:
    """Write the batch as one file for an engine.

    Args:
        engine: of ``ENGINES``.
        batch: the jobs.
        path: the file; it is replaced.
        command: the program on the hosts: a name on their PATH, or a path.
    Raises:
        ConfigError: a path or the command cannot be written safely in the engine's language.
        RunError: the file cannot be written.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder", "give a file to write")
    if not command or not command.isprintable():
        raise ConfigError(f"the command is {command!r}", "give the name or the path of omnimotion on the farm's hosts")
    for job in batch.jobs:
        for text in (job.clip, str(job.run)):
            if not text.isprintable():  # line breaks, and bytes that are no text: no engine's log or form takes them
                raise ConfigError(f"{text!r} has signs that a farm's files cannot hold", "rename it")
    steps = {job: steps_of(job) for job in batch.jobs}
    write_text(Path(os.path.abspath(path)), ENGINES[engine](batch.source.stem or "omnimotion", steps, command))
