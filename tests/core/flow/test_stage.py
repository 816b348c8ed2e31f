import dataclasses
from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.config import Config, FlowConfig
from omnimotion_core.errors import FlowError, RunError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.events import Cancelled, Progress, Reporter
from omnimotion_core.flow.correspondences import FIELDS, Correspondences
from omnimotion_core.flow.stage import adjacent_flow, find_correspondences, load_correspondences
from omnimotion_core.video.clip import Clip
from tests.core.conftest import MakeClip, match_clip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npz"))}


def assert_same(first: Correspondences, second: Correspondences) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_matches_are_near_the_truth(matches: Correspondences, scene: Scene) -> None:
    assert len(matches) > 20_000
    for row in np.unique(matches.pair)[::7]:
        i, j = (int(frame) for frame in matches.pairs[row])
        exact, visible = scene.flow(i, j)
        members = matches.pair == row
        x, y = matches.source[members].T
        seen = visible[y, x]
        miss = np.linalg.norm(matches.target[members] - matches.source[members] - exact[y, x], axis=-1)
        assert np.median(miss[seen]) < 0.5, (i, j)


def test_hidden_points_are_hidden(matches: Correspondences, scene: Scene) -> None:
    right = []
    for row in np.unique(matches.hidden_pair):
        i, j = (int(frame) for frame in matches.pairs[row])
        x, y = matches.hidden_source[matches.hidden_pair == row].T
        right.append(~scene.flow(i, j)[1][y, x])
    assert np.concatenate(right).mean() > 0.75


def test_the_result_does_not_depend_on_threads_or_chunks(shot: Clip, quick: Config, tmp_path: Path) -> None:
    flow = dataclasses.replace(quick.flow, gaps=(1, 2, 4))
    match_clip(shot, flow, tmp_path / "one")
    match_clip(shot, flow, tmp_path / "two", threads=2)
    for part in (2, 1):
        find_correspondences(
            shot, tmp_path / "parts", flow, seed=0, threads=1, reporter=Reporter(), chunk=(part, 2)
        )
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "parts")


def test_a_stopped_stage_goes_on_with_the_same_result(shot: Clip, quick: Config, tmp_path: Path) -> None:
    flow = dataclasses.replace(quick.flow, gaps=(1, 2))
    whole = match_clip(shot, flow, tmp_path / "whole")
    seen: list[int] = []

    def stop_after_the_first_block() -> bool:
        return (tmp_path / "stopped" / "000000.npz").exists()

    reporter = Reporter(lambda event: seen.append(event.done) if isinstance(event, Progress) else None,
                        stop_after_the_first_block)  # fmt: skip
    with pytest.raises(Cancelled):
        find_correspondences(shot, tmp_path / "stopped", flow, seed=0, threads=1, reporter=reporter)
    assert len(contents(tmp_path / "stopped")) == 1
    with pytest.raises(RunError, match="run the flow stage again"):
        load_correspondences(tmp_path / "stopped", shot, flow)
    assert_same(match_clip(shot, flow, tmp_path / "stopped"), whole)
    assert seen == sorted(seen)


def test_progress_is_of_all_that_is_matched_and_not_of_blocks(shot: Clip, quick: Config, tmp_path: Path) -> None:
    """What a block matches for later ones counts at once: else the time left would be told far too long."""
    seen: list[Progress] = []
    reporter = Reporter(lambda event: seen.append(event) if isinstance(event, Progress) else None)
    flow = dataclasses.replace(quick.flow, gaps=(1, 2, 4, 8))
    find_correspondences(shot, tmp_path / "whole", flow, seed=0, threads=1, reporter=reporter)
    assert [event.done for event in seen] == [*range(seen[0].total + 1), seen[0].total]


def test_a_damaged_block_is_named(shot: Clip, quick: Config, tmp_path: Path) -> None:
    flow = dataclasses.replace(quick.flow, gaps=(1,))
    match_clip(shot, flow, tmp_path)
    (tmp_path / "000008.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"000008\.npz is missing or damaged"):
        load_correspondences(tmp_path, shot, flow)


def test_nothing_is_matched_across_a_cut(shot: Clip, quick: Config, tmp_path: Path) -> None:
    found = match_clip(dataclasses.replace(shot, cuts=(5,)), quick.flow, tmp_path)
    assert ((found.pairs < 5).all(axis=1) | (found.pairs >= 5).all(axis=1)).all()


def test_matches_begin_and_end_on_the_mask(scene: Scene, make_clip: MakeClip, quick: Config, tmp_path: Path) -> None:
    mask = np.zeros((96, 128), bool)
    mask[:, :60] = True
    clip = make_clip([scene.render(t) for t in range(4)], [mask] * 4)
    found = match_clip(clip, quick.flow, tmp_path)
    assert len(found) > 1000
    assert found.source[:, 0].max() < 60
    assert found.target[:, 0].max() < 60


def test_a_shot_without_any_match_is_told(make_clip: MakeClip, quick: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 80, 3), dtype=np.uint8) for _ in range(3)]
    flow = dataclasses.replace(quick.flow, max_appearance_error=0.01)
    with pytest.raises(FlowError, match="choose a shot with visible texture"):
        match_clip(make_clip(noise), flow, tmp_path)


def test_a_place_seen_again_after_long_is_matched(make_clip: MakeClip, tmp_path: Path) -> None:
    scene = Scene.make(2, (128, 96), seed=3)
    there_and_back = [scene.render(t) for t in (0, 1, 2, 3, 4, 3, 2, 1, 0)]
    config = FlowConfig(long_side=256, gaps=(1, 2), keyframe_step=4)
    found = match_clip(make_clip(there_and_back), config, tmp_path)
    assert [0, 8] in found.pairs.tolist()
    between = matches_between(found, 0, 8)
    assert np.abs(between).max() < 1.0
    assert np.median(np.abs(between)) < 0.01


def matches_between(found: Correspondences, i: int, j: int) -> np.ndarray:
    row = found.pairs.tolist().index([i, j])
    members = found.pair == row
    return found.target[members] - found.source[members]


def test_plain_adjacent_flow_is_near_the_truth(shot: Clip, scene: Scene) -> None:
    flow = adjacent_flow(shot, FlowConfig(long_side=256))(6, 5)
    exact, visible = scene.flow(6, 5)
    assert np.median(np.linalg.norm(flow - exact, axis=-1)[visible]) < 0.3
