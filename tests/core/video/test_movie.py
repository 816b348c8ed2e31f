"""Movies come out whole, in order, upright and in the right color, or with one clear error."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnimotion_core.errors import ClipError
from omnimotion_core.video.movie import decode_movie, read_movie_facts


def numbers(footage: Any, path: Path, first: int = 1, last: int | None = None) -> list[int]:
    return [footage.spelled(frame.rgb) for frame in decode_movie(path, first, last)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reordered.mp4", {}),
        ("open_gop.mkv", {"x264-params": "open-gop=1:bframes=3"}),
        ("stream.ts", {}),
    ],
)
def test_reordered_frames_come_in_the_order_they_are_shown(footage: Any, name: str, options: dict[str, str]) -> None:
    path = footage.movie(name, 30, options=options)
    assert numbers(footage, path) == list(range(30))


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("a.avi", "mpeg4", "yuv420p"), ("a.mov", "prores_ks", "yuv422p10le")]
)
def test_other_codecs_come_in_order(footage: Any, name: str, codec: str, pixels: str) -> None:
    assert numbers(footage, footage.movie(name, 8, codec=codec, pixels=pixels)) == list(range(8))


def test_a_range_counts_from_one(footage: Any) -> None:
    path = footage.movie("a.mp4", 30)
    frames = list(decode_movie(path, 5, 9))
    assert [frame.number for frame in frames] == [5, 6, 7, 8, 9]
    assert [footage.spelled(frame.rgb) for frame in frames] == [4, 5, 6, 7, 8]
    assert frames[0].seconds == pytest.approx(4 / 24)  # since the movie's start, not the range's


def test_ten_bits_are_kept(footage: Any) -> None:
    ramp = np.broadcast_to(np.linspace(20000, 28000, 256)[None, :, None], (64, 256, 3)).astype(np.uint16)
    path = footage.movie("a.mkv", [ramp, ramp], codec="ffv1", pixels="yuv422p10le")
    decoded = next(decode_movie(path)).rgb
    assert len(np.unique(decoded[32, :, 1])) > 90  # 8 bits would leave 32 levels
    assert np.abs(decoded.astype(int) - ramp).max() < 120  # two steps of 10 bits


def yuv_of(rgb: tuple[float, float, float], kr: float, kb: float) -> tuple[float, float, float]:
    """Limited-range 8-bit code values of a color 0..1 by the definition of luma."""
    r, g, b = rgb
    y = kr * r + (1 - kr - kb) * g + kb * b
    return 16 + 219 * y, 128 + 224 * (b - y) / (2 * (1 - kb)), 128 + 224 * (r - y) / (2 * (1 - kr))


@pytest.mark.parametrize(
    ("size", "colorspace", "kr", "kb"),
    [
        ((1280, 720), 2, 0.2126, 0.0722),  # untagged HD is BT.709
        ((64, 48), 2, 0.299, 0.114),  # untagged SD is BT.601
        ((64, 48), 1, 0.2126, 0.0722),  # tags win
        ((1280, 720), 6, 0.299, 0.114),
        ((64, 48), 9, 0.2627, 0.0593),
    ],
)
def test_color_follows_the_tag_or_the_size(
    footage: Any, size: tuple[int, int], colorspace: int, kr: float, kb: float
) -> None:
    import av

    color = (0.7, 0.25, 0.4)
    path = footage.folder / "a.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        frame = av.VideoFrame(*size, "yuv444p")
        for plane, value in zip(frame.planes, yuv_of(color, kr, kb), strict=True):
            plane.update(bytes([round(value)]) * plane.buffer_size)
        frame.colorspace, frame.color_range = colorspace, 1
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    decoded = next(decode_movie(path)).rgb
    assert np.abs(decoded / 65535 - color).max() < 1.6 / 255  # the code values themselves are rounded to 8 bits


def test_full_range_is_not_stretched(footage: Any) -> None:
    grey = np.full((64, 64, 3), 64, np.uint8)
    path = footage.movie("a.avi", [grey, grey], codec="mjpeg", pixels="yuvj420p")
    assert next(decode_movie(path)).rgb.mean() / 257 == pytest.approx(64, abs=12)  # the writer's range is approximate
    path = footage.movie("b.mkv", [grey, grey], codec="ffv1", pixels="bgr0")
    assert np.abs(next(decode_movie(path)).rgb / 257 - 64).max() < 0.5


@pytest.mark.parametrize(("rotation", "hflip"), [(90, False), (-90, False), (180, False), (0, True), (90, True)])
def test_rotation_tags_are_honored(footage: Any, rotation: int, hflip: bool) -> None:
    stored = footage.coded(77, (96, 64))
    path = footage.movie("a.mp4", [stored, stored], rotation=rotation, hflip=hflip, options={"crf": "1"})
    frame = next(decode_movie(path))
    expected = np.rot90(stored, rotation // 90)  # the tag turns the stored picture counter-clockwise, then mirrors it
    expected = expected[:, ::-1] if hflip else expected
    assert frame.rgb.shape == expected.shape
    assert frame.transposed == (rotation % 180 != 0)
    assert np.abs(frame.rgb / 257 - expected).mean() < 6


def test_alpha_lies_over_black(footage: Any) -> None:
    picture = np.full((32, 32, 4), 200, np.uint8)
    picture[:, :16, 3], picture[:, 16:, 3] = 0, 128
    path = footage.movie("a.mkv", [picture, picture], codec="ffv1", pixels="bgra")
    decoded = next(decode_movie(path)).rgb
    assert (decoded[:, :16] == 0).all()
    assert np.abs(decoded[:, 16:] / 257 - 200 * 128 / 255).max() < 1


def test_pixel_aspect_and_rate_are_read(footage: Any) -> None:
    facts = read_movie_facts(footage.movie("a.mp4", 6, aspect=Fraction(2, 1), rate=25))
    assert (facts.pixel_aspect, facts.fps, facts.expected_frames) == (2.0, 25.0, 6)


def test_seconds_follow_a_variable_rate(footage: Any) -> None:
    pts = [0, 25, 50, 110, 120, 200]
    frames = list(decode_movie(footage.movie("a.mp4", 6, pts=pts)))
    assert [frame.seconds for frame in frames] == pytest.approx([value / 600 for value in pts], abs=1e-3)
    assert [footage.spelled(frame.rgb) for frame in frames] == list(range(6))


def truncated(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_movie_cut_short_tells_how_much_can_be_read(footage: Any, name: str) -> None:
    path = truncated(footage.movie(name, 36, faststart=name.endswith("mp4")), 0.6)
    seen: list[int] = []
    with pytest.raises(ClipError, match=r"cut short: \d+ frames can be read") as caught:
        seen.extend(footage.spelled(frame.rgb) for frame in decode_movie(path))
    assert len(seen) > 4
    assert seen == list(range(len(seen)))
    assert f"{len(seen)} frames can be read" in caught.value.problem
    assert f"within 1-{len(seen)}" in caught.value.remedy
    assert numbers(footage, path, 2, len(seen)) == seen[1:]  # the remedy works


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_wherever_a_movie_is_cut_off_no_picture_takes_the_place_of_a_lost_one(footage: Any, name: str) -> None:
    """Of reordered pictures a later one can be there without those that are shown before it."""
    path = footage.movie(name, 24, faststart=name.endswith("mp4"))
    data = path.read_bytes()
    told = 0
    for size in range(int(0.3 * len(data)), int(0.9 * len(data)), 40):
        path.write_bytes(data[:size])
        seen: list[int] = []
        try:
            seen.extend(footage.spelled(frame.rgb) for frame in decode_movie(path))
        except ClipError as error:
            told += f" {len(seen)} frames can be read" in error.problem
        assert seen == list(range(len(seen)))
    assert told > 100


def test_a_movie_whose_index_is_lost_is_refused(footage: Any) -> None:
    path = truncated(footage.movie("a.mp4", 12), 0.7)  # the index is at the end
    with pytest.raises(ClipError, match="not a movie that can be read"):
        list(decode_movie(path))


def test_damage_within_is_told(footage: Any) -> None:
    path = footage.movie("a.mov", 8, codec="prores_ks", pixels="yuv422p10le")
    data = bytearray(path.read_bytes())
    at = [index for index in range(len(data)) if data[index : index + 4] == b"icpf"][5]
    data[at : at + 60] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(ClipError, match="5 frames can be read"):
        list(decode_movie(path))


def test_an_edit_list_is_no_damage(footage: Any) -> None:
    path = footage.movie("a.mp4", 36)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # the first entry: length in movie time (1/1000 s), start in media time
    data[at : at + 4] = (1000).to_bytes(4, "big")
    path.write_bytes(data)
    assert numbers(footage, path) == list(range(24))  # players, Blender included, stop there too


def test_sound_alone_is_no_movie(tmp_path: Path) -> None:
    import av

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(ClipError, match="no moving picture"):
        read_movie_facts(path)


@pytest.mark.parametrize(
    "content",
    ["ffconcat version 1.0\nfile victim.mp4\n", "#EXTM3U\n#EXTINF:1,\nvictim.mp4\n#EXT-X-ENDLIST\n", "hello\n" * 200],
)
def test_lists_that_open_other_files_and_text_are_refused(footage: Any, content: str) -> None:
    footage.movie("victim.mp4")
    path = footage.folder / "a.mov"
    path.write_text(content)
    with pytest.raises(ClipError, match="not a movie that can be read"):
        list(decode_movie(path))


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    path.touch()
    with pytest.raises(ClipError, match="0 bytes"):
        read_movie_facts(path)
