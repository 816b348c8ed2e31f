import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnimotion_core import coordinates as c

SIZE = (320, 240)
pixels = st.tuples(st.floats(-500, 900), st.floats(-500, 900)).map(np.array)


@given(pixels)
def test_every_conversion_is_undone_by_its_inverse(xy: np.ndarray) -> None:
    np.testing.assert_allclose(c.raster_to_pixel(c.pixel_to_raster(xy)), xy, atol=1e-9)
    np.testing.assert_allclose(c.marker_to_pixel(c.pixel_to_marker(xy, SIZE), SIZE), xy, atol=1e-9)
    np.testing.assert_allclose(c.normalized_to_pixel(c.pixel_to_normalized(xy, SIZE), SIZE), xy, atol=1e-9)
    np.testing.assert_allclose(c.lower_left_to_pixel(c.pixel_to_lower_left(xy, SIZE), SIZE), xy, atol=1e-9)
    np.testing.assert_allclose(c.centered_to_pixel(c.pixel_to_centered(xy, SIZE), SIZE), xy, atol=1e-9)
    there = c.rescale_pixels(xy, SIZE, (854, 480))
    np.testing.assert_allclose(c.rescale_pixels(there, (854, 480), SIZE), xy, atol=1e-9)


def test_values_computed_by_hand() -> None:
    xy = np.array([160.0, 120.0])
    np.testing.assert_allclose(c.pixel_to_raster(xy), [160.5, 120.5])
    np.testing.assert_allclose(c.pixel_to_marker(xy, SIZE), [160.5 / 320, 119.5 / 240])
    np.testing.assert_allclose(c.pixel_to_lower_left(xy, SIZE), [160.5, 119.5])
    np.testing.assert_allclose(c.pixel_to_centered(xy, SIZE), [160.0, 119.0])
    np.testing.assert_allclose(c.pixel_to_normalized(np.array([[0.0, 0.0], [319.0, 239.0]]), SIZE), [[-1, -1], [1, 1]])
    np.testing.assert_allclose(c.rescale_pixels(np.array([0.0, 0.0]), SIZE, (640, 480)), [0.5, 0.5])


def test_marker_corners_are_the_pictures_corners() -> None:
    np.testing.assert_allclose(c.pixel_to_marker(np.array([[-0.5, 239.5], [319.5, -0.5]]), SIZE), [[0, 0], [1, 1]])


def test_tensors_are_converted_as_arrays_are() -> None:
    xy = np.array([[3.5, -7.0], [100.0, 200.0]])
    for convert in (c.pixel_to_normalized, c.normalized_to_pixel):
        np.testing.assert_allclose(convert(torch.from_numpy(xy), SIZE), convert(xy, SIZE))
    half = c.rescale_pixels(torch.from_numpy(xy), SIZE, (160, 120))
    np.testing.assert_allclose(half, c.rescale_pixels(xy, SIZE, (160, 120)))


def test_float32_stays_float32() -> None:
    xy = np.zeros(2, np.float32)
    for found in (c.pixel_to_normalized(xy, SIZE), c.normalized_to_pixel(xy, SIZE), c.rescale_pixels(xy, SIZE, (8, 8))):
        assert found.dtype == np.float32


def test_a_picture_of_one_pixel_has_a_place() -> None:
    assert np.isfinite(c.pixel_to_normalized(np.zeros(2), (1, 1))).all()


def test_the_grid_holds_every_pixels_center() -> None:
    grid = c.pixel_grid((3, 2))
    assert grid.shape == (2, 3, 2)
    assert grid[1, 2].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("xy", "expected"), [((-0.5, 0), True), ((-0.51, 0), False), ((319.5, 239.5), True), ((0, 239.6), False)]
)
def test_the_half_pixel_border_belongs_to_the_picture(xy: tuple[float, float], expected: bool) -> None:
    assert c.inside(np.array(xy), SIZE) == expected
