import dataclasses

import numpy as np
import pytest

from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.errors import QueryError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.model.field import Field
from omnimotion_core.trajectories import dense
from omnimotion_core.trajectories.dense import dense_depth, dense_flow
from omnimotion_core.trajectories.query import track_points


def test_dense_flow_is_every_pixels_track(field: Field) -> None:
    flow = dense_flow(field, 2, 7)
    pixels = pixel_grid((128, 96))[::11, ::13].reshape(-1, 2)
    queries = np.column_stack([np.full(len(pixels), 2), pixels]).astype(np.float32)
    tracks = track_points(field, queries)
    np.testing.assert_allclose(
        flow.vectors[::11, ::13].reshape(-1, 2), tracks.positions[:, 7] - tracks.positions[:, 2], atol=2e-3
    )
    assert (flow.visible[::11, ::13].ravel() == tracks.visible[:, 7]).mean() > 0.99
    np.testing.assert_allclose(flow.depth[::11, ::13].ravel(), tracks.depth[:, 2], atol=1e-4)


def test_strips_give_what_the_whole_gives(field: Field) -> None:
    whole, strips = dense_flow(field, 0, 5), dense_flow(field, 0, 5, memory_mb=1)
    np.testing.assert_allclose(whole.vectors, strips.vectors, atol=1e-3)
    np.testing.assert_allclose(whole.confidence, strips.confidence, atol=1e-4)


def test_threads_change_no_digit(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "STRIP_POINTS", 1000)
    assert field.threads == 1
    alone, alone_depth = dense_flow(field, 1, 6), dense_depth(field, 1)
    monkeypatch.setattr(field, "threads", 3)
    shared = dense_flow(field, 1, 6)
    for name in ("vectors", "visible", "confidence", "depth"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(shared, name))
    np.testing.assert_array_equal(dense_depth(field, 1), alone_depth)


def test_dense_flow_is_near_the_truth(field: Field, scene: Scene) -> None:
    exact, visible = scene.flow(3, 6)
    found = dense_flow(field, 3, 6)
    miss = np.linalg.norm(found.vectors - exact, axis=-1)
    assert np.median(miss[visible]) < 1.0
    assert np.median(np.linalg.norm(exact, axis=-1)[visible]) > 2.0
    assert (found.visible == visible).mean() > 0.85


def test_a_pixel_that_leaves_the_picture_is_not_visible(field: Field) -> None:
    flow = dense_flow(field, 0, 11)
    x, y = (pixel_grid((128, 96)) + flow.vectors).transpose(2, 0, 1)
    off = (x < -0.5) | (y < -0.5) | (x > 127.5) | (y > 95.5)
    assert off.any()
    assert not flow.visible[off].any()


def test_a_frame_to_itself_does_not_move(field: Field) -> None:
    flow = dense_flow(field, 4, 4)
    assert (flow.vectors == 0).all()
    assert flow.visible.all()


def test_depth_alone_is_the_flow_s(field: Field) -> None:
    np.testing.assert_array_equal(dense_depth(field, 3, memory_mb=1), dense_flow(field, 3, 5).depth)
    with pytest.raises(QueryError, match="frame 12 is not in the clip"):
        dense_depth(field, 12)


def test_there_is_no_flow_across_a_cut(field: Field) -> None:
    cut = Field(dataclasses.replace(field.shape, cuts=(6,)), field.config).requires_grad_(False)
    flow = dense_flow(cut, 5, 6)
    assert (flow.vectors == 0).all()
    assert not flow.visible.any()
    assert (flow.confidence == 0).all()


@pytest.mark.parametrize("pair", [(0, 12), (-1, 0)])
def test_a_frame_that_is_not_there_is_named(field: Field, pair: tuple[int, int]) -> None:
    with pytest.raises(QueryError, match="give frames from 0 to 11"):
        dense_flow(field, *pair)
