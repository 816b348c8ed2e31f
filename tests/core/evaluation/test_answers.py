"""Other trackers' files: the truth itself scores 1, and what answers something else is refused."""

from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.errors import EvaluationError
from omnimotion_core.evaluation.answers import load_answers
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.evaluation.tapvid import QueryMode, Truth, queries_for, tapvid_metrics


@pytest.fixture(scope="module")
def truth(scene: Scene) -> Truth:
    return scene.truth(40, seed=2)


@pytest.mark.parametrize("mode", ["first", "strided"])
@pytest.mark.parametrize("layout", ["ours", "tapvid", "tapvid-truth"])
def test_the_truth_scores_one(scene: Scene, truth: Truth, layout: str, mode: QueryMode, tmp_path: Path) -> None:
    queries, rows = queries_for(truth, mode)
    target, occluded = truth.target_points[rows], truth.occluded[rows]
    path = tmp_path / "answers.npz"
    if layout == "ours":
        np.savez(path, positions=target - 0.5, visible=~occluded, queries=queries, size=scene.size)
    elif layout == "tapvid":
        target = np.where(occluded[..., None], np.nan, target)
        np.savez(path, tracks=target, occluded=occluded.astype(np.uint8))
    else:
        points = np.column_stack([queries[:, 0], queries[:, 2] + 0.5, queries[:, 1] + 0.5])
        np.savez(path, target_points=target, occluded=occluded, query_points=points)
    tracks = load_answers(path, queries, scene.num_frames, scene.size, first_frame=3, fps=24.0)
    assert (tracks.first_frame, tracks.fps) == (3, 24.0)
    found = tapvid_metrics(truth, tracks, rows, mode)
    assert found.average_jaccard == found.average_points_within == found.occlusion_accuracy == 1.0
    assert found.temporal_coherence < 1e-3


def test_what_answers_something_else_is_refused(scene: Scene, truth: Truth, tmp_path: Path) -> None:
    queries, rows = queries_for(truth, "first")
    target, occluded = truth.target_points[rows], truth.occluded[rows]
    right = {"positions": target - 0.5, "visible": ~occluded, "queries": queries}
    path = tmp_path / "answers.npz"

    def refused(words: str, **changed: object) -> None:
        arrays = {name: value for name, value in {**right, **changed}.items() if value is not None}
        np.savez(path, **arrays)
        with pytest.raises(EvaluationError, match=words) as error:
            load_answers(path, queries, scene.num_frames, scene.size)
        assert str(path) in str(error.value)

    order = np.roll(np.arange(len(rows)), 1)
    refused("in row 0, where", queries=queries[order])
    refused("in row 3, where", queries=queries + np.where(np.arange(len(queries)) == 3, 1, 0)[:, None])
    refused(r"queries \(39, 3\)", queries=queries[1:])
    refused("do not begin at the queries", queries=None, positions=target[order])
    refused("do not begin at the queries", queries=None, positions=target / 4)
    refused("holds positions", positions=target[1:], visible=~occluded[1:])
    refused("holds positions", positions=target[:, :-1], visible=~occluded[:, :-1])
    refused("holds positions", positions=target[..., 0])
    refused("holds no positions", positions=None)
    refused("holds no positions", positions=np.full(target.shape, "a"))
    refused("neither visible nor occluded", visible=None)
    refused("neither true nor false", visible=np.full(occluded.shape, 0.5))
    refused("is of a 9x9 clip", size=np.array([9, 9]))
    refused("is not an npz file", positions=np.array([object()]))
    path.write_text("hello")
    with pytest.raises(EvaluationError, match="is not an npz file"):
        load_answers(path, queries, scene.num_frames, scene.size)
    with pytest.raises(EvaluationError, match="there is no file"):
        load_answers(tmp_path / "absent.npz", queries, scene.num_frames, scene.size)
