import dataclasses

import numpy as np

from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.trajectories.quality import Quality, cycle_errors, measure_quality
from omnimotion_core.trajectories.query import track_points


def test_figures_of_a_fitted_field(field: Field, matches: Correspondences) -> None:
    rng = np.random.default_rng(0)
    queries = np.column_stack([np.zeros(100), rng.random(100) * 127, rng.random(100) * 95]).astype(np.float32)
    tracks = track_points(field, queries)
    quality = measure_quality(field, matches, tracks)
    assert (quality.residual_px < 1.0).all()
    assert (quality.coverage > 0.8).all()
    np.testing.assert_allclose(quality.visible, tracks.visible.mean(axis=0))
    t = 3
    np.testing.assert_allclose(quality.confidence[t], tracks.confidence[tracks.visible[:, t], t].mean(), rtol=1e-6)


def test_coverage_is_the_share_of_a_frame_in_which_matches_begin(field: Field, matches: Correspondences) -> None:
    frames = matches.pairs[matches.pair, 0]
    kept = (matches.source[:, 0] < 64) & ((frames != 3) | (matches.source[:, 1] < 32))  # of 128x96 pixels
    few = dataclasses.replace(
        matches, pair=matches.pair[kept], source=matches.source[kept], target=matches.target[kept],
        weight=matches.weight[kept],
    )  # fmt: skip
    tracks = track_points(field, np.array([[0, 20, 30]], np.float32))
    coverage = measure_quality(field, few, tracks).coverage
    whole = measure_quality(field, matches, tracks).coverage
    assert whole[3] == 1
    np.testing.assert_allclose(coverage[3], 1 / 6)
    assert (coverage <= 1 / 2).all()
    assert (np.delete(coverage, 3) > 0.4).all()


def test_any_three_frames_make_a_closed_cycle(field: Field) -> None:
    for seed in range(5):
        assert cycle_errors(field, seed=seed).max() < 0.01


def test_the_worst_frames_come_first() -> None:
    ones = np.ones(4)
    quality = Quality(residual_px=ones, cycle_error_px=ones, coverage=np.array([1, 0.5, 1, 1]),
                      confidence=np.array([0.9, 0.9, 0.2, 0.8]), visible=ones)  # fmt: skip
    assert quality.worst_frames.tolist() == [2, 1, 3, 0]
