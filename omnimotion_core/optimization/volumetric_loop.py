"""The fit of the volumetric field: OmniMotion's own optimization.

A step draws points of several pairs of frames, samples the rays of their first ends, sends all samples through the
canonical volume to the other frame, and pulls the composited positions and colors towards what was matched and seen.

It gives what the published step gives, and leaves out what costs without changing that: the canonical points that
smoothness needs are those at hand, not computed anew; nothing is read back from the device in a step; parameters are
looked at for what is no number when a state is kept, and a diverged fit goes back to the state before and on at half
the rate, where the published loop stops in a debugger.

Where paper and code part, the code is followed: 100,000 steps (paper: 200,000) of 8 pairs with 256 points (paper: "a
total of 1024"), and no start on the unit sphere, which nothing in the code enforces.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnimotion_core.config import Config
from omnimotion_core.events import Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.model.volumetric import VolumetricField
from omnimotion_core.optimization import volumetric_losses as losses
from omnimotion_core.optimization.evidence import map_evidence
from omnimotion_core.optimization.pair_sampling import PairBatch, PairSampler, error_map, to_device
from omnimotion_core.optimization.state import Fitter
from omnimotion_core.optimization.volumetric_step import StepLoss, make_gradients
from omnimotion_core.video.clip import Clip

EVIDENCE_MATCHES = 20_000  # looked at for the evidence maps; each costs a ray
MINED_MATCHES = 4096  # of each frame, looked at for its error map


def fit_volumetric(
    clip: Clip, correspondences: Correspondences, config: Config, *, checkpoint: Path, device: torch.device,
    reporter: Reporter,
) -> VolumetricField:  # fmt: skip
    """Fit the paper's model to ``correspondences`` and the colors of ``clip``.

    Args:
        checkpoint: folder of the resume state; a state found there is gone on from.
    Returns:
        The field on ``device``, without gradients.
    Raises:
        FitError: there are no matches, or the loss stays no number.
        Cancelled: the user asked to stop; the checkpoint holds all that was done.
    """
    fitter = VolumetricFitter(clip, correspondences, config, device)
    fitter.run(checkpoint, reporter)
    fitter.field.set_precision(torch.float32)
    return weighed(fitter.field, correspondences, config.seed)


def weighed(field: VolumetricField, correspondences: Correspondences, seed: int) -> VolumetricField:
    """The field with its evidence maps filled, without gradients."""
    map_evidence(field.requires_grad_(False), correspondences, seed, EVIDENCE_MATCHES)
    return field


class VolumetricFitter(Fitter):
    """The fit of a volumetric field."""

    def __init__(self, clip: Clip, correspondences: Correspondences, config: Config, device: torch.device) -> None:
        self.settings, self.device = config.fit.volumetric, device
        self.field = VolumetricField(FieldShape.of(clip), config.model, seed=config.seed).to(device)
        self.sampler = PairSampler(correspondences, clip, device)
        self.field.set_precision(_precision(self.settings.precision, device))
        self.step_loss = StepLoss(self.field, clip, self.settings)
        self.depths = self.step_loss.depths
        self.make_gradients = make_gradients(self.settings.run, self.step_loss, device)
        settings, field = self.settings, self.field
        couplings = [*field.layers.parameters(), *(field.affine.parameters() if field.affine is not None else ())]
        parameters = list(field.latents.parameters()), couplings, list(field.canonical.parameters())
        self.rates = settings.lr_latent, settings.lr_couplings, settings.lr_canonical
        groups = [{"params": group, "lr": rate} for group, rate in zip(parameters, self.rates, strict=True)]
        super().__init__(
            field, torch.optim.Adam(groups, fused=True), steps=config.fit.steps,
            checkpoint_every=config.fit.checkpoint_every, seed=config.seed,
            rates="fit.volumetric.lr_latent, lr_couplings and lr_canonical",
        )  # fmt: skip

    def scheduled_at(self, step: int) -> float:
        """The step of the published schedules that ``step`` of this fit is."""
        return step * self.settings.pace

    @property
    def scheduled(self) -> float:
        """Where the published schedules are."""
        return self.scheduled_at(self.step)

    def learning_rates(self) -> list[float]:
        """Of latents, couplings and canonical volume: halved in even intervals."""
        return [rate * 0.5 ** int(self.scheduled // self.settings.halve_every) for rate in self.rates]

    def loss(self) -> Tensor:
        """Of newly drawn points, or after a look at where the field is wrong when that is due."""
        return self.batch_loss(*self.draw())

    def backward(self) -> None:
        """The gradients of newly drawn points, the way that ``fit.volumetric.run`` asks for."""
        self.make_gradients(self.weights(), self.scheduled < self.settings.mask_near_steps, *self.draw())

    def draw(self) -> tuple[PairBatch, Tensor]:
        """Points for the next step, and where (B, N, S), in 0..1, each ray's samples lie in their bins."""
        settings = self.settings
        due = int(self.scheduled // settings.mine_every)
        if due > 0 and due != int(self.scheduled_at(self.step - 1) // settings.mine_every):
            self.mine()
        interval = losses.max_interval(
            self.scheduled, settings.start_interval, settings.widen_every, self.field.num_frames
        )
        batch = self.sampler.draw(settings.pairs, settings.points, interval, self.generator)
        where = torch.rand(settings.pairs, settings.points, len(self.depths), generator=self.generator)
        return batch, to_device(where, self.device)

    def weights(self) -> losses.LossWeights:
        """Of the loss terms, at this step."""
        return losses.loss_weights(self.scheduled, self.settings.flow_weight)

    def batch_loss(self, batch: PairBatch, where: Tensor) -> Tensor:
        """The loss of what ``draw`` gives."""
        return self.step_loss(self.weights(), self.scheduled < self.settings.mask_near_steps, batch, where)

    @torch.no_grad()
    def mine(self) -> None:
        """Measure how wrong the field is at the matches between neighbors, and draw by that from now on."""
        prepared, size = self.field.prepare(), self.field.shape.working_size
        rows = self.sampler.adjacent_rows()
        empty = error_map(np.zeros((0, 2)), np.zeros(0), size)
        maps = np.repeat(empty[None], self.field.num_frames, axis=0)
        for t, row in rows.items():
            source, target = self.sampler.matches_of(row)
            step = max(-(-len(source) // MINED_MATCHES), 1)
            source, target = source[::step], target[::step]
            here, there = (torch.full((len(source),), int(f), device=self.device) for f in self.sampler.pairs[row])
            canonical = prepared.to_canonical(here, prepared.lift(here, source))
            miss = (prepared.to_pixels(prepared.from_canonical(there, canonical)) - target).norm(dim=-1)
            maps[t] = error_map(source.cpu().numpy(), np.nan_to_num(miss.cpu().numpy(), posinf=0.0), size)
        self.sampler.mine(maps)

    def extra_state(self) -> dict[str, Any]:
        """The error maps that are drawn by."""
        maps = self.sampler.error_maps
        return {} if maps is None else {"error_maps": torch.from_numpy(maps)}

    def restore_extra_state(self, state: dict[str, Any]) -> None:
        """Draw as when ``state`` was kept."""
        if "error_maps" in state:
            self.sampler.mine(state["error_maps"].numpy())
        else:
            self.sampler.forget()


def _precision(name: str, device: torch.device) -> torch.dtype:
    """Of the hidden layers in a fit."""
    lower = name == "bfloat16" or (name == "auto" and device.type == "cuda")
    return torch.bfloat16 if lower else torch.float32
