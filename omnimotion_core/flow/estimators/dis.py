"""Dense inverse search: optical flow that needs no weights.

Source: Kroeger et al. 2016, "Fast optical flow using dense inverse search", arXiv:1603.03590, as OpenCV has it.
"""

import threading
from collections.abc import Iterable

import cv2
import numpy as np


class DisFlow:
    """DIS with OpenCV's medium preset, on luminance."""

    refines = True

    def __init__(self) -> None:
        self._local = threading.local()  # a cv2.DISOpticalFlow holds buffers, so each thread has its own

    def pairs(self) -> Iterable[tuple[int, int]] | None:
        """None: any pair can be had."""
        return None

    def prepare(self, t: int, picture: np.ndarray) -> np.ndarray:
        """(h, w) uint8 luminance of the picture (h, w, 3) uint8 RGB."""
        return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)

    def flow(self, source: np.ndarray, target: np.ndarray, initial: np.ndarray | None) -> np.ndarray:
        """Flow (h, w, 2) from ``source`` to ``target``, searched for around ``initial`` where it is given."""
        if not hasattr(self._local, "search"):
            self._local.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        first_guess = None if initial is None else np.array(initial, dtype=np.float32, order="C")  # it is overwritten
        return self._local.search.calc(source, target, first_guess)
