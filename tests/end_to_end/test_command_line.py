"""The command line as other programs meet it: a process, heard by the add-on's own reader, killed and gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from blender_addon import events
from omnimotion_core import cli
from omnimotion_core.evaluation.tapvid import load_truth, queries_for
from omnimotion_core.export.markers import read_markers
from omnimotion_core.trajectories.tracks import Tracks

STAGES = ("prepare", "flow", "fit", "tracks", "export")
Process = subprocess.Popen[str]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "omnimotion_core", *map(str, arguments)]


@contextmanager
def started(*arguments: object) -> Iterator[Process]:
    """A process of the core under ``--events``, with its stdin held open."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command(*arguments, "--events"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, env=environment) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def hear(process: Process, act: Callable[[events.Event], None] = lambda event: None) -> list[events.Event]:
    """All that the process says; ``act`` is called with each event as it comes."""
    assert process.stdout is not None
    heard: list[events.Event] = []
    for line in process.stdout:
        event = events.parse_line(line)
        assert event is not None, line
        assert not isinstance(event, events.Log), line
        heard.append(event)
        act(event)
    process.wait(timeout=60)
    return heard


def assert_well_formed(heard: list[events.Event]) -> None:
    assert isinstance(heard[0], events.Started)
    assert [isinstance(event, events.LAST) for event in heard] == [False] * (len(heard) - 1) + [True]
    stage, done = "", -1
    for event in heard:
        if isinstance(event, events.Stage):
            stage, done = event.stage, -1
        if isinstance(event, events.Progress):
            assert event.stage == stage
            assert 0 <= event.done <= event.total
            if stage != "export":  # each product counts from its own start
                assert event.done >= done
            done = event.done


@pytest.fixture(scope="module")
def undisturbed(tiny_clip: Path, tiny_settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert cli.main(["track", str(tiny_clip), "--out", str(out), "--config", str(tiny_settings)]) == cli.DONE
    return out


def assert_same_tracks(first: Path, second: Path) -> None:
    with np.load(first / "tracks.npz") as ours, np.load(second / "tracks.npz") as theirs:
        assert ours.files == theirs.files
        for name in ours.files:
            assert ours[name].tobytes() == theirs[name].tobytes(), name


def test_a_parent_process_hears_the_whole_job(
    undisturbed: Path, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    with started("track", tiny_clip, "--out", tmp_path / "run", "--config", tiny_settings) as process:
        heard = hear(process)
        assert process.returncode == cli.DONE
    assert_well_formed(heard)
    assert isinstance(heard[-1], events.Finished)
    assert [(e.stage, e.index, e.count) for e in heard if isinstance(e, events.Stage)] == [
        (stage, index, len(STAGES)) for index, stage in enumerate(STAGES)
    ]
    artifacts = {event.kind: Path(event.path) for event in heard if isinstance(event, events.Artifact)}
    assert set(artifacts) == {"tracks", "markers", "vectors:blender", "preview", "report"}
    assert all(path.exists() for path in artifacts.values())
    assert_same_tracks(undisturbed, tmp_path / "run")


def cancel_by_line(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write('{"command": "cancel"}\n')
    process.stdin.flush()


def cancel_by_end_of_stdin(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()


def cancel_by_signal(process: Process) -> None:
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("cancel", [cancel_by_line, cancel_by_end_of_stdin, cancel_by_signal])
def test_a_cancelled_job_says_so_and_the_same_command_goes_on(
    cancel: Callable[[Process], None], undisturbed: Path, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    if cancel is cancel_by_signal and sys.platform == "win32":
        pytest.skip("Windows ends a process where others send it a signal")
    job = ("track", tiny_clip, "--out", tmp_path, "--config", tiny_settings)
    with started(*job) as process:
        asked: list[bool] = []

        def act(event: events.Event) -> None:
            if isinstance(event, events.Progress) and event.stage == "flow" and not asked:
                asked.append(True)
                cancel(process)

        heard = hear(process, act)
        assert process.returncode == cli.CANCELLED
    assert_well_formed(heard)
    assert heard[-1] == events.Cancelled(resumable=True)
    assert not (tmp_path / "tracks.npz").exists()
    done = subprocess.run(command(*job), capture_output=True, text=True, timeout=120)
    assert done.returncode == cli.DONE, done.stderr
    assert_same_tracks(undisturbed, tmp_path)


@pytest.mark.slow
def test_a_job_killed_in_every_stage_ends_as_an_undisturbed_one(
    undisturbed: Path, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    job = ("track", tiny_clip, "--out", tmp_path, "--config", tiny_settings)
    for stage in STAGES:
        for share in (0.0, 0.6):
            killed: list[str] = []
            with started(*job) as process:

                def act(
                    event: events.Event, process: Process = process, stage: str = stage, share: float = share,
                    killed: list[str] = killed,
                ) -> None:  # fmt: skip
                    here = isinstance(event, events.Progress) and event.stage == stage
                    if here and not killed and event.done >= share * event.total:
                        killed.append(stage)
                        process.kill()

                hear(process, act)
            assert killed, f"nothing was heard of {stage}"
    done = subprocess.run(command(*job), capture_output=True, text=True, timeout=120)
    assert done.returncode == cli.DONE, done.stderr
    assert_same_tracks(undisturbed, tmp_path)
    names = {path.relative_to(undisturbed) for path in undisturbed.rglob("*")}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == names
    for path in names:
        if path.suffix in (".exr", ".safetensors", ".png") or path.name == "markers.json":
            assert (tmp_path / path).read_bytes() == (undisturbed / path).read_bytes(), path


def test_what_can_be_mended_is_the_last_event(tmp_path: Path) -> None:
    for arguments, words in (
        (("track", tmp_path / "absent.mov", "--out", tmp_path / "run"), "does not exist"),
        (("track", tmp_path / "absent.mov"), "--out"),
    ):
        with started(*arguments) as process:
            heard = hear(process)
            assert process.returncode == cli.MENDABLE
        assert isinstance(heard[0], events.Started)
        assert isinstance(heard[-1], events.Failed)
        assert words in heard[-1].problem
        assert heard[-1].remedy
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_on_the_same_folder_is_refused_and_the_first_ends_well(
    undisturbed: Path, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    job = ("track", tiny_clip, "--out", tmp_path, "--config", tiny_settings)
    refused: list[subprocess.CompletedProcess[str]] = []
    with started(*job) as process:

        def act(event: events.Event) -> None:
            if isinstance(event, events.Progress) and event.stage == "flow" and not refused:
                os.kill(process.pid, signal.SIGSTOP)  # so that it cannot end before the second one looks
                try:
                    refused.append(subprocess.run(command(*job), capture_output=True, text=True, timeout=60))
                finally:
                    os.kill(process.pid, signal.SIGCONT)

        if not hasattr(signal, "SIGSTOP"):
            pytest.skip("no process can be held here")
        hear(process, act)
        assert process.returncode == cli.DONE
    assert refused[0].returncode == cli.MENDABLE
    assert f"in use by process {process.pid} on" in refused[0].stderr.splitlines()[-1]
    assert_same_tracks(undisturbed, tmp_path)


def test_stages_of_a_farm_with_parts_at_the_same_time_give_the_same_tracks(
    undisturbed: Path, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    def run(*arguments: object) -> None:
        done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120)
        assert done.returncode == cli.DONE, done.stderr

    run("prepare", tmp_path, "--clip", tiny_clip, "--config", tiny_settings)
    parts = [subprocess.Popen(command("flow", tmp_path, "--chunk", f"{k}/2")) for k in (1, 2)]
    assert [part.wait(timeout=120) for part in parts] == [cli.DONE, cli.DONE]
    for stage in ("flow", "fit", "tracks"):
        run(stage, tmp_path)
    assert_same_tracks(undisturbed, tmp_path)


def test_points_of_a_file_are_answered(undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = tmp_path / "points.csv"
    asked.write_text("t,x,y\n0,20.5,30\n7,60,40.25\n")
    out = tmp_path / "answers" / "tracks.npz"
    assert cli.main(["query", str(undisturbed), "--points", str(asked), "--out", str(out)]) == cli.DONE
    tracks = Tracks.load(out)
    np.testing.assert_array_equal(tracks.queries, np.array([[0, 20.5, 30], [7, 60, 40.25]], np.float32))
    np.testing.assert_allclose(tracks.positions[[0, 1], [0, 7]], tracks.queries[:, 1:], atol=0.02)
    asked.write_text("0,5000,30\n")
    assert cli.main(["query", str(undisturbed), "--points", str(asked), "--out", str(out)]) == cli.MENDABLE
    assert len(Tracks.load(out)) == 2
    assert cli.main(["query", str(undisturbed), "--points", str(asked), "--out", str(tmp_path)]) == cli.MENDABLE


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_accuracy_is_printed_beside_the_baselines(
    mode: str, undisturbed: Path, tiny_clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truth, figures = tiny_clip.parent / "truth.npz", tmp_path / "figures.json"
    code = cli.main(["evaluate", str(undisturbed), "--truth", str(truth), "--query", mode, "--json", str(figures)])
    assert code == cli.DONE
    out = capfd.readouterr().out
    found = json.loads(figures.read_text())
    assert list(found) == ["omnimotion", "chained flow", "Lucas-Kanade"]
    queries, _ = queries_for(load_truth(truth), mode)  # type: ignore[arg-type]
    for name, one in found.items():
        assert one["queries"] == len(queries)
        row = next(line for line in out.splitlines() if line.startswith(name))
        assert f"{one['average_jaccard']:.3f}" in row
        assert f"{one['average_points_within']:.3f}" in row


def test_more_trackers_stand_in_the_same_table(
    undisturbed: Path, tiny_clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, figures, answers = tiny_clip.parent / "truth.npz", tmp_path / "figures.json", tmp_path / "other.npz"
    truth = load_truth(path)
    _, rows = queries_for(truth, "first")
    np.savez(answers, tracks=truth.target_points[rows], occluded=truth.occluded[rows])
    asked = ["evaluate", str(undisturbed), "--truth", str(path), "--json", str(figures), "--baselines"]
    assert cli.main([*asked, "--tracks", f"truth={answers}"]) == cli.DONE
    out = capfd.readouterr().out
    found = json.loads(figures.read_text())
    trackers = ["omnimotion", "chained flow", "Lucas-Kanade", "direct flow", "several intervals"]
    names = [*trackers, "volumetric", "truth"]
    assert list(found) == names
    assert found["truth"]["average_jaccard"] == 1.0
    assert found["truth"]["seconds"] is None
    assert all(found[name]["seconds"] > 0 for name in names[:-1])
    assert all(found[name]["average_points_within"] > 0.3 for name in [*trackers, "truth"])
    assert [line.split("  ")[0] for line in out.splitlines()[1:8]] == [f"{name:17}".split("  ")[0] for name in names]
    curve = found["omnimotion"]["sparsification"]
    assert curve["ause"] == pytest.approx(curve["area"] - curve["oracle_area"])
    assert f"AUSE {curve['ause']:.3f}" in out
    assert cli.main([*asked, "--tracks", f"direct flow={answers}"]) == cli.MENDABLE
    assert cli.main([*asked, "--volumetric-time", "-1"]) == cli.MENDABLE
    assert "'-1' is not a number of 0 or more" in capfd.readouterr().err
    assert cli.main([*asked[:-1], "--volumetric-time", "2"]) == cli.MENDABLE
    assert "--volumetric-time is given without --baselines" in capfd.readouterr().err
    np.savez(answers, tracks=truth.target_points[rows][::-1], occluded=truth.occluded[rows][::-1])
    assert cli.main([*asked, "--tracks", f"truth={answers}"]) == cli.MENDABLE
    assert "do not begin at the queries" in capfd.readouterr().err


def test_the_truth_of_another_clip_is_refused(
    undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "truth.npz"
    np.savez(other, target_points=np.ones((2, 7, 2)), occluded=np.zeros((2, 7), bool), query_points=np.zeros((2, 3)))
    assert cli.main(["evaluate", str(undisturbed), "--truth", str(other)]) == cli.MENDABLE
    assert "7 frames" in capfd.readouterr().err


@pytest.mark.slow
def test_the_demo_makes_tracks_and_measures_every_export(
    tiny_settings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--out", str(tmp_path / "demo"), "--config", str(tiny_settings)]
    arguments += ["--frames", "8", "--size", "64"]
    assert cli.main(arguments) == cli.DONE
    out = capfd.readouterr().out
    assert "AJ" in out
    assert "chained flow" in out
    run = tmp_path / "demo" / "run"
    for name in ("tracks.npz", "markers.json", "exr/blender/demo.blender.0001.exr", "preview.mp4", "report.html"):
        assert (run / name).stat().st_size > 0
        assert str(run / name.split("/")[0]) in out
    written = (run / "tracks.npz").stat().st_mtime_ns
    assert cli.main(arguments) == cli.DONE
    assert (run / "tracks.npz").stat().st_mtime_ns == written
    assert cli.main([*arguments, "--size", "96"]) == cli.MENDABLE
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "mine")]) == cli.MENDABLE
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.jpg"]


def test_tracks_are_exported_for_other_programs_as_many_as_asked_for(undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    kinds = ["tracks:nuke", "tracks:csv", "tracks:usd"]
    assert cli.main(["export", str(run), "--to", *kinds]) == cli.DONE
    assert {path.name for path in (run / "tracks").iterdir()} == {"shot.nuke.nk", "shot.tracks.csv", "shot.tracks.usda"}
    markers = read_markers(run / "markers.json").tracks
    whole = (run / "tracks" / "shot.tracks.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in whole[1:]} == {track.name for track in markers}
    some = ["--to", "tracks:csv", "--best", "5", "--out", str(tmp_path / "out")]
    assert cli.main(["export", str(run), *some]) == cli.DONE
    few = (tmp_path / "out" / "tracks-csv" / "shot.tracks.csv").read_text().splitlines()
    assert len({line.split(",")[0] for line in few[1:]}) == 5
    assert {int(line.split(",")[1]) for line in few[1:]} == set(range(1001, 1011))


def test_a_finished_run_is_published_and_a_spoilt_one_only_after_its_repair(undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    assert cli.main(["publish", str(run), "--out", str(tmp_path / "out")]) == cli.DONE
    first = tmp_path / "out" / "shot" / "v001"
    spoilt = run / "exr" / "blender" / "shot.blender.1004.exr"
    whole = spoilt.read_bytes()
    spoilt.write_bytes(whole[:1000])
    assert cli.main(["publish", str(run), "--out", str(tmp_path / "out")]) == cli.REFUSED
    assert cli.main(["publish", str(run), "--out", str(tmp_path / "out"), "--repair"]) == cli.DONE
    second = tmp_path / "out" / "shot" / "v002"
    for path in (first / "motionvectorBlender").iterdir():
        assert (second / "motionvectorBlender" / path.name).read_bytes() == path.read_bytes()
