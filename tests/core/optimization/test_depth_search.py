import numpy as np
import pytest
import torch

from omnimotion_core.config import ModelConfig
from omnimotion_core.flow.correspondences import Correspondences, join
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.optimization.depth_search import MAX_GAP, search_depth
from omnimotion_core.optimization.losses import length_scale
from omnimotion_core.optimization.sampling import MatchSampler

SIZE, FRAMES, CELLS = (128, 96), 4, 64
NEAR, FAR, SPEED = 0.5, 1.5, 5.0  # working pixels a frame that the near things move by
LEFT, RIGHT = 24, 40  # cells that the near thing covers in frame 0, all rows


def moving_field() -> Field:
    """What is at depth ``NEAR`` moves right by ``SPEED``, what is at ``FAR`` rests, and between it is in between."""
    shape = FieldShape(size=SIZE, working_size=SIZE, num_frames=FRAMES)
    field = Field(shape, ModelConfig(num_layers=3, knots=((1.0, 9),), depth_cells=CELLS)).requires_grad_(False)
    (tables,) = field.couplings.tables
    tables.zero_()
    depths = torch.linspace(0, 2, 9)  # the rows of the tables of x stand for z
    share = ((FAR - depths) / (FAR - NEAR)).clamp(0, 1)
    for t in range(FRAMES):
        tables[1, t, 1] = -(share * t * SPEED * 2 / (SIZE[0] - 1))[:, None]
    field.depth.copy_(true_depth())
    return field


def true_depth() -> torch.Tensor:
    depth = torch.full((FRAMES, SIZE[1] // 2, CELLS), FAR)
    for t in range(FRAMES):
        depth[t, :, LEFT + round(t * SPEED / 2) : RIGHT + round(t * SPEED / 2)] = NEAR
    return depth


def exact_matches(gaps: tuple[int, ...] = (-2, -1, 1, 2)) -> MatchSampler:
    """Of every second pixel, those that are seen in both frames."""
    row, column = (index.ravel() for index in np.mgrid[0 : SIZE[1] : 2, 0 : SIZE[0] : 2])
    depth, blocks = true_depth().numpy(), []
    for i in range(FRAMES):
        for j in (i + gap for gap in gaps if 0 <= i + gap < FRAMES):
            near = depth[i, row // 2, column // 2] == NEAR
            target = np.stack([column + near * (j - i) * SPEED, row], axis=-1).astype(np.float32)
            there = np.round(target[:, 0]).astype(int)
            seen = near | (depth[j, row // 2, np.clip(there // 2, 0, CELLS - 1)] == FAR)
            seen &= there < SIZE[0]
            blocks.append({
                "pairs": np.array([[i, j]], np.int32), "pair": np.zeros(seen.sum(), np.int32),
                "source": np.stack([column, row], axis=-1)[seen].astype(np.int16), "target": target[seen],
                "weight": np.full(seen.sum(), 255, np.uint8), "hidden_pair": np.zeros(0, np.int32),
                "hidden_source": np.zeros((0, 2), np.int16),
            })  # fmt: skip
    return MatchSampler(Correspondences(**join(blocks)), torch.device("cpu"))


def search(field: Field, sampler: MatchSampler, times: int = 1) -> list[float]:
    return [search_depth(field, sampler, length_scale(SIZE), torch.Generator().manual_seed(0)) for _ in range(times)]


def wrong(field: Field) -> float:
    """Share of the cells that are nearer to the wrong one of both depths, or between them."""
    return float(((field.depth - true_depth()).abs() > 0.1).float().mean())


@pytest.mark.parametrize("edge", [-3, 3, 6])
def test_an_edge_that_lies_wrong_is_found(edge: int) -> None:
    field = moving_field()
    for t in range(FRAMES):
        start = RIGHT + round(t * SPEED / 2)
        field.depth[t, :, min(start, start + edge) : max(start, start + edge)] = FAR if edge < 0 else NEAR
    before = wrong(field)
    changed = search(field, exact_matches(), times=3)
    assert before > 2.9 / CELLS
    assert wrong(field) <= 1 / CELLS  # matches are gathered over three cells
    assert changed[0] > 0.02 > changed[2]


def test_a_ramp_between_two_surfaces_becomes_a_step() -> None:
    field = moving_field()
    kernel = torch.ones(1, 1, 1, 9) / 9
    padded = torch.nn.functional.pad(field.depth[:, None], (4, 4, 0, 0), mode="replicate")
    field.depth.copy_(torch.nn.functional.conv2d(padded, kernel)[:, 0])
    before = wrong(field)
    search(field, exact_matches(), times=3)
    assert before > 0.1
    assert wrong(field) < 0.3 * before


def test_right_depths_stay() -> None:
    field = moving_field()
    search(field, exact_matches())
    assert wrong(field) < 0.01


def test_depths_without_matches_stay() -> None:
    field = moving_field()
    field.depth[-1, :, :RIGHT] = NEAR
    before = field.depth.clone()
    search(field, exact_matches(gaps=(1,)))  # none begins in the last frame
    assert torch.equal(field.depth[-1], before[-1])


def test_matches_over_long_distances_are_not_asked() -> None:
    assert MAX_GAP < 16
    field = moving_field()
    field.depth[:, :, RIGHT - 3 :] = FAR
    before = field.depth.clone()
    sampler = exact_matches()
    sampler._pairs[:, 1] = sampler._pairs[:, 0] + MAX_GAP + 1
    search(field, sampler)
    assert torch.equal(field.depth, before)


def test_the_same_seed_finds_the_same() -> None:
    first, second = moving_field(), moving_field()
    for field in (first, second):
        field.depth[:, :, RIGHT : RIGHT + 3] = NEAR
        search(field, exact_matches())
    assert torch.equal(first.depth, second.depth)


@pytest.mark.parametrize(("gain", "told"), [("GAIN", FAR), ("GAIN_OF_FARTHER", NEAR)])
def test_what_is_not_better_enough_is_not_taken(gain: str, told: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def told_wrong() -> Field:
        """All frames have a strip along the thing's edge at the other depth."""
        field = moving_field()
        for t in range(FRAMES):
            edge = RIGHT + round(t * SPEED / 2)
            field.depth[t, :, edge - 3 if told == FAR else edge : edge if told == FAR else edge + 3] = told
        return field

    field = told_wrong()
    search(field, exact_matches())
    assert wrong(field) < 0.5 * wrong(told_wrong())
    monkeypatch.setattr(f"omnimotion_core.optimization.depth_search.{gain}", 4.0)  # no cost is above 3
    field = told_wrong()
    search(field, exact_matches())
    assert torch.equal(field.depth, told_wrong().depth)
