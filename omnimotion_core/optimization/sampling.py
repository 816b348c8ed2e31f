"""Batches of matches, drawn on the device that holds them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from omnimotion_core.flow.correspondences import Correspondences


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Matches that supervise one step, in working pixels."""

    frames_from: Tensor  # (B,) int64
    frames_to: Tensor  # (B,) int64
    source: Tensor  # (B, 2) float32
    target: Tensor  # (B, 2) float32
    weight: Tensor  # (B,) float32, 0..1


class MatchSampler:
    """All matches of a clip, resident on ``device``; every match is as likely as any other."""

    def __init__(self, correspondences: Correspondences, device: torch.device) -> None:
        self._pairs = torch.from_numpy(correspondences.pairs).long().to(device)
        self._pair = torch.from_numpy(correspondences.pair).to(device)
        self._source = torch.from_numpy(correspondences.source).to(device)
        self._target = torch.from_numpy(correspondences.target).to(device)
        self._weight = torch.from_numpy(correspondences.weight).to(device)
        self.device = device

    def __len__(self) -> int:
        return len(self._pair)

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """``count`` matches, with replacement; the generator lives on the CPU so that every device draws alike.

        In the store's order, so that matches of the same frames come together and find their tables in the cache.
        """
        return self.take(torch.randint(len(self), (count,), generator=generator).sort().values.to(self.device))

    def take(self, index: Tensor) -> Batch:
        """The matches of the given rows (B,)."""
        frames = self._pairs[self._pair[index].long()]
        return Batch(
            frames_from=frames[:, 0],
            frames_to=frames[:, 1],
            source=self._source[index].float(),
            target=self._target[index],
            weight=self._weight[index].float() / 255.0,
        )
