"""Batches drawn pair by pair: true matches with their colors, near pairs and hard places more often."""

import dataclasses

import numpy as np
import pytest
import torch

from omnimotion_core.errors import FitError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow.correspondences import Correspondences, join
from omnimotion_core.optimization.pair_sampling import CELL_PX, ERROR_CELL_PX, PairBatch, PairSampler, error_map
from omnimotion_core.video.clip import Clip

CPU = torch.device("cpu")


@pytest.fixture
def sampler(exact: Correspondences, scene_clip: Clip) -> PairSampler:
    return PairSampler(exact, scene_clip, CPU)


def draw(sampler: PairSampler, pairs: int = 400, points: int = 16, interval: int = 3, seed: int = 0) -> PairBatch:
    return sampler.draw(pairs, points, interval, torch.Generator().manual_seed(seed))


def test_every_drawn_point_is_a_match_of_its_pair_either_way_round(sampler: PairSampler, small_scene: Scene) -> None:
    batch = draw(sampler, 60)
    ways = set()
    for b in range(60):
        i, j = int(batch.frames_from[b]), int(batch.frames_to[b])
        source, target = batch.source[b].numpy(), batch.target[b].numpy()
        whole = bool((source == np.rint(source)).all())  # of a match turned round the target is a pixel
        ways.add(whole)
        start, end, from_, to = (source, target, i, j) if whole else (target, source, j, i)
        pixel = start.astype(int)
        np.testing.assert_allclose(start + small_scene.flow(from_, to)[0][pixel[:, 1], pixel[:, 0]], end, atol=1e-4)
    assert ways == {True, False}


def test_colors_are_those_of_the_source(sampler: PairSampler, scene_clip: Clip) -> None:
    batch = draw(sampler, 40)
    for b in range(40):
        picture = scene_clip.rgb8(int(batch.frames_from[b])).astype(np.float64) / 255
        for n in range(16):
            x, y = np.clip(batch.source[b, n].numpy().astype(np.float64), 0, [47, 39])
            left, top = min(int(x), 46), min(int(y), 38)
            a, d = x - left, y - top
            expected = (
                picture[top, left] * (1 - a) * (1 - d) + picture[top, left + 1] * a * (1 - d)
                + picture[top + 1, left] * (1 - a) * d + picture[top + 1, left + 1] * a * d
            )  # fmt: skip
            np.testing.assert_allclose(batch.color[b, n].numpy(), expected, atol=2e-6)


def test_pairs_keep_to_the_interval_and_neighbors_take_half(sampler: PairSampler) -> None:
    batch = draw(sampler, 4000, 1)
    gap = (batch.frames_to - batch.frames_from).abs()
    assert set(gap.tolist()) == {1, 2, 3}
    odds = sampler.pair_odds(3) / sampler.pair_odds(3).sum(axis=1, keepdims=True)
    neighbors = np.mean([sum(odds[i, j] for j in range(6) if abs(i - j) == 1) for i in range(6)])
    assert neighbors > 0.5
    assert float((gap == 1).float().mean()) == pytest.approx(neighbors, abs=0.025)
    nearer = draw(sampler, 500, 1, interval=2)
    assert set((nearer.frames_to - nearer.frames_from).abs().tolist()) == {1, 2}
    expected = torch.cos((gap - 1) / 3 * torch.pi / 2)
    torch.testing.assert_close(batch.weight[:, 0], expected)


def test_the_odds_of_a_pair_are_the_published_ones(sampler: PairSampler) -> None:
    odds = sampler.pair_odds(3)
    counts = {(int(i), int(j)): int(n) for (i, j), n in zip(sampler.pairs, sampler.counts, strict=True)}
    for i in range(6):
        near = [j for j in range(6) if j != i and abs(i - j) <= 3]
        total = sum(counts[i, j] for j in near)
        for j in range(6):
            expected = 0.0 if j not in near else 0.5 if abs(i - j) == 1 else counts[i, j] / total
            assert odds[i, j] == pytest.approx(expected)


def test_without_known_errors_pixels_with_few_partners_come_more_often(scene_clip: Clip) -> None:
    def block(i: int, j: int, source: list[list[int]]) -> dict[str, np.ndarray]:
        pixels = np.array(source, np.int16)
        return {
            "pairs": np.array([[i, j]], np.int32), "pair": np.zeros(len(pixels), np.int32), "source": pixels,
            "target": pixels.astype(np.float32), "weight": np.full(len(pixels), 255, np.uint8),
            "hidden_pair": np.zeros(0, np.int32), "hidden_source": np.zeros((0, 2), np.int16),
        }  # fmt: skip

    common, rare = [1, 1], [1 + 2 * CELL_PX, 1]
    blocks = [block(0, 1, [common, rare]), block(0, 2, [common]), block(0, 3, [common])]
    sampler = PairSampler(Correspondences(**join(blocks)), scene_clip, CPU)
    batch = sampler.draw(300, 40, 1, torch.Generator().manual_seed(0))
    share = float((batch.source[..., 0] == rare[0]).float().mean())
    odds = (1 / np.sqrt(2), 1 / np.sqrt(4))  # 1 / sqrt(partners + 1), partners 1 and 3
    assert share == pytest.approx(odds[0] / sum(odds), abs=0.015)


def test_mining_draws_wrong_frames_and_places_more_often(sampler: PairSampler) -> None:
    maps = np.full((6, 10, 12), 0.1, np.float32)
    maps[2, :5] = 4.0  # the upper half of frame 2
    before = draw(sampler, 3000)
    sampler.mine(maps)
    after = draw(sampler, 3000)

    def share_of_frame(batch: PairBatch) -> float:
        return float(((batch.frames_from == 2) | (batch.frames_to == 2)).float().mean())

    assert share_of_frame(after) > share_of_frame(before) + 0.3

    def share_above(batch: PairBatch) -> float:
        own = (batch.frames_from == 2) & (batch.source == batch.source.round()).all(-1).all(-1)
        return float((batch.source[own][..., 1] < 5 * ERROR_CELL_PX).float().mean())

    even, mined = share_above(before), share_above(after)
    wanted = 4.0 * even / (4.0 * even + 0.1 * (1 - even))
    assert mined == pytest.approx((even + wanted) / 2, abs=0.04)  # half by the map, half evenly

    sampler.forget()
    assert torch.equal(draw(sampler, 3000).source, before.source)


def test_the_same_generator_draws_the_same(sampler: PairSampler) -> None:
    first, second, other = draw(sampler, 9), draw(sampler, 9), draw(sampler, 9, seed=1)
    assert torch.equal(first.source, second.source)
    assert not torch.equal(first.source, other.source)


def test_pairs_without_matches_are_never_drawn(exact: Correspondences, scene_clip: Clip) -> None:
    kept = exact.pairs[exact.pair, 0] != 3
    fewer = dataclasses.replace(
        exact, pair=exact.pair[kept], source=exact.source[kept], target=exact.target[kept],
        weight=exact.weight[kept],
    )  # fmt: skip
    sampler = PairSampler(fewer, scene_clip, CPU)
    batch = draw(sampler, 800, 1)
    pixel = (batch.source == batch.source.round()).all(-1).all(-1)
    assert 3 not in batch.frames_from[pixel].tolist()
    assert 3 not in sampler.adjacent_rows()
    assert {t: sampler.pairs[row].tolist() for t, row in sampler.adjacent_rows().items()} == {
        0: [0, 1], 1: [1, 2], 2: [2, 3], 4: [4, 5], 5: [5, 4],
    }  # fmt: skip


def test_no_matches_at_all_are_told(exact: Correspondences, scene_clip: Clip) -> None:
    empty = dataclasses.replace(
        exact, pair=exact.pair[:0], source=exact.source[:0], target=exact.target[:0], weight=exact.weight[:0]
    )
    with pytest.raises(FitError, match="no motion is matched"):
        PairSampler(empty, scene_clip, CPU)


def test_an_error_map_holds_the_mean_error_of_each_place() -> None:
    pixels = np.stack(np.meshgrid(np.arange(40), np.arange(32)), axis=-1).reshape(-1, 2)
    errors = np.where(pixels[:, 0] < 20, 1.0, 3.0)
    filled = error_map(pixels, errors, (40, 32))
    assert filled.shape == (8, 10)
    np.testing.assert_allclose(filled[:, :3], 1.0, atol=1e-3)
    np.testing.assert_allclose(filled[:, 7:], 3.0, atol=1e-3)
    assert error_map(pixels[:0], errors[:0], (40, 32)).max() == 0.0


def held(values: np.ndarray | None) -> np.ndarray:
    """What is known where all pairs are matched."""
    assert values is not None
    return values


@pytest.fixture(scope="module")
def filtered(exact: Correspondences) -> Correspondences:
    """The matches with what is known besides where all pairs are matched: each third holds one way only."""
    rng = np.random.default_rng(0)
    return dataclasses.replace(
        exact, one_way=np.arange(len(exact)) % 3 == 0,
        num_valid=rng.integers(500, 1500, len(exact.pairs)).astype(np.int32),
        partners=rng.integers(0, 6, (6, 40, 48)).astype(np.uint16),
    )  # fmt: skip


def test_a_pair_is_drawn_by_its_valid_pixels(filtered: Correspondences, scene_clip: Clip) -> None:
    odds = PairSampler(filtered, scene_clip, CPU).pair_odds(3)
    valid = {(int(i), int(j)): int(n) for (i, j), n in zip(filtered.pairs, held(filtered.num_valid), strict=True)}
    total = sum(valid[2, j] for j in (0, 1, 3, 4, 5))
    far = {j: valid[2, j] / total for j in (0, 4, 5)}
    assert odds[2].tolist() == pytest.approx([far[0], 0.5, 0, 0.5, far[4], far[5]])


def test_pixels_are_drawn_by_their_counted_partners(filtered: Correspondences, scene_clip: Clip) -> None:
    sampler = PairSampler(filtered, scene_clip, CPU)
    row = int(sampler.rows[2, 5])
    index = sampler._by_odds(np.full(200, row), np.random.default_rng(0).random((200, 100))).ravel()
    source = sampler._source_cpu[index].astype(int)
    found = np.bincount(held(filtered.partners)[2, source[:, 1], source[:, 0]], minlength=6)
    own = sampler._source_cpu[sampler.starts[row] :][: sampler.counts[row]].astype(int)
    present = np.bincount(held(filtered.partners)[2, own[:, 1], own[:, 0]], minlength=6)
    expected = present / np.sqrt(np.arange(6) + 1)
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), atol=0.01)


def test_a_match_that_holds_one_way_teaches_nothing_from_the_other_side(
    filtered: Correspondences, exact: Correspondences, scene_clip: Clip
) -> None:
    sampler = PairSampler(filtered, scene_clip, CPU)
    batch = draw(sampler, 400)
    order = np.argsort(exact.pair, kind="stable")
    ends = np.concatenate([exact.source[order].astype(np.float32), exact.target[order]], axis=1)
    one_way = {tuple(match) for match in ends[held(filtered.one_way)[order]].tolist()}
    weight = batch.weight > 0
    forward = torch.cat([batch.source, batch.target], dim=-1).flatten(0, 1).tolist()
    backward = torch.cat([batch.target, batch.source], dim=-1).flatten(0, 1).tolist()
    turned = torch.tensor([tuple(match) in one_way for match in backward]).view(weight.shape)
    straight = torch.tensor([tuple(match) in one_way for match in forward]).view(weight.shape)
    assert turned.sum() > 500
    assert straight.sum() > 500
    assert not weight[turned].any()
    assert weight[~turned].all()
