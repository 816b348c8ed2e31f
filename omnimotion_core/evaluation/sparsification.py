"""Whether confidence tells where tracks are wrong: the sparsification curve and the area under it.

The least sure positions are taken away share by share; the mean error of the rest should fall. The oracle takes away
what is most wrong, and no confidence can do better; the difference of the two areas is AUSE.

Source: Ilg et al. 2018, arXiv:1802.07095, for optical flow; here for positions of tracks.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnimotion_core.evaluation.tapvid import QueryMode, Truth, counted_frames, in_raster
from omnimotion_core.trajectories.tracks import Tracks

NUM_SHARES = 20  # of the curve that is told; the areas are of every single position


@dataclass(frozen=True, kw_only=True)
class Sparsification:
    """Mean errors of what is left, each divided by the mean error of all; nan where there is no error to divide by."""

    num_positions: int
    removed: tuple[float, ...]  # shares 0, 0.05, …, 0.95 of the positions
    curve: tuple[float, ...]  # taken away by confidence, the least sure first
    oracle: tuple[float, ...]  # taken away by error, the largest first
    area: float  # under the curve; 1: confidence says nothing, more: it misleads
    oracle_area: float

    @property
    def ause(self) -> float:
        """Area under the sparsification error: 0 is perfect."""
        return self.area - self.oracle_area

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; nan becomes None."""

        def plain(values: tuple[float, ...]) -> list[float | None]:
            return [None if math.isnan(value) else value for value in values]

        area, oracle_area, ause = plain((self.area, self.oracle_area, self.ause))
        return {
            "positions": self.num_positions, "removed": list(self.removed), "curve": plain(self.curve),
            "oracle": plain(self.oracle), "area": area, "oracle_area": oracle_area, "ause": ause,
        }  # fmt: skip

    def format(self) -> str:
        """One line."""
        areas = f"area {self.area:.3f}, oracle {self.oracle_area:.3f}, AUSE {self.ause:.3f}"
        return f"sparsification of errors by confidence: {areas}"


def sparsification(confidence: np.ndarray, error: np.ndarray) -> Sparsification:
    """The curve and its areas.

    Positions of equal confidence are taken away in random order: their mean error stands for each of them. An area is
    the mean of the curve's value at 0, 1, … M - 1 positions taken away.

    Args:
        confidence: (M,), larger is surer.
        error: (M,), not negative.
    """
    _, group, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=error, minlength=len(sizes)) / np.maximum(sizes, 1))[group]
    curve = _rest(expected[np.argsort(confidence, kind="stable")])
    oracle = _rest(np.sort(error)[::-1])
    removed = np.arange(NUM_SHARES) / NUM_SHARES
    at = np.arange(NUM_SHARES) * len(error) // NUM_SHARES
    some = len(error) > 0
    return Sparsification(
        num_positions=len(error),
        removed=tuple(removed.tolist()),
        curve=tuple(curve[at].tolist()) if some else (math.nan,) * NUM_SHARES,
        oracle=tuple(oracle[at].tolist()) if some else (math.nan,) * NUM_SHARES,
        area=float(curve.mean()) if some else math.nan,
        oracle_area=float(oracle.mean()) if some else math.nan,
    )


def track_sparsification(truth: Truth, tracks: Tracks, rows: np.ndarray, mode: QueryMode) -> Sparsification:
    """Of the positions of truly visible points in the frames that TAP-Vid's metrics count, errors in the raster.

    Args:
        truth, tracks, rows, mode: as of ``tapvid_metrics``.
    """
    predicted, actual = in_raster(truth, tracks, rows)
    counted = counted_frames(tracks.queries[:, 0], truth.num_frames, mode) & ~truth.occluded[rows]
    error = np.linalg.norm(predicted[counted] - actual[counted], axis=-1)
    return sparsification(tracks.confidence[counted].astype(np.float64), error)


def _rest(error: np.ndarray) -> np.ndarray:
    """Mean of ``error[k:]`` for each k, divided by the mean of all."""
    if not len(error) or not error.any():
        return np.full(len(error), math.nan)
    means = np.cumsum(error[::-1])[::-1] / np.arange(len(error), 0, -1)
    return np.asarray(means / means[0])
