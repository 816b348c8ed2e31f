import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimotion_core.coordinates import marker_to_pixel
from omnimotion_core.errors import ExportError, RunError
from omnimotion_core.export.markers import MarkerTrack, read_markers, write_markers
from omnimotion_core.trajectories.tracks import Tracks

from .conftest import MakeTracks


def tracks_of(visible: list[list[bool]], *, query_times: list[int] | None = None) -> Tracks:
    """Tracks of an 8x4 plate that stay at pixel (1, 0)."""
    flags = np.array(visible, bool)
    num, num_frames = flags.shape
    positions = np.tile(np.array([1.0, 0.0], np.float32), (num, num_frames, 1))
    times = np.array(query_times if query_times is not None else flags.argmax(axis=1), np.float32)
    return Tracks(
        queries=np.column_stack([times, np.ones(num), np.zeros(num)]).astype(np.float32), positions=positions,
        visible=flags, confidence=np.full((num, num_frames), 0.5, np.float32),
        depth=np.ones((num, num_frames), np.float32), size=(8, 4), first_frame=1001, fps=24.0,
    )  # fmt: skip


def write_one(
    tmp_path: Path, visible: list[bool], *, clip_offset: int = 0, query_time: int | None = None
) -> MarkerTrack:
    path = tmp_path / "markers.json"
    times = None if query_time is None else [query_time]
    write_markers(tracks_of([visible], query_times=times), path, clip_offset=clip_offset, max_markers=10)
    (track,) = read_markers(path).tracks
    return track


def shown_by_blender(track: MarkerTrack, frame: int) -> tuple[bool, bool]:
    """Whether the marker that holds at ``frame``, and the one after it, are unmuted; the exact one counts for both."""
    exact = np.flatnonzero(track.frames == frame)
    if len(exact):
        return (not track.mute[exact[0]],) * 2
    after = int(np.searchsorted(track.frames, frame))
    before = max(after - 1, 0)
    return not track.mute[before], not track.mute[min(after, len(track.frames) - 1)]


def test_a_pixel_s_centre_is_half_a_pixel_from_the_edge_and_y_points_up(tmp_path: Path) -> None:
    track = write_one(tmp_path, [True, True])
    np.testing.assert_allclose(track.co[0], [1.5 / 8, 1 - 0.5 / 4])  # pixel (1, 0) of 8x4, by hand


def test_clip_frames_count_from_one_and_from_the_clip_s_own_start(tmp_path: Path) -> None:
    assert write_one(tmp_path, [True, True]).frames.tolist() == [1, 2, 3]
    assert write_one(tmp_path, [True, True], clip_offset=10).frames.tolist() == [10, 11, 12, 13]


def test_gaps_are_muted_at_both_ends_and_the_track_after_its_end(tmp_path: Path) -> None:
    track = write_one(tmp_path, [False, True, True, False, False, False, True, False, True, True])
    assert track.frames.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert track.frames[track.mute].tolist() == [1, 4, 6, 8, 11]


def test_only_the_query_s_marker_is_keyed_and_none_where_it_is_hidden(tmp_path: Path) -> None:
    assert write_one(tmp_path, [True, True, True], query_time=1, clip_offset=5).keyed_frame == 7
    assert write_one(tmp_path, [True, False, True], query_time=1).keyed_frame is None


@given(st.lists(st.booleans(), min_size=2, max_size=25).filter(lambda flags: sum(flags) >= 2), st.integers(0, 3))
def test_visibility_can_be_had_back_whichever_neighbor_blender_holds(
    tmp_path_factory: pytest.TempPathFactory, visible: list[bool], clip_offset: int
) -> None:
    track = write_one(tmp_path_factory.mktemp("markers"), visible, clip_offset=clip_offset)
    for t in range(-clip_offset, len(visible) + 5):
        seen = 0 <= t < len(visible) and visible[t]
        assert shown_by_blender(track, t + 1 + clip_offset) == (seen, seen)


def test_chosen_tracks_come_back_with_their_positions_weights_and_visibility(
    tmp_path: Path, make_tracks: MakeTracks
) -> None:
    tracks = make_tracks(60, 12)
    write_markers(tracks, tmp_path / "m.json", clip_offset=2, max_markers=25)
    content = read_markers(tmp_path / "m.json")
    assert (content.size, content.fps, content.clip_frames) == ((96, 64), 24.0, (3, 14))
    assert len(content.tracks) == len({track.name for track in content.tracks}) == 25
    for track in content.tracks:
        row = int(track.name.removeprefix("te"))
        times = track.frames - 3
        shown = ~track.mute
        assert set(times[shown]) == set(np.flatnonzero(tracks.visible[row]))
        np.testing.assert_allclose(
            marker_to_pixel(track.co[shown], tracks.size), tracks.positions[row, times[shown]], atol=1e-4
        )
        assert track.weight == pytest.approx(tracks.confidence[row, tracks.visible[row]].mean(), abs=1e-4)
        assert np.all(np.diff(track.frames) > 0)


def test_a_point_off_the_frame_is_never_claimed_to_be_seen(tmp_path: Path) -> None:
    tracks = tracks_of([[True, True, True, True]])
    tracks.positions[0, 1] = (7.6, 0.0)  # the frame ends at 7.5
    tracks.positions[0, 2] = np.nan
    write_markers(tracks, tmp_path / "m.json", clip_offset=0, max_markers=5)
    (track,) = read_markers(tmp_path / "m.json").tracks
    assert track.frames[~track.mute].tolist() == [1, 4]


def test_no_track_at_all_gives_a_file_without_tracks(tmp_path: Path) -> None:
    write_markers(tracks_of([[False, False]]), tmp_path / "m.json", clip_offset=0, max_markers=5)
    assert read_markers(tmp_path / "m.json").tracks == ()


def test_500_tracks_of_250_frames_are_written_in_seconds_and_few_megabytes(
    tmp_path: Path, make_tracks: MakeTracks
) -> None:
    tracks = make_tracks(1000, 250, (1920, 1080))
    begin = time.process_time()
    write_markers(tracks, tmp_path / "m.json", clip_offset=0, max_markers=500)
    assert time.process_time() - begin < 10  # about 1 s; the limit is against a quadratic slip
    assert (tmp_path / "m.json").stat().st_size < 12_000_000
    assert len(read_markers(tmp_path / "m.json").tracks) == 500


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "markers.json"
    write_one(tmp_path, [True, True])
    before = path.read_bytes()
    blocked = tmp_path / "markers.json" / "below"  # a file is no folder
    with pytest.raises(RunError, match="cannot be written"):
        write_markers(tracks_of([[True, True]]), blocked, clip_offset=0, max_markers=5)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["markers.json"]


@pytest.mark.parametrize("change", ["not json", "version", "lengths", "order", "missing"])
def test_a_damaged_file_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "markers.json"
    write_one(tmp_path, [True, True])
    content = json.loads(path.read_text())
    match change:
        case "version":
            content["version"] = 99
        case "lengths":
            content["tracks"][0]["mute"].pop()
        case "order":
            content["tracks"][0]["frames"].reverse()
        case "missing":
            del content["tracks"][0]["co"]
    path.write_text("{" if change == "not json" else json.dumps(content))
    with pytest.raises(ExportError, match="export the markers again"):
        read_markers(path)


def test_the_module_needs_numpy_alone() -> None:
    code = (
        "import sys; import omnimotion_core.export.markers;"
        "print(sorted({'torch', 'cv2', 'OpenEXR', 'av', 'OpenImageIO'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
