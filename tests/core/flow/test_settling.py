from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from omnimotion_core.flow.settling import settle


def pictures_of(width: int, height: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two pictures (h, w) uint8, the second one turned and shifted, and a rough guess of the flow."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 2.0)
    first = np.asarray(128 + 40 * noise.reshape(height, width) / max(float(noise.std()), 0.1), np.float32)
    matrix = np.array([[1, 0.02, 0.7], [-0.01, 1, -0.4]], np.float32)
    second = cv2.warpAffine(first, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    guess = 3 * cv2.GaussianBlur(rng.normal(0, 1, (height, width, 2)).astype(np.float32), (0, 0), 3.0)
    source, target = (np.clip(np.rint(each), 0, 255).astype(np.uint8) for each in (first, second))
    return source, target, guess.reshape(height, width, 2)


@pytest.mark.parametrize(
    ("width", "height"), [(80, 64), (33, 17), (64, 5), (129, 98), (8, 8), (1, 5), (4, 1), (2, 2), (1, 1)]
)
def test_it_is_what_opencv_has(width: int, height: int) -> None:
    source, target, guess = pictures_of(width, height)
    before = guess.copy()
    expected = cv2.VariationalRefinement.create().calc(source, target, guess.copy())
    for _ in range(2):  # in memory that is kept
        np.testing.assert_allclose(settle(source, target, guess), expected, atol=5e-4)
        settle(target[:, : width // 2 + 1].copy(), source[:, : width // 2 + 1].copy(), guess[:, : width // 2 + 1])
    np.testing.assert_array_equal(guess, before)


def test_what_is_far_outside_does_no_harm() -> None:
    source, target, guess = pictures_of(40, 30)
    guess[:10] = 1e4
    guess[10:14, :20] = [-500, 300]
    expected = cv2.VariationalRefinement.create().calc(source, target, guess.copy())
    np.testing.assert_allclose(settle(source, target, guess), expected, rtol=1e-4, atol=2e-2)


def test_threads_do_not_share_their_memory() -> None:
    asked = [pictures_of(40 + 7 * seed, 50, seed) for seed in range(6)]
    alone = [settle(*each) for each in asked]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            for found, expected in zip(pool.map(lambda each: settle(*each), asked), alone, strict=True):
                np.testing.assert_array_equal(found, expected)


def test_flow_settles_nearby_and_stays_on_its_period() -> None:
    y, x = np.mgrid[:80, :160].astype(np.float32)

    def stripes(shift: float) -> np.ndarray:  # of 12 pixels
        return (128 + 60 * np.sin((x - shift) * 2 * np.pi / 12) + 30 * np.sin(y * 0.5)).astype(np.uint8)

    source, target = stripes(0.0), stripes(3.4)
    rough = np.random.default_rng(4).normal(0, 0.4, (80, 160, 2)).astype(np.float32)
    for period in (0, 12, -24):
        exact = np.array([3.4 + period, 0], np.float32)
        guess = exact + rough
        before = guess.copy()
        settled = settle(source, target, guess)[10:-10, 40:-40]
        assert np.abs(settled - exact).mean() < 0.4 * np.abs(rough).mean()
        assert np.abs(settled - exact).max() < 1
        np.testing.assert_array_equal(guess, before)
