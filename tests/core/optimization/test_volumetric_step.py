"""The step as a GPU is to run it: static, never waiting, in lower precision, compiled; what of that a CPU can show."""

import pytest
import torch
from torch import Tensor

from omnimotion_core.config import Config
from omnimotion_core.errors import ConfigError
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.model.volumetric import VolumetricField
from omnimotion_core.optimization.pair_sampling import PairBatch
from omnimotion_core.optimization.volumetric_loop import VolumetricFitter
from omnimotion_core.optimization.volumetric_losses import loss_weights
from omnimotion_core.optimization.volumetric_step import StepLoss, make_gradients
from omnimotion_core.video.clip import Clip

CPU = torch.device("cpu")
of_torch_itself = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its compiler, while it is loaded


@pytest.fixture
def fitter(scene_clip: Clip, exact: Correspondences, small: Config) -> VolumetricFitter:
    made = VolumetricFitter(scene_clip, exact, small, CPU)
    made.step = 300  # with all terms
    return made


def gradients(field: VolumetricField) -> list[Tensor]:
    found = [parameter.grad for parameter in field.parameters()]
    return [torch.zeros(1) if gradient is None else gradient.clone() for gradient in found]


def test_the_step_asks_for_nothing_that_a_capture_forbids(
    scene_clip: Clip, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run on tensors that hold no values: what depends on values, or is made of a tensor of the CPU, fails."""
    settings = small.fit.volumetric
    field = VolumetricField(FieldShape.of(scene_clip), small.model).to("meta")
    loss = StepLoss(field, scene_clip, settings)
    size = settings.pairs, settings.points
    frames = torch.zeros(settings.pairs, dtype=torch.int64, device="meta")
    batch = PairBatch(
        frames_from=frames, frames_to=frames, source=torch.zeros(*size, 2, device="meta"),
        target=torch.zeros(*size, 2, device="meta"), weight=torch.zeros(size, device="meta"),
        color=torch.zeros(*size, 3, device="meta"),
    )  # fmt: skip
    where = torch.zeros(*size, len(loss.depths), device="meta")

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("numbers go from Python to the device, or back")

    for place, name in ((Tensor, "new_tensor"), (torch, "tensor"), (torch, "as_tensor"), (torch, "from_numpy")):
        monkeypatch.setattr(place, name, refuse)
    for precision in (torch.float32, torch.bfloat16):
        field.set_precision(precision)
        for step in (0, 60_000):
            value = loss(loss_weights(step), True, batch, where)
            value.backward()
            assert (value.shape, value.device.type) == ((), "meta")


def test_lower_precision_stays_near(fitter: VolumetricFitter) -> None:
    batch, where = fitter.draw()
    field = fitter.field

    def run() -> tuple[float, list[Tensor], Tensor]:
        for parameter in field.parameters():
            parameter.grad = None
        value = fitter.batch_loss(batch, where)
        value.backward()
        codes = field.frame_codes()
        points = torch.rand(4, 200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            canonical = field.map_to_canonical(codes, batch.frames_from, points)
            landed = field.map_from_canonical(codes, batch.frames_to, canonical)
            there_and_back = field.map_from_canonical(codes, batch.frames_from, canonical)
        assert canonical.dtype == landed.dtype == torch.float32
        torch.testing.assert_close(there_and_back, points, atol=0.02, rtol=0)
        return float(value.detach()), gradients(field), landed

    plain, plain_gradients, plain_landed = run()
    field.set_precision(torch.bfloat16)
    rounded, rounded_gradients, rounded_landed = run()
    field.set_precision(torch.float32)
    assert rounded == pytest.approx(plain, rel=1e-3)
    assert rounded != plain
    pixels = (rounded_landed - plain_landed)[..., :2].abs() * 256 / 2  # of a picture of 256
    assert pixels.mean() < 0.05
    assert pixels.max() < 0.3
    whole, other = (torch.cat([part.flatten() for part in parts]) for parts in (plain_gradients, rounded_gradients))
    assert torch.nn.functional.cosine_similarity(whole, other, dim=0) > 0.97
    assert run()[0] == plain


def test_a_fit_in_lower_precision_learns_and_gives_a_field_in_full_precision(
    scene_clip: Clip, exact: Correspondences, small: Config
) -> None:
    small = small.override({"fit": {"volumetric": {"lr_couplings": 3e-3, "lr_canonical": 3e-3, "pace": 1.0}}})
    config = small.override({"fit": {"volumetric": {"precision": "bfloat16"}}})
    lower, full = VolumetricFitter(scene_clip, exact, config, CPU), VolumetricFitter(scene_clip, exact, small, CPU)
    assert lower.field.canonical.network.hidden_dtype == torch.bfloat16
    assert full.field.canonical.network.hidden_dtype == torch.float32
    test = full.draw()
    with torch.no_grad():
        before = float(full.batch_loss(*test))
        for one in (lower, full):
            with torch.enable_grad():
                for _ in range(40):
                    one.advance()
            one.step = 0
        lower.field.set_precision(torch.float32)
        after = [float(one.batch_loss(*test)) for one in (lower, full)]
    assert all(parameter.dtype == torch.float32 for parameter in lower.field.parameters())
    assert max(after) < 0.92 * before
    assert after[0] == pytest.approx(after[1], rel=0.01)


def compiled_gradients(fitter: VolumetricFitter, run: str, steps: list[int]) -> list[list[Tensor]]:
    make = make_gradients(run, fitter.step_loss, fitter.device)
    found = []
    for step in steps:
        fitter.step = step
        generator = torch.Generator().manual_seed(step)
        batch = fitter.sampler.draw(fitter.settings.pairs, fitter.settings.points, 3, generator)
        where = torch.rand(fitter.settings.pairs, fitter.settings.points, len(fitter.depths), generator=generator)
        for parameter in fitter.field.parameters():
            parameter.grad = None
        loss = make(fitter.weights(), False, batch, where.to(fitter.device))
        found.append([loss.clone(), *gradients(fitter.field)])
    return found


def assert_alike(fitter: VolumetricFitter, run: str, steps: list[int]) -> None:
    for ours, theirs in zip(
        compiled_gradients(fitter, run, steps), compiled_gradients(fitter, "eager", steps), strict=True
    ):
        for got, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max() + 1e-3))


@of_torch_itself
def test_a_step_is_one_graph_of_whichever_numbers(fitter: VolumetricFitter, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    graphs = []

    def counting(graph, inputs):  # type: ignore[no-untyped-def]
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda function, **how: compile_(function, backend=counting, **how)
    )
    assert_alike(fitter, "compile", [300, 301, 350])
    assert len(graphs) == 1  # no break in it, and none anew for other weights


@pytest.mark.slow
@of_torch_itself
def test_the_way_back_is_compiled_with_it(fitter: VolumetricFitter, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **how: compile_(function, backend="aot_eager", **how)
    )
    assert_alike(fitter, "compile", [300, 301])


def test_graphs_are_refused_without_cuda(scene_clip: Clip, exact: Correspondences, small: Config) -> None:
    config = small.override({"fit": {"volumetric": {"run": "graph"}}})
    with pytest.raises(ConfigError, match="'graph', and the fit runs on cpu; choose --device cuda"):
        VolumetricFitter(scene_clip, exact, config, CPU)


@pytest.mark.gpu
@of_torch_itself
@pytest.mark.parametrize("run", ["graph", "compile"])
def test_a_replayed_or_compiled_step_gives_the_same(
    scene_clip: Clip, exact: Correspondences, small: Config, run: str
) -> None:
    config = small.override({"fit": {"volumetric": {"precision": "float32"}}})
    fitter = VolumetricFitter(scene_clip, exact, config, torch.device("cuda"))
    assert_alike(fitter, run, [0, 10, 10, 300, 301, 11])  # three sets of terms, and one come back to


@pytest.mark.gpu
@pytest.mark.parametrize("run", ["eager", "graph"])
def test_a_gpu_is_not_waited_for(scene_clip: Clip, exact: Correspondences, small: Config, run: str) -> None:
    config = small.override({"fit": {"checkpoint_every": 1000, "volumetric": {"run": run}}})
    fitter = VolumetricFitter(scene_clip, exact, config, torch.device("cuda"))
    for _ in range(3):
        fitter.advance()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(5):
            fitter.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_a_fit_by_graphs_goes_back_to_a_good_state(scene_clip: Clip, exact: Correspondences, small: Config) -> None:
    config = small.override({"fit": {"volumetric": {"run": "graph"}}})
    fitter = VolumetricFitter(scene_clip, exact, config, torch.device("cuda"))
    for _ in range(10):
        fitter.advance()
    with torch.no_grad():
        next(fitter.field.parameters()).fill_(torch.nan)
    for _ in range(10):
        fitter.advance()
    assert (fitter.step, fitter.restarts) == (10, 1)
    fitter.advance()
    assert all(bool(parameter.isfinite().all()) for parameter in fitter.field.parameters())


def test_settings_are_checked(small: Config) -> None:
    for name in ("precision", "run"):
        with pytest.raises(ConfigError, match=rf"fit\.volumetric\.{name} is 'half'; use one of"):
            small.override({"fit": {"volumetric": {name: "half"}}})
