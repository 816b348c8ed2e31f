"""The test-time optimisation: from matches to a field.

Each step draws matches, sends their first ends through the canonical volume to the other frame, and pulls the field
towards the second ends. It can be stopped between any two steps and goes on from its checkpoint with the same result.
"""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from omnimotion_core.config import Config, FitConfig
from omnimotion_core.errors import FitError
from omnimotion_core.events import Cancelled, Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.field import FAR, Field, FieldShape
from omnimotion_core.optimization import losses
from omnimotion_core.optimization.checkpoint import load_checkpoint, save_checkpoint
from omnimotion_core.optimization.evidence import weigh_evidence
from omnimotion_core.optimization.sampling import Batch, MatchSampler
from omnimotion_core.optimization.warm_start import warm_started_field
from omnimotion_core.video.clip import Clip

FINAL_RATE = 0.03  # of the learning rate, at the end of its cosine
SMOOTHED_FRAMES = 8  # frames whose depth maps are smoothed in a step, chosen at random
RANGE_WEIGHT = 10.0  # OmniMotion's weight of its depth range term
MAX_RESTARTS = 3  # from the last good state at half the rate, when the loss is no number
DECAY = (0.9, 0.99)


def fit(
    clip: Clip, correspondences: Correspondences, config: Config, *, checkpoint: Path, device: torch.device,
    reporter: Reporter,
) -> Field:  # fmt: skip
    """Fit a field to ``correspondences``.

    Args:
        checkpoint: folder of the resume state; a state found there is gone on from.
    Returns:
        The field on ``device``, without gradients.
    Raises:
        FitError: the loss stays no number.
        Cancelled: the user asked to stop; the checkpoint holds all that was done.
    """
    fitter = _Fitter(clip, correspondences, config, device)
    fitter.resume(checkpoint)
    settings = config.fit
    while fitter.step < settings.steps:
        try:
            reporter.progress("fit", fitter.step, settings.steps)
        except Cancelled:
            fitter.save(checkpoint)
            raise
        fitter.advance()
        if fitter.step % settings.checkpoint_every == 0 and fitter.step < settings.steps:
            fitter.save(checkpoint)
    reporter.progress("fit", settings.steps, settings.steps)
    field = fitter.field.requires_grad_(False)
    weigh_evidence(field, correspondences, seed=config.seed)
    return field


def learning_rate_factor(step: int, settings: FitConfig) -> float:
    """Share of the learning rate at ``step``: a linear warm-up, then half a cosine down to ``FINAL_RATE``."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class _Fitter:
    """The optimisation's whole state: field, optimizer, random numbers, step."""

    def __init__(self, clip: Clip, correspondences: Correspondences, config: Config, device: torch.device) -> None:
        self.settings, self.device = config.fit, device
        shape = FieldShape(
            size=clip.size, working_size=clip.working_size, num_frames=clip.num_frames, cuts=clip.cuts,
            first_frame=clip.first_frame, fps=clip.fps,
        )  # fmt: skip
        self.field = warm_started_field(shape, config.model, correspondences, config.seed).to(device)
        self.sampler = MatchSampler(correspondences, device)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.scale = losses.length_scale(clip.working_size)
        self.edges = losses.edge_weights(_depth_sized_pictures(clip, self.field).to(device))
        self.rates = (self.settings.lr_tables, self.settings.lr_depth, self.settings.lr_affine)
        parameters = list(self.field.couplings.parameters()), [self.field.depth], [self.field.affine.matrix]
        groups = [{"params": group, "lr": rate} for group, rate in zip(parameters, self.rates, strict=True)]
        self.optimizer = torch.optim.Adam(groups, betas=DECAY, fused=True)
        self.step, self.restarts = 0, 0
        self.good = self._snapshot()

    def advance(self) -> None:
        """One step; a loss that is no number brings back the last good state and halves the rate."""
        factor = learning_rate_factor(self.step, self.settings) * 0.5**self.restarts
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        batch = self.sampler.draw(self.settings.batch, self.generator)
        frames = torch.randperm(self.field.num_frames, generator=self.generator)[:SMOOTHED_FRAMES].to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        self._loss(batch, frames).backward()
        self.optimizer.step()
        self.step += 1
        if self.step % self.settings.checkpoint_every == 0 or self.step == self.settings.steps:
            self._keep_or_restart()

    def _loss(self, batch: Batch, frames: Tensor) -> Tensor:
        settings, prepared = self.settings, self.field.prepare()
        start = prepared.lift(batch.frames_from, batch.source)
        landed = prepared.from_canonical(batch.frames_to, prepared.to_canonical(batch.frames_from, start))
        robust = settings.robust_scale_px if self.step >= settings.robust_after * settings.steps else None
        flow = losses.flow_loss(
            prepared.to_pixels(landed) * self.scale, batch.target * self.scale, batch.weight, robust
        )
        map_value = prepared.depth_at(batch.frames_to, landed[:, :2])
        consistency = losses.depth_consistency_loss(landed[:, 2], map_value, batch.weight)
        depth = self.field.depth[frames]
        across, down = self.edges
        return (
            flow
            + settings.depth_weight * consistency
            + settings.depth_smoothness * losses.depth_smoothness_loss(depth, across[frames], down[frames])
            + RANGE_WEIGHT * losses.depth_range_loss(depth, FAR)
            + settings.table_smoothness * self.field.couplings.roughness()
        )

    def _keep_or_restart(self) -> None:
        """Keep the state when every parameter is a number, else go back to the one kept before."""
        if all(bool(parameter.isfinite().all()) for parameter in self.field.parameters()):
            self.good = self._snapshot()
            return
        if self.restarts == MAX_RESTARTS:
            raise FitError(
                f"the fit diverges even at {0.5**MAX_RESTARTS:g} of its learning rate",
                "check the flow that was handed in, or lower fit.lr_tables and fit.lr_depth",
            )
        restarts = self.restarts + 1
        self._restore(self.good)
        self.restarts = restarts

    def _snapshot(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "step": self.step,
            "restarts": self.restarts,
            "field": self.field.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        copied: dict[str, Any] = _copied(state)
        return copied

    def _restore(self, state: dict[str, Any]) -> None:
        state = _copied(state)
        self.step, self.restarts = state["step"], state["restarts"]
        self.field.load_state_dict(state["field"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])

    def save(self, folder: Path) -> None:
        """Write the state of this very step."""
        save_checkpoint(folder, {**self._snapshot(), "good": self.good})

    def resume(self, folder: Path) -> None:
        """Go on from the state in ``folder`` where there is one."""
        state = load_checkpoint(folder)
        if state is not None:
            self.good = state.pop("good")
            self._restore(state)


def _copied(state: Any) -> Any:
    """A copy of nested state that shares no tensor with it."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state


def _depth_sized_pictures(clip: Clip, field: Field) -> Tensor:
    """All frames at the size of the depth maps, (T, 3, h, w) colors 0..1."""
    height, width = field.depth.shape[1:]
    pictures = [cv2.resize(clip.rgb8(t), (width, height), interpolation=cv2.INTER_AREA) for t in range(clip.num_frames)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255.0
