"""What is counted over the two or three channels of each pixel, channel by channel.

numpy walks over a last axis this short in up to seventy times the time. All but the last take (..., C) and return
(...).
"""

import functools
from collections.abc import Callable

import numpy as np


def _joined(join: Callable[[np.ndarray, np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    return functools.reduce(join, (values[..., channel] for channel in range(values.shape[-1])))


def largest(values: np.ndarray) -> np.ndarray:
    """The largest magnitude."""
    return _joined(np.maximum, np.abs(values))


def mean_magnitude(values: np.ndarray) -> np.ndarray:
    """The mean magnitude."""
    return np.asarray(_joined(np.add, np.abs(values)) / values.shape[-1])


def length(vectors: np.ndarray) -> np.ndarray:
    """The length of vectors of two."""
    return np.asarray(np.hypot(vectors[..., 0], vectors[..., 1]))


def all_set(values: np.ndarray) -> np.ndarray:
    """Whether every channel is set."""
    return _joined(np.logical_and, values)


def scale(flow: np.ndarray, across: float, down: float) -> None:
    """Multiply the vectors of a flow (H, W, 2), contiguous, in place: x by ``across``, y by ``down``."""
    rows = flow.reshape(len(flow), -1)
    rows *= np.tile(np.array([across, down], flow.dtype), flow.shape[1])
