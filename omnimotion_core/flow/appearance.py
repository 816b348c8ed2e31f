"""Whether the two ends of a match look alike: by DINO's features where there are weights, else by color.

DINO's map has one vector for each 16 pixels; between them it is bilinear, as in the published preprocessing. The cosine
of two such mixtures of four vectors each needs only the products of the vectors themselves, so that the mixtures, which
would take a gigabyte a picture, are never made.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from omnimotion_core.coordinates import Size, pixel_grid, rescale_pixels
from omnimotion_core.flow.consistency import appearance_error, targets

KEPT_MAPS = 18  # both ends of a block's pairs at one distance, and some; see ``flow.exhaustive``
_CHUNK = 65_536  # pixels


class Appearance(Protocol):
    """Judges the ends of flow from frame i to frame j."""

    def agree(
        self, i: int, j: int, flow: np.ndarray, labs: tuple[np.ndarray, np.ndarray], trusted: np.ndarray
    ) -> np.ndarray:
        """Which pixels look like their targets, (h, w) bool.

        Args:
            flow: (h, w, 2).
            labs: both frames in CIELAB.
            trusted: (h, w) bool, from which a change of exposure is read.
        """
        ...


class ColorAppearance:
    """Alike in color after a small blur: what can be told without weights."""

    def __init__(self, max_error: float) -> None:
        self.max_error = max_error

    def agree(
        self, i: int, j: int, flow: np.ndarray, labs: tuple[np.ndarray, np.ndarray], trusted: np.ndarray
    ) -> np.ndarray:
        """Those that differ by at most ``max_error`` in CIELAB units."""
        return np.asarray(appearance_error(*labs, flow, trusted) <= self.max_error)


class FeatureAppearance:
    """Alike in features: the cosine is above a bound.

    Args:
        features: gives frame t's map, (a, b, C) float32.
        size: of the pictures that pixels belong to.
        min_similarity: the cosine above which two ends are alike.
    """

    def __init__(self, features: Callable[[int], np.ndarray], size: Size, min_similarity: float) -> None:
        self._make, self.size, self.min_similarity = features, size, min_similarity
        self._maps: dict[int, FeatureMap] = {}
        self._lock = threading.Lock()

    def agree(
        self, i: int, j: int, flow: np.ndarray, labs: tuple[np.ndarray, np.ndarray], trusted: np.ndarray
    ) -> np.ndarray:
        """Those above ``min_similarity``."""
        source, target = self._map(i), self._map(j)
        ends = pixel_grid(self.size).reshape(-1, 2), targets(flow).reshape(-1, 2)
        found = similarity(source, target, *(rescale_pixels(end, self.size, source.size) for end in ends))
        return found.reshape(flow.shape[:2]) > self.min_similarity

    def _map(self, t: int) -> "FeatureMap":
        with self._lock:
            found = self._maps.get(t)
            if found is None:
                found = FeatureMap(self._make(t))
            self._maps.pop(t, None)
            self._maps[t] = found  # the most recently used is last
            while len(self._maps) > KEPT_MAPS:
                self._maps.pop(next(iter(self._maps)))
        return found


class FeatureMap:
    """A map of vectors (a, b, C), and the products of neighboring ones."""

    def __init__(self, vectors: np.ndarray) -> None:
        height, width, _ = vectors.shape
        self.size: Size = (width, height)
        self.vectors = np.ascontiguousarray(vectors.reshape(height * width, -1), dtype=np.float32)
        grid = np.pad(vectors.astype(np.float32), ((0, 1), (0, 1), (0, 0)), mode="edge")
        corners = [grid[v : v + height, u : u + width] for v in (0, 1) for u in (0, 1)]
        # (a b, 4, 4): of each cell's corners with each other
        self.products = np.stack(
            [np.stack([(p * q).sum(axis=-1) for q in corners], axis=-1) for p in corners], axis=-2
        ).reshape(-1, 4, 4)

    def corners(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of positions (P, 2): their cells (P,), the corners' rows in ``vectors`` and their shares, (P, 4) each."""
        width, height = self.size
        x, y = xy[:, 0].clip(0, width - 1), xy[:, 1].clip(0, height - 1)
        left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        u, v = x - left, y - top
        right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
        upper, lower = top * width, bottom * width
        rows = np.stack([upper + left, upper + right, lower + left, lower + right], axis=1)
        share = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], axis=1)
        return rows[:, 0], rows, share

    def lengths(self, cells: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Of the mixtures of the cells' corners, (P,)."""
        squared = np.einsum("pa,pab,pb->p", share, self.products[cells], share, optimize=True)
        return np.sqrt(np.maximum(squared, 0.0))


def similarity(source: FeatureMap, target: FeatureMap, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Cosine of the source's vector at ``start`` and the target's at ``end``, positions (P, 2) in maps: (P,).

    Positions are those of vectors, (0, 0) the first; beyond the outer ones the border's vectors count.
    """
    products = source.vectors @ target.vectors.T
    found = np.empty(len(start), np.float32)
    for begin in range(0, len(start), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        cells, rows, share = source.corners(start[part])
        other_cells, other_rows, other_share = target.corners(end[part])
        agreement = np.einsum(
            "pa,pab,pb->p", share, products[rows[:, :, None], other_rows[:, None, :]], other_share, optimize=True
        )
        lengths = source.lengths(cells, share) * target.lengths(other_cells, other_share)
        found[part] = agreement / np.maximum(lengths, 1e-12)
    return found
