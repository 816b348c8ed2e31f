"""Cuts are found where shots change and nowhere else."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.video.content import thumbnail
from omnimotion_core.video.cuts import find_cuts


def world(seed: int, size: tuple[int, int] = (900, 500)) -> np.ndarray:
    """A large textured picture (H, W) float 0..1 with detail at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0]), np.float32)
    for cell in (8, 20, 50, 120):
        coarse = rng.random((size[1] // cell + 2, size[0] // cell + 2)).astype(np.float32)
        total += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC) * cell**0.5
    for _ in range(25):  # objects with edges
        x, y = int(rng.integers(0, size[0])), int(rng.integers(0, size[1]))
        cv2.circle(total, (x, y), int(rng.integers(8, 50)), float(rng.random() * total.max()), -1)
    total -= total.min()
    return total / total.max()


def shot(seed: int, length: int, speed: float = 3.0, start: float = 40.0, blur: int = 0) -> list[np.ndarray]:
    """A camera panning over a world: pictures (96, 160) float 0..1."""
    picture = world(seed)
    if blur:
        picture = cv2.blur(picture, (blur, 1))
    views = []
    for t in range(length):
        x = start + speed * t
        warp = np.array([[1, 0, -x], [0, 1, -60 - 0.5 * t]], np.float32)
        views.append(cv2.warpAffine(picture, warp, (160, 96), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return views


def cuts_of(pictures: list[np.ndarray], noise: float = 2.0) -> tuple[int, ...]:
    rng = np.random.default_rng(9)
    noisy = [np.clip(picture * 255 + rng.normal(0, noise, picture.shape), 0, 255).round() for picture in pictures]
    return find_cuts([thumbnail(np.repeat(picture[..., None] * 257, 3, axis=2).astype(np.uint16)) for picture in noisy])


@pytest.mark.parametrize("seed", range(4))
def test_cuts_between_shots_are_found(seed: int) -> None:
    pictures = shot(seed, 9) + shot(seed + 10, 7, speed=-2, start=300) + shot(seed + 20, 8, speed=0.2)
    assert cuts_of(pictures) == (9, 16)


def test_a_jump_to_another_part_of_the_same_place_is_a_cut() -> None:
    assert cuts_of(shot(1, 8) + shot(1, 8, start=600)) == (8,)


def test_a_shot_of_one_frame_is_recorded() -> None:
    assert cuts_of(shot(1, 8) + shot(2, 1) + shot(3, 8)) == (8, 9)
    assert cuts_of(shot(1, 8) + shot(2, 1)) == (8,)
    assert cuts_of(shot(1, 1) + shot(2, 8)) == (1,)
    assert cuts_of(shot(1, 1) + shot(2, 1)) == (1,)


def test_a_cut_from_a_still_to_a_fast_shot_is_found() -> None:
    assert cuts_of(shot(1, 8, speed=0) + shot(2, 8, speed=12)) == (8,)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("gain", [3.0, 30.0])
def test_a_flash_that_returns_is_no_cut(length: int, gain: float) -> None:
    pictures = shot(1, 16)
    for t in range(7, 7 + length):
        pictures[t] = np.clip(pictures[t] * gain + 0.3, 0, 1)
    assert cuts_of(pictures) == ()


def test_something_close_to_the_lens_is_no_cut() -> None:
    pictures = shot(1, 16)
    pictures[8:10] = [cv2.GaussianBlur(picture, (0, 0), 6) for picture in shot(5, 2)]
    assert cuts_of(pictures) == ()


@pytest.mark.parametrize("seed", [3, 5])
def test_a_pillar_that_sweeps_past_is_no_cut(seed: int) -> None:
    scene = Scene.make(30, (192, 192), seed=seed)
    pictures = [thumbnail(scene.render(t).astype(np.uint16) * 257) for t in range(8, 20)]
    assert find_cuts(pictures) == ()
    other = [thumbnail(scene.render(t).astype(np.uint16) * 257) for t in (70, 71, 72, 73)]
    assert find_cuts([*pictures[:5], *other[::-1]]) == (5,)  # the same place, seen from elsewhere


@pytest.mark.parametrize(("top", "bottom", "side"), [(12, 12, 0), (20, 21, 0), (0, 24, 0), (0, 0, 25), (10, 10, 12)])
def test_black_bars_hide_no_cut_and_make_none(top: int, bottom: int, side: int) -> None:
    pictures = shot(1, 7) + shot(2, 7)
    for picture in pictures:
        picture[:top] = picture[96 - bottom :] = picture[:, :side] = picture[:, 160 - side :] = 0
    assert cuts_of(pictures) == (7,)
    assert cuts_of(pictures[:7]) == ()


@pytest.mark.parametrize("speed", [10, 25, 45])
def test_a_fast_pan_is_no_cut(speed: float) -> None:
    assert cuts_of(shot(1, 14, speed=speed)) == ()


def test_a_pan_that_starts_and_stops_with_motion_blur_is_no_cut() -> None:
    speeds = [0, 0, 0, 0, 5, 20, 40, 40, 40, 20, 5, 0, 0, 0, 0]
    positions = np.cumsum(speeds)
    pictures = [
        shot(1, 1, start=40 + float(x), blur=max(speed, 1))[0] for x, speed in zip(positions, speeds, strict=True)
    ]
    assert cuts_of(pictures) == ()


@pytest.mark.parametrize("length", [4, 12])
def test_fades_are_no_cuts(length: int) -> None:
    pictures = shot(1, 30)
    for t in range(length):
        pictures[t] *= t / length  # from black
        pictures[-1 - t] *= t / length  # to black
    assert cuts_of(pictures) == ()


def test_a_dip_to_black_within_a_shot_is_no_cut_and_between_shots_is_one() -> None:
    dip = [*np.linspace(0.8, 0, 5), 0.0, 0.0, *np.linspace(0, 0.8, 5)]
    one = [picture * gain for picture, gain in zip(shot(1, 12, speed=1), dip, strict=True)]
    assert cuts_of([*shot(1, 6, speed=1, start=34), *one, *shot(1, 6, speed=1, start=52)]) == ()
    other = shot(1, 6) + [np.zeros((96, 160), np.float32)] * 4 + shot(2, 6)
    assert cuts_of(other) == (10,)  # where the new shot begins to show


def test_a_change_of_exposure_is_no_cut() -> None:
    pictures = shot(1, 14)
    assert cuts_of(pictures[:7] + [picture * 0.4 for picture in pictures[7:]]) == ()


def test_noise_alone_is_no_cut() -> None:
    rng = np.random.default_rng(0)
    assert cuts_of([rng.random((96, 160)).astype(np.float32) for _ in range(12)]) == ()


def test_flat_frames_are_no_cuts() -> None:
    assert cuts_of([np.full((96, 160), level, np.float32) for level in (0, 1, 0.2, 0.9, 0, 0.5)]) == ()


@pytest.mark.parametrize("size", [(160, 90), (120, 200), (48, 36)])
def test_every_shape_of_picture_works(size: tuple[int, int]) -> None:
    def views(seed: int) -> list[np.ndarray]:
        return [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in shot(seed, 6)]

    assert cuts_of(views(1) + views(2), noise=0.5) == (6,)


def footage_of(clips: Path, name: str, step: int = 1) -> list[np.ndarray]:
    folder = clips / name / "frames"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    pictures: Any = (cv2.imread(str(path)) for path in sorted(folder.iterdir())[::step])
    return [thumbnail(picture[..., ::-1].astype(np.uint16) * 257) for picture in pictures]


@pytest.mark.parametrize("name", ["real/cows", "real/dog", "real/car-shadow", "rendered/orbit", "rendered/flag"])
@pytest.mark.parametrize("step", [1, 3])
def test_real_shots_have_no_cut(clips: Path, name: str, step: int) -> None:
    assert find_cuts(footage_of(clips, name, step)) == ()


def test_real_shots_joined_have_one_cut_each(clips: Path) -> None:
    cows, dog, car = (footage_of(clips, f"real/{name}")[:14] for name in ("cows", "dog", "car-shadow"))
    assert find_cuts([*cows, *dog, *car]) == (14, 28)
    assert find_cuts([*dog[:5], *car[:1], *cows[:5]]) == (5, 6)
    assert find_cuts([*dog[:9], *dog[3:], *cows]) == (9 + 11,)  # the same place again is nothing to keep apart
