"""Batches of matches, drawn on the device that holds them."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from omnimotion_core.flow.correspondences import Correspondences

CHUNK = 1_048_576  # matches put in order at once


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


def random_order(count: int, generator: torch.Generator) -> Tensor:
    """The numbers below ``count`` in an order of chance, (count,) int32: of a long clip's matches there are so many
    that 64 bits for each would be felt."""
    return torch.randperm(count, generator=generator, dtype=torch.int32)


def _in_order(column: Tensor, order: Tensor) -> Tensor:
    """``column[order]``, in parts, since an index is widened to 64 bits."""
    arranged = torch.empty_like(column)
    for start in range(0, len(order), CHUNK):
        part = slice(start, start + CHUNK)
        torch.index_select(column, 0, order[part], out=arranged[part])
    return arranged


class MatchSampler:
    """All matches of a clip, resident on ``device``; every match is as likely as any other."""

    def __init__(self, correspondences: Correspondences, device: torch.device) -> None:
        self._pairs = torch.from_numpy(correspondences.pairs).long().to(device)
        self._columns = tuple(
            torch.from_numpy(column).to(device)
            for column in (correspondences.pair, correspondences.source, correspondences.target, correspondences.weight)
        )
        self.device = device

    def __len__(self) -> int:
        return len(self._columns[0])

    def take(self, index: Tensor | slice) -> Batch:
        """The matches of the given rows (B,)."""
        return self._batch(*(column[index] for column in self._columns))

    def shuffled(self, count: int, generator: torch.Generator) -> "Deck":
        """All matches in an order of chance, to be dealt out ``count`` at a time.

        The generator lives on the CPU, so that every device deals alike.
        """
        return Deck(self, count, random_order(len(self), generator))

    def _batch(self, pair: Tensor, source: Tensor, target: Tensor, weight: Tensor) -> Batch:
        frames = self._pairs[pair.long()]
        return Batch(
            frames_from=frames[:, 0],
            frames_to=frames[:, 1],
            source=source.float(),
            target=target,
            weight=weight.float() / 255.0,
            on_surface=torch.ones(len(pair), device=self.device),
        )


class Deck(MatchSampler):
    """The matches of a sampler in the given order, so that a batch is read in one piece and a round deals each once.

    Within each batch they keep the store's order: those of the same frames come together and find their tables in the
    cache.
    """

    def __init__(self, sampler: MatchSampler, count: int, order: Tensor) -> None:
        rows, rounds = order.numpy().copy(), len(order) // count
        rows[: rounds * count].reshape(rounds, count).sort(axis=1)
        rows[rounds * count :].sort()
        order = torch.from_numpy(rows).to(sampler.device)
        self._pairs, self._columns = sampler._pairs, tuple(_in_order(column, order) for column in sampler._columns)
        self.device, self._count = sampler.device, count

    def deal(self, step: int) -> Batch:
        """The batch of a step: rounds follow each other without a gap."""
        start = step * self._count % len(self)
        if start + self._count <= len(self):
            return self.take(slice(start, start + self._count))
        return self.take((torch.arange(self._count, device=self.device) + start) % len(self))
