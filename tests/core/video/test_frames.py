"""Footage of every kind becomes one stream of display-referred pictures."""

from typing import Any

import numpy as np
import pytest

from omnimotion_core.config import VideoConfig
from omnimotion_core.errors import ClipError
from omnimotion_core.video.color import decode_srgb, encode_srgb
from omnimotion_core.video.frames import read_frames, read_plates
from omnimotion_core.video.source import identify

CONFIG = VideoConfig()


def stream(footage: Any, pattern: str, config: VideoConfig = CONFIG) -> list[Any]:
    return list(read_frames(identify(str(footage.folder / pattern), config)))


@pytest.mark.parametrize(
    ("pattern", "kind", "scale"),
    [("sh.{:04d}.png", "uint8", 1), ("sh.{:04d}.tif", "uint16", 257), ("sh.{:04d}.dpx", "uint10", 257),
     ("sh.{:04d}.jpg", "uint8", 1)],
)  # fmt: skip
def test_integer_plates_come_as_stored_and_in_order(footage: Any, pattern: str, kind: str, scale: int) -> None:
    for number in range(95, 105):
        pixels = footage.coded(number).astype(np.uint8 if scale == 1 else np.uint16) * scale
        footage.picture(pattern.format(number), pixels, kind)
    frames = stream(footage, pattern.replace("{:04d}", "####"))
    assert [footage.spelled(frame.rgb) for frame in frames] == list(range(95, 105))
    assert [frame.number for frame in frames] == list(range(95, 105))
    assert np.abs(frames[0].rgb / 257 - footage.coded(95)).mean() < 3


@pytest.mark.parametrize(("name", "kind"), [("sh.{}.exr", "half"), ("sh.{}.tif", "float")])
@pytest.mark.parametrize("gain", [0.01, 1.0, 50.0])
def test_float_plates_look_as_on_a_display_whatever_their_exposure(
    footage: Any, name: str, kind: str, gain: float
) -> None:
    for number in range(1, 5):
        plate = (decode_srgb(footage.coded(number) / 255.0) * gain).astype(np.float32)
        plate[0, :3] = [[np.nan] * 3, [np.inf] * 3, [-1.0] * 3]
        footage.picture(name.format(number), plate, kind)
    frames = stream(footage, name.replace("{}", "#"))
    assert [footage.spelled(frame.rgb) for frame in frames] == [1, 2, 3, 4]
    shown = frames[0].rgb
    np.testing.assert_array_equal(shown[0, :3], [[0] * 3, [65535] * 3, [0] * 3])
    # the bright squares cover more than a hundredth of the picture, so they are white and the rest follows
    expected = encode_srgb(decode_srgb(footage.coded(1) / 255.0) / decode_srgb(np.array(220 / 255)))
    assert np.abs(shown[1:] / 65535 - expected[1:]).max() < 1 / 255


def test_one_exposure_serves_the_whole_shot(footage: Any) -> None:
    for number, level in enumerate((0.0, 0.25, 0.5, 1.0, 0.5, 0.25)):
        footage.picture(f"sh.{number}.exr", np.full((32, 32, 3), level, np.float32), "float")
    means = [float(frame.rgb.mean()) / 65535 for frame in stream(footage, "sh.#.exr")]
    white = float(decode_srgb(np.array(means[1]))) / 0.25
    expected = encode_srgb(np.clip(np.array([0.0, 0.25, 0.5, 1.0, 0.5, 0.25]) * white, 0, 1))
    np.testing.assert_allclose(means, expected, atol=1e-3)


def test_alpha_is_laid_over_black(footage: Any) -> None:
    picture = np.full((32, 32, 4), 200, np.uint8)
    picture[:16, :, 3], picture[16:, :, 3] = 0, 51
    for number in (1, 2):
        footage.picture(f"sh.{number}.png", picture, oiio__UnassociatedAlpha=1)
    for frame in stream(footage, "sh.#.png"):
        assert (frame.rgb[:16] == 0).all()
        assert (frame.rgb[16:] == round(200 * 257 * 51 / 255)).all()


def test_mixed_sizes_name_the_file(footage: Any) -> None:
    footage.sequence("sh.{}.png", (1, 2))
    footage.sequence("sh.{}.png", (3,), size=(80, 48))
    with pytest.raises(ClipError, match=r"sh\.3\.png is 80x48, the frames before it are 160x96"):
        stream(footage, "sh.#.png")


def test_mixed_kinds_name_the_file(footage: Any) -> None:
    for number, kind in ((1, "uint8"), (2, "float")):
        footage.picture(f"sh.{number}.tif", footage.coded(1).astype(np.float32) / 255, kind)
    with pytest.raises(ClipError, match=r"sh\.2\.tif is a float picture"):
        stream(footage, "sh.#.tif")


def test_movies_and_sequences_agree_on_time(footage: Any) -> None:
    footage.sequence("sh.{}.png", range(10, 14))
    assert [frame.seconds for frame in stream(footage, "sh.#.png", VideoConfig(frames=(12, 13)))] == [2 / 24, 3 / 24]
    footage.movie("a.mp4", 4)
    moving = stream(footage, "a.mp4", VideoConfig(frames=(3, 4)))
    assert [frame.seconds for frame in moving] == pytest.approx([2 / 24, 3 / 24])


def test_plates_are_some_of_the_frames_as_they_are_stored(footage: Any) -> None:
    for number in range(10, 16):
        footage.picture(f"sh.{number}.exr", np.full((32, 32, 3), number, np.float32), "half")
    source = identify(str(footage.folder / "sh.##.exr"), VideoConfig(frames=(11, 14)))
    plates = list(read_plates(source, {13, 11, 15}))  # 15 is not tracked
    assert [number for number, _ in plates] == [11, 13]
    assert [float(picture.rgb[5, 5, 0]) for _, picture in plates] == [11.0, 13.0]
    assert all(picture.facts.is_float and picture.facts.is_half for _, picture in plates)


def test_plates_of_a_movie_are_its_frames(footage: Any) -> None:
    footage.movie("a.mp4", 6)
    source = identify(str(footage.folder / "a.mp4"), VideoConfig(frames=(2, 6)))
    plates, frames = dict(read_plates(source, {5, 3})), {frame.number: frame for frame in read_frames(source)}
    assert list(plates) == [3, 5]
    for number, picture in plates.items():
        np.testing.assert_array_equal(picture.rgb, frames[number].rgb)
        assert footage.spelled(picture.rgb) == footage.spelled(frames[number].rgb)
        assert picture.alpha is None
    assert list(read_plates(source, set())) == []
