"""Every preset, channel by channel, as another reader than the writer sees it."""

from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.config import ExportConfig
from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Event, Reporter, Warned
from omnimotion_core.export.flo import read_flo
from omnimotion_core.export.frame_motion import frame_motion
from omnimotion_core.export.motion_vectors import read_motion_vectors, write_motion_vectors
from omnimotion_core.export.vector_presets import PRESETS, SMARTVECTOR_DISTANCES

from .conftest import MakeClip
from .motions import Flow, read_with_oiio, rotating, translating

SIZE = (96, 64)
EXR = [name for name, preset in PRESETS.items() if preset.container == "exr"]
# +4 px right and 2 px down a frame, in the middle of the clip and of the picture: what each program has to find
RIGHT_AND_DOWN: dict[str, dict[str, float]] = {
    "blender": {"Vector.X": -4, "Vector.Y": 2, "Vector.Z": -4, "Vector.W": 2, "visibility.Y": 1, "confidence.Y": 0.5},
    "nuke": {"forward.u": 4, "forward.v": -2, "backward.u": -4, "backward.v": 2, "visibility.Y": 1,
             "confidence.Y": 0.5, "depth.Z": 0.5},
    "rsmb": {"R": 0.5 + 4 / 512, "G": 0.5 - 2 / 512, "B": 0, "A": 1, "backward.R": 0.5 - 4 / 512,
             "backward.G": 0.5 + 2 / 512, "backward.B": 0, "backward.A": 1, "visibility.Y": 1, "confidence.Y": 0.5},
    "fusion": {"Vector.X": 4, "Vector.Y": -2, "BackVector.X": -4, "BackVector.Y": 2, "visibility.Y": 1,
               "confidence.Y": 0.5, "depth.Z": 0.5},
    "ndc": {"R": 8 / 96, "G": -4 / 64, "B": 0, "A": 1, "backward.R": -8 / 96, "backward.G": 4 / 64, "backward.B": 0,
            "backward.A": 1, "visibility.Y": 1, "confidence.Y": 0.5, "depth.Z": 0.5},
}  # fmt: skip
# what turns a rotation's vectors (y down) into each preset's channels: (source, scale); and the allowed error
TURNED: dict[str, dict[str, tuple[str, float]]] = {
    "blender": {"Vector.X": ("bx", 1), "Vector.Y": ("by", -1), "Vector.Z": ("fx", -1), "Vector.W": ("fy", 1)},
    "nuke": {"forward.u": ("fx", 1), "forward.v": ("fy", -1), "backward.u": ("bx", 1), "backward.v": ("by", -1)},
    "fusion": {"Vector.X": ("fx", 1), "Vector.Y": ("fy", -1), "BackVector.X": ("bx", 1), "BackVector.Y": ("by", -1)},
    "ndc": {"R": ("fx", 2 / 96), "G": ("fy", -2 / 64), "backward.R": ("bx", 2 / 96), "backward.G": ("by", -2 / 64)},
}


def write(flow: Flow, make_clip: MakeClip, folder: Path, preset: str, **options: object) -> list[Path]:
    settings: dict[str, object] = {"reporter": Reporter(), "tool_version": "1", "run_digest": "d"}
    clip = make_clip(SIZE, num_frames=5)
    return write_motion_vectors(flow, clip, folder, preset, **(settings | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preset", "multipart"),
    [(name, several) for name in RIGHT_AND_DOWN for several in (False, True) if not (several and name == "blender")],
)
def test_right_and_down_by_4_and_2_pixels(tmp_path: Path, make_clip: MakeClip, preset: str, multipart: bool) -> None:
    paths = write(translating(4, 2), make_clip, tmp_path, preset, frames=[2],
                  settings=ExportConfig(multipart=multipart))
    channels, spec = read_with_oiio(paths[0])
    at = {name: float(values[32, 48]) for name, values in channels.items()}
    assert at == pytest.approx(RIGHT_AND_DOWN[preset], abs=1e-7)
    assert set(channels) == set(RIGHT_AND_DOWN[preset])
    assert spec.getattribute("compression") == "zip"


def test_blender_s_files_cannot_have_several_parts(tmp_path: Path, make_clip: MakeClip) -> None:
    with pytest.raises(ExportError, match="leave --multipart out"):
        write(translating(4, 2), make_clip, tmp_path / "out", "blender", settings=ExportConfig(multipart=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", TURNED)
def test_a_rotation_to_the_last_bit(tmp_path: Path, make_clip: MakeClip, preset: str) -> None:
    flow = rotating(3)
    channels, _ = read_with_oiio(write(flow, make_clip, tmp_path, preset, frames=[2])[0])
    forward, backward = flow(2, 3).vectors, flow(2, 1).vectors
    parts = {"fx": forward[..., 0], "fy": forward[..., 1], "bx": backward[..., 0], "by": backward[..., 1]}
    for name, (part, scale) in TURNED[preset].items():
        np.testing.assert_array_equal(channels[name], parts[part] * np.float32(scale), err_msg=name)


def test_a_clockwise_rotation_runs_the_right_way_round_in_nuke(tmp_path: Path, make_clip: MakeClip) -> None:
    """Told without our own signs: seen upright, the top of the picture goes right and its right side goes down."""
    channels, _ = read_with_oiio(write(rotating(3), make_clip, tmp_path, "nuke", frames=[2])[0])
    assert channels["forward.u"][0, 48] > 1.5
    assert channels["forward.v"][32, 95] < -2
    assert channels["backward.u"][0, 48] < -1.5


@pytest.mark.parametrize("preset", EXR)
def test_files_give_the_canonical_motion_back(tmp_path: Path, make_clip: MakeClip, preset: str) -> None:
    flow = rotating(3)
    back = read_motion_vectors(write(flow, make_clip, tmp_path, preset, frames=[2])[0])
    error = 2e-5 if preset in ("rsmb", "ndc") else 0.0  # a float near 1/2 is told to 2^-24, times 512 pixels
    np.testing.assert_allclose(back.forward, flow(2, 3).vectors, atol=error)
    np.testing.assert_allclose(back.backward, flow(2, 1).vectors, atol=error)
    np.testing.assert_array_equal(back.visibility, flow(2, 3).visible & flow(2, 1).visible)
    np.testing.assert_array_equal(back.confidence, 0.5)
    if preset in ("rsmb", "ndc"):
        np.testing.assert_array_equal(back.seen_next, flow(2, 3).visible)
        np.testing.assert_array_equal(back.seen_previous, flow(2, 1).visible)


@pytest.mark.parametrize("preset", EXR)
def test_the_clip_s_ends_have_no_vectors_outwards(tmp_path: Path, make_clip: MakeClip, preset: str) -> None:
    first, *_, last = map(read_motion_vectors, write(rotating(3), make_clip, tmp_path, preset))
    assert not first.backward.any()
    assert not last.forward.any()
    assert first.forward.any()
    assert last.backward.any()
    assert not first.seen_previous.any()
    assert not last.seen_next.any()
    assert first.seen_next.any()


def test_rsmb_in_16_bit_is_a_picture_for_each_direction(tmp_path: Path, make_clip: MakeClip) -> None:
    forward, backward = write(translating(4, 2), make_clip, tmp_path, "rsmb-16", frames=[2])
    assert (forward.name, backward.name) == ("shot.rsmb-16.forward.1003.png", "shot.rsmb-16.backward.1003.png")
    unit = 32767 / 256  # steps a pixel
    for path, sign in ((forward, 1), (backward, -1)):
        channels, spec = read_with_oiio(path, "uint16")
        assert str(spec.format) == "uint16"
        at = [int(channels[letter][32, 48]) for letter in "RGBA"]
        assert at == [round(32767 + sign * 4 * unit), round(32767 - sign * 2 * unit), 0, 65535]
        assert spec.getattribute("te/max_displace") == "256.0"
        assert spec.getattribute("te/frame") == "1003"
    turned, _ = read_with_oiio(write(rotating(3), make_clip, tmp_path / "turned", "rsmb-16", frames=[2])[0], "uint16")
    seen = rotating(3)(2, 3).visible
    np.testing.assert_array_equal(turned["A"] == 65535, seen)
    np.testing.assert_array_equal(turned["A"] == 0, ~seen)
    # alpha is straight, so another reader may have multiplied the color by it: only what is seen can be compared
    across = (turned["R"][seen].astype(float) - 32767) / unit
    np.testing.assert_allclose(across, rotating(3)(2, 3).vectors[seen][:, 0], atol=0.5 / unit + 1e-4)


def test_motion_that_16_bits_do_not_hold_is_cut_and_told(tmp_path: Path, make_clip: MakeClip) -> None:
    events: list[Event] = []
    settings = ExportConfig(max_displace=3.0)
    paths = write(translating(4, 2), make_clip, tmp_path, "rsmb-16", reporter=Reporter(events.append),
                  settings=settings)
    channels, _ = read_with_oiio(paths[4], "uint16")
    assert channels["R"][32, 48] == 65534
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert len(warnings) == 1
    assert "in 5 frames, from 1001 on" in warnings[0]
    assert "raise export.max_displace" in warnings[0]


def test_a_frame_without_motion_is_the_middle_of_rsmb_s_range(tmp_path: Path, make_clip: MakeClip) -> None:
    backward, _ = read_with_oiio(write(translating(4, 2), make_clip, tmp_path, "rsmb-16", frames=[0])[1], "uint16")
    assert not backward["A"].any()
    channels, _ = read_with_oiio(write(translating(4, 2), make_clip, tmp_path, "rsmb", frames=[0])[0])
    assert np.unique(channels["backward.R"]).tolist() == np.unique(channels["backward.G"]).tolist() == [0.5]
    assert not channels["backward.A"].any()


def test_smartvector_holds_each_distance_where_its_frames_begin(tmp_path: Path, make_clip: MakeClip) -> None:
    clip = make_clip(SIZE, num_frames=10)
    paths = write_motion_vectors(
        translating(4, 2), clip, tmp_path, "nuke-smartvector", reporter=Reporter(), tool_version="1", run_digest="d"
    )
    for t, path in enumerate(paths):
        channels, _ = read_with_oiio(path)
        assert set(channels) == {"visibility.Y", "confidence.Y"} | {
            f"smartvector_f{step:02d}_v01.{end}" for step in SMARTVECTOR_DISTANCES
            for end in ("p_u", "p_v", "n_u", "n_v")
        }  # fmt: skip
        for step in SMARTVECTOR_DISTANCES:
            at = [float(channels[f"smartvector_f{step:02d}_v01.{end}"][32, 48]) for end in ("n_u", "n_v", "p_u", "p_v")]
            filled = t % step == 0
            ahead = [4.0 * step, -2.0 * step] if filled and t + step < 10 else [0.0, 0.0]
            behind = [-4.0 * step, 2.0 * step] if filled and t - step >= 0 else [0.0, 0.0]
            assert at == ahead + behind, (t, step)


def test_smartvector_s_v_can_be_turned_round(tmp_path: Path, make_clip: MakeClip) -> None:
    path = write(translating(4, 2), make_clip, tmp_path, "nuke-smartvector", frames=[2],
                 settings=ExportConfig(flip_v=True))[0]
    channels, spec = read_with_oiio(path)
    assert channels["smartvector_f01_v01.n_v"][32, 48] == 2.0
    assert channels["smartvector_f02_v01.p_v"][32, 48] == -4.0
    assert spec.getattribute("te/y_axis") == "down"
    np.testing.assert_array_equal(read_motion_vectors(path).forward, translating(4, 2)(2, 3).vectors)


def test_smartvector_does_not_reach_across_a_cut(make_clip: MakeClip) -> None:
    motion = frame_motion(translating(4, 2), make_clip(SIZE, num_frames=8, cuts=(5,)), 4, distances=(1, 2, 4, 8))
    assert not motion.has_next
    assert {step: (far.has_next, far.has_previous) for step, far in motion.farther.items()} == {
        2: (False, True), 4: (False, True),
    }  # fmt: skip


def test_flo_has_a_file_for_each_pair_and_y_down(tmp_path: Path, make_clip: MakeClip) -> None:
    flow = rotating(3)
    paths = write(flow, make_clip, tmp_path, "flo")
    names = [path.name for path in paths]
    assert names[:3] == ["shot.flo.1001_1002.flo", "shot.flo.1002_1003.flo", "shot.flo.1002_1001.flo"]
    assert len(names) == 8
    assert names[-1] == "shot.flo.1005_1004.flo"
    np.testing.assert_array_equal(read_flo(paths[1]), flow(1, 2).vectors)
    # the format by hand, without our reader
    data = paths[1].read_bytes()
    assert data[:4] == b"PIEH"
    assert np.frombuffer(data[4:12], "<i4").tolist() == [96, 64]
    np.testing.assert_array_equal(np.frombuffer(data[12:], "<f4").reshape(64, 96, 2), flow(1, 2).vectors)


def test_flo_can_be_taken_for_flow_made_elsewhere(tmp_path: Path, make_clip: MakeClip) -> None:
    from omnimotion_core.flow.estimators.imported import ImportedFlow

    clip = make_clip(SIZE, num_frames=5)
    write(rotating(3), make_clip, tmp_path / "flo", "flo")
    imported = ImportedFlow(tmp_path / "flo", clip)
    pair = imported.prepare(2, clip.rgb8(2)), imported.prepare(3, clip.rgb8(3))
    np.testing.assert_array_equal(imported.flow(*pair, None), rotating(3)(2, 3).vectors)


def test_idistort_by_nuke_s_forward_vectors_gives_this_frame_from_the_next(tmp_path: Path, make_clip: MakeClip) -> None:
    """The meaning of the vectors, by Nuke's own rule: a pixel at (x, y up) is pulled from (x + u, y + v)."""
    channels, _ = read_with_oiio(write(translating(4, 2), make_clip, tmp_path, "nuke", frames=[2])[0])
    rng = np.random.default_rng(0)
    here = rng.random((64, 96))
    following = np.roll(here, (2, 4), axis=(0, 1))  # everything 4 right and 2 down
    x, y_up = 40, 30
    u, v = channels["forward.u"][63 - y_up, x], channels["forward.v"][63 - y_up, x]
    assert following[63 - int(y_up + v), int(x + u)] == here[63 - y_up, x]
    grid = pixel_grid(SIZE)
    assert grid[63 - y_up, x].tolist() == [40, 33]
