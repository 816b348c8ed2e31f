"""A carried mask: nearly whole on true tracks, worse on false ones, and as brute force would have it."""

import json

import numpy as np
import pytest

from omnimotion_core.errors import EvaluationError
from omnimotion_core.evaluation.carry import (
    carry_mask,
    grid_queries,
    intersection_over_union,
    labels_on,
    score_carried_mask,
    share_on_object,
)
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.trajectories.tracks import Tracks


def tracks_of(queries: np.ndarray, positions: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> Tracks:
    nothing = np.zeros(visible.shape, np.float32)
    return Tracks(
        queries=queries, positions=positions.astype(np.float32), visible=visible, confidence=nothing, depth=nothing,
        size=size, first_frame=0, fps=24.0,
    )  # fmt: skip


def true_tracks(scene: Scene, queries: np.ndarray) -> Tracks:
    """Tracks of whole-pixel queries of frame 0, by the exact flow."""
    x, y = queries[:, 1:].astype(int).T
    shape = (len(queries), scene.num_frames)
    positions, visible = np.empty((*shape, 2)), np.empty(shape, np.bool_)
    for t in range(scene.num_frames):
        vectors, shown = scene.flow(0, t)
        positions[:, t], visible[:, t] = queries[:, 1:] + vectors[y, x], shown[y, x]
    return tracks_of(queries, positions, visible, scene.size)


def test_the_grid_covers_the_picture() -> None:
    queries = grid_queries((854, 480), t=3)
    assert len(queries) == 6420
    assert queries[:, 0].tolist() == [3.0] * 6420
    assert queries[:, 1:].min() == 4
    assert queries[:, 1].max() >= 846
    assert queries[:, 2].max() >= 472


def test_true_tracks_carry_an_object_nearly_whole_and_still_ones_do_not(scene: Scene) -> None:
    def masks(t: int) -> np.ndarray:
        return scene.mask(t, "wheel")

    queries = grid_queries(scene.size, step=4)
    carried = score_carried_mask(masks, true_tracks(scene, queries))
    still = np.repeat(queries[:, None, 1:], scene.num_frames, axis=1)
    kept = score_carried_mask(masks, tracks_of(queries, still, np.ones(still.shape[:2], np.bool_), scene.size))
    assert carried.frames == tuple(range(1, scene.num_frames))
    assert carried.mean > 0.85
    assert kept.mean < carried.mean - 0.2
    assert carried.to_dict()["mean_intersection_over_union"] == carried.mean
    assert json.loads(json.dumps(carried.to_dict()))["frames"] == list(carried.frames)
    assert carried.format().startswith(f"J {carried.mean:.3f}")


def test_every_pixel_takes_the_label_of_the_nearest_visible_point() -> None:
    rng = np.random.default_rng(2)
    size = (120, 90)
    mask = np.zeros((90, 120), np.bool_)
    mask[20:60, 30:80] = True
    queries = grid_queries(size, step=10)
    positions = queries[:, None, 1:] + rng.normal(0, 6, (len(queries), 2, 2))
    visible = rng.random((len(queries), 2)) < 0.5
    visible[(queries[:, 1] > 60) & (queries[:, 2] > 40), 1] = False  # a hole wider than the reach
    carried = carry_mask(mask, tracks_of(queries, positions, visible, size), 1, max_distance_px=15)
    labels = labels_on(mask, queries[:, 1:])
    at = np.round(positions[:, 1])
    usable = visible[:, 1] & (at >= 0).all(axis=1) & (at < size).all(axis=1)
    clear = wrong = 0
    for y in range(90):
        for x in range(120):
            distance = np.where(usable, np.hypot(at[:, 0] - x, at[:, 1] - y), np.inf)
            inner = np.min(distance[labels], initial=np.inf)
            outer = np.min(distance[~labels], initial=np.inf)
            expected = inner < outer and inner <= 15
            # Near ties are left out: distances of the transform are right to some 2%.
            if abs(inner - outer) > 0.6 and abs(min(inner, outer) - 15) > 0.6:
                clear += 1
                wrong += carried[y, x] != expected
    assert clear > 9000
    assert wrong == 0
    assert carried.any()
    assert not carried[85, 115]


def test_no_visible_point_leaves_nothing() -> None:
    queries = grid_queries((64, 48))
    positions = np.repeat(queries[:, None, 1:], 2, axis=1)
    tracks = tracks_of(queries, positions, np.zeros(positions.shape[:2], np.bool_), (64, 48))
    assert not carry_mask(np.ones((48, 64), np.bool_), tracks, 1).any()
    gone = tracks_of(queries, positions - 500, np.ones(positions.shape[:2], np.bool_), (64, 48))
    assert not carry_mask(np.ones((48, 64), np.bool_), gone, 1).any()


def test_a_pixel_reaches_half_a_pixel_around_its_centre() -> None:
    mask = np.zeros((3, 4), np.bool_)
    mask[1, 2] = True
    points = np.array([[1.5, 0.5], [2.49, 1.49], [2.5, 1.0], [1.49, 1.0], [-0.6, 1.0], [90.0, 1.0]])
    assert labels_on(mask, points).tolist() == [True, True, False, False, False, False]


def test_intersection_over_union_by_hand() -> None:
    a, b = np.array([1, 1, 1, 0, 0], np.bool_), np.array([0, 1, 1, 1, 0], np.bool_)
    assert intersection_over_union(a, b) == 0.5
    assert intersection_over_union(a, ~a) == 0.0
    assert intersection_over_union(np.zeros(3, np.bool_), np.zeros(3, np.bool_)) == 1.0


def test_share_on_object_counts_hidden_points_too() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[5:15, 5:15] = True
    queries = np.array([[0, 6, 6], [0, 8, 8], [0, 10, 10], [0, 14, 14], [0, 1, 1]], np.float32)
    positions = np.repeat(queries[:, None, 1:], 3, axis=1)
    positions[0, 1] = (2, 2)
    positions[:2, 2] = (18, 18)
    visible = np.zeros((5, 3), np.bool_)
    assert share_on_object(lambda t: mask, tracks_of(queries, positions, visible, (20, 20))) == (1.0, 0.75, 0.5)


def test_a_mask_of_another_size_or_without_a_point_is_refused() -> None:
    queries = grid_queries((64, 48))
    positions = np.repeat(queries[:, None, 1:], 2, axis=1)
    tracks = tracks_of(queries, positions, np.ones(positions.shape[:2], np.bool_), (64, 48))
    with pytest.raises(EvaluationError, match="mask has shape"):
        carry_mask(np.ones((64, 48), np.bool_), tracks, 1)
    with pytest.raises(EvaluationError, match="no tracked point"):
        share_on_object(lambda t: np.zeros((48, 64), np.bool_), tracks)
