"""The graph of a batch as a shell script that submits it to Slurm: job arrays for parts, dependencies between steps."""

import shlex
from collections.abc import Mapping

from omnimotion_core.batch.graph import Step
from omnimotion_core.batch.jobs import Job
from omnimotion_core.errors import ConfigError

_HEAD = """\
#!/usr/bin/env bash
# Track Everything: submits {count} clips to Slurm. Run it on a machine that has sbatch:  bash THIS_FILE
# Run it again to do what is missing: every task skips what is done. Partition, account, limits and the like are set by
# Slurm's own variables (SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT …). OMNIMOTION names the hosts' program.
set -euo pipefail
omnimotion=${{OMNIMOTION:-{command}}}
quote="'" escaped="'\\\\''"
omnimotion=${{omnimotion//"$quote"/"$escaped"}}
omnimotion="'$omnimotion'"  # one word of the tasks' own shell

# submit OPTION… ARGUMENTS: the last is one word that holds omnimotion's arguments, quoted for the tasks' shell; prints
# the job's number
submit() {{
    local answer
    answer=$(sbatch --parsable --kill-on-invalid-dep=yes "${{@:1:$#-1}}" --wrap "exec $omnimotion ${{!#}}")
    printf '%s\\n' "${{answer%%;*}}"  # with several clusters: NUMBER;CLUSTER
}}
"""


def to_script(title: str, steps: Mapping[Job, tuple[Step, ...]], command: str) -> str:
    """The script; a failed clip takes its own later steps with it and no other clip's.

    Raises:
        ConfigError: a path holds what a job's shell cannot be given.
    """
    lines = [_HEAD.format(count=len(steps), command=shlex.quote(command))]
    for number, (job, chain) in enumerate(steps.items(), 1):
        lines.append(f"# {number}: {job.name}")
        for index, step in enumerate(chain):
            lines.append(f"job=$(submit {' '.join(_options(step, is_first=index == 0))} {shlex.quote(_call(step))})")
        lines.append(f"printf '%s: job %s\\n' {shlex.quote(job.name)} \"$job\"\n")
    return "\n".join(lines)


def _options(step: Step, is_first: bool) -> list[str]:
    options = [shlex.quote(f"--job-name={step.job.name}.{step.name}")]
    if not is_first:
        options.append('--dependency="afterok:$job"')
    if step.parts:
        options.append(f"--array=1-{step.parts}")
    if step.job.config.threads:
        options.append(f"--cpus-per-task={step.job.config.threads}")
    if step.needs_gpu:
        options.append("--gres=gpu:1")
    return options


def _call(step: Step) -> str:
    """The arguments of a task as its shell reads them, the number of an array's task put in there."""
    if not step.parts:
        return shlex.join(step.arguments())
    words = step.arguments("K/N")
    if words.count("K/N") != 1:
        raise ConfigError("a clip or run folder is called K/N", "rename it")
    return " ".join(f'"$SLURM_ARRAY_TASK_ID/{step.parts}"' if word == "K/N" else shlex.quote(word) for word in words)
