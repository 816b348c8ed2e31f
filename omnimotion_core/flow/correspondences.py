"""The record of matches that supervise the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Block = dict[str, np.ndarray]  # the fields of ``Correspondences``, for some of the pairs

FIELDS = ("pairs", "pair", "source", "target", "weight", "hidden_pair", "hidden_source")
EXHAUSTIVE_FIELDS = ("one_way", "num_valid")  # besides, where all pairs are matched: see ``flow.exhaustive``


@dataclass(frozen=True, eq=False, kw_only=True)
class Correspondences:
    """Matches between frames, in working pixels, and points seen to be hidden.

    ``pairs`` are directed; each match and each hidden point belongs to one of them.
    """

    pairs: np.ndarray  # (P, 2) int32, frames from and to
    pair: np.ndarray  # (M,) int32, row of ``pairs``
    source: np.ndarray  # (M, 2) int16, or float32 where tracks were imported, (x, y)
    target: np.ndarray  # (M, 2) float32, (x, y)
    weight: np.ndarray  # (M,) uint8, 255 for full trust
    hidden_pair: np.ndarray  # (K,) int32, row of ``pairs``
    hidden_source: np.ndarray  # (K, 2) like ``source``: this pixel of frame "from" is not visible in frame "to"
    one_way: np.ndarray | None = None  # (M,) bool, does not hold from the target's side: hidden there, or not trusted
    num_valid: np.ndarray | None = None  # (P,) int32, pixels that could have been kept; None: as many as were
    partners: np.ndarray | None = None  # (T, h, w) uint16, in how many frames each pixel is matched; None: not counted

    def __len__(self) -> int:
        return len(self.pair)

    def rows_of(self, pair: int) -> np.ndarray:
        """The matches (M,) of one row of ``pairs``, in the order in which they are kept."""
        order, starts = self._by_pair
        rows = np.arange(starts[pair], starts[pair + 1])
        return rows if order is None else order[rows]

    @cached_property
    def _by_pair(self) -> tuple[np.ndarray | None, np.ndarray]:
        """An order in which the matches of each pair lie together, None where they do, and where each pair begins."""
        order, pair = None, self.pair
        if (pair[1:] < pair[:-1]).any():
            order = np.argsort(pair, kind="stable")
            pair = pair[order]
        return order, np.searchsorted(pair, np.arange(len(self.pairs) + 1, dtype=pair.dtype))


def join(parts: Sequence[Block], *, empty_parts: bool = False) -> Block:
    """Blocks one after the other, their rows of ``pairs`` renumbered to fit; of none at all, an empty block.

    Args:
        empty_parts: take the arrays out of ``parts``, so that those of a long clip are not held twice.
    """
    if not parts:
        return {
            "pairs": np.zeros((0, 2), np.int32), "pair": np.zeros(0, np.int32), "source": np.zeros((0, 2), np.int16),
            "target": np.zeros((0, 2), np.float32), "weight": np.zeros(0, np.uint8),
            "hidden_pair": np.zeros(0, np.int32), "hidden_source": np.zeros((0, 2), np.int16),
        }  # fmt: skip
    shift = np.cumsum([0, *(len(part["pairs"]) for part in parts)]).astype(np.int32)
    names = FIELDS + tuple(name for name in EXHAUSTIVE_FIELDS if all(name in part for part in parts))
    take = dict.pop if empty_parts else dict.__getitem__
    joined = {}
    for key in names:
        columns = [take(part, key) for part in parts]
        if key in ("pair", "hidden_pair"):
            columns = [column + start for column, start in zip(columns, shift, strict=False)]
        joined[key] = np.concatenate(columns)
    return joined
