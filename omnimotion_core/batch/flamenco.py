"""The graph of a batch as a job type for Flamenco 3, the render farm of Blender's studio.

A job type is JavaScript that the manager runs when a job is submitted. Put the file into its ``scripts`` folder; then
Blender and the web page offer the job type. Values are JSON, and go to the workers as arguments, through no shell.
"""

import json
import re
from collections.abc import Mapping
from importlib.resources import files

from omnimotion_core.batch.graph import Step
from omnimotion_core.batch.jobs import Job


def to_job_type(title: str, steps: Mapping[Job, tuple[Step, ...]], command: str) -> str:
    """The script: a task for every part of every step, after all parts of the step before it."""
    tasks: list[dict[str, object]] = []
    for job, chain in steps.items():
        before: list[int] = []
        for step in chain:
            chunks = [f"{number}/{step.parts}" for number in range(1, step.parts + 1)] or [""]
            here = [len(tasks) + index for index in range(len(chunks))]
            for chunk in chunks:
                name = f"{job.name} {step.name}" + (f" {chunk}" if chunk else "")
                tasks.append({"name": name, "gpu": step.needs_gpu, "args": step.arguments(chunk), "after": before})
            before = here
    lines = ",\n".join(f"    {json.dumps(task)}" for task in tasks)
    values = {"__LABEL__": json.dumps(f"Track Everything: {title}"), "__COMMAND__": json.dumps(command),
              "__TASKS__": f"[\n{lines}\n]"}  # fmt: skip
    return re.sub("__[A-Z]+__", lambda place: values[place[0]], _template())


def _template() -> str:
    return files("omnimotion_core.batch").joinpath("flamenco.js").read_text(encoding="utf-8")
