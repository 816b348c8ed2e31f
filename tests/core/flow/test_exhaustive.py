"""All pairs matched as the paper's authors do: first guesses, filtering, counts, and blocks that stand alone."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from omnimotion_core.config import Config, ExhaustiveConfig, FlowConfig
from omnimotion_core.errors import ConfigError, FlowError, RunError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.events import Cancelled, Event, Reporter, Warned
from omnimotion_core.flow import exhaustive, exhaustive_plan
from omnimotion_core.flow.consistency import resize_flow
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.flow.dino import VisionTransformer
from omnimotion_core.flow.estimators.dis import DisFlow
from omnimotion_core.flow.matching import matching_size
from omnimotion_core.flow.reliable import Accepted, Chained, overwrite
from omnimotion_core.flow.stage import find_correspondences, load_correspondences
from omnimotion_core.flow.weights import CACHE_VARIABLE
from omnimotion_core.video.clip import Clip
from tests.core.conftest import MakeClip, match_clip

ALL = ExhaustiveConfig(enabled=True)
FLOW = FlowConfig(
    estimator="dis", long_side=128, max_cycle_error_px=3.0, samples_per_pair=100_000, exhaustive=ALL
)
FRAMES, SIZE = 12, (128, 96)


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "no-weights"))


@pytest.fixture(scope="module")
def found(shot: Clip, tmp_path_factory: pytest.TempPathFactory) -> Correspondences:
    return match_clip(shot, FLOW, tmp_path_factory.mktemp("exhaustive"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npz"))}


def held(values: np.ndarray | None) -> np.ndarray:
    """What is known where all pairs are matched."""
    assert values is not None
    return values


def of_pair(found: Correspondences, i: int, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, target and one_way of a pair."""
    members = found.pair == found.pairs.tolist().index([i, j])
    return found.source[members].astype(int), found.target[members], held(found.one_way)[members]


def test_all_pairs_are_matched_both_ways(found: Correspondences) -> None:
    expected = {(i, j) for i in range(FRAMES) for j in range(FRAMES) if i != j}
    assert sorted(map(tuple, found.pairs.tolist())) == sorted(expected)
    assert set(found.weight.tolist()) == {255}


def test_the_paper_preset_has_it_and_the_others_have_not() -> None:
    assert Config.from_preset("paper").flow.exhaustive.enabled
    assert not Config.from_preset("draft").flow.exhaustive.enabled
    assert not Config().flow.exhaustive.enabled


def test_flow_starts_from_the_flow_to_the_frame_before(shot: Clip, found: Correspondences) -> None:
    """Against a loop over each base frame's others, one after the other, without any filter."""
    size, working = matching_size(SIZE, 128), SIZE
    small = (working[0] // 4, working[1] // 4)
    search = DisFlow()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    frames = [search.prepare(t, cv2.resize(shot.rgb8(t), size, interpolation=cv2.INTER_CUBIC)
                             if size != working else shot.rgb8(t)) for t in range(FRAMES)]  # fmt: skip
    for base, step in ((0, 1), (9, 1), (11, -1), (7, -1)):
        guess = None
        other = base + step
        while 0 <= other < FRAMES:
            flow = search.flow(frames[base], frames[other], guess)
            source, target, _ = of_pair(found, base, other)
            expected = source + resize_flow(flow, working)[source[:, 1], source[:, 0]]
            np.testing.assert_allclose(target, expected, atol=1e-4)
            guess = resize_flow(resize_flow(flow, small).astype(np.float16).astype(np.float32), size)
            other += step
    cv2.setNumThreads(before)


def plain_masks(forward: np.ndarray, backward: np.ndarray, gap: int, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published rules in a loop over pixels: consistent, and hidden but reliable."""
    height, width = forward.shape[:2]

    def read(flow: np.ndarray, at: np.ndarray) -> np.ndarray:
        x, y = (float(np.clip(v, 0, n - 1)) for v, n in zip(at, (width, height), strict=True))
        left, top = min(int(x), width - 2), min(int(y), height - 2)
        u, v = x - left, y - top
        corner = flow[top : top + 2, left : left + 2]
        return np.asarray(np.einsum("yxc,y,x->c", corner, [1 - v, v], [1 - u, u]))

    consistent, hidden = np.zeros((2, height, width), bool)
    for y in range(height):
        for x in range(width):
            start = np.array([x, y], float)
            end = start + forward[y, x]
            if not (-0.5 <= end[0] <= width - 0.5 and -0.5 <= end[1] <= height - 0.5):
                continue
            back = end + read(backward, end)
            again = back + read(forward, back)
            cycle = np.linalg.norm(back - start)
            consistent[y, x] = cycle < 3 and (gap < 3 or like[y, x])
            hidden[y, x] = gap < 3 and cycle > 4.5 and np.linalg.norm(again - end) < 3
    return consistent, hidden


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_what_is_believed_follows_the_published_rules(gap: int) -> None:
    from omnimotion_core.flow.candidates import Direction
    from omnimotion_core.flow.consistency import cycle_error
    from omnimotion_core.flow.reliable import accept

    rng = np.random.default_rng(gap)
    # a square moves by 9 pixels over a ground that stays, so that both ways disagree where it hides the ground
    forward, backward = np.zeros((2, 30, 40, 2), np.float32)
    forward[8:20, 6:18, 0] = 9
    backward[8:20, 15:27, 0] = -9
    forward += rng.normal(0, 0.3, forward.shape).astype(np.float32)
    backward[20:, :, 1] += 3.6  # misses by more than is trusted, by less than speaks of hiding
    backward[:, 30:] += np.array([0, 20], np.float32)
    like = rng.random((30, 40)) < 0.7
    none = np.zeros((30, 40), np.float32)
    there = Direction(forward, cycle_error(forward, backward), none, none)
    back = Direction(backward, cycle_error(backward, forward), none, none)
    got = accept(there, back, gap, 3.0, lambda flow, trusted: like)
    consistent, hidden = plain_masks(forward, backward, gap, like)
    # the interpolation's 1/32 pixel may move single pixels across a bound
    assert (got.consistent != consistent).sum() <= 3
    assert (got.hidden != hidden).sum() <= 3
    assert consistent.sum() > 300
    assert (hidden.sum() > 50) == (gap < 3)


def test_matches_are_near_the_truth(found: Correspondences, scene: Scene) -> None:
    for i, j in ((0, 1), (4, 6), (3, 9), (11, 2)):
        exact, visible = scene.flow(i, j)
        source, target, one_way = of_pair(found, i, j)
        x, y = source.T
        miss = np.linalg.norm(target - source - exact[y, x], axis=-1)
        assert np.median(miss[visible[y, x] & ~one_way]) < 0.6, (i, j)
        assert abs(i - j) < 3 or not one_way.any()
    hidden = []
    for i in range(FRAMES - 2):
        source, _, one_way = of_pair(found, i, i + 2)
        x, y = source[one_way].T
        hidden.append(~scene.flow(i, i + 2)[1][y, x])
    assert len(np.concatenate(hidden)) > 500
    assert np.concatenate(hidden).mean() > 0.9


def test_neighbors_teach_in_every_pixel_unless_told_otherwise(
    found: Correspondences, shot: Clip, tmp_path: Path
) -> None:
    kept, valid = 0, 0
    for i in range(FRAMES - 1):
        source, target, one_way = of_pair(found, i, i + 1)
        assert len(source) > 0.9 * SIZE[0] * SIZE[1]
        assert ((target >= -0.5) & (target <= np.array(SIZE) - 0.5)).all()
        num_valid = int(held(found.num_valid)[found.pairs.tolist().index([i, i + 1])])
        assert (~one_way).sum() <= num_valid
        kept, valid = kept + len(source), valid + num_valid
    assert kept > valid
    strict = dataclasses.replace(FLOW, exhaustive=dataclasses.replace(ALL, whole_neighbors=False))
    fewer = match_clip(dataclasses.replace(shot, num_frames=6), strict, tmp_path)
    row = fewer.pairs.tolist().index([4, 5])
    assert len(of_pair(fewer, 4, 5)[0]) == held(fewer.num_valid)[row]


def test_partners_are_the_frames_that_a_pixel_is_matched_in(found: Correspondences) -> None:
    assert held(found.partners).shape == (FRAMES, SIZE[1], SIZE[0])
    for t in (0, 7, 8, 11):
        expected = np.zeros((SIZE[1], SIZE[0]), int)
        for other in range(FRAMES):
            if abs(other - t) > 2:  # where all that is valid is kept, and nothing else
                source, _, _ = of_pair(found, t, other)
                np.add.at(expected, (source[:, 1], source[:, 0]), 1)
        near = [other for other in range(FRAMES) if 0 < abs(other - t) <= 2]
        assert ((held(found.partners)[t] >= expected) & (held(found.partners)[t] <= expected + len(near))).all()
        valid = sum(int(held(found.num_valid)[found.pairs.tolist().index([t, j])]) for j in range(FRAMES) if j != t)
        assert int(held(found.partners)[t].sum()) == valid


@pytest.mark.parametrize("chain", [False, True])
def test_a_stopped_stage_goes_on_with_the_same_result(shot: Clip, tmp_path: Path, chain: bool) -> None:
    flow = dataclasses.replace(FLOW, samples_per_pair=200, exhaustive=dataclasses.replace(ALL, chain=chain))
    match_clip(shot, flow, tmp_path / "whole", threads=2)
    stop = Reporter(cancelled=lambda: (tmp_path / "stopped" / "000008.npz").exists())
    with pytest.raises(Cancelled):
        find_correspondences(shot, tmp_path / "stopped", flow, seed=0, threads=1, reporter=stop)
    assert not (tmp_path / "stopped" / "000000.npz").exists()
    with pytest.raises(RunError, match="run the flow stage again"):
        load_correspondences(tmp_path / "stopped", shot, flow)
    match_clip(shot, flow, tmp_path / "stopped")
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")
    assert {"000000.npz", "000000.side.npz", "000008.npz", "000008.side.npz"} == set(contents(tmp_path / "whole"))


def test_parts_are_made_apart_with_the_same_result(shot: Clip, tmp_path: Path) -> None:
    flow = dataclasses.replace(FLOW, samples_per_pair=200)
    match_clip(shot, flow, tmp_path / "whole")
    for part in (2, 1):  # the second part holds the first frames, whose block goes on from the other's
        find_correspondences(shot, tmp_path / "parts", flow, seed=0, threads=1, reporter=Reporter(), chunk=(part, 2))
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    chained = dataclasses.replace(flow, exhaustive=dataclasses.replace(ALL, chain=True))
    with pytest.raises(ConfigError, match="leave --chunk away"):
        find_correspondences(shot, tmp_path / "no", chained, seed=0, threads=1, reporter=Reporter(), chunk=(1, 2))
    assert not (tmp_path / "no").exists()


def test_a_lost_side_file_is_made_again(shot: Clip, tmp_path: Path) -> None:
    clip, flow = dataclasses.replace(shot, num_frames=3), dataclasses.replace(FLOW, samples_per_pair=50)
    match_clip(clip, flow, tmp_path)
    whole = contents(tmp_path)
    (tmp_path / "000000.side.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"000000\.side\.npz is damaged"):
        load_correspondences(tmp_path, clip, flow)
    (tmp_path / "000000.side.npz").unlink()
    with pytest.raises(RunError, match=r"000000\.side\.npz is missing or damaged; run the flow stage again"):
        load_correspondences(tmp_path, clip, flow)
    match_clip(clip, flow, tmp_path)
    assert contents(tmp_path) == whole


def test_nothing_crosses_a_cut_and_two_frames_are_enough(shot: Clip, tmp_path: Path) -> None:
    flow = dataclasses.replace(FLOW, samples_per_pair=50)
    cut = match_clip(dataclasses.replace(shot, cuts=(9,)), flow, tmp_path / "cut")
    assert ((cut.pairs < 9).all(axis=1) | (cut.pairs >= 9).all(axis=1)).all()
    assert len(cut.pairs) == 9 * 8 + 3 * 2
    two = match_clip(dataclasses.replace(shot, num_frames=2), flow, tmp_path / "two")
    assert two.pairs.tolist() == [[0, 1], [1, 0]]


def test_matches_begin_and_end_on_the_mask(scene: Scene, make_clip: MakeClip, tmp_path: Path) -> None:
    mask = np.zeros((96, 128), bool)
    mask[:, :60] = True
    found = match_clip(make_clip([scene.render(t) for t in range(4)], [mask] * 4), FLOW, tmp_path)
    assert len(found) > 1000
    assert found.source[:, 0].max() < 60
    assert found.target[:, 0].max() < 60
    assert held(found.partners)[:, :, 60:].max() == 0


# what memory there is


def heard(clip: Clip, flow: FlowConfig, folder: Path) -> list[str]:
    told: list[Event] = []
    find_correspondences(clip, folder, flow, seed=0, threads=1, reporter=Reporter(told.append))
    return [event.message for event in told if isinstance(event, Warned)]


def test_without_memory_for_all_matches_fewer_are_kept_and_told(
    shot: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = dataclasses.replace(shot, num_frames=3)
    asked = dataclasses.replace(FLOW, samples_per_pair=5000)
    assert not any("take" in line for line in heard(clip, asked, tmp_path / "room"))
    monkeypatch.setattr(exhaustive_plan, "free_memory", lambda: 2 * 6 * 300 * exhaustive_plan.MATCH_BYTES)
    told = [line for line in heard(clip, asked, tmp_path / "tight") if "take" in line]
    assert len(told) == 1
    assert "5000 matches of each of 6 pairs" in told[0]
    assert "300 of each are kept" in told[0]
    monkeypatch.undo()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    (tmp_path / "tight" / "000000.npz").unlink()
    assert not heard(clip, asked, tmp_path / "tight")  # what was decided stands
    found = load_correspondences(tmp_path / "tight", clip, asked)
    assert np.bincount(found.pair).tolist() == [300] * 6
    monkeypatch.setattr(exhaustive_plan, "free_memory", lambda: 1000)
    with pytest.raises(FlowError, match=r"6 pairs of frames take .* GB, and .* free memory; track fewer frames"):
        heard(clip, asked, tmp_path / "none")


def test_without_memory_for_all_frames_each_block_prepares_them_anew(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene.make(22, (64, 64), seed=0)
    clip = make_clip([scene.render(t) for t in range(22)])
    flow = dataclasses.replace(FLOW, samples_per_pair=40, long_side=64)
    assert not any("ready" in line for line in heard(clip, flow, tmp_path / "room"))
    monkeypatch.setattr(exhaustive_plan, "FRAMES_SHARE", 1e-9)
    told = [line for line in heard(clip, flow, tmp_path / "tight") if "ready" in line]
    assert told == [f"flow: there is no memory to hold all 22 frames ready, but {exhaustive.MIN_FRAMES}: "
                    "the others are prepared anew for each block"]  # fmt: skip
    assert contents(tmp_path / "room") == contents(tmp_path / "tight")


# appearance


def test_without_weights_colors_are_compared_and_it_is_told(shot: Clip, tmp_path: Path) -> None:
    clip = dataclasses.replace(shot, num_frames=4)
    told = heard(clip, dataclasses.replace(FLOW, samples_per_pair=50), tmp_path)
    assert len(told) == 1
    assert "appearance of matches is told by color alone (omnimotion weights get dino-vits16)" in told[0]


def test_with_weights_features_are_compared(shot: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnimotion_core.flow import dino

    monkeypatch.setattr(dino, "VisionTransformer", lambda: VisionTransformer(12, 3, 1, 3))
    torch.manual_seed(0)
    weights = tmp_path / "dino.pth"
    torch.save(VisionTransformer(12, 3, 1, 3).state_dict(), weights)
    clip = dataclasses.replace(shot, num_frames=4)

    def flow(similarity: float) -> FlowConfig:
        features = dataclasses.replace(ALL, features=str(weights), min_similarity=similarity)
        return dataclasses.replace(FLOW, exhaustive=features)

    assert not heard(clip, flow(-1.0), tmp_path / "all")
    assert not heard(clip, flow(0.999), tmp_path / "few")
    every, few = (load_correspondences(tmp_path / name, clip, flow(0.5)) for name in ("all", "few"))
    far = every.pairs.tolist().index([0, 3])
    assert 0 < held(few.num_valid)[far] < held(every.num_valid)[far]
    near = every.pairs.tolist().index([0, 2])  # so near that appearance does not count
    assert held(few.num_valid)[near] == held(every.num_valid)[near]
    (tmp_path / "few" / "000000.npz").unlink()
    torch.save(VisionTransformer(12, 3, 1, 3).state_dict(), weights)
    with pytest.raises(FlowError, match="gone or others now; bring those back"):
        heard(clip, flow(0.999), tmp_path / "few")


def test_a_damaged_plan_is_told(shot: Clip, tmp_path: Path) -> None:
    (tmp_path / exhaustive_plan.FILE).write_text('{"version": 9}')
    with pytest.raises(RunError, match="another version"):
        heard(shot, FLOW, tmp_path)


# chaining


def test_a_chain_follows_the_published_rules() -> None:
    """Against a loop over pixels, with motion by whole pixels, so that nothing is interpolated."""
    rng = np.random.default_rng(0)
    height, width, steps = 12, 14, 5

    def some(share: float) -> np.ndarray:
        return np.asarray(rng.random((height, width)) < share)

    def flow() -> np.ndarray:
        return rng.integers(-2, 3, (height, width, 2)).astype(np.float32)

    pictures = [rng.integers(0, 130, (height, width, 3), dtype=np.uint8) for _ in range(steps + 1)]
    direct, neighbors, like = [], [], []
    for _ in range(steps):
        consistent = some(0.3)
        direct.append(Accepted(flow(), consistent, some(0.2) & ~consistent))
        neighbors.append(Accepted(flow(), some(0.8), some(0.0)))
        like.append(some(0.8))
    neighbors[0] = direct[0]  # the first step of a chain is the pair of neighbors itself

    chain: Chained | None = None
    believed = []
    for k in range(steps):
        chain, accepted = overwrite(
            None if chain is None else chain.lengthened(neighbors[k]), direct[k], (pictures[0], pictures[k + 1]),
            lambda flow, trusted, k=k: like[k],  # type: ignore[misc]
        )  # fmt: skip
        believed.append(accepted)
    for y in range(height):
        for x in range(width):
            end, trusted = np.array([x, y]) + direct[0].flow[y, x], bool(direct[0].consistent[y, x])
            for k in range(steps):
                if k > 0:
                    at = end.clip(0, [width - 1, height - 1]).astype(int)
                    trusted &= bool(neighbors[k].consistent[at[1], at[0]])
                    end = end + neighbors[k].flow[at[1], at[0]]
                    trusted &= bool(0 <= end[0] < width and 0 <= end[1] < height)
                if direct[k].valid[y, x]:
                    end = np.array([x, y]) + direct[k].flow[y, x]
                at = end.clip(0, [width - 1, height - 1]).astype(int)
                color = (pictures[k + 1][at[1], at[0]].astype(float) - pictures[0][y, x]) / 255
                trusted &= bool(like[k][y, x]) and float(np.linalg.norm(color)) < 0.3
                trusted = (trusted or bool(direct[k].consistent[y, x])) and not direct[k].hidden[y, x]
                assert believed[k].consistent[y, x] == trusted, (x, y, k)
                assert believed[k].hidden[y, x] == direct[k].hidden[y, x]
                if believed[k].valid[y, x]:
                    np.testing.assert_array_equal(believed[k].flow[y, x], end - [x, y])
    chained = [accepted.consistent & ~straight.valid for accepted, straight in zip(believed, direct, strict=True)]
    assert all(part.sum() > 3 for part in chained[1:])


def test_chains_reach_what_direct_flow_does_not(
    found: Correspondences, shot: Clip, scene: Scene, tmp_path: Path
) -> None:
    chain = dataclasses.replace(FLOW, exhaustive=dataclasses.replace(ALL, chain=True))
    chained = match_clip(shot, chain, tmp_path)
    more = {(int(i), int(j)): int(n) for (i, j), n in zip(chained.pairs, held(chained.num_valid), strict=True)}
    direct = {(int(i), int(j)): int(n) for (i, j), n in zip(found.pairs, held(found.num_valid), strict=True)}
    assert all(more[way] >= direct[way] for way in direct)
    assert sum(more.values()) > 1.02 * sum(direct.values())
    new_miss, new_motion = [], []
    for i, j in ((0, 8), (11, 4), (2, 11)):
        exact, visible = scene.flow(i, j)
        source, target, _ = of_pair(chained, i, j)
        before = {tuple(pixel) for pixel in of_pair(found, i, j)[0].tolist()}
        added = np.array([tuple(pixel) not in before for pixel in source.tolist()])
        x, y = source.T
        miss = np.linalg.norm(target - source - exact[y, x], axis=-1)
        new_miss.append(miss[added & visible[y, x]])
        new_motion.append(np.linalg.norm(exact[y, x], axis=-1)[added & visible[y, x]])
        assert np.median(miss[~added & visible[y, x]]) < 0.7
    assert np.median(np.concatenate(new_miss)) < 0.3 * np.median(np.concatenate(new_motion))
