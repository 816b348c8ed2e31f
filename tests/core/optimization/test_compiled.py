import numpy as np
import pytest
import torch

from omnimotion_core.config import ModelConfig
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.optimization import losses
from omnimotion_core.optimization.compiled import CompiledLoss, depth_terms
from omnimotion_core.optimization.sampling import Batch

FRAMES, SIZE = 4, (40, 32)
DEPTH_WEIGHT = 20.0


@pytest.fixture
def field() -> Field:
    shape = FieldShape(size=SIZE, working_size=SIZE, num_frames=FRAMES)
    field = Field(shape, ModelConfig(knots=((2.0, 4), (1.0, 6))), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for table in field.couplings.tables:
            table.add_(torch.randn(table.shape, generator=generator) * 0.05)
        field.couplings.tables[1][4, :, 0, :2] = 5.0  # beyond what a raw scale counts for
        field.affine.matrix.add_(torch.randn(FRAMES, 6, generator=generator) * 0.05)
        field.depth.add_(torch.randn(field.depth.shape, generator=generator) * 0.3)
    return field


@pytest.fixture
def batch() -> Batch:
    """Matches of which some leave the picture, and some land beyond the tables' range."""
    generator = torch.Generator().manual_seed(4)
    count = 3000
    source = torch.rand(count, 2, generator=generator) * (torch.tensor(SIZE) - 1)
    return Batch(
        frames_from=torch.randint(FRAMES, (count,), generator=generator),
        frames_to=torch.randint(FRAMES, (count,), generator=generator),
        source=source,
        target=source + torch.randn(count, 2, generator=generator) * 6,
        weight=torch.rand(count, generator=generator),
        on_surface=(torch.rand(count, generator=generator) > 0.2).float(),
    )


def by_torch(field: Field, batch: Batch, scale: float, robust: float | None) -> torch.Tensor:
    prepared = field.prepare()
    there = prepared.to_canonical(batch.frames_from, prepared.lift(batch.frames_from, batch.source))
    landed = prepared.from_canonical(batch.frames_to, there)
    surface = prepared.depth_at(batch.frames_to, landed[:, :2])
    flow = losses.flow_loss(prepared.to_pixels(landed) * scale, batch.target * scale, batch.weight, robust)
    return flow + DEPTH_WEIGHT * losses.depth_consistency_loss(landed[:, 2], surface, batch.weight, batch.on_surface)


def gradients(field: Field) -> dict[str, torch.Tensor]:
    """Those that the parameters have now."""
    return {name: value.grad.clone() for name, value in field.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("robust", [None, 2.0])
def test_loss_and_gradients_are_those_of_the_formulas(field: Field, batch: Batch, robust: float | None) -> None:
    scale = losses.length_scale(SIZE)
    expected = by_torch(field, batch, scale, robust) + 3 * field.couplings.roughness()
    expected.backward()
    wanted = gradients(field)
    loss = CompiledLoss(field, scale, DEPTH_WEIGHT, threads=1)
    for _ in range(2):  # in memory that is fresh, and in that of the step before
        found = loss.backward(batch, robust, smoothness=3.0)
        np.testing.assert_allclose(found, expected.item(), rtol=1e-5)
        got = gradients(field)
        assert got.keys() == wanted.keys()
        for name, gradient in wanted.items():
            # a point within rounding of a knot may take the slope of either side
            assert (got[name] - gradient).norm() < 1e-2 * gradient.norm(), name


def test_two_threads_change_no_digit(field: Field, batch: Batch) -> None:
    values, found = [], []
    for threads in (1, 2):
        values.append(CompiledLoss(field, 4.0, DEPTH_WEIGHT, threads).backward(batch, 4.0, smoothness=2.0))
        found.append(gradients(field))
    assert values[0] == values[1]
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(found[1][name], gradient)


def test_levels_that_do_not_count_have_no_roughness_and_no_gradient(field: Field, batch: Batch) -> None:
    loss = CompiledLoss(field, 4.0, DEPTH_WEIGHT, threads=1)
    coarse, fine = field.couplings.tables
    for levels in (2, 1, 2):  # the memory is that of other levels each time
        field.couplings.levels = levels
        expected = by_torch(field, batch, 4.0, 4.0) + field.couplings.roughness()
        np.testing.assert_allclose(loss.backward(batch, 4.0, smoothness=1.0), expected.item(), rtol=1e-5)
        assert coarse.grad is not None
        assert (fine.grad is None) == (levels == 1)
        (wanted,) = torch.autograd.grad(expected, [coarse])
        assert (coarse.grad - wanted).norm() < 1e-2 * wanted.norm()


def test_depth_terms_and_their_gradient_are_those_of_the_formulas(field: Field, batch: Batch) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        field.depth.mul_(3).sub_(1)  # some leave the volume
        field.depth[2, 4:9, 3:8] = 0.7  # and some are even
    edges = losses.edge_weights(torch.rand(FRAMES, 3, *field.depth.shape[1:], generator=generator))
    frames = torch.tensor([3, 0, 2])
    depth = field.depth[frames]
    smooth = losses.depth_smoothness_loss(depth, edges[0][frames], edges[1][frames])
    expected = 50.0 * smooth + 10.0 * losses.depth_range_loss(depth, 2.0)
    term = depth_terms(frames, edges, smoothness=50.0, in_range=10.0, far=2.0)
    (wanted,) = torch.autograd.grad(expected, field.depth)
    got = np.ones(field.depth.shape, np.float32)  # to which the gradient is added
    found = term(field.depth.numpy(force=True), got)
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(got - 1, wanted, rtol=1e-4, atol=1e-6)
    assert (got[1] == 1).all()
    loss = CompiledLoss(field, 4.0, DEPTH_WEIGHT, threads=1)
    value, alone = loss.backward(batch, 4.0), gradients(field)
    np.testing.assert_allclose(loss.backward(batch, 4.0, depth_term=term), value + found, rtol=1e-5)
    np.testing.assert_allclose(gradients(field)["depth"] - alone["depth"], wanted, rtol=1e-3, atol=1e-5)
