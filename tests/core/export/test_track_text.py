import json
from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.errors import ExportError, RunError
from omnimotion_core.export.markers import read_markers, write_markers
from omnimotion_core.export.selection import choose_tracks, usable
from omnimotion_core.export.track_set import choose_track_set, runs_of
from omnimotion_core.export.track_text import TRACK_FORMATS, track_file_name, write_track_text
from omnimotion_core.trajectories.tracks import Tracks

from . import track_readers as readers
from .conftest import MakeTracks

WIDTH, HEIGHT, FIRST, OFFSET = 96, 64, 1011, 10  # the clip begins at 1001
GOLDEN = Path(__file__).with_name("golden_tracks")


def written(tmp_path: Path, tracks: Tracks, program: str, count: int = 20, pixel_aspect: float = 1.0) -> str:
    path = tmp_path / track_file_name("shot", program)
    write_track_text(tracks, path, program, max_tracks=count, clip_offset=OFFSET, pixel_aspect=pixel_aspect)
    return path.read_bytes().decode("ascii")


def corner_tracks(visible: list[bool] | None = None) -> Tracks:
    """Of an 8x4 plate: the top-left pixel's centre, which stays, and the bottom-right one's, going left by 1/4."""
    flags = np.array([[True] * 5, visible or [True] * 5])
    xy = np.zeros((2, 5, 2), np.float32)
    xy[1] = np.stack([7 - 0.25 * np.arange(5), np.full(5, 3)], axis=-1)
    return Tracks(
        queries=np.array([[0, 0, 0], [0, 7, 3]], np.float32), positions=xy, visible=flags,
        confidence=np.array([[1.0] * 5, [0.5] * 5], np.float32), depth=np.ones((2, 5), np.float32), size=(8, 4),
        first_frame=FIRST, fps=23.976,
    )  # fmt: skip


@pytest.fixture
def tracks(make_tracks: MakeTracks) -> Tracks:
    drifting = make_tracks(60, 12, (WIDTH, HEIGHT), seed=4)
    return Tracks(**{**vars(drifting), "first_frame": FIRST})


def truth(tracks: Tracks, count: int = 20) -> dict[str, dict[int, np.ndarray]]:
    """What is seen of the chosen tracks: name → t → (x, y) in pixels."""
    seen = usable(tracks)
    rows = choose_tracks(tracks, count)
    return {f"te{row:05d}": {int(t): tracks.positions[row, t] for t in np.flatnonzero(seen[row])} for row in rows}


def as_pixels(keys: readers.Keys, first: int, convert: object) -> dict[str, dict[int, np.ndarray]]:
    assert callable(convert)
    return {
        name: {frame - first: np.array(convert(x, y)) for frame, (x, y) in one.items()} for name, one in keys.items()
    }


def assert_same(
    found: dict[str, dict[int, np.ndarray]], expected: dict[str, dict[int, np.ndarray]], tolerance: float
) -> None:
    assert list(found) == list(expected)
    for name, keys in expected.items():
        assert list(found[name]) == list(keys), name
        np.testing.assert_allclose(np.array(list(found[name].values())), np.array(list(keys.values())), atol=tolerance)


# --- every program's file, read back by its own rules


def test_nuke_has_keys_where_points_are_seen_and_is_off_between(tmp_path: Path, tracks: Tracks) -> None:
    keys, enabled, _ = readers.read_nuke(written(tmp_path, tracks, "nuke"))
    expected = truth(tracks)
    assert_same(as_pixels(keys, FIRST, lambda x, y: (x - 0.5, HEIGHT - y - 0.5)), expected, 1e-4)
    for name, steps in enabled.items():
        held = 0.0
        for t in range(tracks.num_frames):
            held = steps.get(FIRST + t, held)
            assert bool(held) == (t in expected[name]), (name, t)


def test_3dequalizer_counts_from_one_and_from_the_bottom_left_corner(tmp_path: Path, tracks: Tracks) -> None:
    keys = readers.read_3dequalizer(written(tmp_path, tracks, "3de"))
    assert_same(as_pixels(keys, 1 + OFFSET, lambda x, y: (x - 0.5, HEIGHT - y - 0.5)), truth(tracks), 1e-5)


def test_syntheyes_spans_the_outer_pixels_and_marks_each_return(tmp_path: Path, tracks: Tracks) -> None:
    keys, outcomes = readers.read_syntheyes(written(tmp_path, tracks, "syntheyes"))

    def to_pixel(u: float, v: float) -> tuple[float, float]:
        return (u + 1) / 2 * (WIDTH - 1), (v + 1) / 2 * (HEIGHT - 1)

    assert_same(as_pixels(keys, OFFSET, to_pixel), truth(tracks), 1e-5)
    for name, codes in outcomes.items():
        frames = list(keys[name])
        gaps = [frame - 1 not in frames for frame in frames]
        assert codes == [15 if gap else 7 for gap in gaps]


def test_pftrack_counts_pixels_from_the_bottom_left_one(tmp_path: Path, tracks: Tracks) -> None:
    keys = readers.read_pftrack(written(tmp_path, tracks, "pftrack"))
    assert_same(as_pixels(keys, OFFSET, lambda x, y: (x, HEIGHT - 1 - y)), truth(tracks), 1e-3)


def test_after_effects_has_a_point_control_for_each_track(tmp_path: Path, tracks: Tracks) -> None:
    header, keys = readers.read_after_effects(written(tmp_path, tracks, "ae", pixel_aspect=2.0))
    expected = truth(tracks)
    assert list(keys) == [f"Point Control #{n + 1}" for n in range(len(expected))]
    named = dict(zip(expected, keys.values(), strict=True))
    assert_same(as_pixels(named, OFFSET, lambda x, y: (x - 0.5, y - 0.5)), expected, 1e-4)
    assert header == {"Units Per Second": "24", "Source Width": "96", "Source Height": "64",
                      "Source Pixel Aspect Ratio": "2", "Comp Pixel Aspect Ratio": "2"}  # fmt: skip


def test_mmsolver_has_fractions_and_confidence(tmp_path: Path, tracks: Tracks) -> None:
    keys, weights = readers.read_mmsolver(written(tmp_path, tracks, "mmsolver"))
    expected = truth(tracks)
    assert_same(as_pixels(keys, FIRST, lambda u, v: (u * WIDTH - 0.5, (1 - v) * HEIGHT - 0.5)), expected, 1e-5)
    for row, (name, found) in zip(choose_tracks(tracks, 20), weights.items(), strict=True):
        np.testing.assert_allclose(found, tracks.confidence[row, list(expected[name])], atol=1e-4)


def test_json_has_every_frame_with_what_is_seen(tmp_path: Path, tracks: Tracks) -> None:
    content = json.loads(written(tmp_path, tracks, "json"))
    rows = choose_tracks(tracks, 20)
    assert (content["format"], content["version"]) == ("omnimotion.tracks", 1)
    assert (content["size"], content["frames"], content["fps"]) == ([96, 64], [1011, 1022], 24.0)
    assert [track["name"] for track in content["tracks"]] == list(truth(tracks))
    np.testing.assert_allclose([track["xy"] for track in content["tracks"]], tracks.positions[rows], atol=1e-4)
    assert [track["visible"] for track in content["tracks"]] == usable(tracks)[rows].tolist()
    np.testing.assert_allclose([track["confidence"] for track in content["tracks"]], tracks.confidence[rows], atol=1e-4)


def test_csv_has_a_line_for_each_track_and_frame(tmp_path: Path, tracks: Tracks) -> None:
    lines = readers.read_csv(written(tmp_path, tracks, "csv"))
    rows = choose_tracks(tracks, 20)
    assert len(lines) == len(rows) * tracks.num_frames
    assert [int(line["frame"]) for line in lines[:12]] == list(range(1011, 1023))
    found = np.array([[float(line["x"]), float(line["y"])] for line in lines]).reshape(len(rows), -1, 2)
    np.testing.assert_allclose(found, tracks.positions[rows], atol=1e-4)
    assert [line["visible"] for line in lines] == [str(int(seen)) for seen in usable(tracks)[rows].ravel()]


def test_usd_reads_the_layer_as_points_whose_hidden_ones_have_no_width(tmp_path: Path, tracks: Tracks) -> None:
    usd = pytest.importorskip("pxr.Usd", reason="usd-core has no wheel for this system")
    geometry = pytest.importorskip("pxr.UsdGeom")
    written(tmp_path, tracks, "usd")
    stage = usd.Stage.Open(str(tmp_path / "shot.tracks.usda"))
    points = geometry.Points(stage.GetDefaultPrim())
    rows = choose_tracks(tracks, 20)
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (1011, 1022, 24)
    assert geometry.GetStageUpAxis(stage) == "Y"
    primvars = geometry.PrimvarsAPI(points)
    assert list(primvars.GetPrimvar("name").Get()) == list(truth(tracks))
    assert {primvars.GetPrimvar(name).GetInterpolation() for name in ("name", "visible", "confidence")} == {"vertex"}
    assert points.GetWidthsInterpolation() == "vertex"
    assert list(points.GetIdsAttr().Get()) == list(range(20))
    for t in range(tracks.num_frames):
        xyz = np.array(points.GetPointsAttr().Get(FIRST + t))
        expected = tracks.positions[rows, t]
        np.testing.assert_allclose(xyz[:, 0], expected[:, 0] + 0.5, atol=1e-3)
        np.testing.assert_allclose(xyz[:, 1], HEIGHT - 0.5 - expected[:, 1], atol=1e-3)
        assert not xyz[:, 2].any()
        seen = usable(tracks)[rows, t].astype(float).tolist()
        assert list(points.GetWidthsAttr().Get(FIRST + t)) == seen
        assert list(primvars.GetPrimvar("visible").Get(FIRST + t)) == seen
        confidence = primvars.GetPrimvar("confidence").Get(FIRST + t)
        np.testing.assert_allclose(confidence, tracks.confidence[rows, t], atol=1e-4)
        low, high = points.GetExtentAttr().Get(FIRST + t)
        assert np.all(np.array(low)[:2] <= xyz[:, :2].min(0) + 1e-3)
        assert np.all(np.array(high)[:2] >= xyz[:, :2].max(0) - 1e-3)


def test_usd_s_own_validation_finds_nothing(tmp_path: Path, tracks: Tracks) -> None:
    usd = pytest.importorskip("pxr.Usd", reason="usd-core has no wheel for this system")
    validation = pytest.importorskip("pxr.UsdValidation")
    written(tmp_path, tracks, "usd")
    stage = usd.Stage.Open(str(tmp_path / "shot.tracks.usda"))
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 5
    told = validation.ValidationContext(validators).Validate(stage)
    assert [error.GetMessage() for error in told] == []


# --- what all have in common


@pytest.mark.parametrize("program", TRACK_FORMATS)
def test_golden_files(tmp_path: Path, program: str) -> None:
    text = written(tmp_path, corner_tracks([False, True, True, False, True]), program, pixel_aspect=2.0)
    assert text == (GOLDEN / track_file_name("shot", program)).read_bytes().decode("ascii")


def test_the_same_tracks_are_chosen_as_for_the_markers(tmp_path: Path, tracks: Tracks) -> None:
    write_markers(tracks, tmp_path / "markers.json", clip_offset=OFFSET, max_markers=7)
    markers = [track.name for track in read_markers(tmp_path / "markers.json").tracks]
    assert list(readers.read_3dequalizer(written(tmp_path, tracks, "3de", count=7))) == markers


@pytest.mark.parametrize("program", TRACK_FORMATS)
def test_nothing_is_written_where_nothing_is_seen_twice(tmp_path: Path, program: str) -> None:
    hidden = Tracks(**{**vars(corner_tracks()), "visible": np.eye(2, 5, dtype=bool)})
    with pytest.raises(ExportError, match="no track is seen"):
        written(tmp_path, hidden, program)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", TRACK_FORMATS)
def test_positions_that_are_no_numbers_are_never_written(tmp_path: Path, program: str) -> None:
    tracks = corner_tracks([True, True, False, True, True])
    tracks.positions[1, 2] = np.nan, np.inf
    text = written(tmp_path, tracks, program).lower()
    assert "nan" not in text.replace("name", "")
    assert "inf" not in text


@pytest.mark.parametrize("program", TRACK_FORMATS)
def test_an_unknown_frame_rate_and_one_frame_runs_are_no_trouble(tmp_path: Path, program: str) -> None:
    lone = Tracks(**{**vars(corner_tracks([True, False, True, False, True])), "fps": float("nan")})
    assert written(tmp_path, lone, program)


def test_a_failed_writer_leaves_the_old_file(tmp_path: Path, tracks: Tracks) -> None:
    before = written(tmp_path, tracks, "nuke")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        write_track_text(tracks, tmp_path / "file" / "a.nk", "nuke", max_tracks=5, clip_offset=0, pixel_aspect=1.0)
    with pytest.raises(ExportError, match="no program"):
        write_track_text(tracks, tmp_path / "shot.nuke.nk", "flame", max_tracks=5, clip_offset=0, pixel_aspect=1.0)
    assert (tmp_path / "shot.nuke.nk").read_bytes().decode() == before


def test_names_are_safe_in_every_program(tracks: Tracks) -> None:
    chosen = choose_track_set(tracks, 20, clip_offset=0, pixel_aspect=1.0)
    assert all(name.isascii() and name.isidentifier() for name in chosen.names)
    assert len(set(chosen.names)) == len(chosen.names)


def test_runs_cover_what_is_seen_and_nothing_else() -> None:
    seen = np.array([1, 1, 0, 1, 0, 0, 1], bool)
    assert runs_of(seen) == [range(2), range(3, 4), range(6, 7)]
    assert runs_of(~seen) == [range(2, 3), range(4, 6)]
    assert runs_of(np.zeros(3, bool)) == []
