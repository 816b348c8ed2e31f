"""Shots without anything to track are told from those with little."""

import cv2
import numpy as np
import pytest

from omnimotion_core.errors import ClipError
from omnimotion_core.video.content import check_content, thumbnail

SIZE = (96, 128)


def textured(shift: float = 0.0) -> np.ndarray:
    """(H, W) 0..255."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float64)
    return 128 + 50 * np.sin((x + shift) / 4) * np.cos(y / 6)


def judge(pictures: list[np.ndarray], noise: float = 0.0) -> None:
    rng = np.random.default_rng(1)
    noisy = [np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).round() for picture in pictures]
    check_content("shot", [thumbnail(np.repeat(p[..., None] * 257, 3, axis=2).astype(np.uint16)) for p in noisy])


def test_black_is_told() -> None:
    with pytest.raises(ClipError, match="shot is black"):
        judge([np.zeros(SIZE)] * 4)


def test_a_flat_color_is_told() -> None:
    with pytest.raises(ClipError, match="flat color"):
        judge([np.full(SIZE, level) for level in (100, 110, 120)])


@pytest.mark.parametrize("noise", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("scene", [textured(), np.full(SIZE, 90.0)])
def test_a_still_picture_is_told_within_noise(noise: float, scene: np.ndarray) -> None:
    with pytest.raises(ClipError, match=r"still picture|flat color"):
        judge([scene] * 30, noise)


def test_a_static_shot_compressed_by_a_codec_is_told() -> None:
    pictures = [cv2.imdecode(cv2.imencode(".jpg", textured(), [cv2.IMWRITE_JPEG_QUALITY, q])[1], 0)
                for q in (90, 91, 92, 93)]
    with pytest.raises(ClipError, match="still picture"):
        judge([picture.astype(np.float64) for picture in pictures])


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_drift_of_one_pixel_over_the_shot_is_motion(noise: float) -> None:
    judge([textured(t / 29) for t in range(30)], noise)


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_small_thing_moving_before_a_still_camera_is_motion(noise: float) -> None:
    pictures = [textured() for _ in range(20)]
    for t, picture in enumerate(pictures):
        picture[40:46, 20 + 2 * t : 26 + 2 * t] = 240
    judge(pictures, noise)


@pytest.mark.parametrize("speed", [1, 7, 40])
def test_pans_slow_and_fast_are_motion(speed: int) -> None:
    wide = cv2.GaussianBlur(np.random.default_rng(0).random((SIZE[0], 1200)), (0, 0), 4)
    wide = (wide - wide.min()) / np.ptp(wide) * 255
    judge([wide[:, speed * t : speed * t + SIZE[1]] for t in range(20)], 2.0)


def test_one_frame_of_texture_is_enough_not_to_be_black() -> None:
    judge([np.zeros(SIZE), textured(), np.zeros(SIZE)])


def test_thumbnails_are_never_enlarged() -> None:
    assert thumbnail(np.zeros((20, 30, 3), np.uint16)).shape == (20, 30)
    assert thumbnail(np.zeros((480, 854, 3), np.uint16)).shape == (54, 96)
    assert thumbnail(np.full((480, 854, 3), 65535, np.uint16)).min() == 65535
