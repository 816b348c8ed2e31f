import numpy as np
import pytest
import torch

from omnimotion_core.config import ModelConfig
from omnimotion_core.coordinates import normalized_to_pixel, pixel_grid, pixel_to_normalized
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.optimization.warm_start import (
    motions_by_maps,
    pair_motions,
    solve_frame_maps,
    warm_started_field,
)

SIZE = (80, 60)
SHAPE = FieldShape(size=SIZE, working_size=SIZE, num_frames=9)


def camera(t: float) -> np.ndarray:
    """Where the picture's points are in frame t: a drifting, turning, zooming camera; (3, 3) in pixels."""
    angle, scale = 0.03 * t, 1.02**t
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, 3.0 * t], [s, c, -1.5 * t], [0, 0, 1]])


def matches_of(pairs: list[tuple[int, int]], wrong: float = 0.0) -> Correspondences:
    """Exact matches under ``camera``, but for the share that is ``wrong``."""
    rng = np.random.default_rng(0)
    source, target, pair = [], [], []
    grid = pixel_grid(SIZE)[::2, ::2].reshape(-1, 2)
    for row, (i, j) in enumerate(pairs):
        matrix = camera(j) @ np.linalg.inv(camera(i))
        moved = grid @ matrix[:2, :2].T + matrix[:2, 2]
        bad = rng.random(len(grid)) < wrong
        moved[bad] += rng.normal(scale=20, size=(bad.sum(), 2))
        source.append(grid)
        target.append(moved)
        pair.append(np.full(len(grid), row, np.int32))
    return Correspondences(
        pairs=np.array(pairs, np.int32), pair=np.concatenate(pair), source=np.concatenate(source).astype(np.int16),
        target=np.concatenate(target).astype(np.float32), weight=np.full(sum(map(len, pair)), 255, np.uint8),
        hidden_pair=np.zeros(0, np.int32), hidden_source=np.zeros((0, 2), np.int16),
    )  # fmt: skip


def neighbors(gaps: tuple[int, ...] = (1, 2, 4)) -> list[tuple[int, int]]:
    return [(i, j) for i in range(9) for j in range(9) if abs(i - j) in gaps]


def map_errors(maps: np.ndarray, pairs: list[tuple[int, int]]) -> float:
    """The largest miss in pixels of i → canonical → j against the camera."""
    grid = pixel_grid(SIZE)[::10, ::10].reshape(-1, 2).astype(np.float64)
    worst = 0.0
    for i, j in pairs:
        a, b = (np.vstack([maps[t], [0, 0, 1]]) for t in (i, j))
        there = np.linalg.inv(b) @ a
        moved = pixel_to_normalized(grid, SIZE) @ there[:2, :2].T + there[:2, 2]
        matrix = camera(j) @ np.linalg.inv(camera(i))
        exact = grid @ matrix[:2, :2].T + matrix[:2, 2]
        worst = max(worst, np.abs(normalized_to_pixel(moved, SIZE) - exact).max())
    return worst


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_the_cameras_motion_is_found(wrong: float) -> None:
    maps = solve_frame_maps(SHAPE, pair_motions(matches_of(neighbors(), wrong=wrong), seed=0))
    np.testing.assert_allclose(maps[4], np.eye(2, 3), atol=1e-12)
    assert map_errors(maps, [(0, 8), (8, 0), (3, 5), (1, 7)]) < 0.05


def test_the_maps_tell_how_far_pairs_move() -> None:
    maps = solve_frame_maps(SHAPE, pair_motions(matches_of(neighbors()), seed=0))
    found = motions_by_maps(SHAPE, maps, np.array([[0, 8], [6, 1]], np.int32))
    assert set(found) == {(0, 8), (6, 1)}
    for (i, j), (matrix, _) in found.items():
        np.testing.assert_allclose(matrix, (camera(j) @ np.linalg.inv(camera(i)))[:2], atol=0.05)


def test_contradicting_pairs_do_not_shrink_the_maps() -> None:
    motions = pair_motions(matches_of(neighbors((1,))), seed=0)
    lie = np.array([[0.5, 0.0, 20.0], [0.0, 0.5, 15.0]])
    motions[0, 7] = (lie, 0.3)
    motions[1, 8] = (lie, 0.3)
    assert map_errors(solve_frame_maps(SHAPE, motions), [(0, 8), (2, 6)]) < 0.5


def test_a_frame_without_matches_stays_with_its_neighbor() -> None:
    motions = {pair: motion for pair, motion in pair_motions(matches_of(neighbors()), seed=0).items() if 8 not in pair}
    maps = solve_frame_maps(SHAPE, motions)
    np.testing.assert_allclose(maps[8], maps[7], atol=1e-6)


def test_no_pair_at_all_leaves_identities() -> None:
    np.testing.assert_array_equal(solve_frame_maps(SHAPE, {}), np.tile(np.eye(2, 3), (9, 1, 1)))


def test_each_shot_has_a_reference_of_its_own() -> None:
    shape = FieldShape(size=SIZE, working_size=SIZE, num_frames=9, cuts=(5,))
    pairs = [(i, j) for i, j in neighbors() if (i < 5) == (j < 5)]
    maps = solve_frame_maps(shape, pair_motions(matches_of(pairs), seed=0))
    for reference in (2, 7):
        np.testing.assert_allclose(maps[reference], np.eye(2, 3), atol=1e-12)
    assert map_errors(maps, [(0, 4), (5, 8)]) < 0.05


def test_the_tables_cover_all_that_the_camera_sees() -> None:
    field = warm_started_field(SHAPE, ModelConfig(), matches_of(neighbors()), np.zeros((9, 3, 30, 40)), seed=0)
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]])
    for t in range(9):
        canonical = field.affine(torch.full((4,), t), corners)
        assert ((canonical - field.couplings.center).abs() <= field.couplings.extent * 1.0001).all()
