from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.errors import RunError
from omnimotion_core.trajectories.tracks import Tracks


def some_tracks() -> Tracks:
    rng = np.random.default_rng(0)
    return Tracks(
        queries=rng.random((5, 3)).astype(np.float32), positions=rng.random((5, 4, 2)).astype(np.float32),
        visible=rng.random((5, 4)) > 0.5, confidence=rng.random((5, 4)).astype(np.float32),
        depth=rng.random((5, 4)).astype(np.float32), size=(64, 48), first_frame=1001, fps=23.976,
    )  # fmt: skip


def test_saved_tracks_are_read_back(tmp_path: Path) -> None:
    tracks = some_tracks()
    tracks.save(tmp_path / "tracks.npz")
    loaded = Tracks.load(tmp_path / "tracks.npz")
    for name in ("queries", "positions", "visible", "confidence", "depth"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(tracks, name))
        assert getattr(loaded, name).dtype == getattr(tracks, name).dtype
    assert (loaded.size, loaded.first_frame, loaded.fps) == ((64, 48), 1001, 23.976)
    assert [path.name for path in tmp_path.iterdir()] == ["tracks.npz"]


def test_the_file_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        some_tracks().save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_selected_tracks_keep_their_order() -> None:
    tracks = some_tracks()
    chosen = tracks.select(np.array([3, 0]))
    np.testing.assert_array_equal(chosen.positions, tracks.positions[[3, 0]])
    assert len(chosen) == 2
    assert chosen.num_frames == 4


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"text"])
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tracks.npz").write_bytes(content)
    with pytest.raises(RunError, match="is not a tracks file"):
        Tracks.load(tmp_path / "tracks.npz")


def test_a_file_that_is_not_there_or_of_another_layout_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a tracks file"):
        Tracks.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", points=np.zeros(3))
    with pytest.raises(RunError, match="is not a tracks file"):
        Tracks.load(tmp_path / "other.npz")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(RunError, match="is not a tracks file"):
        Tracks.load(tmp_path / "array.npz")
