"""Polygons painted, against a slow look at each pixel's centre."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from blender_addon.matte import Matte


def inside(polygons: list[list[tuple[float, float]]], size: tuple[int, int]) -> np.ndarray:
    """Even-odd at the centre of each pixel, by a ray to the right."""
    width, height = size
    found = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = (column + 0.5) / width, 1 - (row + 0.5) / height
            for corners in polygons:
                for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
                    if (ay > y) != (by > y) and ax + (y - ay) / (by - ay) * (bx - ax) > x:
                        found[row, column] ^= True
    return found


def read(matte: Matte, path: Path) -> np.ndarray:
    matte.write(path)
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_filled_by_the_even_odd_rule(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    polygons = [[(float(x), float(y)) for x, y in rng.uniform(-0.4, 1.4, (rng.integers(3, 8), 2))] for _ in range(2)]
    matte = Matte((37, 23))
    matte.fill(polygons)
    np.testing.assert_array_equal(read(matte, tmp_path / "new" / "matte.png"), inside(polygons, (37, 23)) * 255)


def test_mattes_are_joined_inverted_and_empty(tmp_path: Path) -> None:
    left, top = Matte((8, 4)), Matte((8, 4))
    left.fill([[(0, 0), (0.5, 0), (0.5, 1), (0, 1)]])
    top.fill([[(0, 0.5), (1, 0.5), (1, 1), (0, 1)]])
    a, b = read(left, tmp_path / "a.png") > 0, read(top, tmp_path / "b.png") > 0
    assert a[:, :4].all()
    assert not a[:, 4:].any()
    assert b[:2].all()
    assert not b[2:].any()
    left.add(top)
    np.testing.assert_array_equal(read(left, tmp_path / "c.png") > 0, a | b)
    left.add(top, subtract=True)
    np.testing.assert_array_equal(read(left, tmp_path / "d.png") > 0, a & ~b)
    left.invert()
    np.testing.assert_array_equal(read(left, tmp_path / "e.png") > 0, ~(a & ~b))
    assert Matte((3, 3)).empty
    assert not left.empty


@pytest.mark.parametrize(
    "polygon", [[], [(0.5, 0.5)], [(0, 0.5), (1, 0.5)], [(2, 2), (3, 2), (3, 3)], [(0, -2), (1, -2), (1, -1)]]
)
def test_what_covers_nothing_paints_nothing(polygon: list[tuple[float, float]]) -> None:
    matte = Matte((5, 5))
    matte.fill([polygon])
    assert matte.empty
