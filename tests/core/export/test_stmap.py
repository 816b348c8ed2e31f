from pathlib import Path

import cv2
import numpy as np
import pytest

from omnimotion_core.config import ExportConfig
from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.errors import ConfigError, ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.sequences import Origin
from omnimotion_core.export.stmap import write_stmaps
from omnimotion_core.trajectories.dense import DenseFlow

from .conftest import MakeClip
from .motions import Flow, read_with_oiio, rotating, translating

SIZE = (96, 64)
ORIGIN = Origin(tool_version="1", run_digest="d")


def write(flow: Flow, make_clip: MakeClip, folder: Path, **options: object) -> dict[str, Path]:
    """The files by their names' middle, such as ``from_1001.1003``."""
    settings: dict[str, object] = {"reporter": Reporter(), "origin": ORIGIN}
    paths = write_stmaps(flow, make_clip(SIZE, num_frames=5), folder, **(settings | options))  # type: ignore[arg-type]
    return {path.name.removeprefix("shot.stmap.").removesuffix(".exr"): path for path in paths}


def through(picture: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What a compositor makes of a picture (H, W) with the STMap, and the map's alpha: its own rule, in doubles."""
    channels, _ = read_with_oiio(path)
    height, width = picture.shape
    x, y = channels["R"].astype(np.float64) * width - 0.5, (1 - channels["G"].astype(np.float64)) * height - 0.5
    return pulled(picture, x, y), channels["A"]


def pulled(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A picture (H, W) read bilinearly at pixels, in doubles."""
    height, width = picture.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    i, j = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    across, down = x - i, y - j
    upper = picture[j, i] * (1 - across) + picture[j, i + 1] * across
    lower = picture[j + 1, i] * (1 - across) + picture[j + 1, i + 1] * across
    return upper * (1 - down) + lower * down


def smooth_noise(sigma: float = 3.0) -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(1).random((64, 96)), (0, 0), sigma)


def turned(picture: np.ndarray, degrees: float) -> np.ndarray:
    """A picture turned clockwise by the formula, without any of our files."""
    x, y = np.meshgrid(np.arange(96) - 47.5, np.arange(64) - 31.5)
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return pulled(picture, cos * x + sin * y + 47.5, -sin * x + cos * y + 31.5)


def test_the_reference_frame_s_own_maps_are_the_exact_identity(tmp_path: Path, make_clip: MakeClip) -> None:
    paths = write(rotating(3), make_clip, tmp_path)
    assert list(paths)[:2] == ["from_1001.1001", "to_1001.1001"]
    for name in ("from_1001.1001", "to_1001.1001"):
        channels, spec = read_with_oiio(paths[name])
        grid = pixel_grid(SIZE).astype(np.float64)
        np.testing.assert_array_equal(channels["R"], ((grid[..., 0] + 0.5) / 96).astype(np.float32))
        np.testing.assert_array_equal(channels["G"], (1 - (grid[..., 1] + 0.5) / 64).astype(np.float32))
        np.testing.assert_array_equal(channels["B"], 0.0)
        np.testing.assert_array_equal(channels["A"], 1.0)
        assert spec.getattribute("te/reference") == 1001
        picture = smooth_noise()
        np.testing.assert_allclose(through(picture, paths[name])[0], picture, atol=1e-6)


def test_right_and_down_by_4_and_2_pixels(tmp_path: Path, make_clip: MakeClip) -> None:
    paths = write(translating(4, 2), make_clip, tmp_path)
    into, _ = read_with_oiio(paths["from_1001.1003"])  # two frames later all is 8 right and 4 down
    assert (into["R"][32, 48], into["G"][32, 48]) == pytest.approx(((48.5 - 8) / 96, (31.5 + 4) / 64), abs=1e-7)
    back, _ = read_with_oiio(paths["to_1001.1003"])
    assert (back["R"][32, 48], back["G"][32, 48]) == pytest.approx(((48.5 + 8) / 96, (31.5 - 4) / 64), abs=1e-7)
    np.testing.assert_array_equal(into["A"], np.pad(np.ones((60, 88)), ((4, 0), (8, 0))))  # what came in is not seen
    np.testing.assert_array_equal(back["A"], np.pad(np.ones((60, 88)), ((0, 4), (0, 8))))
    np.testing.assert_array_equal(into["confidence.Y"], 0.5)


def test_a_picture_is_where_the_motion_takes_it(tmp_path: Path, make_clip: MakeClip) -> None:
    paths = write(translating(4, 2), make_clip, tmp_path)
    picture = smooth_noise()
    moved, alpha = through(picture, paths["from_1001.1002"])
    np.testing.assert_allclose(moved[2:, 4:], picture[:-2, :-4], atol=1e-5)
    assert alpha[2:, 4:].all()


@pytest.mark.parametrize("t", [1, 3, 4])
def test_there_and_back_changes_what_is_seen_no_more_than_interpolation_must(
    tmp_path: Path, make_clip: MakeClip, t: int
) -> None:
    paths = write(rotating(3.7), make_clip, tmp_path)
    picture = smooth_noise()
    there, seen_there = through(picture, paths[f"from_1001.{1001 + t}"])
    back, seen = through(there, paths[f"to_1001.{1001 + t}"])
    whole, _ = through(seen_there, paths[f"to_1001.{1001 + t}"])  # all four pixels that were read are of the picture
    inner = (seen > 0) & (whole == 1)
    assert inner.mean() > 0.5
    error, must = (np.abs(result - picture)[inner] for result in (back, turned(turned(picture, 3.7 * t), -3.7 * t)))
    assert must.max() > 0.001
    np.testing.assert_allclose(error, must, atol=2e-6)  # what 32 bits tell of a position, times the steepest slope


def test_several_references_are_weighed_so_that_they_add_up(tmp_path: Path, make_clip: MakeClip) -> None:
    paths = write(translating(20, 0), make_clip, tmp_path, settings=ExportConfig(references=(1005, 1001)))
    alphas = {}
    for t in range(5):
        one, other = (read_with_oiio(paths[f"from_{r}.{1001 + t}"])[0] for r in (1001, 1005))
        alphas[t] = one["A"], other["A"]
        seen = (one["visibility.Y"] + other["visibility.Y"]) > 0
        np.testing.assert_allclose((one["A"] + other["A"])[seen], 1.0, atol=1e-6)
        assert not (one["A"] + other["A"])[~seen].any()
    assert alphas[0][0].all()
    assert not alphas[0][1].any()  # at a reference it alone counts
    assert alphas[4][1].all()
    both = (read_with_oiio(paths["from_1001.1003"])[0]["visibility.Y"] > 0) & (
        read_with_oiio(paths["from_1005.1003"])[0]["visibility.Y"] > 0)
    assert both.any()
    # confidence is 0.5 backwards and 0.75 forwards, and both are two frames away
    np.testing.assert_allclose(alphas[2][0][both], 0.4, atol=1e-6)
    np.testing.assert_array_equal(read_with_oiio(paths["to_1005.1003"])[0]["A"],
                                  translating(20, 0)(4, 2).visible)


def test_what_nothing_shows_has_no_alpha(tmp_path: Path, make_clip: MakeClip) -> None:
    def hidden(source: int, target: int) -> DenseFlow:
        dense = translating(1, 1)(source, target)
        dense.visible[:] = False
        return dense

    paths = write(hidden, make_clip, tmp_path, settings=ExportConfig(references=(1001, 1003)))
    for path in paths.values():
        assert not read_with_oiio(path)[0]["A"].any()


def test_part_of_the_frames_is_what_the_whole_has(tmp_path: Path, make_clip: MakeClip) -> None:
    whole = write(rotating(3), make_clip, tmp_path / "whole")
    parts = write(rotating(3), make_clip, tmp_path / "parts", frames=[3, 1])
    assert sorted(parts) == ["from_1001.1002", "from_1001.1004", "to_1001.1002", "to_1001.1004"]
    parts |= write(rotating(3), make_clip, tmp_path / "parts", frames=[0, 2, 4])
    assert {name: path.read_bytes() for name, path in parts.items()} == {
        name: path.read_bytes() for name, path in whole.items()
    }


def test_other_references_have_the_weights_written_again_and_whole_files_are_kept(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    asked: list[tuple[int, int]] = []

    def flow(source: int, target: int) -> DenseFlow:
        asked.append((source, target))
        return rotating(3)(source, target)

    paths = write(flow, make_clip, tmp_path)
    before = len(asked)
    write(flow, make_clip, tmp_path)
    assert len(asked) == before
    paths["to_1001.1002"].unlink()
    write(flow, make_clip, tmp_path)
    assert asked[before:] == [(0, 1)]
    write(flow, make_clip, tmp_path, settings=ExportConfig(references=(1001, 1002)), frames=[3])
    assert asked[before + 1 :] == [(3, 0), (3, 1), (1, 3)]  # the map to 1001 is as it was


def test_references_and_flow_that_cannot_be_used_are_told(tmp_path: Path, make_clip: MakeClip) -> None:
    for number in (1000, 1006):
        with pytest.raises(ConfigError, match=f"reference frame {number} is not in the clip; give frames from 1001 to"):
            write(rotating(3), make_clip, tmp_path, settings=ExportConfig(references=(number,)))
    with pytest.raises(ExportError, match="plate's resolution"):
        write(rotating(3, (48, 32)), make_clip, tmp_path)
    with pytest.raises(ExportError, match="frame 5 is not in the clip"):
        write(rotating(3), make_clip, tmp_path, frames=[5])
    assert list(tmp_path.glob("*.exr")) == []
