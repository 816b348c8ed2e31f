"""The hard scenes: their pictures follow their flow, and each is hard for the reason that it tells."""

import cv2
import numpy as np
import pytest

from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.errors import ConfigError
from omnimotion_core.evaluation.hard_scenes import SCENES, make_hard_scene
from omnimotion_core.evaluation.photography import GAMMA, Photography
from omnimotion_core.evaluation.synthetic import Scene


def sharp(scene: Scene) -> Scene:
    """The scene without what the camera adds."""
    return Scene(num_frames=scene.num_frames, size=scene.size, surfaces=scene.surfaces)


def interior(labels: np.ndarray) -> np.ndarray:
    kernel = np.ones((5, 5), np.uint8)
    as_bytes = labels.astype(np.uint8)
    return np.asarray(cv2.erode(as_bytes, kernel) == cv2.dilate(as_bytes, kernel))


@pytest.mark.parametrize("name", SCENES)
def test_pictures_follow_the_exact_flow(name: str) -> None:
    scene = sharp(make_hard_scene(name))
    i, j = 12, 15
    vectors, visible = scene.flow(i, j)
    there = (pixel_grid(scene.size) + vectors).astype(np.float32)
    warped = cv2.remap(scene.render(j), there[..., 0], there[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    target = interior(scene.owner(j)).astype(np.uint8)
    sure = visible & interior(scene.owner(i)) & (cv2.remap(target, there[..., 0], there[..., 1], cv2.INTER_NEAREST) > 0)
    error = np.abs(warped.astype(float) - scene.render(i)).mean(axis=-1)
    assert sure.mean() > 0.4
    assert error[sure].mean() < 2.0  # gray levels


@pytest.mark.parametrize("name", SCENES)
def test_truth_has_points_on_everything_and_of_each_much_is_seen(name: str) -> None:
    scene = make_hard_scene(name)
    truth = scene.truth()
    assert truth.owner is not None
    assert set(truth.owner.tolist()) == set(range(len(scene.surfaces)))
    assert 0.7 < (~truth.occluded).mean() < 1


def step_px(scene: Scene, surface: str, t: int) -> float:
    """By how much the middle pixel of a surface moves to the next frame."""
    vectors, _ = scene.flow(t, t + 1)
    return float(np.median(np.linalg.norm(vectors[scene.mask(t, surface)], axis=-1)))


def test_scenes_are_hard_for_the_reasons_that_they_tell() -> None:
    light = make_hard_scene("light")
    brightness = [light.render(t).mean() for t in range(0, 32, 4)]
    assert max(brightness) > 1.3 * min(brightness)
    ball = make_hard_scene("ball")
    assert np.median([step_px(ball, "ball", t) for t in range(31)]) > 12
    head = make_hard_scene("head")
    bare = head.render(9)[:20, 150:].astype(float)
    assert bare.std(axis=(0, 1)).max() < 6  # grain and faint shading alone
    turning = make_hard_scene("turning")
    assert abs(turning.surfaces[0].camera.rotation(31.0)[0, 1]) > 0.9  # the sine of the roll
    dusk = make_hard_scene("dusk")
    assert dusk.render(3).mean() < 80


def test_grain_is_the_frame_s_own_and_blur_is_along_the_motion() -> None:
    scene = make_hard_scene("ball")
    assert np.array_equal(scene.render(4), scene.render(4))
    grain = scene.render(4).astype(float) - make_hard_scene("ball").render(5)
    assert grain.std() > 1
    assert scene.photography is not None
    bright = np.zeros((9, 21, 3), np.uint8)

    def flash(t: float) -> np.ndarray:
        picture = bright.copy()
        picture[:, round(10 + 8 * (t - 4)) % 21] = 255
        return picture

    seen = scene.photography.expose(flash, 4.0).mean(axis=(0, 2))
    streak = np.flatnonzero(seen > 60)
    assert (streak.min(), streak.max()) == (8, 12)  # half of the 8 pixels of a frame


def test_a_lens_darkens_the_corners_of_every_frame_alike() -> None:
    even = np.full((31, 41, 3), 200, np.uint8)
    shown = Photography(falloff=0.36).expose(lambda t: even, 2.0)
    assert shown[15, 20].tolist() == [200] * 3
    assert shown[0, 0].tolist() == shown[30, 40].tolist() == [round(200 * 0.64 ** (1 / GAMMA))] * 3
    assert shown[15, 40, 0] == round(200 * 0.82 ** (1 / GAMMA))


def test_seeds_give_other_scenes_and_unknown_names_are_told() -> None:
    first, again, other = (make_hard_scene("sky", seed).render(3) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(ConfigError, match="turning, crossing"):
        make_hard_scene("nonsense")
