"""TAP-Vid's metrics against a slow loop over points and frames, and against figures worked out by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.errors import EvaluationError
from omnimotion_core.evaluation.tapvid import (
    QUERY_MODES,
    QueryMode,
    TapVidMetrics,
    Truth,
    format_table,
    load_truth,
    queries_for,
    tapvid_metrics,
)
from omnimotion_core.trajectories.tracks import Tracks

SIZE = (320, 192)


def random_truth(seed: int, num_points: int = 12, num_frames: int = 17) -> Truth:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, SIZE, (num_points, num_frames, 2)).astype(np.float32)
    occluded = rng.random((num_points, num_frames)) < 0.4
    occluded[3] = True  # never seen
    occluded[:, 5] |= rng.random(num_points) < 0.5
    first = (~occluded).argmax(axis=1)
    at = target[np.arange(num_points), first]
    return Truth(
        target_points=target, occluded=occluded, query_points=np.column_stack([first, at[:, 1], at[:, 0]]), size=SIZE
    )


def tracks_of(queries: np.ndarray, positions: np.ndarray, visible: np.ndarray, size: tuple[int, int] = SIZE) -> Tracks:
    nothing = np.zeros(visible.shape, np.float32)
    return Tracks(
        queries=queries, positions=positions, visible=visible, confidence=nothing, depth=nothing, size=size,
        first_frame=1, fps=24.0,
    )  # fmt: skip


def guess(truth: Truth, queries: np.ndarray, rows: np.ndarray, seed: int) -> Tracks:
    """Tracks that miss the truth by anything from nothing to some forty pixels."""
    rng = np.random.default_rng(seed)
    shape = (len(rows), truth.num_frames)
    miss = rng.normal(size=(*shape, 2)) * 10 ** rng.uniform(-1, 1.3, (*shape, 1))
    visible = ~truth.occluded[rows] ^ (rng.random(shape) < 0.2)
    return tracks_of(queries, (truth.target_points[rows] - 0.5 + miss).astype(np.float32), visible)


def slow_metrics(truth: Truth, tracks: Tracks, rows: np.ndarray, mode: str) -> dict[str, float]:
    """The definition, point by point, frame by frame, in scaled corner-origin coordinates."""
    result: dict[str, float] = {}
    agree = counted = 0
    for x in (1, 2, 4, 8, 16):
        correct = true_positive = positive = false_positive = agree = counted = 0
        for n, row in enumerate(rows):
            queried = int(tracks.queries[n, 0])
            for t in range(truth.num_frames):
                if t == queried or (mode == "first" and t < queried):
                    continue
                dx = (float(tracks.positions[n, t, 0]) + 0.5 - float(truth.target_points[row, t, 0])) * 256 / SIZE[0]
                dy = (float(tracks.positions[n, t, 1]) + 0.5 - float(truth.target_points[row, t, 1])) * 256 / SIZE[1]
                within = math.hypot(dx, dy) < x
                seen, told = not truth.occluded[row, t], bool(tracks.visible[n, t])
                counted += 1
                agree += seen == told
                positive += seen
                correct += seen and within
                true_positive += seen and within and told
                false_positive += told and (not seen or not within)
        result[f"within {x}"] = correct / positive
        result[f"jaccard {x}"] = true_positive / (positive + false_positive)
    result["OA"] = agree / counted
    jerks = []
    for n, row in enumerate(rows):
        for t in range(truth.num_frames - 2):
            if truth.occluded[row, t : t + 3].any():
                continue
            change = [0.0, 0.0]
            for axis in (0, 1):
                p = tracks.positions[n, t : t + 3, axis].astype(float)
                q = truth.target_points[row, t : t + 3, axis].astype(float)
                change[axis] = ((p[2] - 2 * p[1] + p[0]) - (q[2] - 2 * q[1] + q[0])) * 256 / SIZE[axis]
            jerks.append(math.hypot(*change))
    result["TC"] = sum(jerks) / len(jerks)
    return result


@pytest.mark.parametrize("mode", QUERY_MODES)
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_agree_with_a_loop_over_points_and_frames(mode: QueryMode, seed: int) -> None:
    truth = random_truth(seed)
    queries, rows = queries_for(truth, mode)
    tracks = guess(truth, queries, rows, seed)
    found, expected = tapvid_metrics(truth, tracks, rows, mode), slow_metrics(truth, tracks, rows, mode)
    for x in (1, 2, 4, 8, 16):
        assert found.points_within[x] == pytest.approx(expected[f"within {x}"], abs=1e-12)
        assert found.jaccard[x] == pytest.approx(expected[f"jaccard {x}"], abs=1e-12)
    assert found.average_jaccard == pytest.approx(np.mean([expected[f"jaccard {x}"] for x in (1, 2, 4, 8, 16)]))
    assert found.average_points_within == pytest.approx(np.mean([expected[f"within {x}"] for x in (1, 2, 4, 8, 16)]))
    assert found.occlusion_accuracy == pytest.approx(expected["OA"])
    assert found.temporal_coherence == pytest.approx(expected["TC"], rel=1e-5)
    assert found.num_queries == len(rows)
    assert 0.2 < found.average_jaccard < 0.9  # the guess exercises every case


def one_point(positions: list[tuple[float, float]], occluded: list[bool]) -> Truth:
    target = np.array([positions], np.float32)
    return Truth(
        target_points=target, occluded=np.array([occluded]),
        query_points=np.array([[0, target[0, 0, 1], target[0, 0, 0]]], np.float32), size=(256, 256),
    )  # fmt: skip


def test_a_case_worked_out_by_hand() -> None:
    # A point at rest at raster (100, 50), hidden in frame 3. Told: exact in frames 0 and 1, 3 px off in 2, visible in
    # 3, and in frame 4 hidden and 20 px off.
    truth = one_point([(100, 50)] * 5, [False, False, False, True, False])
    queries, rows = queries_for(truth, "first")
    positions = np.array([[(99.5, 49.5), (99.5, 49.5), (102.5, 49.5), (99.5, 49.5), (119.5, 49.5)]], np.float32)
    tracks = tracks_of(queries, positions, np.array([[True, True, True, True, False]]), (256, 256))
    found = tapvid_metrics(truth, tracks, rows, "first")
    # Counted: frames 1 to 4; truly visible in 1, 2, 4. OA: 1 and 2 agree, 3 and 4 do not.
    assert found.occlusion_accuracy == 0.5
    assert found.points_within == pytest.approx({1: 1 / 3, 2: 1 / 3, 4: 2 / 3, 8: 2 / 3, 16: 2 / 3})
    # Below 4 px: TP frame 1, FP frames 2 and 3: 1 / (3 + 2). From 4 px: TP frames 1 and 2, FP frame 3: 2 / (3 + 1).
    assert found.jaccard == pytest.approx({1: 0.2, 2: 0.2, 4: 0.5, 8: 0.5, 16: 0.5})
    assert found.average_jaccard == pytest.approx(0.38)
    # One triplet, frames 0 to 2: the told acceleration is (3, 0), the true one 0.
    assert found.temporal_coherence == pytest.approx(3.0)


def test_exact_tracks_score_full_and_distance_must_be_below_the_threshold() -> None:
    truth = random_truth(3)
    queries, rows = queries_for(truth, "strided")
    exact = tracks_of(queries, truth.target_points[rows] - 0.5, ~truth.occluded[rows])
    best = tapvid_metrics(truth, exact, rows, "strided")
    assert (best.average_jaccard, best.average_points_within, best.occlusion_accuracy) == (1.0, 1.0, 1.0)
    assert best.temporal_coherence < 1e-4

    still = one_point([(100, 50)] * 3, [False] * 3)
    queries, rows = queries_for(still, "first")
    shifted = tracks_of(queries, np.full((1, 3, 2), (101.5, 49.5), np.float32), np.ones((1, 3), np.bool_), (256, 256))
    assert tapvid_metrics(still, shifted, rows, "first").points_within == {1: 0.0, 2: 0.0, 4: 1.0, 8: 1.0, 16: 1.0}


def test_distances_are_measured_on_a_raster_scaled_to_256_squared() -> None:
    truth = Truth(
        target_points=np.full((1, 2, 2), 100.0), occluded=np.zeros((1, 2), np.bool_),
        query_points=np.array([[0.0, 100.0, 100.0]]),
    )  # fmt: skip
    queries, rows = queries_for(truth, "first")
    aside = np.array([[(99.5, 99.5), (105.5, 99.5)]], np.float32)  # 6 px to the right in the plate
    shown = np.ones((1, 2), np.bool_)
    for width, first_within in ((256, 8), (512, 4), (1024, 2)):  # 6, 3 and 1.5 px of the raster
        within = tapvid_metrics(truth, tracks_of(queries, aside, shown, (width, 256)), rows, "first").points_within
        assert next(x for x, share in within.items() if share == 1.0) == first_within


def test_queries_are_centre_origin_and_point_to_their_rows() -> None:
    truth = random_truth(5)
    visible = ~truth.occluded
    for mode in QUERY_MODES:
        queries, rows = queries_for(truth, mode)  # type: ignore[arg-type]
        frames = queries[:, 0].astype(int)
        assert visible[rows, frames].all()
        assert np.allclose(queries[:, 1:] + 0.5, truth.target_points[rows, frames], atol=1e-4)
        if mode == "first":
            assert rows.tolist() == [n for n in range(len(truth)) if n != 3]
            assert not any(visible[row, :frame].any() for row, frame in zip(rows, frames, strict=True))
        else:
            expected = {(t, n) for t in (0, 5, 10, 15) for n in range(len(truth)) if visible[n, t]}
            assert len(rows) == len(expected)
            assert set(zip(frames.tolist(), rows.tolist(), strict=True)) == expected


def test_a_truth_with_nothing_to_count_gives_nan_and_none_in_json() -> None:
    truth = one_point([(100, 50)] * 3, [False, True, True])
    queries, rows = queries_for(truth, "first")
    tracks = tracks_of(queries, np.full((1, 3, 2), 99.5, np.float32), np.array([[True, False, False]]), (256, 256))
    found = tapvid_metrics(truth, tracks, rows, "first")
    assert found.occlusion_accuracy == 1.0
    assert math.isnan(found.average_points_within)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["average_points_within"] is None
    assert plain["temporal_coherence"] is None
    assert plain["points_within"]["16"] is None


def test_text_tells_the_four_figures() -> None:
    shares = dict.fromkeys((1, 2, 4, 8, 16), 0.5)
    metrics = TapVidMetrics(
        mode="first", num_queries=3, average_jaccard=0.4567, average_points_within=0.5, occlusion_accuracy=0.75,
        temporal_coherence=1.234, jaccard=shares, points_within=shares,
    )  # fmt: skip
    assert metrics.format() == "AJ 0.457  δ_avg 0.500  OA 0.750  TC 1.23"
    lines = format_table({"field": metrics, "chained flow": metrics}).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["field", "0.457", "0.500", "0.750", "1.23"]
    assert len({len(line) for line in lines}) == 1


def test_a_truth_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    truth = random_truth(7)
    truth.save(tmp_path / "truth.npz")
    back = load_truth(tmp_path / "truth.npz", truth.num_frames, SIZE)
    assert np.array_equal(back.target_points, truth.target_points)
    assert np.array_equal(back.occluded, truth.occluded)
    assert np.array_equal(back.query_points, truth.query_points)
    assert back.size == SIZE
    assert back.owner is None


def test_occluded_may_be_numbers_0_and_1(tmp_path: Path) -> None:
    truth = random_truth(7)
    np.savez(
        tmp_path / "truth.npz", target_points=truth.target_points, occluded=truth.occluded.astype(np.uint8),
        query_points=truth.query_points,
    )  # fmt: skip
    assert np.array_equal(load_truth(tmp_path / "truth.npz").occluded, truth.occluded)


def test_a_wrong_truth_file_is_told_in_one_line(tmp_path: Path) -> None:
    truth = random_truth(7)
    right = {"target_points": truth.target_points, "occluded": truth.occluded, "query_points": truth.query_points}
    wrong: dict[str, dict[str, np.ndarray]] = {
        "no query_points": {k: v for k, v in right.items() if k != "query_points"},
        "target_points": {**right, "target_points": truth.target_points[:, :-1]},
        "occluded": {**right, "occluded": truth.occluded * 0.5},
        "points are not numbers": {**right, "target_points": truth.target_points.astype(str)},
        "not numbers": {**right, "target_points": np.full_like(truth.target_points, np.nan)},
        "no point that is visible": {**right, "occluded": np.ones_like(truth.occluded)},
        "owner": {**right, "owner": np.zeros(3)},
        "outside": {**right, "target_points": truth.target_points * 2},
        "within one pixel": {**right, "target_points": truth.target_points / np.array(SIZE)},
        "256x256": {**right, "size": np.array([256, 256])},
    }
    for message, arrays in wrong.items():
        np.savez(tmp_path / "wrong.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(EvaluationError, match=message):
            load_truth(tmp_path / "wrong.npz", truth.num_frames, SIZE)
    np.savez(tmp_path / "right.npz", **right)  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="17 frames, the run has 18"):
        load_truth(tmp_path / "right.npz", 18)


def test_a_file_that_is_no_archive_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no truth file"):
        load_truth(tmp_path / "absent.npz")
    with pytest.raises(EvaluationError, match="not an npz"):
        load_truth(tmp_path)
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("t,x,y\n0,1,2\n")
    np.save(tmp_path / "lone.npy", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", target_points=np.array([{}, None], object))
    random_truth(7).save(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-200])
    for name in ("empty.npz", "text.npz", "lone.npy", "pickled.npz", "cut.npz"):
        with pytest.raises(EvaluationError, match="not an npz"):
            load_truth(tmp_path / name)


def test_what_does_not_belong_together_is_refused() -> None:
    truth = random_truth(9)
    queries, rows = queries_for(truth, "first")
    tracks = guess(truth, queries, rows, 0)
    with pytest.raises(EvaluationError, match="answer every query"):
        tapvid_metrics(truth, tracks.select(np.arange(3)), rows, "first")
    with pytest.raises(EvaluationError, match="16 frames, the truth has 17"):
        shorter = tracks_of(queries, tracks.positions[:, :-1], tracks.visible[:, :-1])
        tapvid_metrics(truth, shorter, rows, "first")
    with pytest.raises(EvaluationError, match="query mode is 'last'"):
        queries_for(truth, "last")  # type: ignore[arg-type]
    last_only = one_point([(100, 50)] * 2, [True, False])
    with pytest.raises(EvaluationError, match="use query mode first"):
        queries_for(last_only, "strided")
    queries, rows = queries_for(last_only, "first")
    with pytest.raises(EvaluationError, match="no frame after its queries"):
        tapvid_metrics(
            last_only, tracks_of(queries, np.zeros((1, 2, 2), np.float32), np.ones((1, 2), np.bool_)), rows, "first"
        )
