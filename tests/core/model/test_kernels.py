
import numpy as np
import pytest
import torch

from omnimotion_core.config import ModelConfig
from omnimotion_core.model import kernels
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape

FRAMES = 5


@pytest.fixture
def field() -> Field:
    """A field whose tables are far from even, its points partly beyond their range."""
    shape = FieldShape(size=(64, 48), working_size=(64, 48), num_frames=FRAMES)
    field = Field(shape, ModelConfig(knots=((2.0, 4), (1.0, 7))), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for table in field.couplings.tables:
            table.add_(torch.randn(table.shape, generator=generator) * 0.1)
        field.couplings.tables[1][4, :, 0, :3] = 5.0  # beyond what a raw scale counts for
        field.affine.matrix.add_(torch.randn(FRAMES, 6, generator=generator) * 0.1)
    return field


def points(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    frames = torch.randint(FRAMES, (count,), generator=generator)
    return frames, torch.rand(count, 3, generator=generator) * torch.tensor([3.0, 3.0, 3.0]) - 1.5


@pytest.mark.parametrize("threads", [1, 3])
def test_loops_answer_what_the_layers_answer(field: Field, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "PART", 200)  # so that a thousand points are shared out
    field.threads = threads
    frames, local = points(1000)
    there = field.prepare().to_canonical(frames, local)
    back = field.prepare().from_canonical(frames, there)
    with torch.no_grad():
        loops = field.prepare()
        np.testing.assert_allclose(loops.to_canonical(frames, local), there.detach(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(loops.from_canonical(frames, there), back.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_depth_is_read_alike_with_and_without_gradients(
    field: Field, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "PART", 200)
    field.threads = threads
    with torch.no_grad():
        field.depth.add_(torch.randn(field.depth.shape, generator=torch.Generator().manual_seed(4)) * 0.15)
    frames, local = points(3000)
    expected = field.prepare().depth_at(frames, local[:, :2]).detach()
    with torch.no_grad():
        np.testing.assert_allclose(field.prepare().depth_at(frames, local[:, :2]), expected, atol=1e-5)


def test_depth_does_not_lie_between_two_surfaces(field: Field) -> None:
    columns = field.depth.shape[2]
    with torch.no_grad():
        field.depth[:, :, : columns // 2], field.depth[:, :, columns // 2 :] = 0.5, 1.5
        field.depth[1, :, columns // 2 :] = 0.5 + 0.9 * kernels.DEPTH_STEP  # one surface, slanted
    xy = torch.stack([torch.linspace(-1, 1, 500), torch.zeros(500)], dim=-1)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            stepped, slanted = (field.prepare().depth_at(torch.full((500,), t), xy).detach() for t in (0, 1))
        assert set(stepped.numpy().round(4)) == {0.5, 1.5}
        assert len(set(slanted.numpy().round(4))) > 5


def test_loops_undo_each_other(field: Field) -> None:
    frames, local = points(2000)
    with torch.no_grad():
        loops = field.prepare()
        back = loops.from_canonical(frames, loops.to_canonical(frames, local))
    np.testing.assert_allclose(back, local, atol=1e-4)


def test_what_is_no_number_is_looked_up_within_bounds(field: Field) -> None:
    seven = np.float32(3), np.float32(3), np.float32(6)  # of knots from -1 to 1: factor, offset, the last one
    for value in (np.nan, -np.inf):
        assert kernels.knot_position(np.float32(value), *seven) == (0, 0, 0)
    assert kernels.knot_position(np.float32(np.inf), *seven) == (5, 1, 0)
    bad = torch.tensor([[np.nan, 0.0, 1.0], [np.inf, -np.inf, 1.0], [0.1, 0.2, np.nan]])
    with torch.no_grad():
        answers = field.prepare().to_canonical(torch.zeros(3, dtype=torch.long), bad)
    assert not answers[0].isfinite().all()
