import numpy as np
import pytest

from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.errors import FlowError
from omnimotion_core.flow import consistency
from omnimotion_core.flow.consistency import (
    appearance_error,
    compose,
    cycle_error,
    match_weight,
    reached,
    resize_flow,
    sample,
    structure_similarity,
    targets,
)
from omnimotion_core.flow.loops import color_differences

SIZE = (40, 30)


def affine_flow(matrix: np.ndarray) -> np.ndarray:
    """The exact flow of the motion x -> matrix x, matrix (2, 3)."""
    grid = pixel_grid(SIZE)
    return (grid @ matrix[:, :2].T + matrix[:, 2] - grid).astype(np.float32)


def translation(dx: float, dy: float) -> np.ndarray:
    return np.broadcast_to(np.array([dx, dy], np.float32), (*SIZE[::-1], 2)).copy()


def test_sample_reads_between_pixels_as_a_loop_does() -> None:
    rng = np.random.default_rng(0)
    picture = rng.random((8, 9)).astype(np.float32)
    positions = np.array([[0, 0], [8, 7], [2.25, 3.5], [7.75, 0.125]], np.float32)
    for (x, y), found in zip(positions, sample(picture, positions[None])[0], strict=True):
        i, j, u, v = int(x), int(y), x % 1, y % 1
        corner = picture[j : j + 2, i : i + 2]
        corner = np.pad(corner, ((0, 2 - corner.shape[0]), (0, 2 - corner.shape[1])))
        expected = (corner * np.outer([1 - v, v], [1 - u, u])).sum()
        assert found == pytest.approx(expected, abs=1e-6)


def test_cycle_error_of_an_exact_inverse_is_zero_and_infinite_outside() -> None:
    error = cycle_error(translation(5, -3), translation(-5, 3))
    assert np.isinf(error[:, 36:]).all()
    assert np.isinf(error[:2]).all()
    assert error[3:, :35].max() == 0


def test_cycle_error_is_the_distance_missed() -> None:
    assert cycle_error(translation(2, 0), translation(1, 4))[10, 10] == pytest.approx(5.0)


def test_cycle_error_refuses_two_sizes() -> None:
    with pytest.raises(FlowError, match="same size"):
        cycle_error(translation(0, 0), np.zeros((5, 5, 2), np.float32))


def test_compose_of_two_affine_motions_is_their_product() -> None:
    a = np.array([[1.02, 0.03, 0.5], [-0.02, 0.99, 1.0]])
    b = np.array([[0.97, -0.01, 1.5], [0.02, 1.01, -2.0]])
    product = b @ np.vstack([a, [0, 0, 1]])
    composed = compose(affine_flow(a), affine_flow(b))
    inner = (slice(6, -6), slice(6, -6))  # beyond, the second flow is read at the border
    np.testing.assert_allclose(composed[inner], affine_flow(product)[inner], atol=2e-3)


def test_a_change_of_exposure_is_no_difference_of_appearance() -> None:
    rng = np.random.default_rng(1)
    source = rng.random((30, 40, 3)).astype(np.float32) * 50
    brighter = source + np.array([12, 1, -2], np.float32)
    error = appearance_error(source, brighter, translation(0, 0), np.ones((30, 40), bool))
    assert error.max() < 1e-4
    brighter[5, 5] += 30
    assert appearance_error(source, brighter, translation(0, 0), np.ones((30, 40), bool))[5, 5] == pytest.approx(30)


def test_of_a_large_picture_few_places_tell_the_change_of_exposure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def spied(source: np.ndarray, target: np.ndarray, flow: np.ndarray, step: int, found: np.ndarray) -> None:
        asked.append(found.shape[:2])
        color_differences(source, target, flow, step, found)

    monkeypatch.setattr(consistency, "color_differences", spied)
    source = np.random.default_rng(1).random((480, 854, 3)).astype(np.float32) * 50
    noise = np.random.default_rng(2).normal(0, 1, source.shape).astype(np.float32)
    still, all_of_it = np.zeros((480, 854, 2), np.float32), np.ones((480, 854), bool)
    error = appearance_error(source, source + noise + np.float32(12), still, all_of_it)
    assert error.mean() == pytest.approx(np.abs(noise).mean(), rel=0.01)
    assert 6000 < np.prod(asked[0]) < 10_000


def test_weights_fall_from_one_to_zero_at_the_bounds() -> None:
    cycle = np.array([[0, 0.5, 1.0, 1.01, np.inf]], np.float32)
    none, alike = np.zeros_like(cycle), np.ones_like(cycle)
    weight = match_weight(cycle, none, alike, none, max_cycle=1.0, max_appearance=12.0)[0]
    assert weight[0] == 1
    assert 0 < weight[2] < weight[1] < 1
    assert weight[3] == weight[4] == 0
    assert match_weight(none, none + 12.1, alike, none, max_cycle=1.0, max_appearance=12.0).max() == 0
    structure = np.array([[1, 0.8, 0.6, 0.4, -1]], np.float32)
    weight = match_weight(none, none, structure, none, max_cycle=1.0, max_appearance=12.0)[0]
    np.testing.assert_allclose(weight, [1, 1, 0.5, 0, 0], atol=1e-6)
    moved = np.array([[0, 0.1, 0.2, 0.4, 0.8]], np.float32)
    weight = match_weight(none, none, alike, moved, max_cycle=1.0, max_appearance=12.0)[0]
    np.testing.assert_allclose(weight, np.exp(-((moved[0] / 0.4) ** 2)), atol=1e-6)


def test_structure_is_compared_as_a_loop_does() -> None:
    rng = np.random.default_rng(2)
    source, target = (rng.integers(0, 255, SIZE[::-1], dtype=np.uint8) for _ in range(2))
    similarity = structure_similarity(source, target, translation(3, 1))
    for x, y in ((8, 9), (20, 14), (31, 22)):
        a = source[y - 4 : y + 5, x - 4 : x + 5].astype(float)
        b = target[y - 3 : y + 6, x - 1 : x + 8].astype(float)
        expected = (2 * np.mean((a - a.mean()) * (b - b.mean())) + 20) / (a.var() + b.var() + 20)
        assert similarity[y, x] == pytest.approx(expected, abs=1e-3)


def test_brightness_and_bare_ground_tell_nothing_of_structure_and_an_edge_does() -> None:
    flat = np.full(SIZE[::-1], 90, np.uint8)
    edge = flat.copy()
    edge[:, 20:] = 160
    inner = (slice(6, -6), slice(17, 23))
    assert structure_similarity(flat, flat + np.uint8(30), translation(0, 0)).min() > 0.99
    assert structure_similarity(edge, edge + np.uint8(30), translation(0, 0)).min() > 0.99
    assert structure_similarity(edge, flat, translation(0, 0))[inner].max() < 0.1
    assert structure_similarity(edge, 250 - edge, translation(0, 0))[inner].max() < 0


def test_what_nothing_comes_from_is_not_reached() -> None:
    backward = translation(0, 0)
    backward[:, 10:20, 0] = 10  # columns 10 to 19 of the other frame show what was at 20 to 29: 10 to 19 went hidden
    hit = reached(backward)
    assert not hit[:, 12:18].any()
    assert hit[:, :9].all()
    assert hit[:, 21:].all()


def test_resized_flow_keeps_the_motion_in_the_new_pixels() -> None:
    flow = translation(3, -2)
    np.testing.assert_allclose(resize_flow(flow, (80, 90))[5, 5], [6, -6])
    np.testing.assert_allclose(resize_flow(flow, (20, 15))[5, 5], [1.5, -1])
    assert resize_flow(flow, SIZE) is flow


def test_targets_are_the_pixels_moved() -> None:
    np.testing.assert_array_equal(targets(translation(2, 1))[3, 4], [6, 4])


def between(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """``picture`` (H, W, C) between four pixels, beyond the border as at the border."""
    height, width = picture.shape[:2]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    u, v = x - left, y - top
    upper = picture[top, left] * (1 - u) + picture[top, left + 1] * u
    lower = picture[top + 1, left] * (1 - u) + picture[top + 1, left + 1] * u
    mixed: np.ndarray = upper * (1 - v) + lower * v
    return mixed


@pytest.mark.parametrize("reach", [2.0, 40.0])
def test_loops_over_pixels_do_what_is_written_down_pixel_by_pixel(reach: float) -> None:
    rng = np.random.default_rng(1)
    width, height = SIZE
    forward, backward = rng.uniform(-reach, reach, (2, height, width, 2)).astype(np.float32)
    source, target = rng.uniform(0, 100, (2, height, width, 3)).astype(np.float32)
    trusted = rng.random((height, width)) < 0.3
    cycle, colors = np.full((height, width), np.inf), np.zeros((height, width, 3))
    came = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            to_x, to_y = x + float(forward[y, x, 0]), y + float(forward[y, x, 1])
            colors[y, x] = between(target, to_x, to_y) - source[y, x]
            if -0.5 <= to_x <= width - 0.5 and -0.5 <= to_y <= height - 0.5:
                cycle[y, x] = np.linalg.norm(forward[y, x] + between(backward, to_x, to_y))
                row, column = min(round(max(to_y, 0)), height - 1), min(round(max(to_x, 0)), width - 1)
                came[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    exposure = np.median(colors[::3, ::3][trusted[::3, ::3]], axis=0)
    np.testing.assert_allclose(cycle_error(forward, backward), cycle, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        appearance_error(source, target, forward, trusted), np.abs(colors - exposure).mean(axis=-1), atol=1e-3
    )
    np.testing.assert_array_equal(reached(forward), came)
    assert np.isinf(cycle).any()


def test_flow_that_is_no_number_is_no_match_and_does_no_harm() -> None:
    broken = translation(1, 1)
    broken[4, 5], broken[6, 7] = np.nan, np.inf
    assert np.isinf(cycle_error(broken, translation(-1, -1))[[4, 6], [5, 7]]).all()
    assert cycle_error(translation(1, 1), broken).shape == SIZE[::-1]
    black = np.zeros((*SIZE[::-1], 3), np.float32)
    assert appearance_error(black, black, broken, np.ones(SIZE[::-1], bool)).max() == 0
    assert reached(broken)[8, 8]
