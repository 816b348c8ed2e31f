"""Learned fields beside DIS: made for the pairs that the plan names, and timed to make the plan."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from omnimotion_core.config import FlowConfig
from omnimotion_core.devices import computing
from omnimotion_core.errors import FlowError
from omnimotion_core.events import Reporter
from omnimotion_core.files import sha256_of
from omnimotion_core.flow.estimators import LearnedEstimator, create_estimator
from omnimotion_core.flow.matching import Both, FrameBank, estimate, input_size
from omnimotion_core.flow.pairs import Pair
from omnimotion_core.flow.plan import MIN_GAP, Plan, choose_pairs
from omnimotion_core.flow.weights import find_best, terms_to_show
from omnimotion_core.video.clip import Clip

KEPT_FRAMES = 18  # whose features are held: both ends of a block's pairs at one distance, and some


@dataclass(frozen=True, eq=False)
class Choice:
    """What ``--flow auto`` decides upon."""

    clip: Clip
    config: FlowConfig
    pairs: Sequence[Pair]  # all that are matched in the clip, without loop closures
    num_closures: int  # at most so many of these there will be
    device: str  # where networks compute: auto, cpu, cuda or mps


class LearnedFields:
    """Flow of a learned estimator for the pairs that ``plan`` names."""

    def __init__(self, clip: Clip, config: FlowConfig, estimator: LearnedEstimator, plan: Plan) -> None:
        self.plan, self.max_gap = plan, max(config.gaps)
        size = input_size(estimator, clip.working_size, config.long_side)
        self.bank = FrameBank(clip, estimator, size, capacity=KEPT_FRAMES, needs_features=False)
        self.batch = estimator.batch(size)

    def alone(self, pair: Pair) -> Both | None:
        """The field of one pair, both directions; None where the plan has none for it. For several threads."""
        return estimate(self.bank, [pair], [None])[0] if self.plan.uses(pair, self.max_gap) else None

    def in_batches(self, pairs: Sequence[Pair]) -> dict[Pair, Both]:
        """On a GPU the fields of all ``pairs`` that the plan names; elsewhere nothing: ``alone`` gives them."""
        if self.batch == 1:
            return {}
        wanted = [pair for pair in pairs if self.plan.uses(pair, self.max_gap)]
        fields: dict[Pair, Both] = {}
        for start in range(0, len(wanted), self.batch):
            group = wanted[start : start + self.batch]
            fields.update(zip(group, estimate(self.bank, group, [None] * len(group)), strict=True))
        return fields

    def seconds_per_pair(self, pairs: Sequence[Pair], pool: ThreadPoolExecutor, threads: int) -> float:
        """What a pair takes here when all of the machine works on them, the frames' features included."""
        together = self.batch if self.batch > 1 else threads
        some = [pairs[index % len(pairs)] for index in range(together)]
        if self.batch > 1:
            estimate(self.bank, some[:1], [None])  # a GPU's first call chooses and loads its kernels
        began = time.perf_counter()
        if self.batch > 1:
            estimate(self.bank, some, [None] * together)
        else:
            list(pool.map(lambda pair: estimate(self.bank, [pair], [None]), some))
        return (time.perf_counter() - began) / together


def plan_learned(
    choice: Choice, folder: Path, *, pool: ThreadPoolExecutor, threads: int, reporter: Reporter, stack: ExitStack
) -> LearnedFields | None:
    """Learned flow for ``--flow auto``: by the plan in ``folder``, which is decided and written where it is not there.

    Args:
        pool: what computes on a CPU, ``threads`` pairs at once.
        stack: holds what has to hold while fields are computed.
    Returns:
        None where DIS is alone: there are no weights, no pairs at long distances, or no time for them.
    Raises:
        FlowError: the plan's weights are gone, or a file is not what its name stands for.
        RunError: the plan is damaged or cannot be written.
    """
    clip, config = choice.clip, choice.config
    plan = Plan.read(folder)
    if plan is not None:
        if plan.estimator is None:
            return None
        estimator, weights = _open(plan.estimator, choice, reporter, stack)
        if sha256_of(weights) != plan.weights_sha256:
            raise FlowError(f"the flow stage began with other weights than {weights}",
                            f"bring back those, or delete {folder} to begin anew")  # fmt: skip
        return LearnedFields(clip, config, estimator, plan)

    long = [pair for pair in choice.pairs if pair.gap >= MIN_GAP]
    best = find_best() if long and config.learned_budget_s > 0 else None
    if best is None:
        Plan().keep(folder)
        if long and config.learned_budget_s > 0:
            reporter.note("flow: DIS alone; learned flow is better over long distances: omnimotion weights get gmflow")
        return None
    estimator, weights = _open(best[0], choice, reporter, stack)
    fields = LearnedFields(clip, config, estimator, Plan())
    reporter.check()
    seconds = fields.seconds_per_pair(long, pool, threads)
    every, closures = choose_pairs(choice.pairs, choice.num_closures, seconds, config.learned_budget_s)
    fields.plan = Plan(
        estimator=best[0] if every else None, weights_sha256=sha256_of(weights), every=every, closures=closures,
        seconds_per_pair=round(seconds, 3),
    ).keep(folder)  # fmt: skip
    reporter.note(_describe(best[0], fields.plan, choice))
    return fields if fields.plan.estimator is not None else None


def load_learned(
    estimator: LearnedEstimator, clip: Clip, config: FlowConfig, reporter: Reporter, stack: ExitStack
) -> Path:
    """Make ``estimator`` ready; the terms of its weights are told once.

    Args:
        stack: keeps torch to one thread for each pair, so that the result does not depend on how many there are.
    Returns:
        The file of weights.
    Raises:
        FlowError: the weights are absent or cannot be used.
    """
    weights = estimator.load(input_size(estimator, clip.working_size, config.long_side))
    stack.enter_context(computing(estimator.device, 1))
    terms = terms_to_show(weights)
    if terms is not None:
        reporter.note(terms)
    return weights


def _open(name: str, choice: Choice, reporter: Reporter, stack: ExitStack) -> tuple[LearnedEstimator, Path]:
    estimator = create_estimator(name, choice.clip, device=choice.device)
    assert isinstance(estimator, LearnedEstimator)
    return estimator, load_learned(estimator, choice.clip, choice.config, reporter, stack)


def _describe(name: str, plan: Plan, choice: Choice) -> str:
    limit = f"flow.learned_budget_s is {choice.config.learned_budget_s:g}"
    if plan.estimator is None:
        return f"flow: DIS alone; {name} would take {plan.seconds_per_pair:.1f} s a pair here ({limit})"
    max_gap = max(choice.config.gaps)
    count = sum(plan.uses(pair, max_gap) for pair in choice.pairs) + plan.closures * choice.num_closures
    gaps = ", ".join(f"{gap}" if step == 1 else f"{gap} (each {step}th of these)" for gap, step in plan.every.items())
    closures = " and loop closures" if plan.closures else ""
    return (f"flow: DIS, and {name} over {gaps} frames{closures}: {count} of {len(choice.pairs) + choice.num_closures} "
            f"pairs, about {count * plan.seconds_per_pair:.0f} s ({limit})")
