import numpy as np
import pytest

from omnimotion_core.config import ModelConfig
from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.motion import FAR, FieldShape
from omnimotion_core.optimization import initial_depth as module
from omnimotion_core.optimization import warm_start
from omnimotion_core.optimization.initial_depth import initial_depth, median_along_colors
from omnimotion_core.optimization.warm_start import pair_motions

SIZE, FRAMES, CELLS = (80, 60), 9, (30, 40)
SHAPE = FieldShape(size=SIZE, working_size=SIZE, num_frames=FRAMES)


def place(t: int) -> np.ndarray:
    """The corner (x, y) of a square in frame t: it stands still, runs, and stands still again."""
    return np.array([20.0 + 5 * np.clip(t - 2, 0, 4), 24.0])


def on_square(t: int, pixels: np.ndarray) -> np.ndarray:
    """Which pixels (..., 2) of frame t show the square, 16 pixels wide, before a ground that pans."""
    return np.asarray(((pixels >= place(t)) & (pixels < place(t) + 16)).all(axis=-1))


def matches_of(spoilt: float = 0.0, gaps: tuple[int, ...] = (1, 2), pan: float = 1.0) -> Correspondences:
    """Exact matches over such distances; around the square such a share follow it, with little weight."""
    rng = np.random.default_rng(0)
    pairs = [(i, j) for i in range(FRAMES) for j in range(FRAMES) if abs(i - j) in gaps]
    source, target, weight, pair = [], [], [], []
    grid = pixel_grid(SIZE).reshape(-1, 2)
    for row, (i, j) in enumerate(pairs):
        square = on_square(i, grid)
        near = ((grid >= place(i) - 6) & (grid < place(i) + 22)).all(axis=-1) & ~square
        wrong = near & (rng.random(len(grid)) < spoilt)
        moved = grid + np.where((square | wrong)[:, None], place(j) - place(i), [pan * (j - i), 0.0])
        seen = square | wrong | ~on_square(j, moved)  # ground that the square covers there has no match
        source.append(grid[seen])
        target.append(moved[seen])
        weight.append(np.where(wrong, 40, 255)[seen])
        pair.append(np.full(int(seen.sum()), row, np.int32))
    return Correspondences(
        pairs=np.array(pairs, np.int32), pair=np.concatenate(pair), source=np.concatenate(source).astype(np.int16),
        target=np.concatenate(target).astype(np.float32), weight=np.concatenate(weight).astype(np.uint8),
        hidden_pair=np.zeros(0, np.int32), hidden_source=np.zeros((0, 2), np.int16),
    )  # fmt: skip


def pictures() -> np.ndarray:
    """A red square before a grey ground, noisy, (T, 3, h, w)."""
    cells = pixel_grid(CELLS[::-1]) * 2 + 0.5
    noise = np.random.default_rng(1).normal(0, 0.01, (FRAMES, 3, *CELLS))
    shown = np.stack([on_square(t, cells) for t in range(FRAMES)])[:, None]
    return (np.where(shown, np.reshape([0.8, 0.2, 0.2], (3, 1, 1)), 0.5) + noise).astype(np.float32)


def depth_of(matches: Correspondences, colors: np.ndarray) -> np.ndarray:
    return initial_depth(SHAPE, ModelConfig(), matches, pair_motions(matches, seed=0), colors)


def test_what_moves_by_itself_is_in_front_in_all_frames() -> None:
    depth = depth_of(matches_of(), pictures())
    assert depth.shape == (FRAMES, *CELLS)
    assert depth.min() >= 0
    assert depth.max() <= FAR
    for t in range(FRAMES):  # in those too in which it stands still
        x, y = (place(t) / 2).astype(int)
        assert depth[t, y + 2 : y + 6, x + 2 : x + 6].max() < depth[t, :5].min() - 0.6


def test_what_rests_with_the_ground_is_in_front_by_where_it_is_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CARRY_ROUNDS", 0)  # so that nothing else tells
    monkeypatch.setattr(warm_start, "MAX_GAP", 2)  # so that the camera's maps have to tell the motion of the rest
    x, y = (place(0) / 2).astype(int)

    def before_ground(gaps: tuple[int, ...]) -> float:
        matches = matches_of(gaps=gaps, pan=0.0)
        depth = warm_start.warm_started_field(SHAPE, ModelConfig(), matches, pictures(), seed=0).depth.detach()
        return float(depth[0, :5].mean() - depth[0, y + 2 : y + 6, x + 2 : x + 6].mean())

    assert before_ground((1, 2)) < 0.05  # the square begins to run in frame 2
    assert before_ground((1, 2, 7)) > 0.4


def test_its_outline_is_where_colors_change() -> None:
    colors = pictures()
    red = colors[:, 0] > 0.65
    found = depth_of(matches_of(spoilt=0.6), colors)
    nearer = found < (found[red].mean() + found[~red].mean()) / 2
    overlap = (nearer & red).sum() / (nearer | red).sum()
    assert overlap > 0.9
    even = depth_of(matches_of(spoilt=0.6), np.full_like(colors, 0.5))
    blurred = even < (found[red].mean() + found[~red].mean()) / 2
    assert (blurred & red).sum() / (blurred | red).sum() < overlap - 0.05


def test_matches_of_little_weight_tell_little() -> None:
    matches = matches_of()
    lies = matches.weight.copy()
    far = matches.source[:, 1] < 12  # well off the square
    target = matches.target.copy()
    frames = matches.pairs[matches.pair]
    odd = far & (np.arange(len(far)) % 2 == 0)
    target[odd, 1] += 6 * (frames[odd, 1] - frames[odd, 0])
    lies[odd] = 20
    spoilt = Correspondences(
        pairs=matches.pairs, pair=matches.pair, source=matches.source, target=target, weight=lies,
        hidden_pair=matches.hidden_pair, hidden_source=matches.hidden_source,
    )  # fmt: skip
    motions = pair_motions(matches, seed=0)
    right = initial_depth(SHAPE, ModelConfig(), matches, motions, pictures())
    found = initial_depth(SHAPE, ModelConfig(), spoilt, motions, pictures())
    assert np.abs(found - right)[:, :5].max() < 0.15


def test_what_matches_tell_is_that_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1000)  # so that there are many, and a rest
    cell, maps = 2, (FRAMES, *CELLS)
    matches = matches_of(spoilt=0.3)
    motions = pair_motions(matches, seed=0)
    del motions[4, 5]  # a pair of which no motion is known tells nothing
    start, end, stray, weight = module._asked_matches(maps, cell, matches, motions)
    total, count, at = np.zeros(maps), np.zeros(maps), 0
    for pair, source, target, trust in zip(matches.pair, matches.source, matches.target, matches.weight, strict=True):
        i, j = matches.pairs[pair].tolist()
        if (i, j) not in motions:
            continue
        miss = float(np.linalg.norm(target - motions[i, j][0] @ [*source, 1])) / abs(j - i)
        there, here = ((t, *(point[::-1] / cell).astype(int).clip(0, [CELLS[0] - 1, CELLS[1] - 1]))
                       for t, point in ((j, target), (i, source)))  # fmt: skip
        assert (start[at], end[at]) == (np.ravel_multi_index(here, maps), np.ravel_multi_index(there, maps))
        assert stray[at] == pytest.approx(min(miss, module.RESIDUAL_CLIP_PX), abs=1e-4)
        total[here] += miss * (int(trust) / 255) ** 2
        count[here] += (int(trust) / 255) ** 2
        at += 1
    assert at == len(start) == len(weight)
    means = module._filled_means(maps, start, stray, weight)
    known = count >= module.SURE
    assert known.mean() > 0.8
    np.testing.assert_allclose(means[known], (total / np.maximum(count, 1e-9))[known], atol=1e-4)


def test_the_median_along_colors_is_the_weighted_median() -> None:
    rng = np.random.default_rng(2)
    values, colors = rng.random((2, 13, 15), np.float32), (0.2 * rng.random((2, 3, 13, 15))).astype(np.float32)
    found = median_along_colors(values, colors)
    np.testing.assert_array_equal(median_along_colors(values, colors, threads=2), found)
    for t, row, column in [(0, 0, 0), (1, 6, 7), (0, 12, 14), (1, 2, 13)]:
        near, weights = [], []
        for y in range(max(row - 5, 0), min(row + 6, 13)):
            for x in range(max(column - 5, 0), min(column + 6, 15)):
                apart = float(np.square(colors[t, :, y, x] - colors[t, :, row, column]).sum())
                if apart > (3 * 0.06) ** 2:
                    continue
                near.append(values[t, y, x])
                weights.append(np.exp(-apart / (2 * 0.06**2) - ((y - row) ** 2 + (x - column) ** 2) / (2 * 3.0**2)))
        order = np.argsort(near)
        reached = np.cumsum(np.array(weights)[order]) / np.sum(weights)
        exact = np.array(near)[order][np.searchsorted(reached, 0.5)]
        np.testing.assert_allclose(found[t, row, column], exact, atol=1 / 64)


def test_the_median_of_even_values_is_that_value() -> None:
    values = np.full((1, 6, 7), 0.4, np.float32)
    np.testing.assert_array_equal(median_along_colors(values, np.zeros((1, 3, 6, 7), np.float32)), values)


def test_no_median_lies_between_two_surfaces() -> None:
    values = np.zeros((1, 12, 12), np.float32)
    values[:, :, 6:] = 1.0
    colors = np.repeat(values[:, None] * 0.5, 3, axis=1)
    values[:, :, 5] = 0.6  # a blurred outline, on the darker side
    found = median_along_colors(values, colors)
    assert found[:, :, :6].max() < 0.1
    assert found[:, :, 6:].min() > 0.9
