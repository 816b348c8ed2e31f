"""Pictures resampled by dense motion, and several of them blended.

A map of source positions (H, W, 2) holds for each pixel where its value is read: pixels of the source, (0, 0) the
centre of the top-left one, y down.
"""

from collections.abc import Sequence

import numpy as np

from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.trajectories.dense import DenseFlow

LEAST_CONFIDENCE = 1e-3  # what is seen counts a little, however unsure it is, so that it is never dropped for nothing
_ROWS = 128  # read at once, which bounds what a large plate takes


def positions(dense: DenseFlow) -> np.ndarray:
    """Where each pixel of the source frame is in the target frame, (H, W, 2) float32 as (x, y)."""
    height, width = dense.vectors.shape[:2]
    return pixel_grid((width, height)) + dense.vectors


def read_bilinear(picture: np.ndarray, at: np.ndarray) -> np.ndarray:
    """``picture`` (H, W, C) float32 at positions (h, w, 2): (h, w, C), bilinear; the border's value beyond it.

    Exact in the position, unlike OpenCV's interpolation, which rounds it to 1/32 pixel.
    """
    height, width, channels = picture.shape
    flat = np.ascontiguousarray(picture, np.float32).reshape(-1, channels)
    out = np.empty((*at.shape[:2], channels), np.float32)
    for top in range(0, at.shape[0], _ROWS):
        strip = at[top : top + _ROWS]
        x = np.clip(strip[..., 0], 0.0, width - 1).astype(np.float32, copy=False)
        y = np.clip(strip[..., 1], 0.0, height - 1).astype(np.float32, copy=False)
        left = np.minimum(x.astype(np.int64), max(width - 2, 0))
        above = np.minimum(y.astype(np.int64), max(height - 2, 0))
        across, down = (x - left)[..., None], (y - above)[..., None]
        corner, right, below = above * width + left, int(width > 1), width * int(height > 1)
        upper = flat[corner] * (1 - across) + flat[corner + right] * across
        lower = flat[corner + below] * (1 - across) + flat[corner + below + right] * across
        out[top : top + _ROWS] = upper * (1 - down) + lower * down
    return out


def blend_weights(flows: Sequence[DenseFlow]) -> np.ndarray:
    """How much each of several reference frames counts at the pixels of one frame, (R, H, W) float32.

    Where a reference's surface is seen, it counts by its confidence and by its nearness in time, so that one dissolves
    into the next, and at a reference frame that one alone is seen. They add up to 1, or to 0 where none is seen.

    Args:
        flows: from that one frame to each reference.
    """
    weights = np.stack([dense.visible * np.maximum(dense.confidence, LEAST_CONFIDENCE) for dense in flows])
    apart = [abs(dense.source - dense.target) for dense in flows]
    if 0 in apart:
        weights[[distance > 0 for distance in apart]] = 0.0
    else:
        weights /= np.array(apart, np.float32)[:, None, None]
    total = weights.sum(axis=0)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0), np.float32)
