"""Colors that mean something: a track's confidence, and where it began. Needs numpy alone."""

import numpy as np

from omnimotion_core.coordinates import Size

# From doubtful to sure; told apart by the common kinds of color blindness, and on dark and bright plates.
_CONFIDENCE = np.array([[0.84, 0.15, 0.16], [0.99, 0.68, 0.22], [0.20, 0.72, 0.93]], np.float64)


def confidence_color(confidence: np.ndarray) -> np.ndarray:
    """Confidence (...) in 0..1 to display-referred RGB (..., 3) in 0..1: red, amber, blue."""
    level = np.clip(np.nan_to_num(np.asarray(confidence, np.float64)), 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(_CONFIDENCE))
    return np.stack([np.interp(level, stops, _CONFIDENCE[:, channel]) for channel in range(3)], axis=-1)


def position_color(xy: np.ndarray, size: Size) -> np.ndarray:
    """Pixels (..., 2) to display-referred RGB (..., 3) in 0..1: neighbors look alike, distant points differ.

    The direction from the picture's centre gives the hue and the distance the chroma, at one lightness, so that no
    part of the picture stands out.
    Source: the OKLCh color space, Ottosson 2020, bottosson.github.io/posts/oklab.
    """
    offset = (np.asarray(xy, np.float64) + 0.5) / np.asarray(size, np.float64) * 2.0 - 1.0
    hue = np.arctan2(offset[..., 1], offset[..., 0])
    chroma = 0.07 + 0.08 * np.clip(np.hypot(offset[..., 0], offset[..., 1]), 0.0, 1.0)
    return _oklab_to_srgb(np.full_like(hue, 0.78), chroma * np.cos(hue), chroma * np.sin(hue))


def _oklab_to_srgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lab = np.stack([lightness, a, b], axis=-1)
    lms = lab @ np.array([[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728],
                          [1.0, -0.0894841775, -1.2914855480]]).T  # fmt: skip
    linear = lms**3 @ np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                                [-1.2684380046, 2.6097574011, -0.3413193965],
                                [-0.0041960863, -0.7034186147, 1.7076147010]]).T  # fmt: skip
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
