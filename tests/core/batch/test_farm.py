"""What farms get: Open Job Description's own model, bash with an sbatch that reads its options, and node check it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnimotion_core.batch.farm import ENGINES, write_farm
from omnimotion_core.batch.graph import steps_of
from omnimotion_core.batch.jobs import Batch, read_jobs
from omnimotion_core.errors import ConfigError, RunError

HOSTILE = "it's $(touch pwned) `id` \"q\" \\ ; & | %n * é {blender}"


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Two clips with parts, of which one asks for a GPU and is called as badly as can be."""
    path = tmp_path / "shots.toml"
    path.write_text("".join([
        "out = 'runs'\nexport = ['vectors:blender', 'report']\nthreads = 2\n",
        "[[clip]]\npath = 'a.mov'\nflow_chunks = 2\nexport_chunks = 3\ndevice = 'cpu'\n",
        f"[[clip]]\npath = {json.dumps(HOSTILE + '.mov')}\nname = 'bad'\nout = {json.dumps('runs/' + HOSTILE)}\n",
        "device = 'cuda'\nflow = 'dis'\nexport_chunks = 2\n",
    ]), encoding="utf-8")  # fmt: skip
    return read_jobs(path)


def written(engine: str, batch: Batch, folder: Path, **more: Any) -> Path:
    path = folder / f"farm.{engine}"
    write_farm(engine, batch, path, **more)
    return path


def expected(batch: Batch) -> list[tuple[str, list[str], bool]]:
    """Every task in order: its clip and step, its arguments, whether it needs a GPU."""
    return [
        (f"{job.name} {step.name}", step.arguments(f"{k}/{step.parts}" if step.parts else ""), step.needs_gpu)
        for job in batch.jobs for step in steps_of(job) for k in range(1, max(step.parts, 1) + 1)
    ]  # fmt: skip


# --- Open Job Description


def test_the_template_is_valid_and_makes_every_task_in_its_order(batch: Batch, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="openjd-cli is not installed")
    from openjd.model import StepDependencyGraph, StepParameterSpaceIterator, create_job, decode_job_template

    text = written("openjd", batch, tmp_path).read_text("utf-8")
    assert yaml.safe_load(text) == json.loads(text)
    template = decode_job_template(template=json.loads(text))
    job = create_job(job_template=template, job_parameter_values={})
    tasks = []
    for step in job.steps:
        action = step.script.actions.onRun
        for parameters in StepParameterSpaceIterator(space=step.parameterSpace):
            values = {f"Task.Param.{name}": value.value for name, value in parameters.items()}
            arguments = [re.sub(r"\{\{(.*?)\}\}", lambda use, values=values: values[use[1]], one)
                         for one in action.args]  # fmt: skip
            needs = step.hostRequirements
            tasks.append((step.name[4:], arguments, needs is not None))
            if needs is not None:
                (amount,) = needs.amounts or []
                assert amount.name == "amount.worker.gpu"
                assert amount.min == 1
    assert tasks == expected(batch)
    graph = StepDependencyGraph(job=job)
    edges = {(edge.origin.step.name, edge.dependent.step.name)
             for step in job.steps for edge in graph.step_node(stepname=step.name).in_edges}  # fmt: skip
    names = [step.name for step in job.steps]
    chains = [(a, b) for a, b in zip(names, names[1:], strict=False) if a[:3] == b[:3]]
    assert edges == set(chains)


def test_openjd_check_takes_many_clips_with_long_names(tmp_path: Path) -> None:
    checker = Path(sys.executable).with_name("openjd")
    if not checker.exists():
        pytest.skip("openjd-cli is not installed")
    path = tmp_path / "many.toml"
    names = [f"{'long' * 24}{number:03d}" for number in range(30)]
    path.write_text("".join(f"[[clip]]\npath = '/p/{name}.mov'\n" for name in names))
    template = tmp_path / "many.yaml"
    write_farm("openjd", read_jobs(path, changes={"flow_chunks": 9, "export_chunks": 9}), template)
    done = subprocess.run([checker, "check", template], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_template_would_read_as_an_expression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text("[[clip]]\npath = 'a{{Param.X}}.mov'\nname = 'a'\n")
    with pytest.raises(ConfigError, match="two braces in a row"):
        written("openjd", read_jobs(path), tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["jobs.toml"]


# --- Slurm

SBATCH = '''
import json, os, re, sys
options = sys.argv[1:]
assert options[:2] == ["--parsable", "--kill-on-invalid-dep=yes"], options
assert options[-2] == "--wrap", options
known = {"job-name": r"[A-Za-z0-9._-]+", "array": r"1-[1-9][0-9]*", "dependency": r"afterok:[0-9]+", "gres": "gpu:1",
         "cpus-per-task": "[1-9][0-9]*"}
given = {}
for option in options[2:-2]:
    name, value = option.removeprefix("--").split("=", 1)
    assert option.startswith("--") and re.fullmatch(known[name], value), option
    given[name] = value
log = os.environ["SBATCH_LOG"]
lines = open(log).read().splitlines() if os.path.exists(log) else []
number = 100 + len(lines)
if "dependency" in given:
    assert 100 <= int(given["dependency"].split(":")[1]) < number, given
open(log, "a").write(json.dumps([number, given, options[-1]]) + "\\n")
print(f"{number};cluster")
'''
OMNIMOTION = '''#!{python}
import json, os, sys
open(os.environ["TASK_LOG"], "a").write(json.dumps(sys.argv[1:]) + "\\n")
'''


@pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="no bash")
def test_the_slurm_script_submits_arrays_that_wait_for_each_other(batch: Batch, tmp_path: Path) -> None:
    program = tmp_path / "the program's \"$place" / "omni motion"
    program.parent.mkdir()
    program.write_text(OMNIMOTION.format(python=sys.executable))
    program.chmod(0o755)
    script = written("slurm", batch, tmp_path, command=str(program))
    assert subprocess.run(["bash", "-n", script], timeout=20).returncode == 0
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text(f"#!{sys.executable}\n{SBATCH}")
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}", "SBATCH_LOG": str(tmp_path / "log")}
    environment.pop("OMNIMOTION", None)
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a: job 106\nbad: job 112\n"
    jobs = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    ran = []
    for number, given, wrapped in jobs:
        after = f"afterok:{number - 1}" if number not in (100, 107) else None
        assert given.get("dependency") == after
        assert given["cpus-per-task"] == "2"
        count = int(given.get("array", "1-0").split("-")[1])
        for k in range(1, max(count, 1) + 1):
            task = {**environment, "TASK_LOG": str(tmp_path / "task"), "SLURM_ARRAY_TASK_ID": str(k)}
            subprocess.run(["sh", "-c", wrapped], env=task, check=True, timeout=20, cwd=tmp_path)
            arguments = json.loads((tmp_path / "task").read_text().splitlines()[-1])
            ran.append((given["job-name"].replace(".", " "), arguments, given.get("gres") == "gpu:1"))
    assert ran == expected(batch)
    assert not (tmp_path / "pwned").exists()


# --- Flamenco

COMPILE = """
const fs = require("fs"), vm = require("vm");
class Task {
    constructor(name, type) { this.name = name; this.type = type; this.commands = []; this.after = []; }
    addCommand(command) { this.commands.push(command); }
    addDependency(task) { if (!(task instanceof Task)) throw new Error("no task"); this.after.push(task.name); }
}
const author = { Task: (name, type) => new Task(name, type), Command: (name, parameters) => ({ name, parameters }) };
const context = vm.createContext({ author });
vm.runInContext(fs.readFileSync(process.argv[1], "utf8") + "\\n;this.JOB_TYPE = JOB_TYPE;", context);
const settings = {}, tasks = [];
for (const { key, default: value } of context.JOB_TYPE.settings) settings[key] = value;
settings.gpu_task_type = "gpu";
context.compileJob({ settings, addTask: (task) => tasks.push(task) });
console.log(JSON.stringify({ label: context.JOB_TYPE.label, tasks }));
"""


def test_the_flamenco_job_type_authors_every_task_after_those_before_it(batch: Batch, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to run JavaScript")
    script = written("flamenco", batch, tmp_path, command="/opt/it's \"here\"/omnimotion")
    done = subprocess.run([node, "-e", COMPILE, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    assert compiled["label"] == "Track Everything: shots"
    found = []
    for task in compiled["tasks"]:
        (command,) = task["commands"]
        assert command["name"] == "exec"
        assert command["parameters"]["exe"] == "/opt/it's \"here\"/omnimotion"
        name = re.sub(r" \d+/\d+$", "", task["name"])
        found.append((name, command["parameters"]["args"], task["type"] == "gpu"))
    assert found == expected(batch)
    names = {task["name"]: task["after"] for task in compiled["tasks"]}
    assert len(names) == len(found)
    assert names["a prepare"] == names["bad prepare"] == []
    assert names["a flow-parts 2/2"] == ["a prepare"]
    assert names["a flow"] == ["a flow-parts 1/2", "a flow-parts 2/2"]
    assert names["a export"] == [f"a export-parts {k}/3" for k in (1, 2, 3)]
    assert names["bad fit"] == ["bad flow"]


# --- all of them


@pytest.mark.parametrize("engine", ENGINES)
def test_what_no_farm_file_can_hold_is_told_and_nothing_is_written(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    for clip, command, words in (("a\\nb.mov", "omnimotion", "signs that a farm's files cannot hold"),
                                 ("a.mov", "", "the command is ''"), ("a.mov", "x\ny", "the command is")):  # fmt: skip
        path.write_text(f'[[clip]]\npath = "{clip}"\nname = "a"\n')
        with pytest.raises(ConfigError, match=words):
            written(engine, read_jobs(path), tmp_path, command=command)
    with pytest.raises(RunError, match="is a folder"):
        write_farm(engine, read_jobs(path), tmp_path)
    with pytest.raises(RunError, match="cannot be written"):
        write_farm(engine, read_jobs(path), path / "below" / "file")
    assert [one.name for one in tmp_path.iterdir()] == ["jobs.toml"]
