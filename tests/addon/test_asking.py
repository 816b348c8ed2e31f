"""Points answered by a core that waits for them, a real one on a real run."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from blender_addon import asking, events
from omnimotion_core import cli
from omnimotion_core.export.markers import read_markers
from omnimotion_core.trajectories.tracks import Tracks


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    asking.close()
    time.sleep(0.3)  # its end is seen by a thread


def ask(run: Path, place: tuple[int, float, float]) -> asking.Question:
    return asking.ask(sys.executable, run, "cpu", "shot", [place])


def test_points_are_answered_one_after_another_by_one_core(tiny_run: Path, tmp_path: Path) -> None:
    first = ask(tiny_run, (1005, 0.5, 0.5))
    assert first.run(0.01) == events.Finished(), first.log
    [track] = read_markers(first.answer).tracks
    assert track.keyed_frame == 5

    points = tmp_path / "points.csv"
    points.write_text(f"4,{0.5 * 96 - 0.5},{0.5 * 72 - 0.5}\n")
    out = tmp_path / "tracks.npz"
    assert cli.main(["query", str(tiny_run), "--points", str(points), "--out", str(out), "--device", "cpu"]) == 0
    tracks = Tracks.load(out)
    markers = zip(track.frames, track.co, track.mute, strict=True)
    seen = {int(frame): place for frame, place, mute in markers if not mute}
    assert set(seen) <= set((np.flatnonzero(tracks.visible[0]) + 1).tolist())
    for frame, place in seen.items():
        x, y = tracks.positions[0, frame - 1]
        np.testing.assert_allclose(place, [(x + 0.5) / 96, 1 - (y + 0.5) / 72], atol=1e-5)

    outside = ask(tiny_run, (1050, 0.5, 0.5))
    assert isinstance(outside.run(0.01), events.Failed)
    assert "; " in outside.message()

    spent = psutil.Process(first.pid).cpu_times().user
    for x in (0.3, 0.4, 0.6):
        later = ask(tiny_run, (1002, x, 0.4))
        assert later.pid == first.pid
        assert later.run(0.01) == events.Finished()
    spent = psutil.Process(first.pid).cpu_times().user - spent
    assert spent < 1.5  # seconds for three; nothing is loaded again


def test_a_run_that_is_fitted_anew_has_another_core(tiny_run: Path) -> None:
    first = ask(tiny_run, (1005, 0.5, 0.5))
    first.cancel()
    assert first.run(0.01) == events.Cancelled(resumable=False)
    model = tiny_run / "model.safetensors"
    stamp = model.stat()
    os.utime(model, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 10**9))
    second = ask(tiny_run, (1005, 0.5, 0.5))
    os.utime(model, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert second.pid != first.pid
    assert isinstance(second.run(0.01), events.Finished)


def test_a_core_that_is_killed_is_one_line_and_the_next_question_starts_another(tiny_run: Path) -> None:
    question = ask(tiny_run, (1005, 0.5, 0.5))
    assert question.pid is not None
    psutil.Process(question.pid).kill()
    assert isinstance(question.run(0.01), events.Failed)
    assert len(question.message().splitlines()) == 1
    again = ask(tiny_run, (1005, 0.5, 0.5))
    assert again.pid != question.pid
    assert isinstance(again.run(0.01), events.Finished)


def test_an_idle_core_is_let_go(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asking.close_if_idle() is None
    pid = ask(tiny_run, (1005, 0.5, 0.5)).pid
    assert asking.IDLE_S - 5 < (asking.close_if_idle() or 0) <= asking.IDLE_S
    monkeypatch.setattr(asking, "IDLE_S", 0.0)
    assert asking.close_if_idle() is None
    for _ in range(100):
        if not psutil.pid_exists(pid or 0) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError("it is still there")


def test_a_file_in_place_of_a_folder_is_refused(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("")
    (tmp_path / "points").mkdir()
    arguments = ["query", str(tiny_run), "--points", str(tmp_path / "points"), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == cli.MENDABLE
    assert "give --out a folder" in capfd.readouterr().err
