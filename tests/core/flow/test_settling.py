import numpy as np

from omnimotion_core.flow.settling import settle


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
