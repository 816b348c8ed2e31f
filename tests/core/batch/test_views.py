"""What is shown and reported of a batch: shares, a table, events, report.json, the contact sheet."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimotion_core import pipeline
from omnimotion_core.api import make_config
from omnimotion_core.batch.contact_sheet import write_contact_sheet
from omnimotion_core.batch.jobs import Batch, Job
from omnimotion_core.batch.report import BatchReport, drop_empty_logs
from omnimotion_core.batch.status import ClipStatus
from omnimotion_core.batch.views import BatchEvents, BatchTable
from omnimotion_core.events import Artifact, Event, Noted, Progress, Reporter, Stage, Warned
from omnimotion_core.run import STAGES

HOSTILE = "[red]x</h3><script>\x1b[31m"


def clip(folder: Path, name: str = "a") -> ClipStatus:
    return ClipStatus(Job(name=name, clip=str(folder / "a.mov"), run=folder / name, config=make_config("draft")))


def test_a_clips_share_follows_its_stages(tmp_path: Path) -> None:
    status = clip(tmp_path)
    status.plan({stage: [""] for stage in STAGES})
    assert status.share == 0
    shares = []
    for stage in STAGES:
        status.hear({"event": "stage", "stage": stage})
        for done in (1, 2, 4):
            status.hear({"event": "progress", "stage": stage, "done": done, "total": 4})
            shares.append(status.share)
    status.hear({"event": "progress", "stage": "export", "done": 0, "total": 4})  # the next product's own start
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert status.share == shares[-1]
    assert (status.did, status.stage) == (list(STAGES), "export")


def test_parts_add_up_and_what_was_done_before_counts(tmp_path: Path) -> None:
    status = clip(tmp_path)
    status.plan({"prepare": [""], "flow": ["1/2", "2/2"], "fit": [""], "tracks": [""], "export": [""]})
    for part, share in (("1/2", 0.05 + 0.125), ("2/2", 0.05 + 0.25)):
        status.hear({"event": "stage", "stage": "flow"}, part)
        status.hear({"event": "progress", "stage": "flow", "done": 3, "total": 3}, part)
        assert status.share == pytest.approx(share)
    assert status.did == ["flow"]
    status.plan({"export": [""]})
    assert status.share == pytest.approx(0.8)


@pytest.fixture
def mixed(tmp_path: Path) -> list[ClipStatus]:
    """A clip of each state."""
    clips = [clip(tmp_path, name) for name in ("done", "failed", "running", "waiting")]
    for status in clips[:3]:
        status.state = status.job.name
        status.plan({stage: [""] for stage in STAGES})
        status.hear({"event": "stage", "stage": "fit"})
    clips[2].hear({"event": "progress", "stage": "fit", "done": 1, "total": 2})
    clips[0].seconds = 95.0
    clips[1].fail(f"it is {HOSTILE}\nand torn", "mend it", 2)
    return clips


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_for_each_clip_and_no_table(mixed: list[ClipStatus]) -> None:
    stream = io.StringIO()
    with BatchTable(stream) as table:
        table.show(mixed)
        table.told(mixed[0])
        table.told(mixed[1])
        table.wrote("batch", Path("report.json"))
    lines = stream.getvalue().splitlines()
    assert lines == ["done: done in 1 min 35 s", "failed: failed: it is [red]x</h3><script>\N{REPLACEMENT CHARACTER}"
                     "[31m and torn; mend it", "batch: report.json"]  # fmt: skip


def test_a_terminal_gets_one_table_of_what_runs(mixed: list[ClipStatus], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    now = [0.0]
    stream = Terminal()
    with BatchTable(stream, clock=lambda: now[0]) as table:
        table.show(mixed)
        drawn = stream.getvalue()
        assert "running" in drawn
        assert "fit" in drawn
        assert "52%" in drawn
        now[0] = 0.1
        table.show(mixed)
        assert stream.getvalue() == drawn  # a few times a second at most
        now[0] = 60.0
        table.show(mixed)
        assert "4 clips: 1 done, 1 failed, 1 running, 1 waiting · 1 min 0 s · about" in stream.getvalue()


def test_a_parent_process_hears_of_every_clip(mixed: list[ClipStatus]) -> None:
    said: list[Event] = []
    view = BatchEvents(Reporter(said.append))
    view.show(mixed)
    view.show(mixed)
    view.told(mixed[0])
    view.told(mixed[1])
    assert said[:2] == [Stage(stage="batch"), Progress(stage="batch", done=252, total=400)]
    assert isinstance(said[2], Noted)
    assert said[3] == Artifact(kind="run", path=str(mixed[0].job.run))
    assert isinstance(said[4], Warned)
    assert len(said) == 5
    assert all("\n" not in event.to_json() for event in said)


# --- files


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path, tiny_settings: Path) -> Job:
    """A job that is done."""
    config = make_config(None, json.loads(tiny_settings.read_text())).override({"export": {"kinds": ["report"]}})
    job = Job(name="shot", clip=str(tiny_clip), run=tmp_path_factory.mktemp("runs") / "shot", config=config)
    pipeline.track(job.clip, job.run, config, reporter=Reporter())
    return job


def test_the_report_and_the_contact_sheet_tell_of_every_clip(
    finished: Job, mixed: list[ClipStatus], tmp_path: Path
) -> None:
    out = finished.run.parent
    whole, torn = ClipStatus(finished, state="done", did=list(STAGES), seconds=3.2, exit_code=0), mixed[1]
    whole.warnings.append(f"a warning {HOSTILE}")
    batch = Batch(source=tmp_path / "jobs & more.toml", out=out, jobs=(finished, torn.job))
    (out / "logs").mkdir()
    (out / "logs" / "failed.log").write_text("words")
    report = BatchReport(batch).write([whole, torn], ended=True)
    assert json.loads(batch.report.read_text()) == report
    first, second = report["clips"]
    assert (first["state"], first["frames"], first["size"], first["log"]) == ("done", 10, [96, 72], None)
    assert first["products"] == {"report": str(finished.run / "report.html")}
    assert set(first["stages"]) == set(STAGES)
    assert second["problem"].startswith("it is")
    assert second["log"] == str(out / "logs" / "failed.log")
    write_contact_sheet(batch.contact_sheet, report)
    page = batch.contact_sheet.read_text("utf-8")
    assert "<script>" not in page
    assert page.index("<h3>failed</h3>") < page.index("<h3>shot</h3>")
    assert page.count("data:image/jpeg;base64,") == 1
    assert 'href="shot/report.html"' in page
    assert 'href="logs/failed.log"' in page
    assert "10 frames (1001–1010)" in page
    assert "1 warning<" in page
    assert "http" not in page.replace("data:", "")  # nothing is fetched


@pytest.mark.parametrize("damage", [os.unlink, lambda path: path.write_bytes(b"junk")])
def test_a_run_that_went_bad_has_no_picture_and_spoils_no_page(
    damage: Callable[[Path], Any], tiny_clip: Path, finished: Job, tmp_path: Path
) -> None:
    import dataclasses
    import shutil

    job = dataclasses.replace(finished, run=tmp_path / "copy")
    shutil.copytree(finished.run, job.run)
    damage(job.run / "tracks.npz")
    batch = Batch(source=tmp_path / "jobs.toml", out=tmp_path, jobs=(job,))
    write_contact_sheet(batch.contact_sheet, BatchReport(batch).write([ClipStatus(job, state="done")], ended=True))
    page = batch.contact_sheet.read_text("utf-8")
    assert "<span>done</span>" in page
    assert "data:image" not in page


def test_empty_logs_go(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    drop_empty_logs(logs)
    logs.mkdir()
    (logs / "a.log").write_text("")
    (logs / "b.log").write_text("words")
    drop_empty_logs(logs)
    assert [path.name for path in logs.iterdir()] == ["b.log"]
    (logs / "b.log").write_text("")
    drop_empty_logs(logs)
    assert not logs.exists()
