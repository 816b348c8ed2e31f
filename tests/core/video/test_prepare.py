"""The frame cache holds the right pictures, sizes and facts, and nothing at all after a failure."""

import hashlib
import json
import os
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omnimotion_core.config import VideoConfig
from omnimotion_core.errors import ClipError, RunError
from omnimotion_core.events import Cancelled, Reporter
from omnimotion_core.video.cache import load_clip
from omnimotion_core.video.clip import Clip
from omnimotion_core.video.prepare import prepare, shrink, working_size
from omnimotion_core.video.source import identify

CONFIG = VideoConfig()


def cached(footage: Any, path: Any, config: VideoConfig = CONFIG, reporter: Reporter | None = None) -> Clip:
    return prepare(identify(str(path), config), footage.folder / "frames", config, reporter or Reporter())


def record(clip: Clip) -> Any:
    return json.loads((clip.folder / "frames.json").read_text())


def test_a_movie_becomes_a_cache_that_reads_back(footage: Any, listener: Any) -> None:
    clip = cached(footage, footage.movie("shot.mp4", 12, aspect=Fraction(2, 1)), VideoConfig(frames=(4, 9)), listener)
    assert (clip.num_frames, clip.first_frame, clip.clip_first_frame, clip.fps) == (6, 4, 1, 24.0)
    assert (clip.size, clip.working_size, clip.pixel_aspect) == ((160, 96), (160, 96), 2.0)
    assert [footage.spelled(clip.frame(t)) for t in range(6)] == [3, 4, 5, 6, 7, 8]
    assert vars(load_clip(clip.folder)) == vars(clip)
    assert listener.progress_seen == [*((done, 6) for done in range(1, 7)), (6, 6)]
    assert listener.warnings == []
    entries = record(clip)["frames"]
    assert [entry["number"] for entry in entries] == [4, 5, 6, 7, 8, 9]
    assert [entry["blender_frame"] for entry in entries] == [4, 5, 6, 7, 8, 9]  # constant rate: Blender agrees


def test_a_sequence_becomes_a_cache(footage: Any) -> None:
    footage.sequence("s/sh.{:04d}.png", range(99, 105))
    clip = cached(footage, footage.folder / "s", VideoConfig(frames=(100, 103)))
    assert (clip.name, clip.num_frames, clip.first_frame, clip.clip_first_frame) == ("sh", 4, 100, 99)
    assert [footage.spelled(clip.frame(t)) for t in range(4)] == [100, 101, 102, 103]
    np.testing.assert_array_equal(clip.rgb8(2), footage.coded(102))
    assert record(clip)["frames"][0] == {
        "number": 100, "source": "sh.0100.png", "seconds": round(1 / 24, 6), "repeated": False,
    }  # fmt: skip


def test_the_same_footage_gives_the_same_bytes(footage: Any) -> None:
    path = footage.movie("a.mp4", 6)

    def digest(folder: str) -> str:
        prepare(identify(str(path), CONFIG), footage.folder / folder, CONFIG, Reporter())
        files = sorted((footage.folder / folder).iterdir())
        return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()

    assert digest("one") == digest("two") == digest("one")


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [((1920, 1080), 854, (854, 480)), ((1080, 1920), 854, (480, 854)), ((640, 360), 854, (640, 360)),
     ((4000, 20), 400, (400, 16)), ((16, 16), 64, (16, 16))],
)  # fmt: skip
def test_the_working_size_keeps_the_aspect_and_never_enlarges(
    size: tuple[int, int], long_side: int, expected: tuple[int, int]
) -> None:
    assert working_size(size, long_side) == expected


def test_a_plate_that_is_too_small_is_told() -> None:
    with pytest.raises(ClipError, match="20x12"):
        working_size((20, 12), 854)


def test_shrinking_averages_areas() -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (24, 36, 3)).astype(np.uint16)
    slow = picture.reshape(8, 3, 12, 3, 3).mean(axis=(1, 3))
    assert np.abs(shrink(picture, (12, 8)) - slow).max() <= 0.51


def test_the_plate_is_shrunk_and_its_size_kept(footage: Any) -> None:
    footage.sequence("sh.{}.png", range(1, 4), size=(320, 192))
    clip = cached(footage, footage.folder / "sh.#.png", VideoConfig(long_side=80))
    assert (clip.size, clip.working_size) == ((320, 192), (80, 48))
    assert clip.frame(0).shape == (48, 80, 3)
    slow = footage.coded(1, (320, 192)).astype(np.float64).reshape(48, 4, 80, 4, 3).mean(axis=(1, 3))
    assert np.abs(clip.frame(0) / 257 - slow).max() < 0.01


def test_a_rotated_movie_turns_its_size_and_pixel_aspect(footage: Any) -> None:
    clip = cached(footage, footage.movie("a.mp4", 4, rotation=90, aspect=Fraction(2, 1)))
    assert (clip.size, clip.pixel_aspect) == ((96, 160), 0.5)
    assert footage.spelled(np.rot90(clip.frame(1), -1)) == 1


def test_a_variable_rate_is_warned_of_with_blenders_frame(footage: Any, listener: Any) -> None:
    pts = [0, 25, 50, 75, 150, 175, 200, 225]  # three frames' time is skipped once
    clip = cached(footage, footage.movie("a.mp4", 8, pts=pts), reporter=listener)
    assert clip.num_frames == 8  # one entry per coded frame
    assert [footage.spelled(clip.frame(t)) for t in range(8)] == list(range(8))
    (warning,) = listener.warnings
    assert "variable frame rate" in warning
    assert [entry["blender_frame"] for entry in record(clip)["frames"]] == [
        round(value / 600 * clip.fps) + 1 for value in pts
    ]
    assert clip.fps == 24.0
    assert "frame 5 is Blender's frame 7" in warning


def test_a_cut_is_recorded_and_told(footage: Any, listener: Any) -> None:
    rng = np.random.default_rng(0)
    scenes = [cv2.resize(rng.integers(0, 256, (12, 22, 3)).astype(np.uint8), (176, 96)) for _ in range(2)]
    pictures = [np.roll(scene, 2 * t, axis=1) for scene in scenes for t in range(6)]
    clip = cached(footage, footage.movie("a.mp4", pictures), VideoConfig(frames=(2, 12)), listener)
    assert clip.cuts == (5,)
    assert clip.segments == [range(5), range(5, 11)]
    assert len(listener.warnings) == 1
    assert "frame 7;" in listener.warnings[0]


def test_an_allowed_gap_is_told(footage: Any, listener: Any) -> None:
    footage.sequence("sh.{}.png", (1, 2, 4))
    clip = cached(footage, footage.folder / "sh.#.png", VideoConfig(allow_gaps=True), listener)
    assert [footage.spelled(clip.frame(t)) for t in range(4)] == [1, 2, 2, 4]
    assert "1 missing files" in listener.warnings[0]


def test_mattes_are_cached_at_working_size(footage: Any) -> None:
    footage.sequence("sh.{}.png", range(1, 4))
    for number in range(1, 4):
        matte = np.zeros((96, 160), np.uint8)
        matte[:, : 40 * number] = 255
        footage.picture(f"m/m.{number}.png", matte)
    config = VideoConfig(mask=str(footage.folder / "m"), long_side=80)
    clip = cached(footage, footage.folder / "sh.#.png", config)
    for t in range(3):
        mask = clip.mask(t)
        assert mask is not None
        expected = np.zeros((48, 80), bool)
        expected[:, : 20 * (t + 1)] = True
        np.testing.assert_array_equal(mask, expected)
    assert cached(footage, footage.folder / "sh.#.png").mask(0) is None
    assert not list(clip.folder.glob("*.mask.png"))  # none is left from before


@pytest.mark.parametrize("name", ["a?b=1", "50%n", "new\nline", "-rf ", "\u00e9t\u00e9", "concat:a|b"])
def test_hostile_names_are_only_names(footage: Any, name: str) -> None:
    if os.name == "nt":
        pytest.skip("Windows has no such file names")
    footage.sequence(f"s/{name}.{{:04d}}.png", (1, 2))
    clip = cached(footage, footage.folder / "s")
    assert [footage.spelled(clip.frame(t)) for t in (0, 1)] == [1, 2]
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", clip.name)
    footage.movie("plain.mp4", 3).rename(footage.folder / f"{name}.mp4")
    assert cached(footage, footage.folder / f"{name}.mp4").num_frames == 3


def test_a_name_that_is_no_text_is_told_for_pictures(footage: Any) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has file names that are no text")
    for number in (1, 2):
        whole = footage.picture(f"{number}.png", footage.coded(number))
        whole.rename(os.fsdecode(bytes(footage.folder) + b"/bad\xff.%d.png" % number))
    with pytest.raises(ClipError, match="not valid UTF-8") as caught:
        identify(os.fsdecode(bytes(footage.folder) + b"/bad\xff.#.png"), CONFIG)
    assert str(caught.value).isascii()  # a terminal can show it
    path = footage.movie("a.mp4", 3)
    path = path.rename(os.fsdecode(bytes(footage.folder) + b"/bad\xff.mp4"))
    assert cached(footage, path).num_frames == 3


def failure(footage: Any, path: Any, config: VideoConfig = CONFIG) -> str:
    """The one line told for footage that cannot be used, after which nothing may be left."""
    with pytest.raises(ClipError) as caught:
        cached(footage, path, config)
    folder = footage.folder / "frames"
    assert not folder.exists() or list(folder.iterdir()) == []
    assert caught.value.remedy
    return str(caught.value)


def test_a_black_mask_is_told(footage: Any) -> None:
    footage.sequence("sh.{}.png", range(1, 4))
    matte = footage.picture("matte.png", np.zeros((96, 160), np.uint8))
    assert "black in all frames" in failure(footage, footage.folder / "sh.#.png", VideoConfig(mask=str(matte)))


def test_a_mask_with_too_few_frames_is_told_for_a_movie(footage: Any) -> None:
    folder = footage.sequence("m/m.{}.png", (1, 2))
    message = failure(footage, footage.movie("a.mp4", 6), VideoConfig(mask=str(folder)))
    assert "has no frame 3" in message


def test_a_movie_of_one_frame_is_told(footage: Any) -> None:
    assert "holds 1 frame" in failure(footage, footage.movie("a.mp4", 1))


def test_frames_that_a_movie_does_not_hold_are_told(footage: Any) -> None:
    path = footage.movie("a.mp4", 6)
    assert "holds 6 frames and frames 3-9 were asked for" in failure(footage, path, VideoConfig(frames=(3, 9)))
    assert "frames 30-40 were asked for" in failure(footage, path, VideoConfig(frames=(30, 40)))


def test_a_truncated_movie_is_told_and_its_readable_part_works(footage: Any) -> None:
    path = footage.movie("a.mp4", 36, faststart=True)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    assert "cut short" in failure(footage, path)
    assert cached(footage, path, VideoConfig(frames=(1, 6))).num_frames == 6


def test_black_flat_still_and_transparent_shots_are_told(footage: Any) -> None:
    black = footage.movie("black.mp4", [np.zeros((64, 64, 3), np.uint8)] * 5)
    assert "is black" in failure(footage, black)
    flat = footage.movie("flat.mp4", [np.full((64, 64, 3), 120, np.uint8)] * 5)
    assert "flat color" in failure(footage, flat)
    still = footage.movie("still.mp4", [footage.coded(5)] * 15)
    assert "same still picture" in failure(footage, still)
    for number in range(1, 4):
        clear = np.zeros((32, 32, 4), np.uint8)
        clear[..., :3] = footage.coded(number, (32, 32))
        footage.picture(f"clear.{number}.png", clear, oiio__UnassociatedAlpha=1)
    assert "transparent" in failure(footage, footage.folder / "clear.#.png")


def test_a_torn_frame_in_the_middle_is_named(footage: Any) -> None:
    footage.sequence("sh.{}.png", range(1, 6))
    torn = footage.folder / "sh.4.png"
    torn.write_bytes(torn.read_bytes()[:500])
    assert "sh.4.png cannot be read" in failure(footage, footage.folder / "sh.#.png")


def test_cancelling_leaves_no_cache_and_the_next_run_starts_over(footage: Any, cancelling: Any) -> None:
    path = footage.movie("a.mp4", 6)
    with pytest.raises(Cancelled):
        cached(footage, path, reporter=cancelling)
    with pytest.raises(RunError, match="no prepared frames"):
        load_clip(footage.folder / "frames")
    assert cached(footage, path).num_frames == 6


def test_what_a_killed_run_left_is_swept_away(footage: Any) -> None:
    folder = footage.folder / "frames"
    folder.mkdir()
    for name in ("000000.png", "000099.png", ".000003.77.part.png"):
        (folder / name).write_bytes(b"half a picture")
    clip = cached(footage, footage.movie("a.mp4", 3))
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "000001.png", "000002.png", "frames.json"]
    assert clip.frame(0).any()


def test_a_folder_that_cannot_be_written_is_told(footage: Any) -> None:
    (footage.folder / "frames").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="cannot be written"):
        cached(footage, footage.movie("a.mp4", 3))


def test_memory_does_not_grow_with_the_plates(footage: Any) -> None:
    import tracemalloc

    footage.sequence("sh.{:03d}.png", range(40), size=(640, 360))
    tracemalloc.start()
    cached(footage, footage.folder / "sh.###.png", VideoConfig(long_side=160))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 640 * 360 * 3 * 2  # a dozen plates of 16 bit, not forty


def test_a_real_sequence_is_prepared(clips: Path, footage: Any) -> None:
    folder = clips / "real" / "dog"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    config = VideoConfig(frames=(10, 13), long_side=256, mask=str(folder / "masks"))
    clip = cached(footage, folder / "frames", config)
    assert (clip.size, clip.working_size, clip.num_frames, clip.cuts) == ((854, 480), (256, 144), 4, ())
    plate: Any = cv2.imread(str(folder / "frames" / "00012.jpg"), cv2.IMREAD_COLOR_RGB)
    assert np.abs(clip.rgb8(2) - cv2.resize(plate, (256, 144), interpolation=cv2.INTER_AREA).astype(float)).mean() < 1
    mask = clip.mask(2)
    assert mask is not None
    assert 0.001 < mask.mean() < 0.5
