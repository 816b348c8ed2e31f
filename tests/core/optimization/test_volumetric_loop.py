"""The paper's optimization: the published step's results for less, exact resume, and a field that learns."""

import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from omnimotion_core.config import Config
from omnimotion_core.errors import FitError
from omnimotion_core.events import Cancelled, Event, Progress, Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model import rendering
from omnimotion_core.optimization.volumetric_loop import VolumetricFitter, fit_volumetric
from omnimotion_core.trajectories.dense import dense_flow
from omnimotion_core.trajectories.quality import cycle_errors
from omnimotion_core.trajectories.query import track_points
from omnimotion_core.video.clip import Clip

CPU = torch.device("cpu")

# Of the published step, forward, a sample of a ray: two maps and the color, and of the quarter of the points that are
# smoothed two maps, one of them anew, to both neighbors. A map's six coupling layers, the affine network of eight
# layers that the code runs by accident, and the color network, counted from their sizes.
COUPLING_MAC = 18 * 256 + 384 * 256 + 2 * 256**2 + 256 * 2
AFFINE_MAC = 10 * 256 + 6 * 256**2 + 256 * 5
COLOR_MAC = 4 * 2 * 3 * 512 + 3 * 512**2 + 512 * 4
MAP_MAC = 6 * COUPLING_MAC + AFFINE_MAC
PUBLISHED_MAC = 2 * MAP_MAC + COLOR_MAC + 0.25 * 2 * 2 * MAP_MAC


@pytest.fixture
def fitter(scene_clip: Clip, exact: Correspondences, small: Config) -> VolumetricFitter:
    return VolumetricFitter(scene_clip, exact, small, CPU)


def test_the_loss_and_its_gradients_are_the_published_steps(
    fitter: VolumetricFitter, published_loss: Callable[..., Tensor]
) -> None:
    settings = fitter.settings
    for step in (0, 30_000, 70_000):
        fitter.step = int(step / settings.pace)
        batch = fitter.sampler.draw(settings.pairs, settings.points, 3, fitter.generator)
        where = torch.rand(settings.pairs, settings.points, len(fitter.depths), generator=fitter.generator)
        parameters = list(fitter.field.parameters())
        ours = fitter.batch_loss(batch, where)
        depths = rendering.stratified_depths(fitter.depths, where)
        theirs = published_loss(fitter.field, batch, depths, fitter.step_loss.bin_widths, step, settings.smooth_points)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        for got, wanted in zip(
            torch.autograd.grad(ours, parameters, allow_unused=True),
            torch.autograd.grad(theirs, parameters, allow_unused=True), strict=True,
        ):  # fmt: skip
            assert (got is None) == (wanted is None)
            if got is not None and wanted is not None:
                torch.testing.assert_close(got, wanted, rtol=2e-3, atol=2e-4 * float(wanted.abs().max() + 1e-3))


@pytest.fixture(scope="module")
def full_size(
    scene_clip: Clip, exact: Correspondences, published_loss: Callable[..., Tensor]
) -> tuple[VolumetricFitter, Callable[[bool], Tensor]]:
    """The networks of the paper on a batch of a few rays, and the loss of it, ours (True) or the plain one."""
    config = Config.from_preset("paper").override(
        {"fit": {"volumetric": {"pairs": 3, "points": 16, "smooth_points": 4}}}
    )
    fitter = VolumetricFitter(scene_clip, exact, config, CPU)
    fitter.step = 70_000
    batch = fitter.sampler.draw(3, 16, 3, torch.Generator().manual_seed(2))
    inner = torch.tensor([1, 2, 3])  # all of which have both neighbors, so that nothing is left out
    batch = dataclasses.replace(batch, frames_from=inner)
    where = torch.rand(3, 16, 32, generator=torch.Generator().manual_seed(0))

    def loss(ours: bool) -> Tensor:
        if ours:
            return fitter.batch_loss(batch, where)
        depths = rendering.stratified_depths(fitter.depths, where)
        return published_loss(fitter.field, batch, depths, fitter.step_loss.bin_widths, 70_000, 4)

    return fitter, loss


def test_a_step_takes_less_than_two_thirds_of_the_published_arithmetic(
    full_size: tuple[VolumetricFitter, Callable[[bool], Tensor]],
) -> None:
    _, loss = full_size
    with FlopCounterMode(display=False) as counter:
        loss(True).backward()
    per_sample = counter.get_total_flops() / 2 / (3 * 16 * 32)
    assert abs(PUBLISHED_MAC * 8 * 256 * 32 / 407e9 - 1) < 0.01
    assert 3 * PUBLISHED_MAC / per_sample > 1.5  # backward takes twice as much as forward


def kept_bytes(compute: Callable[[], Tensor], parameters: list[torch.nn.Parameter]) -> int:
    """The memory of all that a loss keeps for its gradients, parameters aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, int] = {}
    alive = []

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(value)  # no address is given twice
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        compute()
    return sum(kept.values())


def test_a_step_keeps_less_than_half_of_what_the_published_one_keeps(
    full_size: tuple[VolumetricFitter, Callable[[bool], Tensor]],
) -> None:
    fitter, loss = full_size
    parameters = list(fitter.field.parameters())
    ours, theirs = (kept_bytes(lambda mine=mine: loss(mine), parameters) for mine in (True, False))  # type: ignore[misc]
    assert ours < 0.5 * theirs
    torch.testing.assert_close(loss(True), loss(False), rtol=1e-4, atol=1e-4)


def test_the_rates_are_halved_in_even_intervals(fitter: VolumetricFitter) -> None:
    for scheduled, factor in ((0, 1.0), (19_999, 1.0), (20_000, 0.5), (99_999, 0.0625)):
        fitter.step = round(scheduled / fitter.settings.pace)
        expected = 0.5 ** (round(scheduled / fitter.settings.pace) * fitter.settings.pace // 20_000)
        assert scheduled != 20_000 or expected == factor
        assert fitter.learning_rates() == [rate * expected for rate in (1e-3, 1e-4, 3e-4)]


def test_the_adam_groups_hold_every_parameter_once(fitter: VolumetricFitter) -> None:
    grouped = [id(parameter) for group in fitter.optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in fitter.field.parameters())
    assert [len(group["params"]) for group in fitter.optimizer.param_groups] == [
        len(list(part.parameters())) for part in (fitter.field.latents, fitter.field.layers, fitter.field.canonical)
    ]


def test_the_loss_falls(scene_clip: Clip, exact: Correspondences, small: Config) -> None:
    config = small.override({"fit": {"volumetric": {"lr_couplings": 3e-3, "lr_canonical": 3e-3, "pace": 1.0}}})
    fitter = VolumetricFitter(scene_clip, exact, config, CPU)
    batch = fitter.sampler.draw(8, 64, 3, torch.Generator().manual_seed(9))
    where = torch.full((8, 64, 6), 0.5)
    before = float(fitter.batch_loss(batch, where).detach())
    for _ in range(120):
        fitter.advance()
    assert float(fitter.batch_loss(batch, where).detach()) < 0.5 * before


def test_hard_mining_raises_the_error_of_what_is_drawn(
    scene_clip: Clip, exact: Correspondences, small: Config
) -> None:
    wrong = (exact.pairs[exact.pair, 0] == 2) & (exact.source[:, 0] < 24)
    target = exact.target + 6 * wrong[:, None].astype(np.float32)
    fitter = VolumetricFitter(scene_clip, dataclasses.replace(exact, target=target), small, CPU)
    for _ in range(30):
        fitter.advance()

    def mean_error() -> float:
        batch = fitter.sampler.draw(300, 16, 1, torch.Generator().manual_seed(3))
        frames_from = batch.frames_from[:, None].expand(300, 16).flatten()
        frames_to = batch.frames_to[:, None].expand(300, 16).flatten()
        with torch.no_grad():
            prepared = fitter.field.prepare()
            canonical = prepared.to_canonical(frames_from, prepared.lift(frames_from, batch.source.flatten(0, 1)))
            landed = prepared.to_pixels(prepared.from_canonical(frames_to, canonical))
        return float((landed - batch.target.flatten(0, 1)).norm(dim=-1).mean())

    fitter.sampler.forget()
    before = mean_error()
    fitter.mine()
    assert fitter.sampler.error_maps is not None
    assert fitter.sampler.error_maps.shape == (6, 10, 12)
    assert mean_error() > 1.3 * before


def stop_at(step: int) -> Reporter:
    seen: list[Event] = []

    def cancelled() -> bool:
        return any(isinstance(event, Progress) and event.done >= step for event in seen)

    return Reporter(seen.append, cancelled)


def test_a_stopped_fit_ends_as_an_undisturbed_one(
    scene_clip: Clip, exact: Correspondences, small: Config, tmp_path: Path
) -> None:
    config = small.override({"fit": {"steps": 50, "volumetric": {"pace": 1000.0}}})  # mines at 20 and 40

    def fit(folder: str, reporter: Reporter) -> dict[str, Tensor]:
        field = fit_volumetric(
            scene_clip, exact, config, checkpoint=tmp_path / folder, device=CPU, reporter=reporter
        )
        return field.state_dict()

    whole = fit("whole", Reporter())
    for step in (3, 21, 37):
        with pytest.raises(Cancelled):
            fit("parts", stop_at(step))
    parts = fit("parts", Reporter())
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_a_state_that_is_no_number_is_gone_back_from(fitter: VolumetricFitter, checkpoint: Path) -> None:
    for _ in range(10):
        fitter.advance()
    with torch.no_grad():
        next(fitter.field.parameters()).fill_(torch.nan)
    for _ in range(10):
        fitter.advance()
    assert (fitter.step, fitter.restarts) == (10, 1)
    assert all(bool(parameter.isfinite().all()) for parameter in fitter.field.parameters())
    fitter.run(checkpoint, Reporter())
    assert fitter.step == 60


def test_a_fit_that_always_diverges_is_told(scene_clip: Clip, exact: Correspondences, small: Config) -> None:
    hasty = small.override({"fit": {"volumetric": {"lr_couplings": 1e38}}})
    fitter = VolumetricFitter(scene_clip, exact, hasty, CPU)
    with pytest.raises(FitError, match=r"diverges.*fit\.volumetric\.lr_latent"):
        for _ in range(60):
            fitter.advance()


def test_nothing_is_read_back_in_a_step(fitter: VolumetricFitter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way from a tensor's value to Python is closed while the loss and its gradients are computed."""
    settings = fitter.settings
    batch = fitter.sampler.draw(settings.pairs, settings.points, 3, fitter.generator)
    where = torch.rand(settings.pairs, settings.points, len(fitter.depths))
    fitter.step = 300  # with all terms

    class NoReading(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            name = str(func)
            assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "unique")), name
            tensors = [a for a in (args[1] if "index.Tensor" in name else []) if isinstance(a, Tensor)]
            assert all(index.dtype != torch.bool for index in tensors), name
            return func(*args, **(kwargs or {}))

    with NoReading():  # type: ignore[no-untyped-call]
        loss = fitter.batch_loss(batch, where)
        loss.backward()


def test_memory_is_given_back_between_steps(fitter: VolumetricFitter) -> None:
    loss = fitter.loss()
    kept = weakref.ref(loss)
    loss.backward()
    del loss
    assert kept() is None


def test_a_fitted_field_answers_what_the_other_one_answers(
    scene_clip: Clip, exact: Correspondences, small: Config, checkpoint: Path
) -> None:
    field = fit_volumetric(scene_clip, exact, small, checkpoint=checkpoint, device=CPU, reporter=Reporter())
    queries = np.array([[0, 10, 10], [3, 20.5, 30.25], [5, 47, 39]], np.float32)
    tracks = track_points(field, queries)
    assert tracks.positions.shape == (3, 6, 2)
    alone = track_points(field, queries[1:2])
    np.testing.assert_allclose(alone.positions[0], tracks.positions[1], atol=1e-3)
    np.testing.assert_array_equal(tracks.positions[[0, 1, 2], [0, 3, 5]], queries[:, 1:])
    flow = dense_flow(field, 0, 4)
    np.testing.assert_allclose(flow.vectors[10, 10], tracks.positions[0, 4] - queries[0, 1:], atol=1e-3)
    assert ((flow.confidence >= 0) & (flow.confidence <= 1)).all()
    assert cycle_errors(field).max() < 0.01
    assert float(field.residual_map.min()) > 0
