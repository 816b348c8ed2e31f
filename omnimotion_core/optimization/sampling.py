"""Batches of matches, drawn on the device that holds them."""

from dataclasses import dataclass, fields

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
    on_surface: Tensor  # (B,) float32: 1 where both ends show the point, 0 where the target may hide it

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, index: Tensor) -> "Batch":
        """The matches of the given rows."""
        return Batch(**{name: values[index] for name, values in self.columns().items()})

    def with_more(self, other: "Batch") -> "Batch":
        """These and then the others."""
        theirs = other.columns()
        return Batch(**{name: torch.cat([values, theirs[name]]) for name, values in self.columns().items()})

    def columns(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


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
            on_surface=torch.ones(len(index), device=self.device),
        )
