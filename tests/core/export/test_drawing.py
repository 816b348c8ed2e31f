from dataclasses import replace

import numpy as np
import pytest

from omnimotion_core.export.drawing import Canvas, draw_tracks, drawable, fit_canvas
from omnimotion_core.trajectories.tracks import Tracks

from .conftest import MakeClip

WHITE = np.ones((1, 3))


def one_track(positions: list[tuple[float, float]], visible: list[bool], query_time: int = 0) -> Tracks:
    num_frames = len(visible)
    return Tracks(
        queries=np.array([[query_time, *positions[query_time]]], np.float32),
        positions=np.array([positions], np.float32), visible=np.array([visible]),
        confidence=np.ones((1, num_frames), np.float32), depth=np.ones((1, num_frames), np.float32),
        size=(40, 30), first_frame=1, fps=24.0,
    )  # fmt: skip


def draw(tracks: Tracks, t: int, *, trail: int = 0, scale: int = 10) -> np.ndarray:
    canvas = Canvas(plate=(40, 30), size=(40 * scale, 30 * scale))
    drawn = np.isfinite(tracks.positions).all(axis=-1)
    return draw_tracks(canvas, np.zeros((30, 40, 3), np.uint8), tracks, t, colors=WHITE, drawn=drawn, trail=trail)


def test_a_seen_point_is_a_dot_centred_on_its_pixel_and_a_hidden_one_a_ring() -> None:
    dot = draw(one_track([(10, 20)], [True]), 0)[..., 0].astype(float)
    y, x = np.indices(dot.shape)
    # the centre of plate pixel (10, 20) at ten times the size is (104.5, 204.5)
    assert (x * dot).sum() / dot.sum() == pytest.approx(104.5, abs=0.2)
    assert (y * dot).sum() / dot.sum() == pytest.approx(204.5, abs=0.2)
    assert dot[204, 104] > 240
    ring = draw(one_track([(10, 20)], [False]), 0)[..., 0]
    assert ring[204, 104] < 30
    assert ring.max() > 120


def test_trails_fade_with_age_and_where_the_point_was_hidden() -> None:
    positions = [(5.0 * t + 2, 15.0) for t in range(7)]
    line = draw(one_track(positions, [True] * 7), 6, trail=6)[150:160, :, 0].max(axis=0)
    ages = [int(line[50 * t + 45]) for t in range(6)]  # in the middle of each piece
    assert ages == sorted(ages)
    assert ages[5] > 3 * ages[0] > 0
    interrupted = one_track(positions, [True, True, False, False, True, True, True])
    hidden = draw(interrupted, 6, trail=6)[150:160, :, 0].max(axis=0)
    assert 0 < hidden[50 * 2 + 45] < 0.5 * ages[2]


def test_a_trail_is_no_longer_than_asked_for() -> None:
    positions = [(5.0 * t + 2, 15.0) for t in range(7)]
    line = draw(one_track(positions, [True] * 7), 6, trail=2)[150:160, :, 0].max(axis=0)
    assert line[: 50 * 4 + 20].max() == 0
    assert line[50 * 4 + 45] > 0


def test_drawing_the_same_twice_gives_the_same_bits() -> None:
    tracks = one_track([(5.3 * t + 2, 15.2) for t in range(7)], [True] * 7)
    np.testing.assert_array_equal(draw(tracks, 6, trail=6), draw(tracks, 6, trail=6))


def test_nothing_is_drawable_off_the_picture_or_in_another_shot(make_clip: MakeClip) -> None:
    clip = make_clip((40, 30), 6, cuts=(2, 4))
    tracks = one_track([(5, 5), (5, 5), (5, 5), (41, 5), (5, 5), (np.nan, 5)], [True] * 6, query_time=2)
    assert drawable(clip, tracks).tolist() == [[False, False, True, False, False, False]]


def test_pictures_have_square_pixels_and_legible_even_sizes(make_clip: MakeClip) -> None:
    def size(plate: tuple[int, int], aspect: float = 1.0) -> tuple[int, int]:
        clip = replace(make_clip((8, 8), 1), size=plate, working_size=plate, pixel_aspect=aspect)
        return fit_canvas(clip, min_height=480, max_side=1920, even=True).size

    assert size((256, 256)) == (480, 480)
    assert size((853, 479)) == (854, 480)
    assert size((1280, 720)) == (1280, 720)
    assert size((4096, 2160)) == (1920, 1012)
    assert size((720, 576), 16 / 15) == (768, 576)  # PAL
    assert size((640, 720), 0.5) == (640, 1440)
    assert size((4000, 2)) == (1920, 2)
