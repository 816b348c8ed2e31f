from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.config import FlowConfig
from omnimotion_core.errors import FlowError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow.estimators.imported_tracks import ImportedTracks
from omnimotion_core.video.clip import Clip
from tests.core.conftest import match_clip


@pytest.mark.parametrize("layout", ["ours", "tap-vid"])
def test_tracks_become_the_matches_of_what_they_see(scene: Scene, shot: Clip, tmp_path: Path, layout: str) -> None:
    truth = scene.truth(200, seed=0)
    path = tmp_path / "tracks.npz"
    if layout == "ours":
        np.savez(path, positions=truth.target_points - 0.5, visible=~truth.occluded)
    else:
        np.savez(path, target_points=truth.target_points, occluded=truth.occluded)
    found = match_clip(shot, FlowConfig(estimator=str(path), gaps=(1, 4)), tmp_path / "matches")
    row = found.pairs.tolist().index([2, 6])
    both = ~truth.occluded[:, 2] & ~truth.occluded[:, 6]
    np.testing.assert_allclose(found.source[found.pair == row], truth.target_points[both, 2] - 0.5, atol=1e-4)
    np.testing.assert_allclose(found.target[found.pair == row], truth.target_points[both, 6] - 0.5, atol=1e-4)
    lost = ~truth.occluded[:, 2] & truth.occluded[:, 6]
    np.testing.assert_allclose(found.hidden_source[found.hidden_pair == row], truth.target_points[lost, 2] - 0.5,
                               atol=1e-4)  # fmt: skip


def test_another_number_of_frames_is_refused(shot: Clip, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", positions=np.zeros((3, 5, 2)), visible=np.ones((3, 5), bool))
    with pytest.raises(FlowError, match="tracks 5 frames, the clip has 12"):
        ImportedTracks(tmp_path / "t.npz", shot)


def test_a_file_of_another_layout_is_refused(shot: Clip, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", points=np.zeros((3, 12, 2)))
    with pytest.raises(FlowError, match="holds no tracks"):
        ImportedTracks(tmp_path / "t.npz", shot)
    (tmp_path / "text.npz").write_text("not numbers")
    with pytest.raises(FlowError, match="holds no tracks"):
        ImportedTracks(tmp_path / "text.npz", shot)
