"""One direction of a pair of frames, asked how alike the pictures look by motions that are tried on parts of it."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.flow.channels import all_set, mean_magnitude
from omnimotion_core.flow.homography import apply_homography

EXPOSURE_STEP = 4  # pixels between those that a change of exposure is read from
NOISE_PLACES = 1 << 16  # from which noise is read, about
LEAST_NOISE = 0.1  # CIELAB units, of pictures without any: what rounding and reading between pixels do


@dataclass(frozen=True, eq=False)
class View:
    """From the ``source`` to the ``target``, and the flow that there is."""

    source: np.ndarray  # (h, w, 3) float32 CIELAB, slightly blurred
    target: np.ndarray  # the same of the other frame
    flow: np.ndarray  # (h, w, 2) float32, pixels
    appearance: np.ndarray  # (h, w) float32, CIELAB units: how far the colors of a match are apart

    @functools.cached_property
    def exposure(self) -> np.ndarray:
        """By how much the target is lighter or otherwise colored, (3,): the median over what flow matches."""
        height, width = self.appearance.shape
        pixels = pixel_grid((width, height))[::EXPOSURE_STEP, ::EXPOSURE_STEP].reshape(-1, 2)
        x, y = pixels.astype(int).T
        return np.asarray(np.median(read(self.target, pixels + self.flow[y, x]) - self.source[y, x], axis=0))

    @functools.cached_property
    def exposed(self) -> np.ndarray:
        """The source as light and colored as the target, (h, w, 3)."""
        return np.asarray(self.source + self.exposure, np.float32)

    @functools.cached_property
    def noise(self) -> float:
        """How far the colors of a right match are apart, CIELAB units."""
        step = max(round((self.appearance.size / NOISE_PLACES) ** 0.5), 1)
        return max(float(np.median(self.appearance[::step, ::step])), LEAST_NOISE)

    def differences(self, pixels: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the colors of ``pixels`` (N, 2) and of where ``motion`` (3, 3) sends them are apart.

        Returns:
            (N,) float32 in CIELAB units, a change of exposure taken out; and (N,) bool, which of them stay in sight.
        """
        changes, stays = self.changes(pixels, motion)
        return mean_magnitude(changes), stays

    def changes(self, pixels: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same with a sign, for each channel: (N, 3)."""
        height, width = self.source.shape[:2]
        ends = apply_homography(motion, pixels.astype(np.float32))
        x, y = pixels.T
        changes = read(self.target, ends) - self.exposed[y, x]
        return changes, all_set((ends >= 0) & (ends <= (width - 1, height - 1)))


def read(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``picture`` (h, w, 3) at ``places`` (N, 2), bilinear, (N, 3)."""
    row = 1 << 14  # OpenCV's rows are of 32767 at most
    padded = np.zeros((max(-(-len(places) // row), 1) * row, 2), np.float32)
    padded[: len(places)] = places
    across, down = (padded[:, axis].reshape(-1, row) for axis in (0, 1))
    read = cv2.remap(picture, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return read.reshape(-1, picture.shape[2])[: len(places)]
