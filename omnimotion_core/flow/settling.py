"""Flow that is nearly right moved to where the pictures agree best."""

import threading

import cv2
import numpy as np

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
