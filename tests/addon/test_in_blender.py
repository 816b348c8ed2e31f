"""The installed add-on in real Blenders, headless."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from omnimotion_core import __version__
from omnimotion_core.export.markers import read_markers
from omnimotion_core.trajectories.tracks import Tracks

from .conftest import INSIDE, Ask, MakeRun, command_for, environment_for
from .test_installation import wheel

pytestmark = [pytest.mark.blender, pytest.mark.slow]


def pixels(co: list[float], size: tuple[int, int]) -> np.ndarray:
    """Blender's place of a marker in pixels, written down anew: (0, 0) is the centre of the top-left pixel, y down."""
    return np.array([co[0] * size[0] - 0.5, (1 - co[1]) * size[1] - 0.5])


def assert_agree(seen: dict[str, Any], tracks: Tracks, shift: int = 0) -> None:
    """Blender holds each track where the core saw it, within a hundredth of a pixel, and nowhere else."""
    for name, places in seen.items():
        row = int(name.removeprefix("te"))
        inside = tracks.visible[row] & (np.abs(tracks.positions[row] / tracks.size - 0.5) < 0.6).all(axis=1)
        assert [int(frame) for frame in places] == (np.flatnonzero(inside) + 1 + shift).tolist(), name
        for frame, co in places.items():
            expected = tracks.positions[row, int(frame) - 1 - shift]
            np.testing.assert_allclose(pixels(co, tracks.size), expected, atol=0.01)


def test_it_is_registered_and_unregistered_clean_again_and_again(ask: Ask) -> None:
    assert ask("lives_twice") == [[[], []], [[], []]]


def test_panels_draw_what_this_blender_has(ask: Ask, tiny_clip: Path, tiny_run: Path) -> None:
    drawn = ask("draws_panels", clip=tiny_clip / "shot.1001.png", run=tiny_run)
    assert "operator omnimotion.track_everything" in drawn["TrackPanel False FRAME"]
    assert "operator omnimotion.cancel" in drawn["TrackPanel True FRAME"]
    assert "prop mask" in drawn["TrackPanel False MASK_IN"]
    assert "operator omnimotion.install_core" in drawn["preferences"]
    operators = {line for lines in drawn.values() for line in lines if line.startswith("operator omnimotion")}
    assert len(operators) == 13


def test_markers_are_where_the_core_has_them(ask: Ask, tiny_clip: Path, tiny_run: Path) -> None:
    tracks = Tracks.load(tiny_run / "tracks.npz")
    written = read_markers(tiny_run / "markers.json")
    got = ask("imports", clip=tiny_clip / "shot.1001.png", run=tiny_run)
    assert got["objects"] == ["Camera", "Track Everything"]
    assert list(got["seen"]) == [track.name for track in written.tracks]
    assert_agree(got["seen"], tracks)


def test_a_clip_that_begins_elsewhere_has_its_markers_moved(ask: Ask, tiny_clip: Path, tiny_run: Path) -> None:
    tracks = Tracks.load(tiny_run / "tracks.npz")
    got = ask("imports", clip=tiny_clip / "shot.1003.png", run=tiny_run, frame_offset=-1, frame_start=50)
    # clip frame 1 is now file 1002, so that file 1001 is clip frame 0
    assert_agree(got["seen"], tracks, shift=-1)


def test_many_tracks_are_written_in_no_time(ask: Ask, tiny_clip: Path) -> None:
    got = ask("writes_many", clip=tiny_clip / "shot.1001.png", tracks=10_000, frames=100)
    assert got["count"] == 10_000
    assert got["seconds"] < 3.0  # of processor time; 1.5 on the machine that it was measured on


def test_what_is_wrong_is_one_line(ask: Ask, tiny_clip: Path, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / "other" / f"o.{number}.png"), np.zeros((32, 48, 3), np.uint8))
    said = ask("refuses", clip=tiny_clip / "shot.1001.png", run=tiny_run, other=tmp_path / "other" / "o.1.png")
    assert said.pop("orphans")
    words = {
        "no clip": "no clip is shown", "no such clip": "no clip 'none'", "no core": "not installed",
        "no python": "no Python at", "no run": "is no run folder", "not tracked": "is not tracked yet",
        "point": "is not tracked yet", "mask": "no mask 'none'", "annotation": "nothing is drawn",
        "selected": "no track is selected", "frames": "choose two or more within 1 to 10", "folder": "cannot be read",
        "another size": "the run is of 96x72", "gone": "relink it",
    }  # fmt: skip
    assert set(words) == set(said)
    for name, text in words.items():
        assert text in said[name], (name, said[name])
        assert len(said[name].splitlines()) == 1, said[name]
        assert ";" in said[name]


def test_confidence_selects_and_hides(ask: Ask, tiny_clip: Path, tiny_run: Path) -> None:
    got = ask("filters", clip=tiny_clip / "shot.1001.png", run=tiny_run)
    below = got["below"]
    assert below > 0
    assert (got["SELECT"], got["HIDE"][1], got["SHOW"][1]) == ([below, 0], below, 0)


def test_the_overlay_draws_the_runs_points(ask: Ask, tiny_clip: Path, tiny_run: Path) -> None:
    got = ask("overlay", clip=tiny_clip / "shot.1001.png", run=tiny_run, frame=6)
    tracks = Tracks.load(tiny_run / "tracks.npz")
    assert got["index"] == 5
    shown = np.flatnonzero(tracks.visible[:, 5])
    for color_by in ("MOTION", "CONFIDENCE", "DEPTH"):
        spots, colors, lines, line_colors = got[color_by]
        assert len(spots) == len(colors) == len(shown)
        np.testing.assert_allclose([pixels(spot, tracks.size) for spot in spots], tracks.positions[shown, 5], atol=0.01)
        assert len(lines) == len(line_colors) == 2 * sum(
            int((tracks.visible[shown, t] & tracks.visible[shown, t - 1]).sum()) for t in (5, 4, 3)
        )
        assert np.min(colors) >= 0
        assert np.max(colors) <= 1
    sure = tracks.confidence[shown, 5]
    green = np.array(got["CONFIDENCE"][1])[:, 1]
    assert np.corrcoef(sure, green)[0, 1] > 0.99


def test_a_preview_is_where_the_core_has_it_and_goes_with_the_job(
    ask: Ask, make_run: MakeRun, tiny_clip: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    visible = rng.random((12, 10)) < 0.6
    visible[:, 4] = True
    positions = rng.uniform(2, 70, (12, 10, 2)).astype(np.float32)
    ones = np.ones((12, 10), np.float32)
    queries = np.column_stack([np.full(12, 4), positions[:, 4]]).astype(np.float32)
    tracks = Tracks(queries=queries, positions=positions, visible=visible, confidence=ones, depth=ones, size=(96, 72),
                    first_frame=1001, fps=24.0)  # fmt: skip
    run = make_run(tracks)
    (run / "markers.json").rename(run / "preview.json")
    (tmp_path / "other").mkdir()
    cv2.imwrite(str(tmp_path / "other" / "o.1.png"), np.zeros((32, 48, 3), np.uint8))
    got = ask("previews", clip=tiny_clip / "shot.1001.png", run=run, frame=5, other=tmp_path / "other" / "o.1.png")
    assert [got[name] for name in ("before", "other clip", "kept", "after")] == [True] * 4
    seen, places = got["seen"]
    rows = [row for row in range(12) if visible[row].sum() >= 2]  # others are never chosen
    assert seen == [[i, t] for i, row in enumerate(rows) for t in np.flatnonzero(visible[row]).tolist()]
    for i, t in seen:
        np.testing.assert_allclose(pixels(places[i][t], (96, 72)), positions[rows[i], t], atol=0.01)
    assert len(got["spots"]) == len(rows)


def test_a_plane_track_follows_the_plane_and_not_what_moves_before_it(
    ask: Ask, make_run: MakeRun, tmp_path: Path
) -> None:
    """Points on a plane that turns away, seen by a pinhole, and a third as many that move by themselves."""
    rng, (width, height), frames = np.random.default_rng(5), (960, 540), 24
    quad = np.array([[-2.0, -1.0], [2.0, -1.2], [1.8, 1.3], [-2.1, 1.1]])

    def seen(points: np.ndarray, t: float) -> np.ndarray:
        turn = 0.02 * t
        x, y = points.T
        z = 6 + x * np.sin(turn) + 0.03 * t
        return np.stack([width / 2 + 700 * (x * np.cos(turn) + 0.02 * t) / z, height / 2 - 700 * y / z], axis=-1)

    plane = rng.uniform((-1.7, -0.9), (1.7, 0.9), (60, 2))
    on_plane = np.stack([seen(plane, t) for t in range(frames)], axis=1)
    start, speed = rng.uniform((300, 150), (650, 400), (20, 1, 2)), rng.uniform(-6, 6, (20, 1, 2))
    stray = start + speed * np.arange(frames)[None, :, None]
    positions = np.concatenate([on_plane, stray]).astype(np.float32)
    visible = np.ones((80, frames), bool)
    visible[:30, 8:14] = False  # something passes before half of the plane
    ones = np.ones((80, frames), np.float32)
    queries = np.column_stack([np.zeros(80), positions[:, 0]]).astype(np.float32)
    tracks = Tracks(queries=queries, positions=positions, visible=visible, confidence=ones, depth=ones,
                    size=(width, height), first_frame=1001, fps=24.0)  # fmt: skip
    (tmp_path / "plates").mkdir()
    for number in range(1001, 1001 + frames):
        cv2.imwrite(str(tmp_path / "plates" / f"shot.{number}.png"), np.zeros((height, width, 3), np.uint8))
    frame = 6
    corners = (seen(quad, frame - 1) + 0.5) / (width, height) * (1, -1) + (0, 1)
    got = ask("planes", clip=tmp_path / "plates" / "shot.1001.png", run=make_run(tracks), frame=frame,
              corners=corners.ravel().tolist(), selected=[*range(30, 40), 61, 62])  # fmt: skip
    assert got["planes"] == 3
    for name in ("corners", "best", "selected"):
        assert len(got[name]["tracks"]) >= (10 if name == "selected" else 30)
        assert all(int(track[2:]) < 60 for track in got[name]["tracks"]), name
        assert sorted(map(int, got[name]["corners"])) == list(range(1, frames + 1))
    assert got["selected"]["tracks"] == [f"te{row:05d}" for row in range(30, 40)]
    for clip_frame, found in got["corners"]["corners"].items():
        here = np.array([pixels(corner, (width, height)) for corner in found])
        np.testing.assert_allclose(here, seen(quad, int(clip_frame) - 1), atol=0.1)
    assert "do not go around" in got["crossed"]
    assert "0 tracks are seen in clip frame 6 between the corners" in got["empty"]
    assert "0 tracks are seen in clip frame 89" in got["beyond"]
    assert all(len(got[name].splitlines()) == 1 for name in ("crossed", "empty", "beyond"))


def test_a_clip_is_tracked_headless_saved_and_read_again(
    ask: Ask, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    config = {"preset": "draft", "rounds": 2, "max_tracks": 25, "density": 100, "device": "cpu"}
    output = tmp_path / "läufe" / "run"
    got = ask("tracks_headless", clip=tiny_clip / "shot.1001.png", output=output, config=config,
              settings=tiny_settings, timeout_s=200)  # fmt: skip
    tracks = Tracks.load(output / "tracks.npz")
    assert got["done"] == ["FINISHED"]
    assert (output / "rounds" / "2" / "correspondences").is_dir()
    assert 10 < len(got["seen"]) <= 25
    assert got["selected"] == 0
    assert Path(got["noted"]).name == "run"
    assert_agree(got["seen"], tracks)
    for name, frames in got["keyed"].items():
        row = int(name.removeprefix("te"))
        assert frames in ([], [int(tracks.queries[row, 0]) + 1])


def test_a_picked_point_becomes_a_track_without_a_new_fit(ask: Ask, tiny_clip: Path, tiny_run: Path) -> None:
    before = (tiny_run / "model.safetensors").stat().st_mtime_ns
    got = ask("follows_a_point", clip=tiny_clip / "shot.1001.png", run=tiny_run, x=0.4, y=0.55, frame=4)
    assert (got["after"], got["said"][0]) == (got["before"] + 1, "")
    assert "go to one from 101 to 110" in got["said"][1]
    assert "beside the picture" in got["said"][2]
    np.testing.assert_allclose(got["seen"]["4"], [0.4, 0.55], atol=2e-4)  # the field passes through what was asked
    assert len(got["seen"]) > 3
    assert (tiny_run / "model.safetensors").stat().st_mtime_ns == before


def test_masks_features_and_selected_tracks_are_what_is_tracked(
    ask: Ask, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    got = ask("seeds_and_regions", clip=tiny_clip / "shot.1001.png", output=tmp_path / "run",
              config={"file": str(tiny_settings)}, timeout_s=200)  # fmt: skip
    inside, outside = (cv2.imread(got["mattes"][name], cv2.IMREAD_UNCHANGED) for name in ("MASK_IN", "MASK_OUT"))
    expected = np.zeros((72, 96), np.uint8)
    expected[:, :48] = 255
    np.testing.assert_array_equal(inside, expected)
    np.testing.assert_array_equal(outside, 255 - expected)
    frames = {frame for frame, _, _ in got["features"]}
    assert frames <= {1, 5, 10}
    assert len(frames) >= 2
    assert got["objects"] == ["Camera"]
    assert set(got["seen"]) == {"mine", "yours"}
    np.testing.assert_allclose(got["seen"]["mine"]["3"], [0.3, 0.4], atol=2e-3)
    np.testing.assert_allclose(got["seen"]["yours"]["8"], [0.2, 0.7], atol=2e-3)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["clip"]["has_mask"]
    assert (manifest["clip"]["first_frame"], manifest["clip"]["frames"]) == (1002, 8)


def test_a_folder_is_tracked_one_clip_after_another(
    ask: Ask, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for path in sorted(tiny_clip.iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    for number in range(1, 4):
        cv2.imwrite(str(folder / f"black_{number}.png"), np.zeros((72, 96, 3), np.uint8))
    got = ask("batch", shots=folder, config={"max_tracks": 20, "device": "cpu"}, settings=tiny_settings,
              timeout_s=200)  # fmt: skip
    assert got["tracks"]["shot.1001.png"] == ["Camera", "Track Everything"]
    assert got["tracks"]["black_1.png"] == ["Camera"]
    assert got["result"].startswith("1 of 2 clips done; black_1.png: ")
    assert len(got["result"].splitlines()) == 1


def test_the_core_is_installed_from_disk_without_a_network(ask: Ask, tmp_path: Path) -> None:
    got = ask("installs", source=wheel(tmp_path / "räder mit raum").parent)
    assert got["missing"] == "MISSING"
    assert got["done"] == got["checked"] == ["FINISHED"]
    assert got["state"][:2] == ["READY", f"Core {__version__} is ready on cuda:0 (GPU)"]
    assert str(tmp_path) in got["state"][2]
    assert got["allowed"] == got["online"]  # PyPI is asked only where Blender allows it
    assert "there is no" in got["none"]


def test_the_command_line_tells_what_is_wrong(ask: Ask, tiny_clip: Path) -> None:
    got = ask("commands", clip=tiny_clip / "shot.1001.png")
    assert (got["bad option"], got["no clip"], got["no footage"]) == (2, 2, 2)
    assert got["known"] == got["new"]


def test_a_killed_blender_takes_its_core_along(
    blender: str | None, addon_zip: Path, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    if blender is None:
        pytest.skip("no Blender")
    given = {"zip": str(addon_zip), "core": sys.executable, "folder": str(tmp_path), "settings": str(tiny_settings),
             "clip": str(tiny_clip / "shot.1001.png"), "output": str(tmp_path / "run"),
             "config": {"device": "cpu"}}  # fmt: skip
    command = command_for(blender, INSIDE, "tracks_headless", json.dumps(given))
    with subprocess.Popen(command, env=environment_for(tmp_path / "user"), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        while "Matching frames" not in (line := parent.stdout.readline()):
            assert line, "Blender ended"
        cores = [child for child in psutil.Process(parent.pid).children(recursive=True)
                 if "omnimotion_core" in child.cmdline()]  # fmt: skip
        assert cores
        parent.kill()
    for _ in range(100):
        if not any(core.is_running() and core.status() != psutil.STATUS_ZOMBIE for core in cores):
            return
        time.sleep(0.1)
    raise AssertionError("the core outlived Blender")
