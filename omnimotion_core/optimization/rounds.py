"""Rounds of flow and fit: a fitted field knows where things go better than the matches that it was fitted to.

A field holds one motion for all frames, so that what is right over some distances mends what is wrong over others. From
the second round on its flow is a candidate for every pair of frames: followed, it replaces what failed, and what all
but agrees with it and proves worse; all that is composed of it gains too. Then a new field is fitted.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from omnimotion_core.config import Config
from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.devices import give_back_memory
from omnimotion_core.events import Event, Progress, Reporter
from omnimotion_core.flow.stage import Guidance, find_correspondences, load_correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import Motion
from omnimotion_core.model.storage import load_field, save_field
from omnimotion_core.optimization.loop import fit
from omnimotion_core.video.clip import Clip

FLOW_SHARE = 0.75  # of the time of a round
UNITS = 1000  # in which progress over all rounds is told


class FlowByField:
    """Flow between frames by a fitted field."""

    def __init__(self, field: Motion) -> None:
        self._motion = field.prepare()

    @torch.no_grad()
    def __call__(self, source: int, target: int) -> np.ndarray:
        """Where the surface seen at each working pixel of frame ``source`` goes to: (h, w, 2) float32, also where it is
        hidden in ``target``."""
        motion = self._motion
        width, height = motion.shape.working_size
        pixels = torch.from_numpy(pixel_grid((width, height)).reshape(-1, 2).astype(np.float32)).to(motion.device)
        here, there = (torch.full((len(pixels),), t, device=motion.device) for t in (source, target))
        landed = motion.from_canonical(there, motion.to_canonical(here, motion.lift(here, pixels)))
        flow: np.ndarray = (motion.to_pixels(landed) - pixels).numpy(force=True).reshape(height, width, 2)
        return flow


def matches_folder(rounds: Path, number: int) -> Path:
    """Where the matches of a round after the first are kept."""
    return rounds / str(number) / "correspondences"


def fit_in_rounds(
    clip: Clip, first: Path, config: Config, *, rounds: Path, checkpoint: Path, device: torch.device,
    reporter: Reporter, threads: int = 1, preview: Callable[[Field], None] | None = None,
) -> Field:  # fmt: skip
    """Fit a field to matches in ``config.fit.rounds`` rounds, the last of which is as ``loop.fit`` does it.

    What a round has made is kept, so that a stopped job goes on in the round in which it was.

    Args:
        first: folder of the matches that the flow stage has found.
        rounds: folder that gets one folder for each round: its matches, and of all but the last its field.
        checkpoint: folder of the resume state of the last round's fit.
    Returns:
        The field on ``device``, without gradients.
    Raises:
        FitError: the loss stays no number.
        Cancelled: the user asked to stop; all that was done is kept.
    """
    count, folder = config.fit.rounds, first

    def fitted(number: int, checkpoint: Path) -> Field:
        matches = load_correspondences(folder, clip, config.flow)
        part = _part(reporter, number, count, FLOW_SHARE)
        return fit(clip, matches, config, checkpoint=checkpoint, device=device, reporter=part, threads=threads,
                   preview=preview)

    for number in range(1, count):
        here = rounds / str(number)
        model, facts = here / "model.safetensors", here / "model.json"
        if not facts.exists():  # which is written last
            save_field(fitted(number, here / "checkpoint"), model, facts)
        shutil.rmtree(here / "checkpoint", ignore_errors=True)
        guide = FlowByField(load_field(model, facts, device))  # read back: a resumed job has no other
        before, folder = folder, matches_folder(rounds, number + 1)
        find_correspondences(
            clip, folder, config.flow, seed=config.seed, threads=threads,
            reporter=_part(reporter, number + 1, count, 0), device=config.device,
            guidance=Guidance(guide, before),
        )  # fmt: skip
        give_back_memory()
    return fitted(count, checkpoint)


def _part(reporter: Reporter, number: int, count: int, begin: float) -> Reporter:
    """A reporter that tells how far the fit stage is as a whole.

    Args:
        number, count: of this round, from 1, and of all; the first is without flow, which the stage before has found.
        begin: 0 for a round's flow, ``FLOW_SHARE`` for its fit.
    """
    if count == 1:
        return reporter
    start, length, whole = number - 1 - FLOW_SHARE + begin, FLOW_SHARE, count - FLOW_SHARE
    if begin > 0:
        length = 1 - FLOW_SHARE

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            done = (start + length * event.done / max(event.total, 1)) / whole
            event = Progress(stage="fit", done=round(UNITS * done), total=UNITS)
        reporter.emit(event)

    return Reporter(emit, reporter.cancelled)
