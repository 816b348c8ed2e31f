"""Planes against their truth: projected points of a plane, with others that move by themselves."""

import numpy as np
import pytest

from blender_addon.plane_motion import contains, fitted, homography, is_convex, mapped, on_one_plane

SQUARE = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
MATRIX = np.array([[0.9, 0.1, 0.05], [-0.08, 1.1, 0.02], [0.15, -0.2, 1.0]])


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    ends = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return ends[:, :2] / ends[:, 2:]


def test_four_points_give_the_homography_of_all() -> None:
    rng = np.random.default_rng(0)
    source = np.array([[0.1, 0.2], [0.8, 0.1], [0.9, 0.7], [0.2, 0.9]])
    found = homography([tuple(p) for p in source], [tuple(p) for p in moved(source, MATRIX)])
    points = rng.uniform(0, 1, (50, 2))
    np.testing.assert_allclose([mapped(found, tuple(p)) for p in points], moved(points, MATRIX), atol=1e-9)
    found = fitted([tuple(p) for p in points], [tuple(p) for p in moved(points, MATRIX)])
    np.testing.assert_allclose([mapped(found, tuple(p)) for p in points], moved(points, MATRIX), atol=1e-6)
    with pytest.raises(ZeroDivisionError):
        fitted([tuple(p) for p in points[:3]], [tuple(p) for p in points[:3]])


def test_a_quadrangle_goes_once_around_or_not() -> None:
    assert is_convex(SQUARE)
    assert is_convex(SQUARE[::-1])
    assert not is_convex([SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3]])
    assert not is_convex([(0.0, 0.0), (1.0, 0.0), (0.2, 0.2), (0.0, 1.0)])
    assert not is_convex([(0.0, 0.0)] * 4)
    assert contains(SQUARE, (1.0, 0.5))
    assert contains(SQUARE[::-1], (0.2, 0.5))
    assert not contains(SQUARE, (1.01, 0.5))


@pytest.mark.parametrize("share", [0.0, 0.45])
def test_what_moves_otherwise_is_left_out(share: float) -> None:
    rng = np.random.default_rng(1)
    here = rng.uniform(0.2, 0.8, (40, 2))
    matrices = [np.eye(3) + (MATRIX - np.eye(3)) * t / 9 for t in range(10)]
    frames = {t: moved(here, matrix) + rng.normal(0, 2e-4, (40, 2)) for t, matrix in enumerate(matrices)}
    stray = np.arange(40) < share * 40
    tracks = []
    for row in range(40):
        away = rng.uniform(0.03, 0.06, 2) / 9 * stray[row]
        tracks.append({t: tuple(place[row] + away * t) for t, place in frames.items() if t == 0 or rng.random() < 0.9})
    found = on_one_plane(tracks, 0, 0.003)
    assert not stray[found].any()
    assert len(found) >= 0.9 * (~stray).sum()
    assert found == on_one_plane(tracks, 0, 0.003)


def test_a_line_or_too_little_is_no_plane() -> None:
    line = [{0: (0.1 * k, 0.2 * k), 1: (0.1 * k + 0.1, 0.2 * k)} for k in range(8)]
    assert on_one_plane(line, 0, 0.003) == []
    assert on_one_plane(line[:3], 0, 0.003) == []
    assert on_one_plane([{0: corner} for corner in SQUARE], 0, 0.003) == []
    assert on_one_plane([], 0, 0.003) == []
    still = [{0: corner, 1: corner} for corner in SQUARE]
    assert on_one_plane(still, 0, 0.003) == [0, 1, 2, 3]
