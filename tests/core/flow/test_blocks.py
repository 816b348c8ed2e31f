import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest

from omnimotion_core.config import FlowConfig
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow import blocks as module
from omnimotion_core.flow import homography, matching
from omnimotion_core.flow.blocks import FlowBlocks
from omnimotion_core.flow.candidates import Direction
from omnimotion_core.flow.estimators.dis import DisFlow
from omnimotion_core.flow.homography import Features
from omnimotion_core.flow.matching import Both, Composed
from omnimotion_core.flow.pairs import Pair, closure_candidates, stride_pairs, ways_to_compose
from omnimotion_core.video.clip import Clip
from tests.core.conftest import MakeClip


def steady(there: float, back: float) -> Both:
    forward, backward = np.zeros((96, 128, 2), np.float32), np.zeros((96, 128, 2), np.float32)
    forward[..., 0], backward[..., 0] = there, back
    return forward, backward


def test_neighbors_are_guessed_to_go_on_as_before_and_as_after(shot: Clip) -> None:
    with ThreadPoolExecutor(1) as pool:
        blocks = FlowBlocks(shot, FlowConfig(), DisFlow(), pool, 0)
    blocks.plain = {Pair(0, 1): steady(2, -2.5), Pair(1, 2): steady(5, -5), Pair(2, 3): steady(3, -3.5)}

    def guesses(pair: Pair) -> list[list[float]]:
        return [[float(np.median(way[..., 0])) for way in guess] for guess in blocks._continued(pair)]

    assert guesses(Pair(1, 2)) == [[2.5, -2.5], [3, -3]]
    assert guesses(Pair(0, 1)) == [[5, -5]]
    assert guesses(Pair(2, 3)) == [[5, -5]]
    assert guesses(Pair(0, 2)) == []


def test_neighbors_and_those_beside_them_are_searched_within_a_shot(shot: Clip) -> None:
    cut = dataclasses.replace(shot, cuts=(4,))
    with ThreadPoolExecutor(1) as pool:
        blocks = FlowBlocks(cut, FlowConfig(long_side=128), DisFlow(), pool, 0)
        blocks._find_plain([Pair(1, 2), Pair(1, 3)])
        assert sorted(blocks.plain) == [Pair(0, 1), Pair(1, 2), Pair(2, 3)]
        blocks._find_plain([Pair(2, 3)])
        assert sorted(blocks.plain) == [Pair(1, 2), Pair(2, 3)]  # the next would lie across the cut


def test_nothing_is_matched_twice_and_neighbors_are_smoothed(shot: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FlowConfig(long_side=128, gaps=(1, 2, 3, 4), keyframe_step=3)
    pairs, closures = stride_pairs(shot.segments, config.gaps), closure_candidates(shot.segments, 3, 4)
    matched, searched, smoothed = Counter[Pair](), Counter[Pair](), set[Pair]()
    with ThreadPoolExecutor(1) as pool:
        blocks = FlowBlocks(shot, config, DisFlow(), pool, 0)
        match, estimate = blocks.matcher.match, matching.estimate

        def counted_match(pair: Pair, **keywords: Any) -> tuple[Direction, Direction]:
            matched[pair] += 1
            if keywords["smooth"]:
                smoothed.add(pair)
            return match(pair, **keywords)

        def counted_estimate(bank: Any, some: list[Pair], initials: list[Both | None]) -> list[Both]:
            searched.update(some)
            return estimate(bank, some, initials)

        monkeypatch.setattr(blocks.matcher, "match", counted_match)
        monkeypatch.setattr(module, "estimate", counted_estimate)
        monkeypatch.setattr(blocks, "_closures", lambda candidates: candidates)
        for start in range(0, shot.num_frames, module.BLOCK):
            blocks.run([pair for pair in pairs if start <= pair.first < start + module.BLOCK], lambda _: None)
        blocks.run(closures, lambda _: None)
    assert matched == Counter([*pairs, *closures])
    assert searched == Counter(stride_pairs(shot.segments, (1,)))
    assert smoothed == set(searched)


def test_a_middle_frame_in_which_things_are_hidden_is_gone_around(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar stands before the left half in frame 3 alone, the middle of the way that composes fewest steps."""
    y, x = np.mgrid[:96, :160].astype(np.float32)
    picture = Scene.make(2, (240, 96), seed=3).render(0)
    frames = [cv2.remap(picture, x + 70 - 4 * t, y, cv2.INTER_CUBIC) for t in range(5)]
    frames[3][:, :80] = 90
    clip = make_clip(frames)

    config = FlowConfig(long_side=160, keyframe_step=0, homographies=False, gaps=(1, 2, 3, 4))

    def share_right() -> float:
        composed: dict[Pair, Composed] = {}
        with ThreadPoolExecutor(1) as pool:
            blocks = FlowBlocks(clip, config, DisFlow(), pool, 0)
            match = blocks.matcher.match

            def kept_match(pair: Pair, **keywords: Any) -> tuple[Direction, Direction]:
                composed[pair] = keywords["composed"]
                return match(pair, **keywords)

            monkeypatch.setattr(blocks.matcher, "match", kept_match)
            blocks.run([Pair(0, gap) for gap in config.gaps], lambda _: None)
        miss = np.linalg.norm(composed[Pair(0, 4)].flow[0] - [16, 0], axis=-1)
        return float((miss[16:-16, 8:60] < 1).mean())

    assert share_right() > 0.9
    monkeypatch.setattr(module, "ways_to_compose", lambda gap, gaps: ways_to_compose(gap, gaps)[:1])
    assert share_right() < 0.5


def test_features_are_looked_for_only_where_something_is_made_of_them(
    shot: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    find = homography.find_features

    def counted_find(luminance: np.ndarray, mask: np.ndarray | None) -> Features:
        found.append(1)
        return find(luminance, mask)

    monkeypatch.setattr("omnimotion_core.flow.matching.find_features", counted_find)
    settings: list[dict[str, Any]] = [
        {"homographies": False, "keyframe_step": 0}, {"homographies": True, "keyframe_step": 0},
        {"homographies": False, "keyframe_step": 4},
    ]  # fmt: skip
    for setting in settings:
        with ThreadPoolExecutor(1) as pool:
            FlowBlocks(shot, FlowConfig(long_side=128, gaps=(1,), **setting), DisFlow(), pool, 0).run(
                [Pair(0, 1)], lambda _: None
            )
        assert bool(found) == (setting != settings[0])
        found.clear()


def test_what_looks_alike_and_has_not_drifted_is_kept(make_clip: MakeClip) -> None:
    rng = np.random.default_rng(8)
    first, other = (cv2.resize(rng.integers(60, 190, (32, 48, 3), np.uint8), (96, 64)) for _ in range(2))
    second = first.copy()
    second[:, :48] = other[:, :48]  # the left half shows something else of about the same color
    with ThreadPoolExecutor(1) as pool:
        blocks = FlowBlocks(make_clip([first, second]), FlowConfig(), DisFlow(), pool, 0)
    none = np.zeros((64, 96), np.float32)
    drifted = none.copy()
    drifted[:32] = 6.0  # pixels
    there = Direction(np.zeros((64, 96, 2), np.float32), cycle=none, appearance=none, moved=drifted)
    x, y = blocks._sampled_direction((0, 1), there, there, (None, None))["source"].T
    kept = np.zeros((64, 96), bool)
    kept[y, x] = True
    assert kept[32:, 54:].mean() > 0.95
    assert kept[32:, :42].mean() < 0.3
    assert not kept[:32].any()
