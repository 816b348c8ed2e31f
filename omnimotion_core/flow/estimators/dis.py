"""Dense inverse search: optical flow that needs no weights.

From nothing it is OpenCV's, whose flow of bare surfaces is torn where nothing tells their motion; ours, which is
smoother there, goes with what moves beside them, and they cannot be told any more (``flow.plain``). From a first guess
it is ours.

Source: Kroeger et al. 2016, "Fast optical flow using dense inverse search", arXiv:1603.03590.
"""

import threading
from collections.abc import Iterable

import cv2
import numpy as np

from omnimotion_core.flow.inverse_search import settled_search

GUIDED_LONGEST_SIDE = 640  # pixels, of the largest size that is searched from a first guess
COARSE_LONGEST_SIDE = 320  # the same where not all sizes are searched, with a guess or without


class DisFlow:
    """Dense inverse search on luminance, to the full size of the pictures.

    Half size misses more than twice as many pixels of a fine pattern by over a pixel, and all longer motion is put
    together from what is found between neighbors. Only from a first guess are large pictures searched to half size.

    Args:
        full_size: else nothing larger than ``COARSE_LONGEST_SIDE`` is searched.
    """

    refines = True

    def __init__(self, *, full_size: bool = True) -> None:
        self.full_size = full_size
        self._local = threading.local()

    def pairs(self) -> Iterable[tuple[int, int]] | None:
        """None: any pair can be had."""
        return None

    def prepare(self, t: int, picture: np.ndarray) -> np.ndarray:
        """(h, w) uint8 luminance of the picture (h, w, 3) uint8 RGB."""
        return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)

    def flow(self, source: np.ndarray, target: np.ndarray, initial: np.ndarray | None) -> np.ndarray:
        """Flow (h, w, 2) from ``source`` to ``target``, searched for around ``initial`` where it is given."""
        if initial is not None:
            longest = GUIDED_LONGEST_SIDE if self.full_size else COARSE_LONGEST_SIDE
            return settled_search(source, target, initial, longest_side=longest)
        if not hasattr(self._local, "search"):  # it holds buffers, so each thread has its own
            self._local.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search: cv2.DISOpticalFlow = self._local.search
        halvings = 0
        while not self.full_size and max(source.shape) >> halvings > COARSE_LONGEST_SIDE:
            halvings += 1
        search.setFinestScale(halvings)
        return search.calc(source, target, None)  # type: ignore[call-overload]  # None is allowed
