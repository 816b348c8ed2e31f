"""The paper's model, fitted for a given time: what is set beside a run's own fit at equal time.

On a GPU the published networks learn. On a CPU one of their steps takes seconds, so that in the time of a whole fit of
ours they would stay where they began; a smaller copy learns there, of narrower networks, fewer samples and points, and
higher rates. The published schedules pass in that time, however many steps it is.
"""

import time
from typing import Any

import torch

from omnimotion_core.config import Config
from omnimotion_core.events import Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.volumetric import VolumetricField
from omnimotion_core.optimization.volumetric_loop import VolumetricFitter, weighed
from omnimotion_core.video.clip import Clip

PUBLISHED_STEPS = 100_000  # that the schedules are written for
PUBLISHED_SIDE_PX = 854  # of the frames that the published weights are meant for
_SMALL: dict[str, Any] = {
    "model": {"volumetric": {
        "num_samples": 6, "latent_size": 32, "latent_hidden": 64, "coupling_hidden": 64, "color_hidden": 48,
        "affine_layers": 2,
    }},
    "fit": {"volumetric": {
        "points": 32, "smooth_points": 4, "lr_latent": 2e-3, "lr_couplings": 2e-3, "lr_canonical": 2e-3,
    }},
}  # fmt: skip


def fit_volumetric_in(
    seconds: float, clip: Clip, correspondences: Correspondences, *, seed: int, device: torch.device,
    reporter: Reporter,
) -> VolumetricField:  # fmt: skip
    """Fit the paper's model to ``correspondences`` for ``seconds``; nothing is written.

    Args:
        seconds: from the first step to the last; there is one at least.
    Returns:
        The field on ``device``, without gradients.
    Raises:
        FitError: there are no matches, or the loss stays no number.
        Cancelled: the user asked to stop.
    """
    config = timed_config(clip.working_size, device).override({"seed": seed})
    fitter = TimedFitter(clip, correspondences, config, device, seconds)
    fitter.run_out(reporter)
    fitter.field.set_precision(torch.float32)
    return weighed(fitter.field, correspondences, seed)


def timed_config(working_size: tuple[int, int], device: torch.device) -> Config:
    """The paper's settings: on a GPU as published, else of the smaller copy.

    The flow terms are in pixels and the others are not; they weigh what they do in frames of the published size.
    """
    weight = PUBLISHED_SIDE_PX / max(working_size)
    changes = {"fit": {"checkpoint_every": 100, "volumetric": {"flow_weight": weight}}}
    config = Config.from_preset("paper").override(changes)
    return config if device.type == "cuda" else config.override(_SMALL)


class TimedFitter(VolumetricFitter):
    """A fit that ends with its time, and whose schedules are where its time is."""

    def __init__(
        self, clip: Clip, correspondences: Correspondences, config: Config, device: torch.device, seconds: float
    ) -> None:
        super().__init__(clip, correspondences, config, device)
        self.seconds = seconds
        self._shares = {0: 0.0}  # of the time that was gone when each step began

    def scheduled_at(self, step: int) -> float:
        """The step of the published schedules that ``step`` of this fit is."""
        return PUBLISHED_STEPS * self._shares.get(step, 0.0)

    def run_out(self, reporter: Reporter) -> None:
        """Step until the time is over.

        Raises:
            FitError: the loss stays no number.
            Cancelled: the user asked to stop.
        """
        began, share = time.perf_counter(), 0.0
        while share < 1.0:
            reporter.progress("fit", int(100 * share), 100)
            self._shares[self.step] = share
            self.advance()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # steps that are only asked for are not done
            share = min((time.perf_counter() - began) / self.seconds, 1.0)
        self.steps = self.step
        self._keep_or_restart()
        reporter.progress("fit", 100, 100)
