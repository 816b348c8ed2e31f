"""The graph of a batch as a job template of Open Job Description, revision 2023-09 without extensions.

Written as JSON, which YAML readers take too. Source: the specification at github.com/OpenJobDescription.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from omnimotion_core.batch.graph import Step
from omnimotion_core.batch.jobs import Job
from omnimotion_core.errors import ConfigError

_NAME_LENGTH = 64  # of a step at most
_PARAMETER = "Omnimotion"


def to_template(title: str, steps: Mapping[Job, tuple[Step, ...]], command: str) -> str:
    """The template: for every clip a chain of steps, parts as a task parameter, a GPU as a requirement of the host.

    Raises:
        ConfigError: a path holds two braces in a row, which the template would read as an expression.
    """
    entries: list[dict[str, Any]] = []
    for number, (job, chain) in enumerate(steps.items(), 1):
        for text in (job.clip, str(job.run), command):
            if "{{" in text or "}}" in text:
                raise ConfigError(f"{text} has two braces in a row, which Open Job Description reads as an expression",
                                  "rename it")  # fmt: skip
        before: dict[str, Any] | None = None
        for step in chain:
            entry = _step(number, step)
            if before is not None:
                entry["dependencies"] = [{"dependsOn": before["name"]}]
            entries.append(entry)
            before = entry
    template = {
        "specificationVersion": "jobtemplate-2023-09",
        "name": _printable(title)[:128],
        "description": f"Track Everything: {len(steps)} clips. Any task may be run again; it does what is missing.",
        "parameterDefinitions": [{
            "name": _PARAMETER, "type": "STRING", "default": command, "minLength": 1,
            "description": "The program omnimotion on the hosts: a name on their PATH, or a path.",
        }],
        "steps": entries,
    }  # fmt: skip
    text = json.dumps(template, indent=2, ensure_ascii=False)
    # what YAML takes only escaped, though JSON takes it raw
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff]", lambda sign: f"\\u{ord(sign[0]):04x}", text) + "\n"


def _step(number: int, step: Step) -> dict[str, Any]:
    chunk = f"{{{{Task.Param.Chunk}}}}/{step.parts}" if step.parts else ""
    arguments = step.arguments(chunk)
    entry: dict[str, Any] = {"name": _name(number, step)}
    if step.parts:
        numbers = {"name": "Chunk", "type": "INT", "range": f"1-{step.parts}"}
        entry["parameterSpace"] = {"taskParameterDefinitions": [numbers]}
    if step.needs_gpu:
        entry["hostRequirements"] = {"amounts": [{"name": "amount.worker.gpu", "min": 1}]}
    # a task that is canceled gets the time to write a checkpoint, from which the next try goes on
    cancel = {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": 60}
    entry["script"] = {"actions": {"onRun": {
        "command": f"{{{{Param.{_PARAMETER}}}}}", "args": arguments, "cancelation": cancel,
    }}}  # fmt: skip
    return entry


def _name(number: int, step: Step) -> str:
    """Unlike the others: the clip's number begins it, and its name is cut where it is long."""
    begin, end = f"{number:03d} ", f" {step.name}"
    return f"{begin}{step.job.name[: _NAME_LENGTH - len(begin) - len(end)]}{end}"


def _printable(title: str) -> str:
    return "".join(sign for sign in title if sign.isprintable() and sign not in "{}") or "omnimotion"
