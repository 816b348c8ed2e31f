"""Curves between what a plate stores and the display-referred picture that is matched.

Matching wants evenly spread contrast, as a display shows it. Integer plates are stored so already (log DPX
included: flat, but even) and pass unchanged. Float plates are taken as scene-linear.
"""

from collections.abc import Iterable

import numpy as np

BRIGHT_SHARE = 0.99  # share of the pixels that lie below display white after exposure
_LUMA = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)  # BT.709


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """The sRGB transfer function of linear light 0..1, to 0..1.

    Source: IEC 61966-2-1.
    """
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def decode_srgb(encoded: np.ndarray) -> np.ndarray:
    """The inverse of ``encode_srgb``."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4)


def display_from_linear(rgb: np.ndarray, white: float) -> np.ndarray:
    """Scene-linear values as a display shows them with ``white`` at full brightness.

    Args:
        rgb: (..., 3) float; negative values and NaN turn black, infinity white.
        white: linear value that is shown as 1, the same for all frames of a shot.
    Returns:
        (..., 3) uint16, 0..65535.
    """
    scaled = np.nan_to_num(rgb.astype(np.float32, copy=False) / np.float32(white), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(encode_srgb(np.clip(scaled, 0.0, 1.0)) * 65535.0).astype(np.uint16)


def find_white(pictures: Iterable[np.ndarray]) -> float:
    """The linear value to show as white: the 99th percentile of the brightest channel over some frames of a shot.

    Args:
        pictures: (H, W, 3) float each. Values that are not finite and those not above zero do not count.
    Returns:
        above zero; 1 where nothing shines.
    """
    samples = []
    for picture in pictures:
        step = max(1, int(np.sqrt(picture.shape[0] * picture.shape[1] / 65536)))  # some 65,000 pixels are plenty
        brightest = picture[::step, ::step].max(axis=-1)
        samples.append(brightest[np.isfinite(brightest) & (brightest > 0)])
    pooled = np.concatenate(samples) if samples else np.empty(0, np.float32)
    return float(np.quantile(pooled.astype(np.float64), BRIGHT_SHARE)) if len(pooled) else 1.0


def luma(rgb: np.ndarray) -> np.ndarray:
    """Brightness of a display-referred picture: (H, W, 3) of any kind to (H, W) float32 of the same range."""
    return rgb.astype(np.float32) @ _LUMA


def over_black(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A straight (not premultiplied) uint16 picture (H, W, 3) laid over black by its alpha (H, W) uint16."""
    product = rgb.astype(np.uint32) * alpha[..., None].astype(np.uint32)
    return ((product + 32767) // 65535).astype(np.uint16)
