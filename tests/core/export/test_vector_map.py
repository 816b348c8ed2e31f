import json
from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.config import ExportConfig
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.motion_vectors import read_motion_vectors, write_motion_vectors
from omnimotion_core.export.vector_map import parse_map, read_map

from .conftest import MakeClip
from .motions import read_with_oiio, translating

UNITY = {  # half the motion from the previous frame, as fractions of the screen, y up
    "y_axis": "up", "units": "fraction",
    "channels": {
        "motion.R": {"from": "backward.x", "scale": -0.5, "offset": 0.5, "half": True},
        "motion.G": {"from": "backward.y", "scale": -0.5, "offset": 0.5, "half": True},
        "motion.A": "visibility.previous",
        "order.Z": "depth",
        "empty.B": "zero",
    },
}  # fmt: skip


def write(make_clip: MakeClip, folder: Path, table: object, name: str = "map.json") -> Path:
    text = table if isinstance(table, str) else json.dumps(table)
    (folder / name).write_text(text, encoding="utf-8")
    return write_motion_vectors(
        translating(4, 2), make_clip((96, 64), num_frames=5), folder / "out", "custom", reporter=Reporter(),
        tool_version="1", run_digest="d", frames=[2], settings=ExportConfig(vectors_map=str(folder / name)),
    )[0]  # fmt: skip


def test_a_map_names_channels_signs_scales_and_offsets(tmp_path: Path, make_clip: MakeClip) -> None:
    channels, spec = read_with_oiio(write(make_clip, tmp_path, UNITY))
    at = {name: float(values[32, 48]) for name, values in channels.items()}
    half = {"motion.R": 0.5 + 0.5 * 4 / 96, "motion.G": 0.5 - 0.5 * 2 / 64}
    assert at == pytest.approx({**half, "motion.A": 1.0, "order.Z": 0.5, "empty.B": 0.0}, abs=2.0**-12)
    kinds = dict(zip(spec.channelnames, map(str, spec.channelformats), strict=True))
    assert kinds["motion.R"] == "half"
    assert kinds["motion.A"] == "float"
    assert spec.getattribute("te/units") == "fraction"


def test_the_same_in_toml(tmp_path: Path, make_clip: MakeClip) -> None:
    text = 'y_axis = "down"\n[channels]\n"N.x" = "forward.x"\n"N.y" = {from = "forward.y", scale = -10}\n'
    channels, spec = read_with_oiio(write(make_clip, tmp_path, text, "map.toml"))
    assert (channels["N.x"][32, 48], channels["N.y"][32, 48]) == (4.0, -20.0)
    assert spec.getattribute("te/y_axis") == "down"


@pytest.mark.parametrize(("units", "across", "up"), [("pixels", 4, -2), ("ndc", 8 / 96, -4 / 64),
                                                    ("fraction", 4 / 96, -2 / 64)])  # fmt: skip
def test_units(tmp_path: Path, make_clip: MakeClip, units: str, across: float, up: float) -> None:
    table = {"units": units, "channels": {"R": "forward.x", "G": "forward.y"}}
    channels, _ = read_with_oiio(write(make_clip, tmp_path, table))
    assert float(channels["R"][0, 0]) == pytest.approx(across, rel=1e-6)
    assert float(channels["G"][0, 0]) == pytest.approx(up, rel=1e-6)


def test_a_file_is_read_back_by_the_map_in_its_header(tmp_path: Path, make_clip: MakeClip) -> None:
    table = {"channels": {"a.x": {"from": "forward.x", "scale": 0.25}, "a.y": {"from": "forward.y", "offset": 2},
                          "b.x": "backward.x", "b.y": "backward.y", "c": "confidence"}}  # fmt: skip
    back = read_motion_vectors(write(make_clip, tmp_path, table))
    np.testing.assert_array_equal(back.forward, translating(4, 2)(2, 3).vectors)
    np.testing.assert_array_equal(back.backward, translating(4, 2)(2, 1).vectors)
    np.testing.assert_array_equal(back.confidence, 0.5)


def test_another_map_has_the_files_written_again(tmp_path: Path, make_clip: MakeClip) -> None:
    path = write(make_clip, tmp_path, {"channels": {"R": "forward.x"}})
    before = path.read_bytes()
    write(make_clip, tmp_path, {"channels": {"R": {"from": "forward.x", "scale": 2}}})
    assert path.read_bytes() != before
    assert float(read_with_oiio(path)[0]["R"][0, 0]) == 8.0


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ([], "no table of channels"), ({}, "no table of channels"), ({"channels": {}}, "no table of channels"),
        ({"channels": {"R": "forward.x"}, "colour": 1}, "unknown entry 'colour'"),
        ({"channels": {"R": "forward.x"}, "y_axis": "left"}, "y_axis is 'left'"),
        ({"channels": {"R": "forward.x"}, "units": "inches"}, "units is 'inches'"),
        ({"channels": {"R": "forward"}}, "made from 'forward'; use one of forward.x"),
        ({"channels": {"R": None}}, "made from None"),
        ({"channels": {"R": {"from": "forward.x", "scale": 0}}}, "scale is 0"),
        ({"channels": {"R": {"from": "forward.x", "scale": "2"}}}, "scale is '2'"),
        ({"channels": {"R": {"from": "forward.x", "offset": float("nan")}}}, "offset is nan"),
        ({"channels": {"R": {"from": "forward.x", "half": 1}}}, "half is 1"),
        ({"channels": {"R": {"from": "forward.x", "sclae": 1}}}, "unknown entry 'sclae'"),
        ({"channels": {"../R": "forward.x"}}, "channel name '../R'"),
        ({"channels": {"R" * 32: "forward.x"}}, "channel name"),
        ({"channels": {f"c{n}": "zero" for n in range(257)}}, "names 257 channels"),
    ],
)  # fmt: skip
def test_a_map_that_cannot_be_used_is_told(table: object, problem: str) -> None:
    with pytest.raises(ExportError, match=problem):
        parse_map(table, "map.json")


def test_files_that_are_no_map_are_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="add --map FILE"):
        read_map(None)
    with pytest.raises(ExportError, match="cannot be read"):
        read_map(str(tmp_path / "absent.json"))
    for name in ("bad.json", "bad.toml"):
        (tmp_path / name).write_bytes(b"\xff\xfe{")
        with pytest.raises(ExportError, match=f"is not {name[4:].upper()}"):
            read_map(str(tmp_path / name))


def test_what_half_cannot_hold_is_refused_and_nothing_is_left(tmp_path: Path, make_clip: MakeClip) -> None:
    table = {"channels": {"R": {"from": "forward.x", "scale": 1e5, "half": True}}}
    with pytest.raises(ExportError, match="half ends at 65504"):
        write(make_clip, tmp_path, table)
    assert not list((tmp_path / "out").glob("*"))
