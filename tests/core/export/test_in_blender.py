"""What Blender itself makes of our files; any bpy wheel from 4.2 on will do.

``OMNIMOTION_BPY`` names a Python that can import bpy; without it, the one that runs the tests is asked.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnimotion_core.events import Reporter
from omnimotion_core.export.exr import write_exr
from omnimotion_core.export.markers import write_markers
from omnimotion_core.export.motion_vectors import write_motion_vectors
from omnimotion_core.export.sequences import Origin
from omnimotion_core.export.stmap import write_stmaps
from omnimotion_core.trajectories.dense import DenseFlow

from .conftest import MakeClip, MakeTracks

pytestmark = [pytest.mark.blender, pytest.mark.slow]

CLIP_OFFSET = 3


@pytest.fixture
def blender_python() -> str:
    python = os.environ.get("OMNIMOTION_BPY")
    if python is None and importlib.util.find_spec("bpy") is not None:
        python = sys.executable
    if python is None:
        pytest.skip("no bpy: install a bpy wheel, or set OMNIMOTION_BPY to a Python that has one")
    return python.split(os.pathsep)[0]  # several may be named


def right_and_down(source: int, target: int) -> DenseFlow:
    """3 pixels right and 1 down to the next frame, 5 and 2 from the previous one."""
    step = (3.0, 1.0) if target > source else (-5.0, -2.0)
    return DenseFlow(
        source=source, target=target, vectors=np.full((64, 96, 2), step, np.float32), visible=np.ones((64, 96), bool),
        confidence=np.full((64, 96), 0.75, np.float32), depth=np.ones((64, 96), np.float32),
    )  # fmt: skip


def test_blender_shows_tracks_where_they_are_seen_and_reads_the_vectors_as_its_own_pass(
    tmp_path: Path, blender_python: str, make_clip: MakeClip, make_tracks: MakeTracks
) -> None:
    clip, tracks = make_clip(num_frames=30), make_tracks(60, 30)
    write_markers(tracks, tmp_path / "markers.json", clip_offset=CLIP_OFFSET, max_markers=50)
    vectors = write_motion_vectors(
        right_and_down, clip, tmp_path / "exr", "blender", reporter=Reporter(), tool_version="1", run_digest="d"
    )
    stmaps = write_stmaps(right_and_down, clip, tmp_path / "stmap", reporter=Reporter(), frames=[1],
                          origin=Origin(tool_version="1", run_digest="d"))  # fmt: skip
    picture = np.random.default_rng(0).random((64, 96), dtype=np.float32)
    write_exr(tmp_path / "picture.exr", {"R": picture, "G": picture / 2, "B": 1 - picture}, {})
    done = subprocess.run(
        [blender_python, str(Path(__file__).with_name("inside_blender.py")), str(clip.frame_path(0)),
         str(tmp_path / "markers.json"), str(vectors[4]), str(stmaps[0]), str(tmp_path / "picture.exr"),
         str(tmp_path)],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(answers[0].removeprefix("ANSWER "))

    assert len(answer["seen"]) == 50
    for name, frames in answer["seen"].items():
        visible = np.flatnonzero(tracks.visible[int(name.removeprefix("te"))])
        assert frames == (visible + 1 + CLIP_OFFSET).tolist(), name

    passes = answer["passes"]
    assert {"Vector", "visibility", "confidence"} <= set(passes)
    assert passes["Vector"] == [-5.0, 2.0, -3.0]  # previous - current, then current - next, y up
    assert passes["visibility"][0] == 1.0
    assert passes["confidence"][0] == 0.75

    # the map of frame 1 pulls from frame 0, where everything is 5 pixels left and 2 above
    warped = np.array(answer["warped"], np.float32).reshape(64, 96, 4)[::-1]
    np.testing.assert_allclose(warped[2:, 5:, 0], picture[:-2, :-5], atol=2e-3)
    np.testing.assert_allclose(warped[2:, 5:, 2], 1 - picture[:-2, :-5], atol=2e-3)
    assert (warped[2:, 5:, 3] > 0.99).all()
