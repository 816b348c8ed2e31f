"""A batch as a TD runs it: twelve short clips of which one is torn, killed in the middle, and on a farm's engine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from blender_addon import events
from omnimotion_core import cli
from omnimotion_core.batch.farm import write_farm
from omnimotion_core.batch.jobs import read_jobs

SETTINGS = {
    "device": "cpu", "flow": {"estimator": "dis", "long_side": 64, "gaps": [1, 2], "samples_per_pair": 200},
    "model": {"num_layers": 3, "knots": [[4.0, 4]]}, "fit": {"steps": 6, "batch": 128, "checkpoint_every": 2},
    "tracks": {"max_tracks": 30, "max_markers": 10}, "export": {"kinds": ["vectors:blender", "report"]},
}  # fmt: skip
TORN = "sh05"

pytestmark = pytest.mark.timeout(600)  # a dozen clips are half a minute on two idle cores, which busy ones are not


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "omnimotion_core", *map(str, arguments)]


def write_clip(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), np.uint8)
    noise = cv2.GaussianBlur(noise, (5, 5), 0)
    for t in range(4):
        cv2.imwrite(str(folder / f"{folder.name}.{1001 + t}.png"), noise[t : t + 48, 2 * t : 2 * t + 64])


def job(plates: Path, *more: object) -> list[str]:
    return command("batch", plates, "--config", json.dumps(SETTINGS), "--jobs", 2, *more)


@contextmanager
def started(arguments: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A batch under ``--events``, with its stdin held open."""
    with subprocess.Popen([*arguments, "--events"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def read(path: Path) -> dict[str, Any]:
    return json.loads((path / "report.json").read_text())


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Twelve clips, their batch killed when three are done, and run again; what was seen on the way."""
    folder = tmp_path_factory.mktemp("night")
    plates, runs = folder / "plates", folder / "plates-runs"
    for number in range(12):
        write_clip(plates / f"sh{number:02d}", number)
    frame = plates / TORN / f"{TORN}.1003.png"
    frame.write_bytes(frame.read_bytes()[:300])
    children: list[psutil.Process] = []
    with started(job(plates, "--keep-going")) as process:
        assert process.stdout is not None
        runs_done = 0
        for line in process.stdout:
            event = events.parse_line(line)
            runs_done += isinstance(event, events.Artifact) and event.kind == "run"
            if runs_done == 3:
                children = psutil.Process(process.pid).children()
                process.kill()
                break
    killed = time.monotonic()
    before = {name: (runs / name / "tracks.npz").stat().st_mtime_ns for name in os.listdir(runs)
              if (runs / name / "report.html").exists()}  # fmt: skip
    again = subprocess.run(job(plates, "--keep-going"), capture_output=True, text=True, timeout=500)
    psutil.wait_procs(children, timeout=30)
    return {"plates": plates, "runs": runs, "before": before, "children": children, "again": again, "killed": killed,
            "report": read(runs)}  # fmt: skip


@pytest.mark.slow
def test_eleven_are_done_and_one_is_reported(night: dict[str, Any]) -> None:
    again, runs = night["again"], night["runs"]
    assert again.returncode == cli.MENDABLE
    lines = again.stderr.splitlines()
    assert lines[-1].startswith(f"omnimotion: 1 of 12 clips failed ({TORN}: ")
    assert f"{TORN}.1003.png" in lines[-1]
    assert "Traceback" not in again.stderr
    for number in range(12):  # one line each
        assert len([line for line in lines if line.startswith(f"sh{number:02d}: ")]) == 1
    report = night["report"]
    assert report["counts"] == {"done": 11, "failed": 1, "running": 0, "waiting": 0, "cancelled": 0}
    for entry in report["clips"]:
        torn = entry["name"] == TORN
        assert (entry["state"], entry["exit_code"]) == (("failed", 2) if torn else ("done", 0))
        assert (f"{TORN}.1003.png" in entry["problem"]) == torn
        assert (entry["log"] is not None) == torn
        if not torn:
            assert (Path(entry["run"]) / "tracks.npz").exists()
            assert Path(entry["products"]["report"]).exists()
            assert len(list(Path(entry["products"]["vectors:blender"]).iterdir())) == 4
            assert (entry["frames"], entry["first_frame"], entry["size"]) == (4, 1001, [64, 48])
    assert not (runs / TORN).exists()  # nothing is left of a clip that cannot be used
    page = (runs / "report.html").read_text("utf-8")
    assert page.index(f"<h3>{TORN}</h3>") < page.index("<h3>sh00</h3>")
    assert page.count("data:image/jpeg") == 11
    assert 'href="sh00/report.html"' in page


@pytest.mark.slow
def test_after_a_kill_only_what_was_missing_is_done(night: dict[str, Any]) -> None:
    assert all(not process.is_running() for process in night["children"])  # they stopped by themselves
    assert len(night["before"]) >= 3
    did = {entry["name"]: entry["did"] for entry in night["report"]["clips"]}
    for name, written in night["before"].items():
        assert did[name] == []
        assert (night["runs"] / name / "tracks.npz").stat().st_mtime_ns == written
    fresh = [name for name, stages in did.items() if "prepare" in stages and name != TORN]
    assert len(fresh) <= 11 - len(night["before"])
    third = subprocess.run(job(night["plates"], "--keep-going"), capture_output=True, text=True, timeout=500)
    assert third.returncode == cli.MENDABLE
    assert all(entry["did"] == [] for entry in read(night["runs"])["clips"] if entry["name"] != TORN)


@pytest.mark.slow
def test_open_job_description_gives_the_same_files_bit_for_bit(night: dict[str, Any], tmp_path: Path) -> None:
    runner = Path(sys.executable).with_name("openjd")
    if os.name == "nt" or not runner.exists():
        pytest.skip("openjd-cli is not installed")
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(f"out = 'farm'\n[[clip]]\npath = {json.dumps(str(night['plates'] / 'sh03'))}\n")
    program = tmp_path / "omnimotion"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m omnimotion_core "$@"\n')
    program.chmod(0o755)
    batch = read_jobs(jobs, changes={"settings": SETTINGS, "flow_chunks": 2, "export_chunks": 2})
    write_farm("openjd", batch, tmp_path / "jobs.json", command=str(program))
    done = subprocess.run([runner, "run", tmp_path / "jobs.json"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = night["runs"] / "sh03", tmp_path / "farm" / "sh03"
    names = sorted(path.relative_to(ours) for path in ours.rglob("*") if not path.name.startswith("."))
    assert names == sorted(path.relative_to(theirs) for path in theirs.rglob("*") if not path.name.startswith("."))
    compared = 0
    for name in names:
        if name.suffix == ".npz":
            with np.load(ours / name) as one, np.load(theirs / name) as other:
                assert {key: one[key].tobytes() for key in one.files} == {key: other[key].tobytes()
                                                                          for key in other.files}, name  # fmt: skip
        elif (ours / name).is_file() and name.name not in ("run.json", "report.html", "state.pt"):  # of their own time
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
            compared += 1
    assert compared >= 4 + 4 + 4  # frames, vectors, and what is there once


@pytest.mark.slow
def test_a_signal_stops_a_batch_and_its_processes_and_the_same_command_goes_on(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows ends a process where others send it a signal")
    write_clip(tmp_path / "plates" / "sh00", 0)
    with started(job(tmp_path / "plates")) as process:
        assert process.stdout is not None
        heard = []
        children: list[psutil.Process] = []
        for line in process.stdout:
            heard.append(events.parse_line(line))
            if isinstance(heard[-1], events.Progress) and heard[-1].done > 0 and not children:
                children = psutil.Process(process.pid).children()
                process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == cli.CANCELLED
    assert children
    assert all(not child.is_running() for child in children)
    assert heard[-1] == events.Cancelled(resumable=True)
    report = read(tmp_path / "plates-runs")
    assert [entry["state"] for entry in report["clips"]] == ["cancelled"]
    assert (tmp_path / "plates-runs" / "report.html").exists()
    done = subprocess.run(job(tmp_path / "plates"), capture_output=True, text=True, timeout=500)
    assert done.returncode == cli.DONE, done.stderr
    assert read(tmp_path / "plates-runs")["counts"]["done"] == 1


# --- what is refused


def refused(capfd: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that a command which can be mended leaves on stderr."""
    capfd.readouterr()
    assert cli.main([str(argument) for argument in argv]) == cli.MENDABLE
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("omnimotion: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_what_cannot_be_begun_is_one_line_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = tmp_path / "jobs.toml"
    assert "cannot be read" in refused(capfd, "batch", tmp_path / "absent.toml")
    jobs.write_text("[[clip]]\npath = 'a.mov'\n" * 2)
    assert "would both be written" in refused(capfd, "batch", jobs)
    assert "would both be written" in refused(capfd, "farm", "slurm", jobs, "--out", tmp_path / "x.sh")
    jobs.write_text("[[clip]]\npath = 'a.mov'\nname = '../up'\n")
    assert "name is '../up'" in refused(capfd, "batch", jobs)
    jobs.write_text("[[clip]]\npath = 'a.mov'\n")
    assert "--jobs is -3" in refused(capfd, "batch", jobs, "--jobs", "-3")
    assert "choose one of draft" in refused(capfd, "batch", jobs, "--preset", "best")
    assert "choose from" in refused(capfd, "farm", "opencue", jobs, "--out", tmp_path / "x")
    assert "cannot be written" in refused(capfd, "batch", jobs, "--out", jobs / "below")
    assert "is a folder" in refused(capfd, "farm", "openjd", jobs, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.toml"]


def test_a_clip_that_is_not_there_is_told_and_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    jobs = tmp_path / "jobs.toml"
    write_clip(tmp_path / "there", 0)
    hostile = "-rf $(id) [red]; \u202e"
    jobs.write_text(f"[[clip]]\npath = 'there'\n[[clip]]\npath = {json.dumps(hostile + '.mov')}\n", encoding="utf-8")
    line = refused(capfd, "batch", jobs)
    assert "1 of 2 clips failed, 1 were not begun" in line
    assert "does not exist" in line
    report = read(tmp_path / "runs")
    assert [entry["state"] for entry in report["clips"]] == ["waiting", "failed"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["report.html", "report.json"]


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    write_clip(tmp_path / "plates" / "sh00", 0)
    script = f"""
mkdir {tmp_path}/closed && mount -t tmpfs -o ro none {tmp_path}/closed || exit 77
exec {sys.executable} -m omnimotion_core batch {tmp_path}/plates --out {tmp_path}/closed/runs
"""
    try:
        done = subprocess.run(["unshare", "--map-root-user", "--mount", "bash", "-c", script], capture_output=True,
                              text=True, timeout=120)  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare command")
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip("no read-only folder can be mounted here")
    assert done.returncode == cli.MENDABLE, done.stderr
    assert "closed/runs" in done.stderr.splitlines()[-1]
    assert "cannot be written" in done.stderr.splitlines()[-1]
