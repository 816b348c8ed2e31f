import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from omnimotion_core.flow import smoothing
from omnimotion_core.flow.smoothing import smooth_along_surfaces

WIDTH, HEIGHT = 120, 90
CENTER, RADIUS, TURN = np.array([55.0, 45.0]), 24, 0.3
GROUND = np.array([0.5, -1.0])


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A disc that moves and turns before still ground: the picture, its exact flow, and where the disc is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    away = np.stack([x, y], -1) - CENTER
    disc = np.hypot(away[..., 0], away[..., 1]) < RADIUS
    turn = np.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]])
    flow = np.where(disc[..., None], away @ (turn - np.eye(2)).T + [8, 2], GROUND).astype(np.float32)
    lab = np.where(disc[..., None], [60, 30, 20], [50, 0, 0]).astype(np.float32)
    return lab + np.random.default_rng(1).normal(0, 1, lab.shape).astype(np.float32), flow, disc


def share_right(flow: np.ndarray, exact: np.ndarray, where: np.ndarray) -> float:
    return float((np.linalg.norm(flow - exact, axis=-1)[where] < 1).mean())


def test_edges_that_flow_is_drawn_over_are_found_again_and_noise_goes() -> None:
    lab, exact, disc = scene()
    noise = np.random.default_rng(2).normal(0, 0.2, exact.shape).astype(np.float32)
    blurred = cv2.GaussianBlur(exact, (0, 0), 1.5) + noise
    square = np.ones((7, 7), np.uint8)
    edge = cv2.dilate(disc.astype(np.uint8), square) > cv2.erode(disc.astype(np.uint8), square)
    smooth = smooth_along_surfaces(blurred, lab)
    assert share_right(blurred, exact, edge) < 0.6
    assert share_right(smooth, exact, edge) > 0.7
    before, after = (np.linalg.norm(flow - exact, axis=-1)[disc & ~edge].mean() for flow in (blurred, smooth))
    assert after < 0.6 * before


def test_flow_that_is_affine_on_each_surface_stays() -> None:
    lab, exact, disc = scene()
    smooth = smooth_along_surfaces(exact, lab)
    assert np.linalg.norm(smooth - exact, axis=-1).max() < 0.35
    assert np.median(np.linalg.norm(smooth - exact, axis=-1)[disc]) < 0.01
    even = np.broadcast_to(np.array([3.25, -1.5], np.float32), exact.shape)
    np.testing.assert_array_equal(smooth_along_surfaces(even, lab), even)


def test_flow_that_has_failed_is_outvoted_by_the_little_that_has_not() -> None:
    lab, exact, _ = scene()
    lab[:] = 50
    exact[:] = GROUND
    wrong = exact.copy()
    cost = np.zeros((HEIGHT, WIDTH), np.float32)
    failed = np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.7
    wrong[failed] = [6, 6]
    cost[failed] = 5.0
    assert share_right(smooth_along_surfaces(wrong, lab, cost), exact, np.ones_like(failed)) > 0.97
    assert share_right(smooth_along_surfaces(wrong, lab), exact, np.ones_like(failed)) < 0.1


def test_what_is_not_finite_is_filled_from_around() -> None:
    lab, exact, _ = scene()
    broken = exact.copy()
    broken[44, 54], broken[10, 10] = np.inf, np.nan
    smooth = smooth_along_surfaces(broken, lab)
    assert np.linalg.norm(smooth - exact, axis=-1)[[44, 10], [54, 10]].max() < 0.1
    assert np.isfinite(smooth).all()


def test_it_is_what_a_plain_loop_finds() -> None:
    lab, exact, disc = scene()
    flow = cv2.GaussianBlur(exact, (0, 0), 2.0)
    cost = np.random.default_rng(4).random(disc.shape).astype(np.float32)
    smooth = smooth_along_surfaces(flow, lab, cost)
    for row, column in ((45, 33), (20, 60), (0, 0), (44, 79), (69, 55)):
        expected = plain(flow.astype(np.float64), lab.astype(np.float64), cost, row, column)
        np.testing.assert_allclose(smooth[row, column], expected, atol=1e-3)


def plain(flow: np.ndarray, lab: np.ndarray, cost: np.ndarray, row: int, column: int) -> np.ndarray:
    """The same for one pixel, in the order of its definition."""
    away = range(-smoothing.REACH, smoothing.REACH + 1, smoothing.STEP)
    place = np.array([(x, y, 1.0) for y in away for x in away])
    weight, found = np.zeros(len(place)), np.zeros((len(place), 2))
    for index, (x, y) in enumerate(place[:, :2].astype(int) + (column, row)):
        if 0 <= y < HEIGHT and 0 <= x < WIDTH:
            apart = np.abs(lab[y, x] - lab[row, column]).sum() / smoothing.COLOR_SCALE / smoothing.COLOR_SCALES
            near = np.exp(-0.5 * ((y - row) ** 2 + (x - column) ** 2) / smoothing.NEARBY**2)
            trust = np.exp(-(cost[y, x] ** 2)) + smoothing.LEAST_TRUST
            weight[index], found[index] = trust * near * max(1 - apart, 0) ** 8, flow[y, x]

    def agreement(misses: np.ndarray) -> np.ndarray:
        return np.asarray(weight / (1 + (misses**2).sum(axis=-1) / smoothing.AGREE_PX**2) ** 2)

    tried = [i for i in (int(weight.argmax()), *smoothing.TRIED) if weight[i] > 0]
    start = max(tried, key=lambda i: agreement(found - found[i]).sum())
    motion = np.array([[0, 0], [0, 0], found[start]])
    for _ in range(smoothing.ROUNDS):
        counted = agreement(found - place @ motion)
        mean_place, mean_flow = (np.average(values, axis=0, weights=counted) for values in (place[:, :2], found))
        centered = place[:, :2] - mean_place
        spread = (centered * counted[:, None]).T @ centered + smoothing.STIFFNESS * counted.sum() * np.eye(2)
        slope = np.linalg.solve(spread, (centered * counted[:, None]).T @ (found - mean_flow))
        motion = np.vstack([slope, mean_flow - mean_place @ slope])
    return np.asarray(motion[2])


def test_the_process_that_compiles_finds_what_later_ones_find(tmp_path: Path) -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from omnimotion_core.flow.smoothing import smooth_along_surfaces\n"
        "rng = np.random.default_rng(0)\n"
        "flow, lab = rng.normal(0, 4, (48, 64, 2)), rng.uniform(0, 40, (48, 64, 3))\n"
        "print(hashlib.sha256(smooth_along_surfaces(flow, lab).tobytes()).hexdigest())\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True, timeout=120)
        for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbc"))
    assert first.stdout == second.stdout
