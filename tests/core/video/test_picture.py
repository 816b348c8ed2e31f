"""Every kind of plate comes back with the values that were written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnimotion_core.errors import ClipError
from omnimotion_core.video import picture as picture_module
from omnimotion_core.video.picture import read_facts, read_picture

RNG_SHAPE = (24, 40, 3)


def noise(high: int, kind: type) -> np.ndarray:
    return np.random.default_rng(3).integers(0, high, RNG_SHAPE).astype(kind)


def test_8_bit_is_widened_exactly(footage: Any) -> None:
    pixels = noise(256, np.uint8)
    read = read_picture(footage.picture("a.png", pixels))
    np.testing.assert_array_equal(read.rgb, pixels.astype(np.uint16) * 257)
    assert read.alpha is None
    assert not read.facts.is_float


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_16_bit_is_exact(footage: Any, name: str) -> None:
    pixels = noise(65536, np.uint16)
    np.testing.assert_array_equal(read_picture(footage.picture(name, pixels, "uint16")).rgb, pixels)


def test_10_bit_dpx_keeps_all_its_steps(footage: Any) -> None:
    codes = np.tile(np.arange(1024, dtype=np.uint16).reshape(32, 32, 1), (1, 1, 3))
    wide = codes << 6 | codes >> 4
    read = read_picture(footage.picture("a.dpx", wide, "uint10"))
    np.testing.assert_array_equal(read.rgb, wide)


def test_half_and_float_keep_what_no_display_shows(footage: Any) -> None:
    pixels = np.random.default_rng(0).normal(0, 20, RNG_SHAPE).astype(np.float16)
    pixels[0, 0] = [np.nan, np.inf, -np.inf]
    read = read_picture(footage.picture("a.exr", pixels, "half"))
    assert read.facts.is_float
    np.testing.assert_array_equal(read.rgb, pixels.astype(np.float32))
    floats = np.random.default_rng(0).normal(0, 20, RNG_SHAPE).astype(np.float32)
    np.testing.assert_array_equal(read_picture(footage.picture("a.tiff", floats, "float")).rgb, floats)


def test_straight_alpha_is_left_straight(footage: Any) -> None:
    pixels = np.full((16, 16, 4), 200, np.uint8)
    pixels[..., 3] = 51
    read = read_picture(footage.picture("a.png", pixels, oiio__UnassociatedAlpha=1))
    assert (read.rgb == 200 * 257).all()
    assert read.alpha is not None
    assert (read.alpha == 51 * 257).all()
    assert not read.premultiplied
    exr = read_picture(footage.picture("a.exr", np.full((16, 16, 4), 0.25, np.float32), "float"))
    assert exr.premultiplied


def test_grey_becomes_three_channels(footage: Any) -> None:
    pixels = noise(256, np.uint8)[..., 0]
    read = read_picture(footage.picture("a.png", pixels))
    np.testing.assert_array_equal(read.rgb, np.repeat(pixels[..., None].astype(np.uint16) * 257, 3, axis=2))


def test_color_is_found_in_a_layer(footage: Any) -> None:
    names = ("ViewLayer.Depth.Z", "ViewLayer.Combined.B", "ViewLayer.Combined.G", "ViewLayer.Combined.R")
    pixels = np.zeros((16, 16, 4), np.float32)
    pixels[...] = [9.0, 0.3, 0.2, 0.1]
    read = read_picture(footage.picture("a.exr", pixels, "float", channelnames=names))
    np.testing.assert_allclose(read.rgb[0, 0], [0.1, 0.2, 0.3])
    assert read.alpha is None


def test_the_display_window_is_the_plate(footage: Any) -> None:
    inner = np.ones((10, 20, 3), np.float32)
    read = read_picture(footage.picture("a.exr", inner, "float", window=(5, 3, 0, 0, 40, 24)))
    assert read.rgb.shape == (24, 40, 3)
    expected = np.zeros((24, 40))
    expected[3:13, 5:25] = 1
    np.testing.assert_array_equal(read.rgb[..., 0], expected)
    over = np.arange(30 * 50, dtype=np.float32).reshape(30, 50, 1).repeat(3, axis=2)
    read = read_picture(footage.picture("b.exr", over, "float", window=(-4, -2, 0, 0, 40, 24)))
    np.testing.assert_array_equal(read.rgb, over[2:26, 4:44])


def test_pixel_aspect_and_rate_come_from_the_header(footage: Any) -> None:
    pixels = np.zeros((16, 16, 3), np.float32)
    facts = read_facts(footage.picture("a.exr", pixels, "float", PixelAspectRatio=2.0))
    assert (facts.pixel_aspect, facts.size, facts.fps) == (2.0, (16, 16), None)


def test_an_empty_exr_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    path.touch()
    with pytest.raises(ClipError, match=r"a\.exr is empty"):
        read_facts(path)


@pytest.mark.parametrize("name", ["a.exr", "a.png", "a.tif", "a.dpx", "a.jpg"])
def test_rubbish_and_torn_files_are_told(footage: Any, name: str) -> None:
    path = footage.picture(name, noise(256, np.uint8), "half" if name == "a.exr" else "uint8")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    if name != "a.jpg":  # a torn JPEG has no end to miss: its reader fills up with grey
        with pytest.raises(ClipError, match=rf"{name} cannot be read as a picture"):
            read_picture(path)
    path.write_bytes(b"no picture at all" * 20)
    with pytest.raises(ClipError, match=rf"{name} cannot be read as a picture"):
        read_picture(path)


def test_caps_hold(footage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    many = np.zeros((16, 16, 300), np.float32)
    with pytest.raises(ClipError, match="300 channels"):
        read_facts(footage.picture("many.exr", many, "float", channelnames=tuple(f"c{n}" for n in range(300))))
    monkeypatch.setattr(picture_module, "MAX_SIDE", 32)
    with pytest.raises(ClipError, match="a side of 40 px"):
        read_facts(footage.picture("a.png", noise(256, np.uint8)))


def test_a_picture_of_another_kind_is_refused(footage: Any) -> None:
    gif = footage.picture("a.gif", noise(256, np.uint8))
    disguised = gif.with_suffix(".png")
    gif.rename(disguised)
    with pytest.raises(ClipError, match=r"a\.png"):
        read_facts(disguised)
