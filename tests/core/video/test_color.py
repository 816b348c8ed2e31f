"""Curves against their definition, and pixels that are no numbers."""

import numpy as np
import pytest

from omnimotion_core.video.color import decode_srgb, display_from_linear, encode_srgb, find_white, luma, over_black


def test_srgb_by_its_definition_and_back() -> None:
    linear = np.linspace(0, 1, 1001)
    slow = [12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in linear]
    np.testing.assert_allclose(encode_srgb(linear), slow, atol=1e-12)
    np.testing.assert_allclose(decode_srgb(encode_srgb(linear)), linear, atol=1e-7)  # its two halves miss by 4e-8
    assert encode_srgb(np.array(0.18)) == pytest.approx(0.4613561)


def test_what_is_no_number_gets_a_place() -> None:
    strange = np.array([[np.nan, np.inf, -np.inf], [-1.0, 0.0, 1e30], [2.0, 1.0, 0.5]], np.float32)
    shown = display_from_linear(strange, white=2.0)
    assert shown.dtype == np.uint16
    np.testing.assert_array_equal(shown[:2], [[0, 65535, 0], [0, 0, 65535]])
    assert shown[2, 0] == 65535
    assert shown[2, 2] == round(float(encode_srgb(np.array(0.25))) * 65535)


def test_white_is_a_percentile_and_ignores_rubbish() -> None:
    picture = np.full((100, 100, 3), 0.5, np.float32)
    picture[0, :10] = [np.nan, np.inf, -np.inf]
    picture[1, :10] = 1e6  # a tenth of a percent of fireflies does not darken the shot
    assert find_white([picture]) == pytest.approx(0.5)
    assert find_white([np.zeros((8, 8, 3), np.float32)]) == 1.0
    assert find_white([]) == 1.0


def test_white_scales_with_the_exposure() -> None:
    picture = np.random.default_rng(0).random((50, 60, 3)).astype(np.float32)
    assert find_white([picture * 8]) == pytest.approx(8 * find_white([picture]), rel=1e-5)
    np.testing.assert_array_equal(
        display_from_linear(picture * 8, 8 * find_white([picture])), display_from_linear(picture, find_white([picture]))
    )


def test_over_black_rounds_to_nearest() -> None:
    rgb = np.array([[[65535, 1, 32768]]], np.uint16)
    for alpha in (0, 1, 32767, 65535):
        expected = np.rint(rgb.astype(np.float64) * alpha / 65535)
        np.testing.assert_array_equal(over_black(rgb, np.full((1, 1), alpha, np.uint16)), expected)


def test_luma_of_grey_is_grey() -> None:
    assert luma(np.full((2, 2, 3), 1234, np.uint16)) == pytest.approx(np.full((2, 2), 1234), abs=0.01)
