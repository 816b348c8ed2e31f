"""The test-time optimisation: from matches to a field.

Each step draws matches, sends their first ends through the canonical volume to the other frame, and pulls the field
towards the second ends. It can be stopped between any two steps and goes on from its checkpoint with the same result.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from omnimotion_core.config import Config, FitConfig
from omnimotion_core.events import Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FAR, FieldShape
from omnimotion_core.optimization import compiled, losses
from omnimotion_core.optimization.compiled_adam import CompiledAdam
from omnimotion_core.optimization.depth_search import search_depth
from omnimotion_core.optimization.evidence import keep_colors, weigh_evidence
from omnimotion_core.optimization.free_space import find_contradictions
from omnimotion_core.optimization.sampling import Batch, MatchSampler
from omnimotion_core.optimization.state import Fitter
from omnimotion_core.optimization.warm_start import warm_started_field
from omnimotion_core.video.clip import Clip

FINAL_RATE = 0.03  # of the learning rate, at the end of its cosine
SMOOTHED_FRAMES = 8  # frames whose depth maps are smoothed in a step, chosen at random
RANGE_WEIGHT = 10.0  # OmniMotion's weight of its depth range term
EARLY = 0.3  # share of the steps in which depth learns slowly
EARLY_DEPTH_RATE = 0.3  # of its learning rate: what is moved by motion not learned yet seems to lie at a wrong depth
LEVEL_SETTLES = 0.5  # is added to the exponent of the learning rate's factor for each finer level of tables
DECAY = (0.9, 0.99)
LONG_CLIP = 60  # frames; longer clips take more steps in proportion
INSPECTIONS = 10, 20  # evenly over a fit: how often points in free space would be looked for, were it from the start
LOOK_COSTS = 45  # steps: in a short fit, where they would come more often than that, they are as few as they may be
CONTRADICTIONS_PER_MATCH = 1 / 8  # in a step, at most; and of those known half at most


def fit(
    clip: Clip, correspondences: Correspondences, config: Config, *, checkpoint: Path, device: torch.device,
    reporter: Reporter, threads: int = 1, preview: Callable[[Field], None] | None = None,
) -> Field:  # fmt: skip
    """Fit a field to ``correspondences``.

    Args:
        checkpoint: folder of the resume state; a state found there is gone on from.
        threads: that may work at once on a CPU; the result does not depend on it.
        preview: gets the field as it is at the start and at every checkpoint, without evidence and colors; it may
            look at it only.
    Returns:
        The field on ``device``, without gradients.
    Raises:
        FitError: the loss stays no number.
        Cancelled: the user asked to stop; the checkpoint holds all that was done.
    """
    field = _fitted(_Fitter(clip, correspondences, config, device, threads), checkpoint, reporter, preview)
    with ThreadPoolExecutor(threads) as pool:
        weighed = pool.submit(weigh_evidence, field, correspondences, seed=config.seed)
        pool.submit(keep_colors, field, clip, correspondences).result()
        weighed.result()
    return field


def _fitted(
    fitter: "_Fitter", checkpoint: Path, reporter: Reporter, preview: Callable[[Field], None] | None
) -> Field:
    """The field of a fit that is done; what else it held can go, half of all memory in a long clip."""

    @torch.no_grad()
    def show() -> None:
        if preview is not None:
            preview(fitter.field)

    fitter.run(checkpoint, reporter, show)
    fitter.set_levels()
    return fitter.field.requires_grad_(False)


def steps_for(settings: FitConfig, num_frames: int) -> int:
    """The steps of a clip's fit: ``settings.steps``, and in proportion more where the clip is longer than
    ``LONG_CLIP``, since its frames share every batch."""
    return math.ceil(settings.steps * max(num_frames / LONG_CLIP, 1.0))


def steps_between_looks(steps: int) -> int:
    """After how many steps of a fit points in free space are looked for again."""
    fewest, most = INSPECTIONS
    return max(steps // min(max(steps // LOOK_COSTS, fewest), most), 1)


def learning_rate_factor(step: int, settings: FitConfig) -> float:
    """Share of the learning rate at ``step``: a linear warm-up, then half a cosine down to ``FINAL_RATE``."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def level_rate_factors(step: int, settings: FitConfig, count: int) -> list[float]:
    """Share of that at which each of ``count`` levels of tables learns at ``step``, the coarsest first.

    All begin alike, and the finer one is, the sooner it settles: few matches reach each of its knots, and what these do
    not hold wanders as long as it learns fast, which makes tracks tremble.
    """
    factor = learning_rate_factor(step, settings)
    return [factor ** (1 + LEVEL_SETTLES * level) for level in range(count)]


def depth_rate_factor(step: int, settings: FitConfig) -> float:
    """Share of that at which depth maps learn at ``step``."""
    return EARLY_DEPTH_RATE if step < EARLY * settings.steps else 1.0


class _Fitter(Fitter):
    """The fit of a tabulated field."""

    def __init__(
        self, clip: Clip, correspondences: Correspondences, config: Config, device: torch.device, threads: int = 1
    ) -> None:
        self.settings, self.device = replace(config.fit, steps=steps_for(config.fit, clip.num_frames)), device
        pictures = _depth_sized_pictures(clip, config.model.depth_size(clip.working_size))
        shape = FieldShape.of(clip)
        start = warm_started_field(shape, config.model, correspondences, pictures, config.seed, threads)
        self.field = start.to(device)
        self.field.threads = threads
        self.sampler = MatchSampler(correspondences, device)
        self.deck = self.sampler.shuffled(config.fit.batch, torch.Generator().manual_seed(config.seed))
        self.scale = losses.length_scale(clip.working_size)
        self.compiled = None
        if device.type == "cpu":
            self.compiled = compiled.CompiledLoss(self.field, self.scale, self.settings.depth_weight, threads)
        self.edges = losses.edge_weights(torch.from_numpy(pictures).to(device))
        self.searches = {round(share * self.settings.steps) for share in self.settings.depth_searches}
        self.known = known_cells(clip, self.field)
        self.contradictions: Batch | None = None
        parameters = *self.field.couplings.tables, self.field.depth, self.field.affine.matrix
        groups = [{"params": [each], "lr": 0.0} for each in parameters]  # the rates are set before each step
        optimizer: torch.optim.Optimizer | CompiledAdam
        if self.compiled is None:
            optimizer = torch.optim.Adam(groups, betas=DECAY, fused=True)
        else:
            optimizer = CompiledAdam(groups, betas=DECAY, pool=self.compiled.pool)
        super().__init__(
            self.field, optimizer, steps=self.settings.steps,
            checkpoint_every=self.settings.checkpoint_every, seed=config.seed, rates="fit.lr_tables and fit.lr_depth",
        )  # fmt: skip
        self.set_levels()

    def learning_rates(self) -> list[float]:
        """Of each level of tables, depth maps and affine maps."""
        settings, factor = self.settings, learning_rate_factor(self.step, self.settings)
        levels = level_rate_factors(self.step, settings, len(self.field.couplings.tables))
        depth = factor * depth_rate_factor(self.step, settings)
        return [*(settings.lr_tables * each for each in levels), settings.lr_depth * depth, settings.lr_affine * factor]

    def extra_state(self) -> dict[str, Any]:
        """The points in free space that are known."""
        return {} if self.contradictions is None else self.contradictions.columns()

    def restore_extra_state(self, state: dict[str, Any]) -> None:
        """Go back to these, and to the levels of this step."""
        self.contradictions = Batch(**{name: v.to(self.device) for name, v in state.items()}) if state else None
        self.set_levels()

    def loss(self) -> Tensor:
        """Of a batch of matches, and how smooth tables and a few frames' depth maps are."""
        batch, frames = self._begin()
        roughness = self.settings.table_smoothness * self.field.couplings.roughness()
        return self._match_loss(batch, self._robust_px) + self._depth_terms(frames) + roughness

    def backward(self) -> None:
        """Fill the gradients: of ``loss``, or of the same by compiled loops."""
        if self.compiled is None:
            super().backward()
            return
        settings, (batch, frames) = self.settings, self._begin()
        depth_term = compiled.depth_terms(
            frames, self.edges, smoothness=settings.depth_smoothness, in_range=RANGE_WEIGHT, far=FAR
        )
        self.compiled.backward(batch, self._robust_px, depth_term=depth_term, smoothness=settings.table_smoothness)

    def _begin(self) -> tuple[Batch, Tensor]:
        """What the step takes: matches, and the frames whose depth maps are smoothed."""
        self.set_levels()
        if self.step in self.searches:
            search_depth(self.field, self.sampler, self.scale, self.generator)
        after = self.settings.free_space_after
        if after <= self.step / self.steps and self.step % steps_between_looks(self.steps) == 0:
            self.contradictions = find_contradictions(self.field, self.generator, self.known)
        batch = self._draw()
        frames = torch.randperm(self.field.num_frames, generator=self.generator)[:SMOOTHED_FRAMES].to(self.device)
        return batch, frames

    @property
    def _robust_px(self) -> float | None:
        """Where the penalty turns robust, once it does."""
        return self.settings.robust_scale_px if self.step >= self.settings.robust_after * self.settings.steps else None

    def _draw(self) -> Batch:
        """Matches, and some of the points in free space."""
        count, known = self.settings.batch, self.contradictions
        batch = self.deck.deal(self.step)
        if known is None or len(known) < 2:
            return batch
        share = min(round(count * CONTRADICTIONS_PER_MATCH), len(known) // 2)
        rows = torch.randint(len(known), (share,), generator=self.generator).sort().values
        return batch.with_more(known.take(rows.to(self.device)))

    def set_levels(self) -> None:
        """Let those levels of the tables count that have started: the coarse ones first, so that fine ones, of which
        each sees few matches, hold only what those cannot express."""
        couplings, share = self.field.couplings, self.step / self.steps
        started = sum(start <= share for start in self.settings.level_starts)
        all_of_them = started == len(self.settings.level_starts)
        couplings.levels = len(couplings.tables) if all_of_them else min(started, len(couplings.tables))

    def _depth_terms(self, frames: Tensor) -> Tensor:
        """How smooth the depth maps of ``frames`` are, and whether they stay in the volume."""
        depth, (across, down) = self.field.depth[frames], self.edges
        smooth = losses.depth_smoothness_loss(depth, across[frames], down[frames])
        return self.settings.depth_smoothness * smooth + RANGE_WEIGHT * losses.depth_range_loss(depth, FAR)

    def _match_loss(self, batch: Batch, robust: float | None) -> Tensor:
        """What ``compiled.CompiledLoss`` computes of the matches, on any device."""
        prepared = self.field.prepare()
        start = prepared.lift(batch.frames_from, batch.source)
        landed = prepared.from_canonical(batch.frames_to, prepared.to_canonical(batch.frames_from, start))
        flow = losses.flow_loss(
            prepared.to_pixels(landed) * self.scale, batch.target * self.scale, batch.weight, robust
        )
        map_value = prepared.depth_at(batch.frames_to, landed[:, :2])
        return flow + self.settings.depth_weight * losses.depth_consistency_loss(
            landed[:, 2], map_value, batch.weight, batch.on_surface
        )


def _depth_sized_pictures(clip: Clip, size: tuple[int, int]) -> np.ndarray:
    """All frames at the ``size`` of the depth maps, (T, 3, h, w) float32 colors 0..1."""
    pictures = [cv2.resize(clip.rgb8(t), size, interpolation=cv2.INTER_AREA) for t in range(clip.num_frames)]
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def known_cells(clip: Clip, field: Field) -> Tensor | None:
    """Which cells of the depth maps lie within the clip's mask, (T, h, w) bool; None where all of the clip counts."""
    _, height, width = field.depth.shape
    masks = [mask for t in range(clip.num_frames) if (mask := clip.mask(t)) is not None]
    if not masks:
        return None
    small = [cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) for mask in masks]
    return torch.from_numpy(np.stack(small) > 0).to(field.device)
