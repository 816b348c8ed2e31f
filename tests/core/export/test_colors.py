import numpy as np

from omnimotion_core.export.colors import confidence_color, position_color


def luminance(rgb: np.ndarray) -> np.ndarray:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ [0.2126, 0.7152, 0.0722])


def test_confidence_runs_from_red_to_blue_and_takes_what_is_out_of_range() -> None:
    colors = confidence_color(np.array([0.0, 1.0, -3.0, 5.0, np.nan]))
    assert colors[0, 0] > 0.7 > 0.3 > colors[0, 2]
    assert colors[1, 2] > 0.7 > 0.3 > colors[1, 0]
    np.testing.assert_array_equal(colors[[2, 3, 4]], colors[[0, 1, 0]])


def test_places_have_colors_that_can_be_shown_are_about_equally_bright_and_change_smoothly() -> None:
    x, y = np.meshgrid(np.arange(192.0), np.arange(108.0))
    colors = position_color(np.stack([x, y], axis=-1), (192, 108))
    assert colors.min() >= 0
    assert colors.max() <= 1
    assert luminance(colors).min() > 0.3
    assert luminance(colors).max() < 0.65
    away = np.hypot(x - 95.5, y - 53.5) > 20  # at the very centre the hue turns within a few pixels
    assert np.abs(np.diff(colors, axis=1))[away[:, 1:]].max() < 0.05


def test_opposite_corners_differ() -> None:
    corners = position_color(np.array([[0.0, 0.0], [191.0, 107.0]]), (192, 108))
    assert np.abs(corners[0] - corners[1]).max() > 0.3
