"""A run beside others: which are in the table, and what is told while they are made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from omnimotion_core.comparison import (
    CHAINED,
    DIRECT,
    LUCAS_KANADE,
    NAMES,
    OURS,
    SEVERAL,
    VOLUMETRIC,
    compare,
    compare_with,
)
from omnimotion_core.config import Config
from omnimotion_core.errors import EvaluationError, FitError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.evaluation.tapvid import Truth
from omnimotion_core.events import Event, Noted, Progress, Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.model.volumetric import VolumetricField
from omnimotion_core.optimization import timed
from omnimotion_core.results import Results
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip


def exact_results(shot: Clip, truth: Truth, config: Config, matches: Correspondences | None = None) -> Results:
    """Stands in for a run whose field is exact where the points are visible, and whose fit took 2 s."""

    def query(queries: np.ndarray) -> Tracks:
        return Tracks(
            queries=queries, positions=truth.target_points.astype(np.float32) - 0.5, visible=~truth.occluded,
            confidence=np.ones(truth.occluded.shape, np.float32), depth=np.zeros(truth.occluded.shape, np.float32),
            size=shot.size, first_frame=0, fps=25.0,
        )  # fmt: skip

    run = SimpleNamespace(manifest={"stages": {"flow": {"seconds": 40.0}, "fit": {"seconds": 2.0}, "tracks": {}}})
    return cast(Results, SimpleNamespace(
        clip=shot, config=config, query=query, run=run, fitted_to=matches, device=torch.device("cpu"), threads=1
    ))  # fmt: skip


def steps_of(told: list[Event]) -> list[tuple[int, int]]:
    return [(event.done, event.total) for event in told if isinstance(event, Progress)]


def test_every_baseline_and_its_seconds(
    shot: Clip, scene: Scene, quick: Config, matches: Correspondences
) -> None:
    truth, told = scene.truth(30, seed=4), list[Event]()
    results = exact_results(shot, truth, quick, matches)
    found = compare_with(results, truth, "first", reporter=Reporter(told.append), baselines=True)
    assert tuple(found.figures) == NAMES
    assert found.figures[OURS].average_jaccard == 1.0
    assert 42 <= (found.seconds[OURS] or 0) < 43
    assert (found.seconds[VOLUMETRIC] or 0) > 42
    assert all((found.seconds[name] or 0) > 0 for name in NAMES)
    assert all(found.figures[name].average_points_within > 0.5 for name in NAMES if name != VOLUMETRIC)
    steps = steps_of(told)
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    assert set(compare(results, truth, "first", reporter=Reporter())) == {OURS, CHAINED, LUCAS_KANADE}


def test_the_papers_model_is_given_the_time_of_the_fit_and_its_matches(
    shot: Clip, scene: Scene, quick: Config, matches: Correspondences, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, asked = scene.truth(5, seed=4), list[float]()

    def fit(seconds: float, clip: Clip, correspondences: Correspondences, **given: Any) -> VolumetricField:
        assert clip is shot
        assert correspondences is matches
        assert given["seed"] == quick.seed
        asked.append(seconds)
        return VolumetricField(FieldShape.of(clip), timed.timed_config(clip.working_size, given["device"]).model)

    monkeypatch.setattr(timed, "fit_volumetric_in", fit)
    results = exact_results(shot, truth, quick, matches)
    for factor in (1.0, 2.5, 0.0):
        found = compare_with(results, truth, "first", reporter=Reporter(), baselines=True, volumetric_time=factor)
        assert (VOLUMETRIC in found.figures) == (factor > 0)
    assert asked == [2.0, 5.0]
    itself = exact_results(shot, truth, quick.override({"model": {"kind": "volumetric"}}), matches)
    assert VOLUMETRIC not in compare_with(itself, truth, "first", reporter=Reporter(), baselines=True).figures


def test_a_rival_that_diverges_is_left_out_and_the_others_stay(
    shot: Clip, scene: Scene, quick: Config, matches: Correspondences, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*given: Any, **more: Any) -> None:
        raise FitError("the fit diverges", "lower its rates")

    monkeypatch.setattr(timed, "fit_volumetric_in", diverge)
    truth, told = scene.truth(5, seed=4), list[Event]()
    results = exact_results(shot, truth, quick, matches)
    found = compare_with(results, truth, "first", reporter=Reporter(told.append), baselines=True)
    assert set(found.figures) == set(NAMES) - {VOLUMETRIC}
    assert [event.message for event in told if isinstance(event, Noted)] == ["volumetric is left out: the fit diverges"]
    assert found.format()


def test_a_folder_with_flow_of_some_pairs_leaves_direct_flow_out(
    shot: Clip, scene: Scene, quick: Config, tmp_path: Path
) -> None:
    for i in range(shot.num_frames - 1):
        for a, b in ((i, i + 1), (i + 1, i)):
            name = f"flow_{a + shot.first_frame:04d}_{b + shot.first_frame:04d}.npy"
            np.save(tmp_path / name, scene.flow(a, b)[0])
    truth, told = scene.truth(30, seed=4), list[Event]()
    results = exact_results(shot, truth, quick.override({"flow": {"estimator": str(tmp_path)}}))
    found = compare_with(
        results, truth, "first", reporter=Reporter(told.append), baselines=True, volumetric_time=0.0
    )  # fmt: skip
    assert DIRECT not in found.figures
    assert found.figures[SEVERAL].average_jaccard == pytest.approx(found.figures["chained flow"].average_jaccard)
    assert ["direct flow is left out" in event.message for event in told if isinstance(event, Noted)] == [True]
    steps = steps_of(told)
    assert steps[-1][0] == steps[-1][1]


def test_a_name_that_is_taken_is_refused(shot: Clip, scene: Scene, quick: Config, tmp_path: Path) -> None:
    truth = scene.truth(5)
    with pytest.raises(EvaluationError, match="direct flow is the name"):
        compare_with(exact_results(shot, truth, quick), truth, "first", reporter=Reporter(),
                     answers={DIRECT: tmp_path / "a.npz"})  # fmt: skip
