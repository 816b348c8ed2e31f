import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from omnimotion_core.config import Config, FitConfig
from omnimotion_core.errors import FitError, RunError
from omnimotion_core.events import Cancelled, Progress, Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.optimization.checkpoint import load_checkpoint, save_checkpoint
from omnimotion_core.optimization.compiled_tables import CompiledTables
from omnimotion_core.optimization.free_space import find_contradictions
from omnimotion_core.optimization.loop import (
    EARLY_DEPTH_RATE,
    FINAL_RATE,
    depth_rate_factor,
    fit,
    known_cells,
    learning_rate_factor,
    level_rate_factors,
    steps_between_looks,
    steps_for,
)
from omnimotion_core.optimization.sampling import MatchSampler
from omnimotion_core.video.clip import Clip

CPU = torch.device("cpu")
Fit = Callable[..., Field]


@pytest.fixture
def short(quick: Config) -> Config:
    return dataclasses.replace(quick, fit=dataclasses.replace(quick.fit, steps=30, batch=512, checkpoint_every=10))


@pytest.fixture
def run_fit(shot: Clip, matches: Correspondences, short: Config, tmp_path: Path) -> Fit:
    def run(config: Config = short, folder: Path = tmp_path / "checkpoint", reporter: Reporter | None = None) -> Field:
        return fit(shot, matches, config, checkpoint=folder, device=CPU, reporter=reporter or Reporter())

    return run


def assert_same(first: Field, second: Field) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def stop_at(step: int) -> Reporter:
    seen: list[int] = []
    return Reporter(lambda event: seen.append(event.done) if isinstance(event, Progress) else None,
                    lambda: bool(seen) and seen[-1] >= step)  # fmt: skip


def test_the_fitted_field_misses_its_matches_by_little(field: Field, matches: Correspondences) -> None:
    batch = MatchSampler(matches, CPU).shuffled(5000, torch.Generator().manual_seed(0)).deal(0)
    prepared = field.prepare()
    canonical = prepared.to_canonical(batch.frames_from, prepared.lift(batch.frames_from, batch.source))
    landed = prepared.to_pixels(prepared.from_canonical(batch.frames_to, canonical))
    assert (landed - batch.target).norm(dim=-1).median() < 0.4
    assert (batch.source - batch.target).norm(dim=-1).median() > 2


def test_the_same_seed_gives_the_same_field_bit_for_bit(run_fit: Fit, tmp_path: Path, short: Config) -> None:
    first = run_fit(folder=tmp_path / "a")
    assert_same(first, run_fit(folder=tmp_path / "b"))
    other = run_fit(dataclasses.replace(short, seed=1), folder=tmp_path / "c")
    assert not torch.equal(first.depth, other.depth)


@pytest.mark.parametrize("step", [0, 7, 10, 29])
def test_a_cancelled_fit_goes_on_with_the_same_result(run_fit: Fit, tmp_path: Path, step: int) -> None:
    whole = run_fit(folder=tmp_path / "whole")
    with pytest.raises(Cancelled):
        run_fit(folder=tmp_path / "stopped", reporter=stop_at(step))
    state = load_checkpoint(tmp_path / "stopped")
    assert state is not None
    assert state["step"] == step
    assert_same(run_fit(folder=tmp_path / "stopped"), whole)


def test_levels_start_one_after_the_other_and_all_count_in_the_end(
    run_fit: Fit, short: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []
    by_frame = CompiledTables.by_frame

    def noted(compiled: CompiledTables) -> np.ndarray:
        total = by_frame(compiled)
        sides.append(total.shape[-1])
        return total

    monkeypatch.setattr(CompiledTables, "by_frame", noted)
    knots = [count for _, count in short.model.knots]
    quiet = {"depth_searches": [], "free_space_after": 1.0, "level_starts": [0.0, 0.5]}
    field = run_fit(short.override({"fit": quiet}))
    assert sides == [knots[0]] * 15 + [knots[-1]] * 15
    assert field.couplings.levels == len(knots)
    started = [float(table.abs().max()) for table in field.couplings.tables]
    assert min(started) > 1e-3


def test_the_finer_a_level_is_the_sooner_it_settles() -> None:
    settings = Config().fit
    steps = range(0, settings.steps, 50)
    coarsest, *finer = zip(*(level_rate_factors(step, settings, 3) for step in steps), strict=True)
    assert list(coarsest) == [learning_rate_factor(step, settings) for step in steps]
    np.testing.assert_allclose(finer[0], np.power(coarsest, 1.5))
    np.testing.assert_allclose(finer[1], np.square(coarsest))
    assert level_rate_factors(settings.warmup_steps, settings, 3) == [1.0, 1.0, 1.0]


def test_each_level_learns_at_its_own_rate(
    run_fit: Fit, short: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short.override({"fit": {"level_starts": [0.0]}})
    with pytest.raises(Cancelled):
        run_fit(config, reporter=stop_at(0))
    state = load_checkpoint(tmp_path / "checkpoint")
    assert state is not None
    monkeypatch.setattr("omnimotion_core.optimization.loop.level_rate_factors", lambda step, settings, count: [0, 1])
    coarse, fine = run_fit(config).couplings.tables
    assert torch.equal(coarse, state["field"]["couplings.tables.0"])
    assert not torch.equal(fine, state["field"]["couplings.tables.1"])


def test_a_checkpoint_of_another_version_is_told(run_fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        run_fit(reporter=stop_at(7))
    state = load_checkpoint(tmp_path / "checkpoint")
    assert state is not None
    del state["optimizer"]["param_groups"][-1]
    save_checkpoint(tmp_path / "checkpoint", state)
    with pytest.raises(RunError, match="checkpoint is of another version of the program; delete"):
        run_fit()


def test_points_in_free_space_are_known_to_the_checkpoint(run_fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        run_fit(reporter=stop_at(10))
    early = load_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(Cancelled):
        run_fit(reporter=stop_at(20))
    late = load_checkpoint(tmp_path / "checkpoint")
    assert early is not None
    assert late is not None
    assert early["extra"] == {}
    assert len(late["extra"]["source"]) > 20


def test_nothing_is_known_outside_the_mask(shot: Clip, short: Config, tmp_path: Path) -> None:
    field = Field(FieldShape.of(shot), short.model)
    assert known_cells(shot, field) is None
    masked = dataclasses.replace(shot, folder=tmp_path, has_mask=True)
    width, height = shot.working_size
    for t in range(shot.num_frames):
        mask = np.zeros((height, width), np.uint8)
        mask[:, : width // 2] = 255 * (t != 1)
        cv2.imwrite(str(masked.mask_path(t)), mask)
    known = known_cells(masked, field)
    assert known is not None
    assert known.shape == field.depth.shape
    columns = known.shape[2]
    assert known[0, :, : columns // 2 - 1].all()
    assert not known[0, :, columns // 2 + 1 :].any()
    assert not known[1].any()


def test_points_in_free_space_become_fewer(
    shot: Clip, matches: Correspondences, quick: Config, tmp_path: Path
) -> None:
    def left(after: float) -> int:
        settings = dataclasses.replace(quick.fit, free_space_after=after, steps=200)
        config = dataclasses.replace(quick, fit=settings)
        field = fit(shot, matches, config, checkpoint=tmp_path / str(after), device=CPU, reporter=Reporter())
        return len(find_contradictions(field, torch.Generator().manual_seed(9)))

    assert left(0.45) < 0.9 * left(1.0)  # four fifths of them, more or less by the processor's arithmetic


def test_a_killed_fit_goes_on_from_its_last_checkpoint(run_fit: Fit, tmp_path: Path) -> None:
    class Killed(BaseException):
        """Stands for a kill: nothing is saved on the way out."""

    def die(event: object) -> None:
        if isinstance(event, Progress) and event.done == 17:
            raise Killed

    whole = run_fit(folder=tmp_path / "whole")
    with pytest.raises(Killed):
        run_fit(folder=tmp_path / "killed", reporter=Reporter(die))
    state = load_checkpoint(tmp_path / "killed")
    assert state is not None
    assert state["step"] == 10
    assert_same(run_fit(folder=tmp_path / "killed"), whole)


def test_a_loss_that_is_no_number_goes_back_and_slows_down(
    run_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = CompiledTables.by_frame, iter(range(1000))
    spoilt = lambda tables: original(tables) * np.float32("nan" if next(calls) == 14 else 1)  # noqa: E731
    monkeypatch.setattr(CompiledTables, "by_frame", spoilt)
    field = run_fit()
    assert all(bool(parameter.isfinite().all()) for parameter in field.parameters())
    assert next(calls) == 40  # steps 11 to 20 were done twice


def test_a_loss_that_stays_no_number_is_told(run_fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    original = CompiledTables.by_frame
    monkeypatch.setattr(CompiledTables, "by_frame", lambda tables: original(tables) * np.float32("nan"))
    with pytest.raises(FitError, match=r"diverges even at 0\.125"):
        run_fit()


def test_a_damaged_checkpoint_is_told(run_fit: Fit, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", {"step": 3})
    path = tmp_path / "checkpoint" / "state.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="is damaged; delete"):
        run_fit()


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("harm done",)

    torch.save({"step": Harm()}, tmp_path / "state.pt")
    with pytest.raises(RunError, match="is damaged"):
        load_checkpoint(tmp_path)


def test_the_learning_rate_warms_up_and_falls_to_its_end() -> None:
    settings = FitConfig(steps=1000, warmup_steps=50)
    factors = np.array([learning_rate_factor(step, settings) for step in range(1000)])
    assert factors[0] == pytest.approx(1 / 50)
    assert factors[49] == factors[50] == 1
    assert (np.diff(factors[50:]) < 0).all()
    assert factors[525] == pytest.approx((1 + FINAL_RATE) / 2, abs=1e-3)
    assert factors[999] == pytest.approx(FINAL_RATE, abs=1e-4)


def test_depth_learns_slowly_at_first() -> None:
    settings = FitConfig(steps=1000)
    assert [depth_rate_factor(step, settings) for step in (0, 299, 300, 999)] == [EARLY_DEPTH_RATE] * 2 + [1.0] * 2


def test_early_depth_moves_less(run_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slowly = run_fit(folder=tmp_path / "slowly").depth
    monkeypatch.setattr("omnimotion_core.optimization.loop.EARLY_DEPTH_RATE", 0.0)
    still = run_fit(folder=tmp_path / "still").depth
    monkeypatch.setattr("omnimotion_core.optimization.loop.EARLY_DEPTH_RATE", 1.0)
    at_once = run_fit(folder=tmp_path / "at_once").depth
    assert (slowly - still).abs().mean() < 0.85 * (at_once - still).abs().mean()


@pytest.mark.parametrize(("steps", "between"), [(5, 1), (40, 4), (450, 45), (900, 45), (2000, 100), (8000, 400)])
def test_short_fits_look_into_free_space_half_as_often(steps: int, between: int) -> None:
    assert steps_between_looks(steps) == between


@pytest.mark.parametrize(("num_frames", "steps"), [(1, 300), (60, 300), (61, 305), (240, 1200)])
def test_longer_clips_take_more_steps(num_frames: int, steps: int) -> None:
    assert steps_for(FitConfig(steps=300), num_frames) == steps


def test_a_fit_takes_the_steps_of_its_clip(
    run_fit: Fit, shot: Clip, short: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnimotion_core.optimization.loop.LONG_CLIP", shot.num_frames // 2)
    told: list[tuple[int, int]] = []
    run_fit(reporter=Reporter(lambda e: told.append((e.done, e.total)) if isinstance(e, Progress) else None))
    assert told[-1] == (2 * short.fit.steps, 2 * short.fit.steps)


@pytest.mark.gpu
def test_the_gpu_fits_as_well_as_the_cpu(shot: Clip, matches: Correspondences, short: Config, tmp_path: Path) -> None:
    def residual(device: str) -> float:
        there = torch.device(device)
        field = fit(shot, matches, short, checkpoint=tmp_path / device, device=there, reporter=Reporter())
        return float(field.residual_map.mean())

    assert residual("cuda") == pytest.approx(residual("cpu"), rel=0.1)
