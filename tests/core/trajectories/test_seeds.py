import dataclasses

import numpy as np
import pytest

from omnimotion_core.config import TracksConfig
from omnimotion_core.errors import ClipError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.model.field import Field
from omnimotion_core.trajectories.query import track_points
from omnimotion_core.trajectories.seeds import preview_queries, seed_queries
from omnimotion_core.video.clip import Clip
from tests.core.conftest import MakeClip


def test_every_frame_is_covered_and_no_more_are_made_than_asked(field: Field, shot: Clip) -> None:
    queries = seed_queries(field, shot, TracksConfig(max_tracks=600))
    assert 300 < len(queries) <= 600
    tracks = track_points(field, queries)
    for t in (0, 6, 11):
        x, y = tracks.positions[tracks.visible[:, t], t].T
        cells = np.histogram2d(y, x, bins=(6, 8), range=((0, 96), (0, 128)))[0]
        assert (cells > 0).mean() > 0.9, t


def test_half_of_the_tracks_begin_on_the_first_frame(field: Field, shot: Clip) -> None:
    queries = seed_queries(field, shot, TracksConfig(max_tracks=600))
    assert (queries[:, 0] == 0).sum() == pytest.approx(300, rel=0.15)


def test_a_single_track_can_be_asked_for(field: Field, shot: Clip) -> None:
    assert len(seed_queries(field, shot, TracksConfig(max_tracks=1))) == 1


def test_seeds_lie_on_the_mask(field: Field, scene: Scene, make_clip: MakeClip) -> None:
    mask = np.zeros((96, 128), bool)
    mask[30:60, 40:90] = True
    clip = make_clip([scene.render(t) for t in range(12)], [mask] * 12)
    queries = seed_queries(field, clip, TracksConfig(max_tracks=500))
    x, y = np.rint(queries[:, 1:]).astype(int).T
    assert mask[y, x].all()


def test_a_black_mask_is_told(field: Field, scene: Scene, make_clip: MakeClip) -> None:
    clip = make_clip([scene.render(0)] * 12, [np.zeros((96, 128), bool)] * 12)
    with pytest.raises(ClipError, match="leaves no point to track"):
        seed_queries(field, clip, TracksConfig())


def test_a_shot_after_a_cut_is_seeded_too(field: Field, shot: Clip) -> None:
    cut = Field(dataclasses.replace(field.shape, cuts=(7,)), field.config).requires_grad_(False)
    queries = seed_queries(cut, dataclasses.replace(shot, cuts=(7,)), TracksConfig(max_tracks=600))
    assert (queries[:, 0] == 7).sum() > 100


def test_a_preview_looks_at_each_shot_within_the_mask(shot: Clip, scene: Scene, make_clip: MakeClip) -> None:
    queries = preview_queries(dataclasses.replace(shot, cuts=(4,)), 40)
    assert 30 <= len(queries) <= 44
    assert set(queries[:, 0]) == {2, 8}
    assert (queries[:, 1:].min(axis=0) >= 0).all()
    assert (queries[:, 1:].max(axis=0) <= (127, 95)).all()
    assert len(preview_queries(dataclasses.replace(shot, cuts=(4,)), 1)) == 1
    mask = np.zeros((96, 128), bool)
    mask[30:60, 40:90] = True
    x, y = np.rint(preview_queries(make_clip([scene.render(t) for t in range(2)], [mask] * 2), 60)[:, 1:]).astype(int).T
    assert len(x) > 4
    assert mask[y, x].all()
    assert len(preview_queries(make_clip([scene.render(0)] * 2, [np.zeros((96, 128), bool)] * 2), 60)) == 0
