"""The core's commands as the add-on makes them are commands of the core."""

import json
from pathlib import Path

import numpy as np
import pytest

from blender_addon.steps import TrackOrder, export_step, footage_of, query_step, read_run, run_name, track_step
from omnimotion_core import cli
from omnimotion_core.api import make_config
from omnimotion_core.export.markers import read_markers
from omnimotion_core.trajectories.tracks import Tracks


def test_the_core_understands_the_track_command(tmp_path: Path) -> None:
    order = TrackOrder(footage="/plätze/a b.mov", run=tmp_path / "run", preset="draft", device="cpu", frames=(-5, 48),
                       mask="/masks/m.png", max_tracks=100, max_markers=300, passes=True,
                       preview=7, rounds=2)  # fmt: skip
    step = track_step("python", order, tmp_path)
    assert step.command[:6] == ["python", "-I", "-X", "utf8", "-m", "omnimotion_core"]
    options = cli.build_parser().parse_args(step.command[6:])
    assert (options.command, options.clip, options.events) == ("track", "/plätze/a b.mov", True)
    assert (options.frames, options.mask, options.preset, options.device) == ((-5, 48), "/masks/m.png", "draft", "cpu")
    config = make_config("draft", json.loads(Path(options.config).read_text("utf-8")))
    assert (config.tracks.max_tracks, config.tracks.max_markers, config.tracks.preview) == (300, 300, 7)
    assert config.export.kinds == ("vectors:blender", "report")
    assert config.fit.rounds == 2
    plain = TrackOrder(footage="a.mov", run=tmp_path, preset="draft", device="auto")
    words = track_step("python", plain, tmp_path).command
    assert not any(word.startswith(("--frames", "--mask")) for word in words)
    paper = TrackOrder(footage="a.mov", run=tmp_path, preset="paper", device="auto", rounds=3)
    settings = Path(track_step("python", paper, tmp_path).command[-2]).read_text("utf-8")
    assert make_config("paper", json.loads(settings)).fit.rounds == 1


def test_the_core_understands_the_other_commands(tmp_path: Path) -> None:
    export = cli.build_parser().parse_args(export_step("python", tmp_path, "vectors:blender", "cpu").command[6:])
    assert (export.command, export.to) == ("export", ["vectors:blender"])
    query = cli.build_parser().parse_args(
        query_step("python", tmp_path, [(1001, 0.5, 0.25)], tmp_path / "o.json", tmp_path, "cpu").command[6:]
    )
    assert (query.command, query.blender) == ("query", True)
    assert query.points.read_text() == "1001,0.5,0.25\n"


def test_points_of_blender_are_answered_in_its_convention(tiny_run: Path, tmp_path: Path) -> None:
    """The same point asked in pixels and in Blender's fractions goes the same way."""
    width, height = 96, 72
    pixel, frame = np.array([30.25, 41.5]), 4
    place = (pixel[0] + 0.5) / width, 1 - (pixel[1] + 0.5) / height
    step = query_step("python", tiny_run, [(1001 + frame, *place)], tmp_path / "markers.json", tmp_path, "cpu")
    assert cli.main([word for word in step.command[6:] if word != "--events"]) == cli.DONE
    points = tmp_path / "points.csv"
    points.write_text(f"{frame},{pixel[0]},{pixel[1]}\n")
    plain = ["query", str(tiny_run), "--points", str(points), "--out", str(tmp_path / "t.npz"), "--device", "cpu"]
    assert cli.main(plain) == cli.DONE
    [track] = read_markers(tmp_path / "markers.json").tracks
    tracks = Tracks.load(tmp_path / "t.npz")
    assert track.keyed_frame == frame + 1
    for clip_frame, co, mute in zip(track.frames, track.co, track.mute, strict=True):
        if not mute:
            x, y = tracks.positions[0, clip_frame - 1]
            np.testing.assert_allclose(co, [(x + 0.5) / width, 1 - (y + 0.5) / height], atol=1e-5)


def test_a_run_is_read(tiny_run: Path) -> None:
    facts = read_run(tiny_run)
    assert (facts.size, facts.numbers, facts.clip_first_number) == ((96, 72), range(1001, 1011), 1001)
    assert facts.fitted
    assert facts.shown_at == {}


def test_a_movie_of_varying_rate_tells_where_its_frames_are_shown(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text((tiny_run / "run.json").read_text())
    (tmp_path / "frames").mkdir()
    frames = [{"number": n, "blender_frame": b} for n, b in ((1, 1), (2, 2), (3, 5))]
    (tmp_path / "frames" / "frames.json").write_text(json.dumps({"frames": frames}))
    assert read_run(tmp_path).shown_at == {1: 1, 2: 2, 3: 5}
    frames[2]["blender_frame"] = 3
    (tmp_path / "frames" / "frames.json").write_text(json.dumps({"frames": frames}))
    assert read_run(tmp_path).shown_at == {}


@pytest.mark.parametrize("content", [None, "", "[]", '{"clip": {}, "stages": {}}', '{"clip": {"size": 3}}'])
def test_what_is_no_run_is_one_line(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(LookupError) as caught:
        read_run(tmp_path)
    assert "; " in str(caught.value.args[0])


def test_run_folders_have_names_for_every_system() -> None:
    name = run_name("Åre: shot/01?.mov", "/a")
    assert name.startswith("Åre_shot_01_.mov-")
    assert run_name("x", "/a") != run_name("x", "/b")
    assert run_name("...", "/a").startswith("clip-")
    assert len(run_name("x" * 500, "/a")) < 80


def test_a_folder_is_its_movies_and_the_first_of_each_sequence() -> None:
    names = ["._b.mov", "a.0101.exr", "a.0102.exr", "b.mov", "c.MP4", "lone.0007.png", "notes.txt", "s-2.png",
             "s-10.png"]  # fmt: skip
    assert footage_of(sorted(names)) == ["a.0101.exr", "b.mov", "c.MP4", "s-2.png"]
