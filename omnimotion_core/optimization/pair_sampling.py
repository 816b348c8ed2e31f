"""Batches as the published code draws them: pairs of frames first, then points of each pair, the harder the more often.

The choice is made on the CPU, so that every device draws alike; the matches themselves and the frames' colors lie on
the device, which is never waited for.

Where this parts from the published loader:
- Matches come from the store, which keeps a sample of each pair's valid pixels; there it is all of them.
- Points are drawn with replacement.
- Of matches that were not filtered as the paper's (``flow.exhaustive`` off, imported tracks) less is known: their
  weight of trust multiplies the pair's, a pair is drawn in proportion to its kept matches and not to its valid pixels,
  and partners, by which pixels are preferred before anything is known of errors, are counted in cells, as the pairs
  that have any match beginning there.
- Errors are measured at the matches between neighbors and blurred over cells; there in every pixel.
- Colors are read from frames in memory; there two pictures are decoded for every pair drawn.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from omnimotion_core.errors import FitError
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.optimization.volumetric_losses import pair_weight
from omnimotion_core.video.clip import Clip

CELL_PX = 8  # working pixels a side, of the counts of partners
ERROR_CELL_PX = 4  # of the error maps
ERROR_BLUR_CELLS = 0.5  # standard deviation; the published 5x5 kernel on full-size maps has about 1.1 px
ADJACENT_SHARE = 0.5  # what a neighboring frame counts, beside 1 for all farther ones together
SWAP_SHARE = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class PairBatch:
    """Matches of B pairs of frames, N each, in working pixels."""

    frames_from: Tensor  # (B,) int64
    frames_to: Tensor  # (B,) int64
    source: Tensor  # (B, N, 2) float32
    target: Tensor  # (B, N, 2) float32
    weight: Tensor  # (B, N) float32, 0..1
    color: Tensor  # (B, N, 3) float32, of the source, 0..1


class PairSampler:
    """Draws pairs of frames and matches of each pair.

    Raises:
        FitError: there are no matches.
    """

    def __init__(self, correspondences: Correspondences, clip: Clip, device: torch.device) -> None:
        order = np.argsort(correspondences.pair, kind="stable")
        pair = correspondences.pair[order].astype(np.int64)
        self.num_frames, self.device, self.size = clip.num_frames, device, clip.working_size
        self.pairs = correspondences.pairs.astype(np.int64)
        self.counts = np.bincount(pair, minlength=len(self.pairs))
        self.starts = np.cumsum(self.counts) - self.counts
        valid = correspondences.num_valid  # pixels of each pair, by which it is drawn
        self.valid = self.counts if valid is None else np.where(self.counts > 0, np.maximum(valid, 1), 0)
        source = correspondences.source[order].astype(np.float32)
        self._frame_of_match = self.pairs[pair, 0]
        self._source_cpu = source
        self._source = torch.from_numpy(source).to(device)
        self._target = torch.from_numpy(correspondences.target[order]).to(device)
        self._weight = torch.from_numpy(correspondences.weight[order]).to(device)
        one_way = correspondences.one_way
        self._one_way = None if one_way is None else torch.from_numpy(one_way[order]).to(device)
        self._colors = torch.from_numpy(np.stack([clip.rgb8(t) for t in range(clip.num_frames)])).to(device)
        self.rows = np.full((self.num_frames, self.num_frames), -1, np.int64)
        held = self.counts > 0
        if not held.any():
            raise FitError(f"no motion is matched between the frames of {clip.name}", "run the flow stage again")
        self.rows[self.pairs[held, 0], self.pairs[held, 1]] = np.flatnonzero(held)
        partners = correspondences.partners
        counted = self._count_partners(pair) if partners is None else self._look_up(partners)
        self._sum_by_partners = np.cumsum(1 / np.sqrt(counted + 1.0))
        self.forget()

    def draw(self, num_pairs: int, num_points: int, interval: int, generator: torch.Generator) -> PairBatch:
        """A batch of pairs at most ``interval`` frames apart."""
        odds = torch.from_numpy(self._frame_odds * (self._near(interval)).any(axis=1))
        first = torch.multinomial(odds, num_pairs, replacement=True, generator=generator)
        second = torch.multinomial(
            torch.from_numpy(self.pair_odds(interval))[first], 1, replacement=True, generator=generator
        )[:, 0]
        rows = self.rows[first.numpy(), second.numpy()]
        where = torch.rand(num_pairs, 2 * num_points, generator=generator, dtype=torch.float64).numpy()
        if self.error_maps is None:
            index = self._by_odds(rows, where[:, :num_points])
        else:
            both = np.concatenate([
                self._by_odds(rows, where[:, :num_points]), self._evenly(rows, where[:, num_points:])
            ], axis=1)  # fmt: skip
            kept = torch.rand(num_pairs, 2 * num_points, generator=generator).argsort(dim=1)[:, :num_points]
            index = np.take_along_axis(both, kept.numpy(), axis=1)
        swapped = torch.rand(num_pairs, generator=generator) < SWAP_SHARE
        counted = pair_weight((second - first).abs(), interval)
        return self._take(torch.from_numpy(index), first, second, swapped, counted)

    def pair_odds(self, interval: int) -> np.ndarray:
        """For each frame (T, T) how often the others are drawn with it, unless none is; rows need not sum to one."""
        near = self._near(interval)
        counts = np.where(near, self.valid[self.rows], 0).astype(np.float64)
        odds = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        frame = np.arange(self.num_frames)
        adjacent = np.abs(frame[:, None] - frame) == 1
        odds[adjacent & near] = ADJACENT_SHARE
        return odds

    def adjacent_rows(self) -> dict[int, int]:
        """For each frame the pair with the frame after it, or else before it, where matched."""
        rows = {}
        for t in range(self.num_frames):
            for other in (t + 1, t - 1):
                if 0 <= other < self.num_frames and self.rows[t, other] >= 0:
                    rows[t] = int(self.rows[t, other])
                    break
        return rows

    def matches_of(self, row: int) -> tuple[Tensor, Tensor]:
        """All matches of one pair: source and target, (M, 2) each, on the device."""
        part = slice(int(self.starts[row]), int(self.starts[row] + self.counts[row]))
        return self._source[part], self._target[part]

    def forget(self) -> None:
        """Draw as long as no errors are known: all frames alike, and points by how few partners they have."""
        self.error_maps: np.ndarray | None = None  # (T, h, w), once `mine` was called
        self._frame_odds = (self.rows >= 0).any(axis=1).astype(np.float64)
        self._odds_sum = self._sum_by_partners

    def mine(self, error_maps: np.ndarray) -> None:
        """Draw from now on by how wrong the field is: frames by their mean error, half of the points by the maps."""
        self.error_maps = error_maps
        self._frame_odds = error_maps.mean(axis=(1, 2), dtype=np.float64) * (self.rows >= 0).any(axis=1) + 1e-12
        cells = (self._source_cpu / ERROR_CELL_PX).astype(np.int64)
        _, height, width = error_maps.shape
        column, row = cells[:, 0].clip(0, width - 1), cells[:, 1].clip(0, height - 1)
        self._odds_sum = np.cumsum(error_maps[self._frame_of_match, row, column].astype(np.float64) + 1e-9)

    def _near(self, interval: int) -> np.ndarray:
        frame = np.arange(self.num_frames)
        return (self.rows >= 0) & (np.abs(frame[:, None] - frame) <= interval)

    def _count_partners(self, pair: np.ndarray) -> np.ndarray:
        """For each match how many pairs have a match that begins in its cell."""
        columns, rows = (-(-side // CELL_PX) for side in self.size)
        cells = (self._source_cpu / CELL_PX).astype(np.int64).clip(0, [columns - 1, rows - 1])
        cell = (self._frame_of_match * rows + cells[:, 1]) * columns + cells[:, 0]
        seen = np.unique(pair * (self.num_frames * rows * columns) + cell) % (self.num_frames * rows * columns)
        return np.bincount(seen, minlength=self.num_frames * rows * columns)[cell]

    def _look_up(self, partners: np.ndarray) -> np.ndarray:
        """Of each match the value of (T, h, w) at the pixel where it begins."""
        x, y = np.rint(self._source_cpu).astype(np.int64).T
        return np.asarray(partners[self._frame_of_match, y, x])

    def _by_odds(self, rows: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Matches (B, N) of the pairs ``rows`` (B,), each as likely as its odds; ``where`` in 0..1 chooses."""
        first, last = self.starts[rows], self.starts[rows] + self.counts[rows] - 1
        low = np.where(first > 0, self._odds_sum[first - 1], 0.0)
        at = low[:, None] + where * (self._odds_sum[last] - low)[:, None]
        found = np.searchsorted(self._odds_sum, at, side="right")
        return found.clip(first[:, None], last[:, None])

    def _evenly(self, rows: np.ndarray, where: np.ndarray) -> np.ndarray:
        return self.starts[rows][:, None] + (where * self.counts[rows][:, None]).astype(np.int64)

    def _take(self, index: Tensor, first: Tensor, second: Tensor, swapped: Tensor, counted: Tensor) -> PairBatch:
        frames_from, frames_to = torch.where(swapped, second, first), torch.where(swapped, first, second)
        frames_from, frames_to, index, swapped, counted = (
            to_device(part, self.device) for part in (frames_from, frames_to, index, swapped, counted)
        )
        source, target = self._source[index], self._target[index]
        turned = swapped[:, None, None]
        weight = self._weight[index].float() / 255.0 * counted[:, None]
        if self._one_way is not None:  # from the other side such a match says nothing
            weight = weight * ~(self._one_way[index] & swapped[:, None])
        source, target = torch.where(turned, target, source), torch.where(turned, source, target)
        return PairBatch(
            frames_from=frames_from, frames_to=frames_to, source=source, target=target,
            weight=weight, color=self._color_at(frames_from, source),
        )  # fmt: skip

    def _color_at(self, frames: Tensor, pixels: Tensor) -> Tensor:
        """Colors (B, N, 3) of ``frames`` (B,) at working pixels (B, N, 2), bilinear."""
        width, height = self.size
        x, y = pixels[..., 0].clamp(0, width - 1), pixels[..., 1].clamp(0, height - 1)
        left, top = x.floor().clamp(max=max(width - 2, 0)), y.floor().clamp(max=max(height - 2, 0))
        across, down = (x - left)[..., None], (y - top)[..., None]
        column, row, frame = left.long(), top.long(), frames[:, None]
        right, bottom = (column + 1).clamp(max=width - 1), (row + 1).clamp(max=height - 1)
        corners = [self._colors[frame, v, u].float() for v in (row, bottom) for u in (column, right)]
        upper, lower = (torch.lerp(corners[k], corners[k + 1], across) for k in (0, 2))
        return torch.lerp(upper, lower, down) / 255.0


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """``values`` of the CPU on ``device``, without waiting: a GPU fetches them itself from memory pinned for that."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def error_map(pixels: np.ndarray, errors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean error a cell, (h, w) float32, of matches that begin at ``pixels`` (M, 2), cells between them filled."""
    width, height = (-(-side // ERROR_CELL_PX) for side in size)
    cells = (pixels / ERROR_CELL_PX).astype(np.int64).clip(0, [width - 1, height - 1])
    cell = cells[:, 1] * width + cells[:, 0]
    sums = np.bincount(cell, errors, width * height), np.bincount(cell, minlength=width * height)
    blurred = [
        cv2.GaussianBlur(values.astype(np.float64).reshape(height, width), (5, 5), ERROR_BLUR_CELLS) for values in sums
    ]
    mean = float(errors.mean()) if len(errors) else 0.0
    return np.asarray((blurred[0] + 1e-3 * mean) / (blurred[1] + 1e-3), np.float32)
