"""Dense inverse search: optical flow that needs no weights.

Source: Kroeger et al. 2016, "Fast optical flow using dense inverse search", arXiv:1603.03590, as OpenCV has it.
"""

import threading
from collections.abc import Iterable

import cv2
import numpy as np

GUIDED_STRIDE = 4  # pixels between patches; with a first guess the preset's 3 finds no more, for half as long again
GUIDED_FULL_SIDE = 640  # pixels; larger pictures are searched from a first guess to half their size


class DisFlow:
    """DIS on luminance: OpenCV's medium preset, but to the full size of the pictures, where the preset stops at half.

    Half size misses more than twice as many pixels of a fine pattern by over a pixel, and all longer motion is put
    together from what is found between neighbors. Only from a first guess are large pictures searched to half size.

    Args:
        full_size: else everything is searched to half size.
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
        if initial is None:
            return self._search("plain").calc(source, target, None)  # type: ignore[call-overload]  # None is allowed
        search = self._search("guided")
        search.setFinestScale(0 if self.full_size and max(source.shape) <= GUIDED_FULL_SIDE else 1)
        return search.calc(source, target, np.array(initial, dtype=np.float32, order="C"))

    def _search(self, kind: str) -> cv2.DISOpticalFlow:
        """This thread's search of that kind.

        A cv2.DISOpticalFlow holds buffers, so each thread has its own; and one that has once been given a first guess
        starts from its remains when it is given none, so the kinds are kept apart.
        """
        if not hasattr(self._local, kind):
            made = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            made.setFinestScale(0 if self.full_size else 1)
            if kind != "plain":
                made.setPatchStride(GUIDED_STRIDE)
            setattr(self._local, kind, made)
        search: cv2.DISOpticalFlow = getattr(self._local, kind)
        return search


_local = threading.local()


def settle(source: np.ndarray, target: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """``flow`` moved to where the pictures agree best nearby, smoothly and without a search.

    Args:
        source, target: (h, w) uint8 luminance.
        flow: (h, w, 2) from source to target.
    Returns:
        (h, w, 2) float32.
    Source: Brox et al. 2004, "High accuracy optical flow estimation based on a theory for warping", as OpenCV has it
    (``VariationalRefinement``).
    """
    if not hasattr(_local, "variational"):  # it holds buffers, so each thread has its own
        _local.variational = cv2.VariationalRefinement.create()
    settled: np.ndarray = _local.variational.calc(source, target, np.array(flow, dtype=np.float32, order="C"))
    return settled
