"""Composites that real Blenders render of our passes, and cameras that they solve from our tracks."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from omnimotion_core.events import Reporter
from omnimotion_core.export.exr import read_exr, write_exr
from omnimotion_core.export.motion_vectors import write_motion_vectors
from omnimotion_core.trajectories.dense import DenseFlow
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip

from .conftest import Ask, MakeRun

pytestmark = [pytest.mark.blender, pytest.mark.slow]

SIZE = (128, 96)
MOVING = 30
STEPS = [(9.0, 0.0), (14.0, 8.0), (0.0, -12.0), (-12.0, 10.0), (6.0, 14.0), (7.0, 7.0)]  # pixels a frame, y down


def dots(folder: Path) -> Path:
    """A sequence 1001..1006 of a bright square at rest in the middle."""
    folder.mkdir()
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    picture[46:50, 62:66] = 255
    for number in range(1001, 1007):
        cv2.imwrite(str(folder / f"shot.{number}.png"), picture)
    return folder / "shot.1001.png"


def no_tracks(size: tuple[int, int], num_frames: int) -> Tracks:
    positions = np.full((4, num_frames, 2), 20.0, np.float32)
    ones = np.ones((4, num_frames), np.float32)
    return Tracks(queries=np.zeros((4, 3), np.float32), positions=positions, visible=ones > 0, confidence=ones,
                  depth=ones, size=size, first_frame=1001, fps=24.0)  # fmt: skip


def moving(source: int, target: int) -> DenseFlow:
    """Steady motion: in frame t by STEPS[t] to the next and from the previous."""
    step = np.array(STEPS[source], np.float32) * (1 if target > source else -1)
    shape = (SIZE[1], SIZE[0])
    ones = np.ones(shape, np.float32)
    return DenseFlow(source=source, target=target, vectors=np.broadcast_to(step, (*shape, 2)).copy(),
                     visible=ones > 0, confidence=ones, depth=ones)  # fmt: skip


def write_vectors(run: Path, clip_path: Path) -> None:
    clip = Clip(folder=run / "frames", name="shot", path=str(clip_path), sha256="0" * 64, size=SIZE, working_size=SIZE,
                num_frames=6, first_frame=1001, clip_first_frame=1001, fps=24.0)  # fmt: skip
    write_motion_vectors(moving, clip, run / "exr" / "blender", "blender", reporter=Reporter(), tool_version="1",
                         run_digest="d")  # fmt: skip


def moments(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Centre (x, y), y down, and covariance of the brightness of a picture."""
    weight = read_exr(Path(path)).channels["G"].astype(np.float64)
    weight = weight * (weight > 1e-4)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    points, weight = np.stack([x.ravel(), y.ravel()], axis=1), weight.ravel() / weight.sum()
    centre = weight @ points
    return centre, (points - centre).T @ ((points - centre) * weight[:, None])


def test_the_blur_points_and_stretches_as_the_motion_does(ask: Ask, make_run: MakeRun, tmp_path: Path) -> None:
    clip = dots(tmp_path / "plates")
    run = make_run(no_tracks(SIZE, 6))
    write_vectors(run, clip)
    got = ask("shows_a_composite", clip=clip, run=run, setup="VECTOR_BLUR", frames=[12, 13, 14, 15], timeout_s=240)
    assert got["size"] == list(SIZE)
    assert got["nodes"] == ["CompositorNodeImage", "CompositorNodeMovieClip", "CompositorNodeVecBlur"]
    assert got["shown"]
    at_rest = (4**2 - 1) / 12  # variance of four pixels side by side
    for path, step in zip(got["files"], STEPS[1:5], strict=True):  # the clip begins at scene frame 11
        centre, covariance = moments(path)
        # Blender's samples are few for a small square; to one side alone it would be half the motion
        assert np.hypot(*(centre - [63.5, 47.5])) < 0.25 * np.hypot(*step), (step, centre)
        values, axes = np.linalg.eigh(covariance)
        direction = np.array(step) / np.hypot(*step)
        assert abs(axes[:, 1] @ direction) > 0.98, (step, axes)
        length = np.sqrt(12 * max(values[1] - at_rest, 0))  # of an even smear
        assert 0.6 * np.hypot(*step) < length < 1.3 * np.hypot(*step), (step, length)
        assert values[0] < 2 * at_rest + 1, (step, values)


def test_displace_moves_each_frame_to_the_one_before(ask: Ask, make_run: MakeRun, tmp_path: Path) -> None:
    clip = dots(tmp_path / "plates")
    run = make_run(no_tracks(SIZE, 6))
    write_vectors(run, clip)
    got = ask("shows_a_composite", clip=clip, run=run, setup="DISPLACE", frames=[12, 14], timeout_s=240)
    for path, t in zip(got["files"], (1, 3), strict=True):
        centre, _ = moments(path)
        np.testing.assert_allclose(centre, np.array([63.5, 47.5]) - STEPS[t], atol=0.3)


def test_a_picture_follows_the_clip_by_its_stmap(ask: Ask, make_run: MakeRun, tmp_path: Path) -> None:
    clip = dots(tmp_path / "plates")
    run = make_run(no_tracks(SIZE, 6))
    y, x = np.mgrid[: SIZE[1], : SIZE[0]].astype(np.float32)
    for t in range(6):
        moved = 5 * t  # pixels to the right since the reference frame; what comes in at the left is not in it
        channels = {"R": (x - moved + 0.5) / SIZE[0], "G": 1 - (y + 0.5) / SIZE[1], "B": np.zeros_like(x),
                    "A": (x >= moved).astype(np.float32), "visibility.Y": np.ones_like(x)}  # fmt: skip
        for direction in ("from", "to"):  # the second one would hold still
            shifted = channels if direction == "from" else {**channels, "R": (x + 0.5) / SIZE[0]}
            write_exr(run / "exr" / "stmap" / f"shot.stmap.{direction}_1001.{1001 + t}.exr", shifted, {})
    got = ask("shows_a_composite", clip=clip, run=run, setup="MAP_UV", frames=[11, 15], timeout_s=240)
    assert "CompositorNodeMapUV" in got["nodes"]
    for path, moved in zip(got["files"], (0, 20), strict=True):
        green = read_exr(Path(path)).channels["G"]
        assert green[48, 64 + moved] > 0.9
        assert moved == 0 or green[48, 64] < 0.1  # the picture lies over the clip
    assert read_exr(Path(got["files"][1])).channels["G"][48, 5] < 0.1


def test_an_output_in_use_is_left_alone(ask: Ask, make_run: MakeRun, tmp_path: Path) -> None:
    clip = dots(tmp_path / "plates")
    run = make_run(no_tracks(SIZE, 6))
    write_vectors(run, clip)
    assert ask("keeps_the_users_output", clip=clip, run=run) == ["CompositorNodeBlur", "CompositorNodeBlur"]


def test_missing_passes_are_told(ask: Ask, make_run: MakeRun, tmp_path: Path) -> None:
    clip = dots(tmp_path / "plates")
    run = make_run(no_tracks(SIZE, 6))
    write_vectors(run, clip)
    (run / "exr" / "blender" / "shot.blender.1003.exr").unlink()
    assert "1 of 6 files of vectors:blender are not written" in ask("has_no_passes", clip=clip, run=run)


def rigid_shot(rng: np.random.Generator, focal_px: float, size: tuple[int, int], num_frames: int) -> Tracks:
    """300 points of a room seen by a camera that moves sideways and turns, at times behind a passing pillar.

    The first ``MOVING`` of them move by themselves.
    """
    points = np.column_stack([rng.uniform(-4, 4, 300), rng.uniform(-3, 3, 300), rng.uniform(5, 14, 300)])
    positions, visible = np.zeros((300, num_frames, 2)), np.zeros((300, num_frames), bool)
    for t in range(num_frames):
        angle, place = 0.010 * t, np.array([0.12 * t - 1.2, 0.02 * t, 0.03 * t])
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        seen = (points - place) @ turn.T
        positions[:, t] = seen[:, :2] / seen[:, 2:] * focal_px + (np.array(size) - 1) / 2
        pillar = np.abs(positions[:, t, 0] - (100 + 15 * t)) < 20
        visible[:, t] = ~pillar & (np.abs(positions[:, t] / size - 0.5) < 0.49).all(axis=1)
    positions[:MOVING] += 12 * np.sin(np.arange(num_frames) / 3)[None, :, None] * rng.uniform(-1, 1, (MOVING, 1, 2))
    queries = np.column_stack([np.zeros(300), positions[:, 0]])
    confidence = np.broadcast_to(rng.uniform(0.4, 1.0, (300, 1)), visible.shape)
    return Tracks(queries=queries.astype(np.float32), positions=positions.astype(np.float32), visible=visible,
                  confidence=confidence.astype(np.float32), depth=np.ones(visible.shape, np.float32), size=size,
                  first_frame=1001, fps=24.0)  # fmt: skip


def test_the_best_tracks_solve_the_camera(ask: Ask, make_run: MakeRun, tmp_path: Path) -> None:
    size, focal_px = (640, 480), 700.0
    (tmp_path / "plates").mkdir()
    for number in range(1001, 1025):
        cv2.imwrite(str(tmp_path / "plates" / f"shot.{number}.png"), np.zeros((480, 640, 3), np.uint8))
    run = make_run(rigid_shot(np.random.default_rng(0), focal_px, size, 24))
    got = ask("solves", clip=tmp_path / "plates" / "shot.1001.png", run=run, focal_px=focal_px, timeout_s=240)
    assert got["counts"] == [40, 40]  # pressed twice, they are replaced
    assert got["valid"]
    assert got["cleaned"] < 0.05  # the tracks are exact; what is left is rounding
    assert got["error"] > 4 * got["cleaned"]  # before those that move by themselves were dropped
    assert len(got["left"]) >= 12
    assert all(int(name.removeprefix("te")) >= MOVING for name in got["left"])
    assert got["keyframes"][1] - got["keyframes"][0] >= 8
    assert got["stabilized"] >= 2
