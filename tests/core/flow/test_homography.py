import cv2
import numpy as np

from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow.homography import (
    RATIO,
    Features,
    apply_homography,
    find_features,
    find_homography,
    find_motions,
    match_features,
)

MATRIX = np.array([[1.05, 0.08, -6.0], [-0.06, 0.97, 9.0], [1e-4, -5e-5, 1.0]])


def picture() -> np.ndarray:
    return cv2.cvtColor(Scene.make(2, (240, 200), seed=1).render(0), cv2.COLOR_RGB2GRAY)


def test_a_known_homography_is_found() -> None:
    source = picture()
    target = cv2.warpPerspective(source, MATRIX, (240, 200), borderMode=cv2.BORDER_REFLECT)
    found = find_homography(find_features(source), find_features(target))
    assert found is not None
    grid = pixel_grid((240, 200))[20:-20, 20:-20]
    miss = np.linalg.norm(apply_homography(found[0], grid) - apply_homography(MATRIX, grid), axis=-1)
    assert miss.max() < 0.5
    assert found[1] > 100


def test_unrelated_or_empty_pictures_have_none() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 240), dtype=np.uint8)
    assert find_homography(find_features(picture()), find_features(noise)) is None
    assert find_homography(find_features(picture()), find_features(np.zeros((200, 240), np.uint8))) is None


def test_a_mirrored_picture_is_no_camera_motion() -> None:
    source = picture()
    assert find_homography(find_features(source), find_features(source[:, ::-1].copy())) is None


def test_features_lie_on_the_mask() -> None:
    mask = np.zeros((200, 240), bool)
    mask[50:150, 60:180] = True
    x, y = find_features(picture(), mask).positions.T
    assert len(x) > 10
    assert x.min() >= 59
    assert x.max() <= 180
    assert y.min() >= 49
    assert y.max() <= 150


def test_apply_homography_divides_by_the_third_coordinate() -> None:
    x, y, w = MATRIX @ [30, 40, 1]
    np.testing.assert_allclose(apply_homography(MATRIX, np.array([30.0, 40.0])), [x / w, y / w], rtol=1e-6)


def test_features_match_as_when_they_are_compared_one_by_one() -> None:
    rng = np.random.default_rng(5)
    source, target = (rng.integers(0, 256, (count, 128)).astype(np.float32) for count in (40, 60))
    target[:15] = np.clip(source[20:35] + rng.integers(-30, 31, (15, 128)), 0, 255)
    expected = []
    for row, descriptor in enumerate(source):
        distances = np.linalg.norm(target.astype(np.float64) - descriptor, axis=1)
        nearest, second = np.argsort(distances)[:2]
        if distances[nearest] < RATIO * distances[second]:
            expected.append((row, int(nearest)))
    rows, columns = match_features(source, target)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    assert len(expected) >= 15


def features(positions: np.ndarray, descriptors: np.ndarray) -> Features:
    return Features(positions.astype(np.float32), descriptors.astype(np.float32))


def test_the_motions_of_a_picture_s_parts_are_found_by_their_size() -> None:
    """120 features of the ground, 40 of a thing that turns, 30 that lie anywhere, in any order."""
    rng = np.random.default_rng(8)
    turn = np.array([[0.96, -0.2, 30.0], [0.2, 0.96, -12.0], [0, 0, 1]])
    start = rng.uniform(0, 200, (190, 2))
    end = rng.uniform(0, 200, (190, 2))
    end[:120], end[120:160] = apply_homography(MATRIX, start[:120]), apply_homography(turn, start[120:160])
    end[:160] += rng.normal(0, 0.1, (160, 2))
    descriptors, order = rng.integers(0, 256, (190, 128)), rng.permutation(190)
    motions = find_motions(features(start, descriptors), features(end[order], descriptors[order]))
    assert len(motions) == 2
    for motion, truth, rows in ((motions[0], MATRIX, slice(120)), (motions[1], turn, slice(120, 160))):
        miss = np.linalg.norm(apply_homography(motion, start[rows]) - apply_homography(truth, start[rows]), axis=-1)
        assert miss.max() < 0.5
    np.testing.assert_array_equal(motions[1][2], [0, 0, 1])  # a part does not tell its perspective
    again = find_motions(features(start, descriptors), features(end[order], descriptors[order]))
    np.testing.assert_array_equal(np.stack(again), np.stack(motions))


def test_a_shift_is_told_as_a_shift() -> None:
    """A homography of features that lie in one half of a picture leads astray in the other."""
    rng = np.random.default_rng(9)
    start = rng.uniform((0, 120), (240, 200), (150, 2))
    end = start + (2.5, -1.25) + rng.normal(0, 0.2, (150, 2))
    descriptors = rng.integers(0, 256, (150, 128))
    (motion,) = find_motions(features(start, descriptors), features(end, descriptors))
    np.testing.assert_array_equal(motion[:, :2], np.eye(3)[:, :2])
    np.testing.assert_allclose(motion[:2, 2], (2.5, -1.25), atol=0.1)


def test_pictures_without_features_or_mirrored_have_no_motions() -> None:
    source, empty = find_features(picture()), find_features(np.zeros((200, 240), np.uint8))
    assert find_motions(source, empty) == []
    assert find_motions(empty, source) == []
    positions, descriptors = source.positions, source.descriptors
    mirrored = features(np.stack([239 - positions[:, 0], positions[:, 1]], -1), descriptors)
    assert find_motions(source, mirrored) == []


def test_no_positions_are_sent_nowhere() -> None:
    assert apply_homography(MATRIX, np.zeros((0, 2))).shape == (0, 2)
