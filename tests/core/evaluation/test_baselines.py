"""The baselines: exact where the flow is exact, better than standing still elsewhere."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from omnimotion_core.coordinates import inside, pixel_grid
from omnimotion_core.errors import EvaluationError
from omnimotion_core.evaluation.baselines import chain_tracks, lucas_kanade_tracks
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.evaluation.tapvid import load_truth, queries_for, tapvid_metrics
from omnimotion_core.trajectories.tracks import Tracks

SIZE = (40, 30)
SHEAR = np.array([[0.02, 0.01], [-0.015, 0.01]])
DRIFT = np.array([0.3, -0.2])


def affine_flow(i: int, j: int) -> np.ndarray:
    """x ↦ x + SHEAR (x - 20) + DRIFT for a step forward, its inverse for a step back: bilinear reading is exact."""
    matrix, grid = np.eye(2) + SHEAR, pixel_grid(SIZE).astype(np.float64)
    if j == i + 1:
        return np.asarray((grid - 20) @ SHEAR.T + DRIFT)
    return np.asarray((grid - 20 - DRIFT) @ np.linalg.inv(matrix).T + 20 - grid)


def test_chaining_exact_flow_gives_exact_tracks_both_ways() -> None:
    num_frames = 9
    queries = np.array([[4, 20, 15], [0, 18.25, 14.5], [8, 22.75, 12.1], [4, 26, 20]], np.float32)
    tracks = chain_tracks(affine_flow, queries, num_frames, SIZE, first_frame=1001, fps=24.0)
    assert (tracks.first_frame, tracks.fps, tracks.size) == (1001, 24.0, SIZE)
    for n, (start, *at) in enumerate(queries):
        for t in range(num_frames):
            point = np.array(at, np.float64)
            for _ in range(abs(t - int(start))):
                if t > start:
                    point = point + SHEAR @ (point - 20) + DRIFT
                else:
                    point = np.linalg.solve(np.eye(2) + SHEAR, point - 20 - DRIFT) + 20
            assert tracks.positions[n, t] == pytest.approx(point, abs=1e-4)
    assert tracks.visible.all()
    assert (tracks.confidence > 0.99).all()


def test_a_point_that_leaves_or_misses_itself_stays_hidden() -> None:
    def flow(i: int, j: int) -> np.ndarray:
        field = np.zeros((30, 40, 2), np.float32)
        field[:, :20, 0] = 4 * (j - i)  # the left half moves to the right: into the half that does not move back
        field[:, 20:, 1] = -3 * (j - i)  # the right half moves up and out
        return field

    queries = np.array([[0, 2, 10], [0, 30, 7], [2, 30, 1]], np.float32)
    tracks = chain_tracks(flow, queries, 6, SIZE, max_cycle_error_px=1.0)
    assert tracks.visible[0].tolist() == [True] * 5 + [False]  # 2, 6, 10, 14, 18, then 22 does not come back
    assert tracks.positions[0, :5, 0].tolist() == [2, 6, 10, 14, 18]
    assert tracks.visible[1].tolist() == [True, True, True, False, False, False]  # y: 7, 4, 1, -2
    assert tracks.visible[2].tolist() == [True, True, True, False, False, False]  # back to 7, and out again
    assert (tracks.confidence[~tracks.visible] == 0).all()
    assert not (tracks.visible & ~inside(tracks.positions, SIZE)).any()


def test_no_more_flow_is_asked_for_than_needed() -> None:
    asked: list[tuple[int, int]] = []

    def flow(i: int, j: int) -> np.ndarray:
        asked.append((i, j))
        return affine_flow(i, j)

    chain_tracks(flow, np.array([[0, 20, 15]], np.float32), 5, SIZE)
    assert sorted(asked) == sorted([(t, t + 1) for t in range(4)] + [(t + 1, t) for t in range(4)])
    asked.clear()
    chain_tracks(flow, np.zeros((0, 3), np.float32), 5, SIZE)
    assert asked == []


def test_more_points_than_a_short_integer_counts() -> None:
    grid = pixel_grid((300, 200)).reshape(-1, 2)
    queries = np.column_stack([np.zeros(len(grid)), grid]).astype(np.float32)
    tracks = chain_tracks(lambda i, j: np.full((200, 300, 2), 0.5 * (j - i)), queries, 3, (300, 200))
    assert np.allclose(tracks.positions[:, 2], grid + 1.0)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(EvaluationError, match="frame 7 of 5"):
        chain_tracks(affine_flow, np.array([[7, 1, 1]], np.float32), 5, SIZE)
    with pytest.raises(EvaluationError, match="flow has shape"):
        chain_tracks(lambda i, j: np.zeros((40, 30, 2)), np.array([[0, 1, 1]], np.float32), 5, SIZE)


def test_lucas_kanade_follows_a_known_shift_in_smaller_pictures() -> None:
    scene = Scene.make(2, (256, 192), seed=1)
    still = cv2.GaussianBlur(scene.render(0), (0, 0), 1.0)

    def picture(t: int) -> np.ndarray:
        matrix = np.array([[1, 0, 1.5 * t], [0, 1, -0.75 * t]])
        return np.asarray(cv2.warpAffine(still, matrix, (256, 192), borderMode=cv2.BORDER_REFLECT))

    # The plate is twice as large as the pictures: the shift is (3, -1.5) of its pixels a frame.
    x, y = np.meshgrid(np.arange(100, 420, 40), np.arange(100, 300, 40))
    queries = np.column_stack([np.full(x.size, 2), x.ravel(), y.ravel()]).astype(np.float32)
    tracks = lucas_kanade_tracks(picture, queries, 5, (512, 384))
    expected = queries[:, None, 1:] + np.array([3.0, -1.5]) * (np.arange(5) - 2)[None, :, None]
    assert tracks.visible.mean() > 0.95
    assert np.quantile(np.abs(tracks.positions - expected)[tracks.visible], 0.95) < 0.25


def dis_flow(pictures: Sequence[np.ndarray]) -> Callable[[int, int], np.ndarray]:
    """OpenCV's DIS between any two of the gray pictures."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    @lru_cache(maxsize=2)
    def flow(i: int, j: int) -> np.ndarray:
        return np.asarray(dis.calc(pictures[i], pictures[j], np.zeros((*pictures[i].shape, 2), np.float32)))

    return flow


def standing_still(queries: np.ndarray, num_frames: int, size: tuple[int, int]) -> Tracks:
    shape = (len(queries), num_frames)
    positions = np.repeat(queries[:, None, 1:], num_frames, axis=1)
    return Tracks(
        queries=queries, positions=positions, visible=np.ones(shape, np.bool_),
        confidence=np.ones(shape, np.float32), depth=np.zeros(shape, np.float32), size=size, first_frame=0, fps=24.0,
    )  # fmt: skip


def test_both_beat_standing_still_on_the_synthetic_clip(scene: Scene) -> None:
    pictures = [scene.render(t) for t in range(scene.num_frames)]
    flow = dis_flow([np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) for picture in pictures])
    truth = scene.truth(100, seed=1)
    queries, rows = queries_for(truth, "first")

    def score(tracks: Tracks) -> float:
        return tapvid_metrics(truth, tracks, rows, "first").average_jaccard

    trivial = score(standing_still(queries, scene.num_frames, scene.size))
    chained = score(chain_tracks(flow, queries, scene.num_frames, scene.size))
    lucas_kanade = score(lucas_kanade_tracks(pictures.__getitem__, queries, scene.num_frames, scene.size))
    exact = score(chain_tracks(lambda i, j: scene.flow(i, j)[0], queries, scene.num_frames, scene.size))
    assert chained > 2 * trivial
    assert lucas_kanade > 2 * trivial
    assert exact > chained


@pytest.mark.parametrize(
    ("name", "jaccard", "within", "accuracy"), [("orbit", 0.40, 0.55, 0.69), ("flag", 0.36, 0.49, 0.76)]
)
def test_chained_dis_is_as_strong_as_others_have_measured_it(
    clips: Path, name: str, jaccard: float, within: float, accuracy: float
) -> None:
    frames = sorted((clips / "rendered" / name / "frames").glob("*.png"))
    gray = [np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in frames]
    size = (gray[0].shape[1], gray[0].shape[0])
    truth = load_truth(clips / "rendered" / name / "tracks.npz", len(frames), size)
    queries, rows = queries_for(truth, "first")
    found = tapvid_metrics(truth, chain_tracks(dis_flow(gray), queries, len(frames), size), rows, "first")
    assert found.average_jaccard > jaccard - 0.01
    assert found.average_points_within > within - 0.01
    assert found.occlusion_accuracy > accuracy - 0.01
