import numpy as np
import pytest
import torch

from omnimotion_core.model.interpolation import (
    atlas_layout,
    build_atlas,
    hat_weights,
    look_up,
    resample_weights,
    time_weights,
)


def test_hat_weights_interpolate_linearly_and_hold_beyond_the_ends() -> None:
    values = torch.tensor([1.0, 3.0, -2.0])
    at = torch.tensor([-5.0, 0.0, 0.25, 1.0, 1.5, 2.0, 9.0])
    expected = np.interp(at.numpy(), [0, 1, 2], values.numpy())
    np.testing.assert_allclose(hat_weights(at, 3) @ values, expected, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(2, 7), (6, 32), (5, 5), (1, 3)])
def test_resampling_keeps_straight_lines_straight(source: int, target: int) -> None:
    weights = resample_weights(source, target)
    np.testing.assert_allclose(weights.sum(dim=1), 1, atol=1e-6)
    line = torch.linspace(0, 1, source) if source > 1 else torch.ones(1)
    expected = torch.linspace(0, 1, target) if source > 1 else torch.ones(target)
    np.testing.assert_allclose(weights @ line, expected, atol=1e-6)


def test_no_time_knot_is_shared_across_a_cut() -> None:
    weights = time_weights([range(5), range(5, 6), range(6, 10)], 2.0)
    assert weights.shape[0] == 10
    np.testing.assert_allclose(weights.sum(dim=1), 1, atol=1e-6)
    used = [set(torch.nonzero(weights[list(frames)].sum(dim=0)).flatten().tolist())
            for frames in (range(5), range(5, 6), range(6, 10))]  # fmt: skip
    assert all(not first & second for first, second in zip(used, used[1:], strict=False))


def test_a_knot_a_frame_gives_every_frame_its_own() -> None:
    np.testing.assert_allclose(time_weights([range(7)], 1.0), np.eye(7), atol=1e-6)


@pytest.mark.parametrize("num_tiles", [1, 2, 5, 9, 12])
def test_lookups_are_bilinear_in_their_own_tile(num_tiles: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randn(num_tiles, 2, 4, 6, generator=generator, dtype=torch.float64)
    which = torch.randint(num_tiles, (200,), generator=generator)
    xy = torch.rand(200, 2, generator=generator, dtype=torch.float64) * 2.6 - 1.3  # some beyond the tile
    found = look_up(build_atlas(tiles), num_tiles, which, xy)
    for point in range(200):
        x = (xy[point, 0].clamp(-1, 1).item() + 1) / 2 * 5
        y = (xy[point, 1].clamp(-1, 1).item() + 1) / 2 * 3
        i, j = min(int(x), 4), min(int(y), 2)
        u, v = x - i, y - j
        tile = tiles[which[point]]
        expected = (
            (1 - u) * (1 - v) * tile[:, j, i] + u * (1 - v) * tile[:, j, i + 1]
            + (1 - u) * v * tile[:, j + 1, i] + u * v * tile[:, j + 1, i + 1]
        )  # fmt: skip
        np.testing.assert_allclose(found[point], expected, atol=1e-9)


def test_an_atlas_of_layers_holds_the_atlas_of_each() -> None:
    tiles = torch.randn(3, 5, 2, 4, 4)
    both = build_atlas(tiles)
    for layer in range(3):
        np.testing.assert_array_equal(both[layer], build_atlas(tiles[layer]))


def test_the_atlas_is_nearly_square_and_holds_all_tiles() -> None:
    for count in range(1, 60):
        columns, rows = atlas_layout(count)
        assert columns * rows >= count
        assert 0 <= columns - rows <= 1
