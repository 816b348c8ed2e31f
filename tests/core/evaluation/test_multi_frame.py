"""Direct flow and several intervals: exact where the flow is, and found again behind an occluder, as a chain is not."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from omnimotion_core.errors import EvaluationError
from omnimotion_core.evaluation.baselines import chain_tracks
from omnimotion_core.evaluation.multi_frame import (
    direct_pairs,
    direct_tracks,
    interval_pairs,
    several_interval_tracks,
)
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.evaluation.tapvid import queries_for, tapvid_metrics

Flow = Callable[[int, int], np.ndarray]
SIZE = (40, 30)


@pytest.fixture(scope="module")
def exact(scene: Scene) -> Flow:
    @cache
    def flow(i: int, j: int) -> np.ndarray:
        return scene.flow(i, j)[0]

    return flow


def test_direct_is_exact_on_visible_points(scene: Scene, exact: Flow) -> None:
    truth = scene.truth(40, seed=5)
    queries, rows = queries_for(truth, "first")
    tracks = direct_tracks(exact, queries, scene.num_frames, scene.size, first_frame=7, fps=24.0)
    assert (tracks.first_frame, tracks.fps, tracks.size) == (7, 24.0, scene.size)
    visible = ~truth.occluded[rows]
    miss = np.linalg.norm(tracks.positions + 0.5 - truth.target_points[rows], axis=-1)[visible]
    # Flow is read between pixel centers, which at an outline mixes two surfaces.
    assert np.quantile(miss, 0.9) < 0.1
    assert tapvid_metrics(truth, tracks, rows, "first").average_jaccard > 0.9


def test_several_intervals_survive_an_occlusion_that_a_chain_does_not(scene: Scene, exact: Flow) -> None:
    truth = scene.truth(60, seed=5)
    queries, rows = queries_for(truth, "first")
    several = several_interval_tracks(exact, queries, scene.num_frames, scene.size)
    chained = chain_tracks(exact, queries, scene.num_frames, scene.size)
    visible = ~truth.occluded[rows]
    start = queries[:, 0].astype(int)[:, None]
    frames = np.arange(scene.num_frames)[None]
    hidden_before = np.cumsum(~visible & (frames > start), axis=1) > 0
    back = visible & hidden_before & (frames > start)
    assert back.sum() > 50
    near = np.linalg.norm(several.positions + 0.5 - truth.target_points[rows], axis=-1) < 1
    assert (several.visible & near)[back].mean() > 0.8
    assert chained.visible[back].mean() < 0.3
    scores = [tapvid_metrics(truth, tracks, rows, "first").average_jaccard for tracks in (several, chained)]
    assert scores[0] > scores[1] + 0.1


def drift(i: int, j: int) -> np.ndarray:
    """A pixel to the right a frame, and nothing is known of ways between frames 2 and 3 and the others."""
    field = np.zeros((30, 40, 2), np.float32)
    field[..., 0] = j - i
    if (i in (2, 3)) != (j in (2, 3)):
        field[..., 1] = 5.0  # both ways, so that no round trip closes
    return field


def test_a_gap_is_stepped_over() -> None:
    queries = np.array([[1, 10, 15], [5, 20, 15], [0, 38, 15]], np.float32)
    tracks = several_interval_tracks(drift, queries, 7, SIZE)
    assert tracks.visible[0].tolist() == [True, True, False, False, True, True, True]
    assert tracks.visible[1].tolist() == [True, True, False, False, True, True, True]
    assert tracks.visible[2].tolist() == [True, True, False, False, False, False, False]  # it leaves the picture
    for row, (t, x, _) in enumerate(queries):
        seen = tracks.visible[row]
        assert tracks.positions[row, seen, 0].tolist() == (x + np.arange(7) - t)[seen].tolist()
        assert (tracks.positions[row, seen, 1] == 15).all()
    assert (tracks.confidence[~tracks.visible] == 0).all()
    assert not chain_tracks(drift, queries, 7, SIZE).visible[0, 4:].any()


def test_the_surest_way_is_taken() -> None:
    def flow(i: int, j: int) -> np.ndarray:
        field = np.zeros((30, 40, 2), np.float32)
        field[..., 0] = j - i
        if abs(j - i) == 1:
            field[..., 1] = 0.25  # misses itself by half a pixel
        return field

    tracks = several_interval_tracks(flow, np.array([[0, 5, 15]], np.float32), 9, SIZE)
    assert tracks.positions[0, :, 1].tolist() == [15, 15.25, *[15] * 7]
    assert tracks.confidence[0, 1] == pytest.approx(1 / 1.5)
    assert (tracks.confidence[0, 2:] == 1).all()


def test_pairs_without_flow_are_done_without() -> None:
    asked = []

    def flow(i: int, j: int) -> np.ndarray:
        asked.append((i, j))
        return drift(i, j) * 0

    known = {(0, 1), (1, 2)}
    tracks = several_interval_tracks(
        flow, np.array([[0, 5, 15]], np.float32), 4, SIZE, available=lambda i, j: (i, j) in known
    )
    assert set(asked) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert tracks.visible[0].tolist() == [True, True, True, False]
    assert tracks.positions[0, 3].tolist() == [5, 15]


def test_the_pairs_that_are_asked_for() -> None:
    assert list(direct_pairs([2, 2], 4)) == [(2, 3), (2, 1), (2, 0)]
    assert list(interval_pairs([1], 6, (1, 2))) == [
        (1, 2), (2, 3), (1, 3), (3, 4), (2, 4), (1, 4), (4, 5), (3, 5), (1, 5), (1, 0),
    ]  # fmt: skip
    assert list(interval_pairs([0], 1)) == list(direct_pairs([0], 1)) == []


def test_wrong_input_is_refused() -> None:
    for make in (direct_tracks, several_interval_tracks):
        with pytest.raises(EvaluationError, match="frame 7 of 5"):
            make(drift, np.array([[7, 1, 1]], np.float32), 5, SIZE)
        with pytest.raises(EvaluationError, match="flow has shape"):
            make(lambda i, j: np.zeros((40, 30, 2)), np.array([[0, 1, 1]], np.float32), 5, SIZE)
        assert make(drift, np.array([[0, 3, 4]], np.float32), 1, SIZE).visible.tolist() == [[True]]
