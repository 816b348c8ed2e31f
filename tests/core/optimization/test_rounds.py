import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from omnimotion_core.config import Config
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.events import Cancelled, Event, Progress, Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.flow.plan import Plan
from omnimotion_core.flow.stage import find_correspondences, load_correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.optimization.rounds import FlowByField, fit_in_rounds, matches_folder
from omnimotion_core.trajectories.dense import dense_flow
from omnimotion_core.video.clip import Clip

FitInRounds = Callable[..., Field]


@pytest.fixture(scope="module")
def twice(quick: Config) -> Config:
    """Two rounds."""
    return quick.override({"fit": {"rounds": 2}, "flow": {"estimator": "dis"}})


@pytest.fixture(scope="module")
def first(shot: Clip, twice: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The matches that the flow stage finds."""
    folder = tmp_path_factory.mktemp("first")
    find_correspondences(shot, folder, twice.flow, seed=0, threads=1, reporter=Reporter())
    return folder


@pytest.fixture(scope="module")
def run_rounds(shot: Clip, first: Path) -> FitInRounds:
    """Fit in rounds in a folder."""
    torch.set_num_threads(1)

    def run(config: Config, folder: Path, reporter: Reporter | None = None, threads: int = 1) -> Field:
        return fit_in_rounds(
            shot, first, config, rounds=folder / "rounds", checkpoint=folder / "checkpoint",
            device=torch.device("cpu"), reporter=reporter or Reporter(), threads=threads,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def undisturbed(
    run_rounds: FitInRounds, twice: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Field, Path, list[Event]]:
    """Two rounds without a break: the field, their folder, and what was told."""
    folder, events = tmp_path_factory.mktemp("undisturbed"), list[Event]()
    return run_rounds(twice, folder, Reporter(events.append)), folder, events


def _is_same(one: Field, other: Field) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def _share_wrong(matches: Correspondences, scene: Scene) -> float:
    """How many of the matches are off by more than a pixel."""
    wrong = 0
    for row, (i, j) in enumerate(matches.pairs.tolist()):
        exact, _ = scene.flow(i, j)
        rows = matches.rows_of(row)
        x, y = matches.source[rows].astype(int).T
        miss = matches.target[rows] - matches.source[rows] - exact[y, x]
        wrong += int((np.linalg.norm(miss, axis=-1) > 1).sum())
    return wrong / len(matches)


def test_flow_by_a_field_is_that_of_its_dense_flow(field: Field) -> None:
    guide = FlowByField(field)
    for i, j in ((2, 7), (7, 2), (3, 3)):
        found = guide(i, j)
        assert found.shape == (96, 128, 2)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, dense_flow(field, i, j).vectors, atol=1e-4)


def test_it_is_in_working_pixels_whatever_the_plate_has(field: Field) -> None:
    same = FlowByField(field)(2, 7)
    larger = dataclasses.replace(field.shape, size=(512, 384))
    before, field.shape = field.shape, larger
    try:
        np.testing.assert_array_equal(FlowByField(field)(2, 7), same)
    finally:
        field.shape = before


def test_matches_that_the_field_of_the_first_round_guided_are_wrong_less_often(
    undisturbed: tuple[Field, Path, list[Event]], first: Path, shot: Clip, twice: Config, scene: Scene
) -> None:
    _, folder, _ = undisturbed
    before, after = (
        load_correspondences(matches, shot, twice.flow) for matches in (first, matches_folder(folder / "rounds", 2))
    )
    assert len(after) >= len(before)
    assert _share_wrong(after, scene) < 0.97 * _share_wrong(before, scene)  # unguided, they are the same


def test_progress_is_that_of_all_rounds(undisturbed: tuple[Field, Path, list[Event]]) -> None:
    told = [event for event in undisturbed[2] if isinstance(event, Progress)]
    assert {event.stage for event in told} == {"fit"}
    shares = [event.done / event.total for event in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert max(after - before for before, after in zip(shares, shares[1:], strict=False)) < 0.1


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])  # in the first fit, in the second flow, in the second fit
def test_a_cancelled_job_goes_on_in_its_round_to_the_same_end(
    run_rounds: FitInRounds, twice: Config, undisturbed: tuple[Field, Path, list[Event]], tmp_path: Path, share: float
) -> None:
    reached = False

    def listen(event: Event) -> None:
        nonlocal reached
        reached = reached or (isinstance(event, Progress) and event.done >= share * event.total)

    with pytest.raises(Cancelled):
        run_rounds(twice, tmp_path, Reporter(listen, lambda: reached))
    assert _is_same(run_rounds(twice, tmp_path, threads=2), undisturbed[0])


def test_one_round_is_the_fit_alone(
    run_rounds: FitInRounds, quick: Config, field: Field, tmp_path: Path
) -> None:
    assert _is_same(run_rounds(quick, tmp_path), field)
    assert not (tmp_path / "rounds").exists()


def test_the_plan_of_learned_flow_is_that_of_the_round_before(
    run_rounds: FitInRounds, twice: Config, first: Path, tmp_path: Path
) -> None:
    auto = twice.override({"flow": {"estimator": "auto"}})
    plan = Plan(seconds_per_pair=123.0).keep(first)  # of no machine that there is
    run_rounds(auto, tmp_path)
    assert Plan.read(matches_folder(tmp_path / "rounds", 2)) == plan
