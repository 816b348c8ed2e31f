"""What ``--flow auto`` does: DIS for all pairs, and learned flow besides for those over long distances.

Between neighbors DIS is the more exact of the two; over some frames it fails where learned flow does not. How many
pairs get learned flow depends on how fast it is here: it is timed once, before the first block, and the decision is
written to ``plan.json`` beside the blocks. So a stage that is gone on with, or shared out over a farm, keeps to it, and
the same plan gives the same matches.
"""

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from omnimotion_core.errors import RunError
from omnimotion_core.files import unwritable, write_atomically
from omnimotion_core.flow.pairs import Pair

FILE = "plan.json"
VERSION = 1
MIN_GAP = 4  # frames; nearer ones are left to DIS
BEST_GAP = 8  # the distance that most is gained at
MIN_PAIRS = 4  # fewer are not worth a network's loading


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which pairs get learned flow, and by what."""

    estimator: str | None = None  # None: DIS alone
    weights_sha256: str = ""
    every: dict[int, int] = dataclasses.field(default_factory=dict)  # distance: those whose first frame divides by it
    closures: bool = False  # whether loop closures get it too
    seconds_per_pair: float = 0.0  # as timed

    def uses(self, pair: Pair, max_gap: int) -> bool:
        """Whether ``pair`` gets learned flow; pairs beyond ``max_gap`` are loop closures."""
        if pair.gap > max_gap:
            return self.closures
        return pair.gap in self.every and pair.first % self.every[pair.gap] == 0

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The plan in ``folder``; None where none is there yet.

        Raises:
            RunError: it is damaged.
        """
        path = folder / FILE
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
            if values.pop("version") != VERSION:
                raise ValueError("another version")
            values["every"] = {int(gap): int(step) for gap, step in values["every"].items()}
            return cls(**values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged ({error})", f"delete {folder} and run the flow stage again") from error

    def keep(self, folder: Path) -> "Plan":
        """Write the plan, unless another process has written one in the meantime; gives the plan that holds.

        Raises:
            RunError: the folder cannot be written.
        """
        write_first(folder / FILE, json.dumps({"version": VERSION, **dataclasses.asdict(self)}, indent=1) + "\n")
        return Plan.read(folder) or self


def write_first(path: Path, text: str) -> None:
    """Write a file, unless another process has written it in the meantime.

    Raises:
        RunError: the folder cannot be written.
    """
    own = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(text, encoding="utf-8")
        try:
            os.link(own, path)  # fails where the name is taken: of several processes only one decides
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            with write_atomically(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        finally:
            own.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def choose_pairs(
    pairs: Sequence[Pair], num_closures: int, seconds_per_pair: float, budget_s: float
) -> tuple[dict[int, int], bool]:
    """Which distances get learned flow within the budget, and whether loop closures do.

    Distances are taken from the most useful on: ``BEST_GAP``, the other powers of two by their nearness to it, then the
    rest likewise; of two as near the longer, at which DIS is worse. One that does not fit is left out, but for the
    first, which is thinned.

    Args:
        pairs: all that are matched, without loop closures.
        num_closures: at most so many loop closures there will be.
        seconds_per_pair: that learned flow takes.
        budget_s: seconds in all.
    Returns:
        For each distance that gets it, of which of its pairs: those whose first frame divides by the number.
    """
    left = math.floor(budget_s / seconds_per_pair) if seconds_per_pair > 0 else len(pairs) + num_closures
    by_gap: dict[int, list[Pair]] = {}
    for pair in pairs:
        if pair.gap >= MIN_GAP:
            by_gap.setdefault(pair.gap, []).append(pair)
    every: dict[int, int] = {}
    for gap in sorted(by_gap, key=_usefulness):
        step = 1
        if not every:
            step = next(n for n in itertools.count(1) if _count(by_gap[gap], n) <= max(left, MIN_PAIRS))
        count = _count(by_gap[gap], step)
        if 0 < count <= left:
            every[gap] = step
            left -= count
        elif not every:
            break  # too slow here for any
    return every, bool(every) and 0 < num_closures <= left


def _usefulness(gap: int) -> tuple[bool, float, int]:
    return gap & (gap - 1) != 0, abs(math.log2(gap / BEST_GAP)), -gap


def _count(pairs: Sequence[Pair], step: int) -> int:
    return sum(pair.first % step == 0 for pair in pairs)
