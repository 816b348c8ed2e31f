"""Blender's own window under a virtual display, with mouse and keyboard: what an artist sees, and what may go wrong.

Screenshots are left in ``OMNIMOTION_SCREENSHOTS`` where that names a folder.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omnimotion_core.trajectories.tracks import Tracks

from .conftest import MakeRun, environment_for, programs

pytestmark = [pytest.mark.blender, pytest.mark.slow]

DRIVE = Path(__file__).with_name("drive_blender.py")
WIDTH, HEIGHT = 1600, 900
TAB, BUTTON = 306, 231  # pixels below the sidebar's top, in Blender 3.4
Play = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A virtual display."""
    if shutil.which("Xvfb") is None or not programs():
        pytest.skip("no Blender with a virtual display: install blender and xvfb")
    read, write = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "+extension", "GLX"],
        pass_fds=[write], stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        os.close(write)
        try:
            with os.fdopen(read) as pipe:
                number = pipe.readline().strip()
            assert number, "Xvfb did not start"
            yield f":{number}"
        finally:
            server.terminate()


@pytest.fixture
def play(display: str, addon_zip: Path, tiny_settings: Path, tmp_path: Path) -> Play:
    """A function that plays an act of ``drive_blender.py`` and gives its answer."""

    def run(act: str, clip: Path, run: Path) -> dict[str, Any]:
        given = {"zip": str(addon_zip), "core": sys.executable, "settings": str(tiny_settings), "clip": str(clip),
                 "run": str(run), "folder": str(tmp_path), "tab": TAB, "button": BUTTON}  # fmt: skip
        environment = environment_for(tmp_path / "user") | {
            "DISPLAY": display, "LIBGL_ALWAYS_SOFTWARE": "1", "GALLIUM_DRIVER": "llvmpipe",
        }  # fmt: skip
        done = subprocess.run(
            [programs()[0], "--factory-startup", "--enable-event-simulate", "--no-window-focus", "-p", "0", "0",
             str(WIDTH), str(HEIGHT), "-P", str(DRIVE), "--", act, json.dumps(given)],
            env=environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        assert answers, done.stdout[-3000:] + done.stderr[-3000:]
        answer: dict[str, Any] = json.loads(answers[0].removeprefix("ANSWER "))
        assert "error" not in answer, answer["error"]
        keep = os.environ.get("OMNIMOTION_SCREENSHOTS")
        for picture in tmp_path.glob("*.png") if keep else ():
            shutil.copy(picture, str(keep))
        return answer

    return run


def test_the_button_is_pressed_and_tracks_appear(play: Play, tiny_clip: Path, tiny_run: Path, tmp_path: Path) -> None:
    answer = play("works", tiny_clip / "shot.1001.png", tiny_run)
    assert answer["running"], "the button was not hit"
    assert answer["fractions"] >= 4
    assert answer["rising"]
    assert answer["tracks"] == 40
    assert answer["result"] == "40 tracks over 10 frames of shot.1001.png"
    assert answer["slowest"] < 0.05  # seconds that the main thread gave to the job at once
    assert answer["picked"] == "Point"
    assert answer["previewed"] >= 1, "no preview was drawn"
    assert not answer["preview_left"]
    before, after = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("idle", "overlay"))
    assert before is not None
    assert after is not None
    view = np.s_[200:700, 300:1000]
    assert np.mean(np.any(before[view] != after[view], axis=-1)) > 0.05  # the overlay is seen


def test_the_overlay_is_drawn_in_each_of_its_colors(
    play: Play, tiny_clip: Path, tiny_run: Path, tmp_path: Path
) -> None:
    assert play("overlays", tiny_clip / "shot.1001.png", tiny_run)["problem"] == ""
    names = "without", "motion", "confidence", "depth", "faint"
    shots = [cv2.imread(str(tmp_path / f"{name}.png")) for name in names]
    view = np.s_[200:700, 300:1000]
    for i, one in enumerate(shots):
        assert one is not None
        for other in shots[:i]:
            assert other is not None
            assert np.mean(np.any(one[view] != other[view], axis=-1)) > 0.0005


def test_every_early_end_is_clean(play: Play, tiny_clip: Path, tiny_run: Path) -> None:
    answer = play("stops", tiny_clip / "shot.1001.png", tiny_run)
    assert answer["escaped"] == answer["cancelled"] == "Stopped; start it again and it goes on from there"
    assert answer["killed"] == (
        "the core was ended by signal 9 without a word; start again: it goes on where it was"
    )
    assert answer["renamed"] == ["15 tracks over 10 frames of another name", ["Camera", "Track Everything"]]
    assert answer["deleted"].startswith("the clip another name is gone, its tracks are in ")
    assert answer["loaded"] == [False, True]  # nothing runs, the process is gone
    assert answer["disabled"]


def test_the_editor_stays_quick_with_the_tracks_of_a_run(play: Play, make_run: MakeRun, tmp_path: Path) -> None:
    plates = tmp_path / "plates"
    plates.mkdir()
    rng = np.random.default_rng(0)
    for number in range(1001, 1031):
        picture = rng.integers(0, 255, (27, 48, 3), np.uint8)
        cv2.imwrite(str(plates / f"shot.{number}.png"), cv2.resize(picture, (960, 540)))
    start, speed = rng.uniform(50, 450, (500, 1, 2)), rng.uniform(-2, 2, (500, 1, 2))
    positions = (start + speed * np.arange(30)[None, :, None]).astype(np.float32)
    ones = np.ones((500, 30), np.float32)
    queries = np.column_stack([np.zeros(500), positions[:, 0]]).astype(np.float32)
    tracks = Tracks(queries=queries, positions=positions, visible=ones > 0, confidence=ones, depth=ones,
                    size=(960, 540), first_frame=1001, fps=24.0)  # fmt: skip
    answer = play("redraws", plates / "shot.1001.png", make_run(tracks))
    assert answer["tracks"] == 500
    assert answer["full"] < 2 * answer["empty"], answer
