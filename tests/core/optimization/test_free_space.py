import numpy as np
import pytest
import torch

from omnimotion_core.config import ModelConfig
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.optimization.free_space import MIN_CELLS, WEIGHT, find_contradictions
from omnimotion_core.optimization.sampling import Batch

SIZE, FRAMES = (64, 48), 3
NEAR, FAR = 0.33, 1.8
CELL = 2  # working pixels
BOX = (8, 8, 10)  # of the near thing: first row, first column, and its side, in cells


def still_field(shifts: list[int], cuts: tuple[int, ...] = ()) -> Field:
    """Nothing moves, and yet the near thing is seen ``shifts`` cells farther right in each frame; none: not at all."""
    shape = FieldShape(size=SIZE, working_size=SIZE, num_frames=len(shifts), cuts=cuts)
    field = Field(shape, ModelConfig(knots=((1.0, 4),), depth_cells=SIZE[0] // CELL)).requires_grad_(False)
    for table in field.couplings.tables:
        table.zero_()
    row, column, side = BOX
    field.depth.fill_(FAR)
    for t, shift in enumerate(shifts):
        field.depth[t, row : row + side, column + shift : column + shift + side] = NEAR
    return field


def found(field: Field, seed: int = 0) -> Batch:
    return find_contradictions(field, torch.Generator().manual_seed(seed))


def test_what_lies_before_the_surface_belongs_to_the_nearest_place_that_could_hide_it() -> None:
    batch = found(still_field([0, 6]))
    assert len(batch) > 1000
    row, column, side = BOX
    for t, left, wanted in ((0, column, column + 6), (1, column + 6, column + side - 1)):
        members = batch.take(batch.frames_from == t)
        cells = (members.source + 0.5) / CELL
        near = (cells >= torch.tensor([left, row]) - 0.5) & (cells <= torch.tensor([left, row]) + side + 0.5)
        assert near.all()
        # rows stay, and the column is the edge of the near thing where it is seen
        assert (members.target[:, 1] - members.source[:, 1]).abs().max() < CELL
        np.testing.assert_allclose(members.target[:, 0], (wanted + 0.5) * CELL - 0.5)
    assert ((batch.target - batch.source).norm(dim=-1) > MIN_CELLS * CELL).all()
    assert (batch.weight == WEIGHT).all()
    assert (batch.on_surface == 0).all()
    order = batch.frames_from * FRAMES + batch.frames_to
    assert (order.diff() >= 0).all()


def test_nothing_is_found_where_all_is_consistent() -> None:
    assert len(found(still_field([0, 0, 0]))) == 0


def test_what_nothing_could_hide_stays() -> None:
    field = still_field([0, 0])
    field.depth[1] = FAR
    assert len(found(field)) == 0


@pytest.mark.parametrize("frame", [0, 1])
def test_where_nothing_is_known_nothing_is_contradicted(frame: int) -> None:
    field = still_field([0, 6])
    known = torch.ones_like(field.depth, dtype=torch.bool)
    row, _, side = BOX
    known[frame, : row + side // 2] = False
    batch = find_contradictions(field, torch.Generator().manual_seed(0), known)
    everything = found(field)
    assert 0 < len(batch) < 0.6 * len(everything)
    assert (((batch.source[:, 1] + 0.5) / CELL).long() >= row + side // 2).all()


def test_shots_do_not_meet() -> None:
    batch = found(still_field([0, 6, 0, 6], cuts=(2,)))
    assert len(batch) > 100
    assert ((batch.frames_from < 2) == (batch.frames_to < 2)).all()
    assert set(batch.frames_from.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides(seed: int) -> None:
    field = still_field([0, 6])
    first, second, other = found(field, seed), found(field, seed), found(field, seed + 7)
    assert torch.equal(first.source, second.source)
    assert torch.equal(first.target, second.target)
    assert not torch.equal(first.source[:100], other.source[:100])
