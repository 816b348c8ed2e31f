"""Whether a shot shows anything that can be tracked: some structure, and something that moves.

Judged on small grey pictures, in which noise and compression are averaged away and motion is not.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import ClipError
from omnimotion_core.video.color import luma

THUMBNAIL_SIDE = 96  # longer side, pixels
_FLAT = 3.0 / 255  # contrast within a frame below which it shows nothing
_BLACK = 8.0 / 255
_STILL = 2.0 / 255  # change that compression alone makes
_NOISE_PEAK = 6.5  # largest of some million Gaussian values, in standard deviations
_MAX_NOISE = 3.0 / 255  # more than this change in half of a picture is motion, not noise


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """A working frame (h, w, 3) uint16 as a small grey picture, uint16 0..65535, never enlarged."""
    grey = luma(picture)
    scale = min(1.0, THUMBNAIL_SIDE / max(grey.shape))
    size: Size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small), 0, 65535).astype(np.uint16)


def check_content(name: str, thumbnails: Sequence[np.ndarray]) -> None:
    """Refuse a shot in which there is nothing to track.

    Args:
        name: of the shot, for the error.
        thumbnails: of all frames, in order.
    Raises:
        ClipError: no frame shows any structure, or all show the same picture within noise.
    """
    if all(_contrast(picture) < _FLAT for picture in thumbnails):
        if max(float(picture.max()) for picture in thumbnails) < _BLACK * 65535:
            raise ClipError(f"{name} is black (or transparent) in all its frames", "choose frames with a picture")
        raise ClipError(f"{name} is a flat color in all its frames", "choose frames with a picture")
    if _is_still(thumbnails):
        raise ClipError(f"{name} shows the same still picture in all its frames", "choose frames with motion")


def _contrast(picture: np.ndarray) -> float:
    return (float(picture.max()) - float(picture.min())) / 65535


def _is_still(thumbnails: Sequence[np.ndarray]) -> bool:
    """Whether no frame departs from the first by more than the noise between neighbors explains.

    Motion adds up over frames and is large where the picture has edges; noise is alike everywhere and does neither.
    """
    first = _smooth(thumbnails[0])
    departure = max(float(np.abs(_smooth(picture) - first).max()) for picture in thumbnails)
    if departure > _STILL + _NOISE_PEAK * _MAX_NOISE:
        return False
    changes = (np.abs(_smooth(after) - _smooth(before)) for before, after in pairwise(thumbnails))
    noise = float(np.median([1.4826 * float(np.median(change)) for change in changes]))  # deviation of a normal spread
    return noise <= _MAX_NOISE and departure <= _STILL + _NOISE_PEAK * noise


def _smooth(picture: np.ndarray) -> np.ndarray:
    """Averaged once more, 0..1: small plates make thumbnails that are as noisy as they are."""
    return np.asarray(cv2.blur(picture.astype(np.float32), (3, 3)) / np.float32(65535))
