"""The paper's model in a given time: it learns, its schedules pass, and it ends when the time is over."""

import itertools
import time

import numpy as np
import pytest
import torch

from omnimotion_core.config import Config
from omnimotion_core.errors import FitError
from omnimotion_core.events import Cancelled, Event, Progress, Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.optimization.timed import PUBLISHED_STEPS, TimedFitter, fit_volumetric_in, timed_config
from omnimotion_core.optimization.volumetric_loop import VolumetricFitter
from omnimotion_core.trajectories.query import track_points
from omnimotion_core.video.clip import Clip

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes from look to look."""
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)


@pytest.mark.usefixtures("clock")
def test_schedules_pass_in_the_time_that_is_given(
    scene_clip: Clip, exact: Correspondences, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter, told, rates, mined = TimedFitter(scene_clip, exact, small, CPU, 10.0), list[Event](), [], []
    advance = VolumetricFitter.advance

    def noted(self: VolumetricFitter) -> None:
        rates.append(self.learning_rates()[0] / self.rates[0])
        advance(self)

    monkeypatch.setattr(VolumetricFitter, "advance", noted)
    monkeypatch.setattr(TimedFitter, "mine", lambda self: mined.append(self.scheduled))
    fitter.run_out(Reporter(told.append))
    assert fitter.step == 10
    assert rates == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625]  # halved every fifth of the schedules
    assert mined == pytest.approx([0.2 * k * PUBLISHED_STEPS for k in range(1, 5)])
    assert [event.done for event in told if isinstance(event, Progress)] == [*range(0, 101, 10)]


@pytest.mark.usefixtures("clock")
def test_what_it_learns_brings_points_nearer_to_their_matches(scene_clip: Clip, exact: Correspondences) -> None:
    def miss(seconds: float) -> float:
        field = fit_volumetric_in(seconds, scene_clip, exact, seed=0, device=CPU, reporter=Reporter())
        chosen = np.arange(0, len(exact.source), 50)
        i, j = exact.pairs[exact.pair[chosen]].T
        tracks = track_points(field, np.column_stack([i, exact.source[chosen]]).astype(np.float32))
        return float(np.linalg.norm(tracks.positions[np.arange(len(chosen)), j] - exact.target[chosen], axis=1).mean())

    assert miss(300.0) < 0.75 * miss(1.0)


def test_it_can_be_stopped_and_a_fit_that_diverges_is_told(
    scene_clip: Clip, exact: Correspondences, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Cancelled):
        fit_volumetric_in(1e6, scene_clip, exact, seed=0, device=CPU, reporter=Reporter(cancelled=lambda: True))
    fitter = TimedFitter(scene_clip, exact, small, CPU, 1e6)
    monkeypatch.setattr(TimedFitter, "backward", lambda self: next(self.module.parameters()).data.fill_(torch.nan))
    with pytest.raises(FitError, match="diverges"):
        fitter.run_out(Reporter())


@pytest.mark.usefixtures("clock")
def test_what_diverged_since_the_last_kept_state_is_not_handed_out(
    scene_clip: Clip, exact: Correspondences, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter = TimedFitter(scene_clip, exact, small, CPU, 5.0)
    monkeypatch.setattr(TimedFitter, "backward", lambda self: next(self.module.parameters()).data.fill_(torch.nan))
    fitter.run_out(Reporter())
    assert all(parameter.isfinite().all() for parameter in fitter.field.parameters())


def test_a_gpu_fits_the_published_networks() -> None:
    whole, reduced = timed_config((427, 240), torch.device("cuda")), timed_config((427, 240), CPU)
    assert whole.model == Config.from_preset("paper").model
    assert whole.fit.volumetric.points == 256
    assert reduced.model.volumetric.coupling_hidden < whole.model.volumetric.coupling_hidden
    assert whole.fit.volumetric.flow_weight == reduced.fit.volumetric.flow_weight == 2.0
