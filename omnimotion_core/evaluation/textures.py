"""Procedural textures: rich in detail at every scale, without repeats inside one period, and free of aliasing."""

import cv2
import numpy as np

_GRAIN = 12.0  # standard deviation of the grain, gray levels
_SMALLEST_PX = 2.5  # shortest wavelength in pixels of the plate; shorter ones would flicker when they move
_DARKEST, _BRIGHTEST = 24.0, 232.0  # of painted colors: the grain must not be clipped away


def make_texture(
    rng: np.random.Generator, side: int, texels_per_px: float, palette: np.ndarray, *, softness: float = 1.0
) -> np.ndarray:
    """A texture that repeats after ``side`` texels in both directions.

    Colored clouds, painted over with shapes of many sizes, under a grain whose spectrum falls as one over frequency,
    all of it without detail that the plate's pixels could not hold.

    Args:
        rng: where all randomness comes from.
        side: texels along each axis.
        texels_per_px: how many texels a pixel of the plate holds.
        palette: (K, 3) colors, 0..255, K at least 2.
        softness: by how much larger than the pixels allow its smallest detail is.
    Returns:
        (side, side, 3) float32, 0..255.
    """
    # Wavelength, texels; the texture's own grid is a limit too.
    smallest = _SMALLEST_PX * softness * max(texels_per_px, 1.0)
    weights = np.exp(1.5 * np.stack([_noise(rng, side, exponent=2.0, smallest=smallest) for _ in palette], axis=-1))
    clouds = (weights / weights.sum(axis=-1, keepdims=True)) @ palette.astype(np.float32)
    painted = _paint_shapes(rng, np.ascontiguousarray(clouds), texels_per_px, palette)
    tint = rng.uniform(0.8, 1.2, 3).astype(np.float32)
    painted += _GRAIN * tint * _noise(rng, side, exponent=1.0, smallest=smallest)[..., None]
    return np.asarray(np.clip(_soften(painted, smallest), 0, 255))


def make_shading(rng: np.random.Generator, side: int, color: np.ndarray, depth: float) -> np.ndarray:
    """A bare surface that repeats after ``side`` texels: one color, (3,), under light that hardly changes.

    ``depth`` is the light's standard deviation in gray levels: (side, side, 3) float32, 0..255.
    """
    light = _noise(rng, side, exponent=3.0, smallest=side / 4)
    return np.asarray(np.clip(np.asarray(color, np.float32) + depth * light[..., None], 0, 255))


def _noise(rng: np.random.Generator, side: int, exponent: float, smallest: float) -> np.ndarray:
    """Periodic noise whose amplitude falls as frequency to ``-exponent``: (side, side) float32, mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]).astype(np.float32)  # per texel
    gain = np.maximum(frequency, 2.0 / side) ** -exponent * ((frequency > 0) & (frequency < 1.0 / smallest))
    spectrum = rng.standard_normal((*gain.shape, 2), np.float32).view(np.complex64)[..., 0] * gain
    noise = np.fft.irfft2(spectrum, s=(side, side))
    return np.asarray(noise / noise.std(), np.float32)


def _soften(picture: np.ndarray, smallest: float) -> np.ndarray:
    """``picture`` with waves of ``smallest`` texels halved and shorter ones faded out, periodically."""
    sigma = 0.19 * smallest
    pad = int(np.ceil(4 * sigma))
    padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="wrap")
    return np.asarray(cv2.GaussianBlur(padded, (0, 0), sigma)[pad:-pad, pad:-pad])


def _paint_shapes(
    rng: np.random.Generator, picture: np.ndarray, texels_per_px: float, palette: np.ndarray
) -> np.ndarray:
    """Discs, rings, blocks and strokes over ``picture``, drawn again beyond its edges so that the texture repeats."""
    side = picture.shape[0]
    count = int((side / texels_per_px) ** 2 / 220)  # one for so many square pixels
    radii = np.minimum(texels_per_px * 3.0 * (rng.pareto(1.6, count) + 1.0), side / 14)  # few large ones, many small
    for radius in np.sort(radii)[::-1].tolist():  # large ones first: the small ones lie on them
        color = palette[rng.integers(len(palette))] * rng.uniform(0.6, 1.35) + rng.normal(0, 14, 3)
        kind, center, angle = int(rng.integers(4)), rng.uniform(0, side, 2), float(rng.uniform(0, 360))
        box = (2 * radius, 2 * radius * float(rng.uniform(0.35, 1.0)))
        for shift_x in _shifts(center[0], radius * 1.5, side):
            for shift_y in _shifts(center[1], radius * 1.5, side):
                at = center + np.array([shift_x, shift_y])
                _paint_shape(picture, kind, at, box, angle, np.clip(color, _DARKEST, _BRIGHTEST))
    return picture


def _shifts(at: float, reach: float, side: int) -> list[int]:
    """By how many texels a shape is repeated along one axis: only where it reaches into the texture."""
    return [shift for shift in (-side, 0, side) if -reach < at + shift < side + reach]


def _paint_shape(
    picture: np.ndarray, kind: int, at: np.ndarray, box: tuple[float, float], angle: float, color: np.ndarray
) -> None:
    turned = ((float(at[0]), float(at[1])), box, angle)
    tone, radius = color.tolist(), box[0] / 2
    if kind == 0:
        cv2.ellipse(picture, turned, tone, -1)
    elif kind == 1:
        cv2.ellipse(picture, turned, tone, max(1, round(radius * 0.35)))
    elif kind == 2:
        cv2.fillPoly(picture, [np.round(cv2.boxPoints(turned)).astype(np.int32)], tone)
    else:
        along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))]) * radius * 1.4
        start, end = np.round(at - along).astype(int), np.round(at + along).astype(int)
        cv2.line(picture, start.tolist(), end.tolist(), tone, max(1, round(radius * 0.3)))
