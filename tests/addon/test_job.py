"""Commands one after another, and what people are told of them."""

import sys
import time
from pathlib import Path

import pytest

from blender_addon import events
from blender_addon.job import Job, Step, duration

SPEAKER = str(Path(__file__).with_name("speaker.py"))


def step(*acts: str) -> Step:
    return Step([sys.executable, "-I", SPEAKER, *acts])


def test_the_next_command_starts_when_one_is_finished() -> None:
    job = Job("shot", [step("started", "stage=fit", "progress=50", "artifact=/a", "finished"),
                       step("started", "stage=tracks", "warning=mind the gap", "finished")])  # fmt: skip
    seen = []
    while job.outcome is None:
        job.poll()
        seen.append(job.status.fraction)
        time.sleep(0.01)
    assert job.outcome == events.Finished(1.0)
    assert seen == sorted(seen)
    assert (1 + 0.5) / 4 / 2 in seen  # half of the second of four stages of the first of two commands
    assert job.artifacts == {"markers": "/a"}
    assert job.status.warnings == ["mind the gap"]
    assert job.message() == "Done"


def test_what_follows_a_failed_command_is_not_started(tmp_path: Path) -> None:
    job = Job("shot", [step("started", "error=the clip\nis bad"), step(f"die={9}")])
    job.run(0.01)
    assert job.message() == "the clip is bad; mend it"
    assert job.poll() == []


def test_a_program_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    job = Job("shot", [Step([str(tmp_path / "no python")])])
    job.run(0.01)
    assert job.message().startswith(f"{tmp_path / 'no python'} cannot be started (")
    assert "preferences" in job.message()


def test_a_cancelled_job_starts_nothing_more() -> None:
    job = Job("shot", [step("started", "stage=fit", "obey"), step("finished")])
    while job.status.text != "Fitting motion (2 of 4)":
        job.poll()
        time.sleep(0.01)
    job.cancel()
    assert job.cancelling
    assert job.status.text == "Stopping after this step"
    assert job.run(0.01) == events.Cancelled(resumable=True)
    assert "goes on from there" in job.message()
    never = Job("shot", [step("finished")])
    never.cancel()
    assert never.run(0.01) == events.Cancelled(resumable=True)
    assert never.pid is None


def test_a_stopped_job_is_over_at_once_and_leaves_no_scratch(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    job = Job("shot", [step("started", "stage=fit", "obey")], scratch)
    job.poll()
    job.stop()
    assert isinstance(job.outcome, events.Cancelled)
    job.close()
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (41.4, "41 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (5399, "1 h 30 min")],
)
def test_times_are_told_as_people_do(seconds: float, words: str) -> None:
    assert duration(seconds) == words
