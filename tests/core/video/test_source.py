"""What the user names is found, or refused in one clear line."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnimotion_core.config import VideoConfig
from omnimotion_core.errors import ClipError
from omnimotion_core.video.source import identify

CONFIG = VideoConfig()


def test_a_movie_is_told_by_its_facts(footage: Any) -> None:
    path = footage.movie("my shot.mp4", 9)
    source = identify(str(path), VideoConfig(frames=(3, 7)))
    assert (source.first_frame, source.last_frame, source.clip_first_frame, source.expected_frames) == (3, 7, 1, 5)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.path == str(path)
    assert source.name.startswith("my-shot-")  # a space is not safe everywhere
    assert not source.is_sequence


@pytest.mark.parametrize("named", ["s/sh.####.png", "s/sh.1003.png", "s", "s/sh.%04d.png"])
def test_a_sequence_is_the_same_however_it_is_named(footage: Any, named: str) -> None:
    folder = footage.sequence("s/sh.{}.png", range(1001, 1006))
    source = identify(str(footage.folder / named), VideoConfig(frames=(1002, 1004)))
    contents = b"".join((folder / f"sh.{n}.png").read_bytes() for n in (1002, 1003, 1004))
    assert source.sha256 == hashlib.sha256(contents).hexdigest()
    assert (source.first_frame, source.last_frame, source.clip_first_frame) == (1002, 1004, 1001)
    assert source.path == str(folder / "sh.1001.png")
    assert source.name == "sh"
    assert source.is_sequence


def test_a_relative_path_becomes_absolute(footage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    footage.sequence("sh.{}.png", (1, 2))
    monkeypatch.chdir(footage.folder)
    assert identify("sh.#.png", CONFIG).path == str(footage.folder / "sh.1.png")


def test_an_existing_file_with_a_pattern_in_its_name_is_that_file(footage: Any) -> None:
    path = footage.movie("take %04d.mp4")
    assert identify(str(path), CONFIG).path == str(path)


def test_the_mask_is_found_and_hashed(footage: Any) -> None:
    footage.sequence("sh.{}.png", range(1, 4))
    folder = footage.sequence("m/m.{}.png", range(1, 4))
    source = identify(str(footage.folder / "sh.#.png"), VideoConfig(mask=str(folder)))
    contents = b"".join((folder / f"m.{n}.png").read_bytes() for n in (1, 2, 3))
    assert source.mask_sha256 == hashlib.sha256(contents).hexdigest()
    (folder / "m.3.png").unlink()
    with pytest.raises(ClipError, match="has no frame 3"):
        identify(str(footage.folder / "sh.#.png"), VideoConfig(mask=str(folder)))


@pytest.mark.parametrize(
    "name", ["no.mov", "no.####.exr", "no/such/folder/a.mp4", "no.png", "", "\0.mov", "x" * 5000 + ".mov"]
)
def test_what_does_not_exist_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClipError, match=r"does not exist|no file matches|cannot be opened"):
        identify(str(tmp_path / name) if name else "", CONFIG)


@pytest.mark.parametrize("url", ["http://example.org/a.mp4", "file:///etc/passwd", "rtsp://h/s", "concat://a"])
def test_urls_are_refused(url: str) -> None:
    with pytest.raises(ClipError, match="is a URL"):
        identify(url, CONFIG)


@pytest.mark.parametrize("name", ["concat:a.mp4|b.mp4", "pipe:0", "data:text", "subfile,,start,0,end,9,,:a.mp4"])
def test_protocols_without_slashes_are_only_missing_files(footage: Any, name: str) -> None:
    footage.movie("a.mp4")
    with pytest.raises(ClipError, match="does not exist"):
        identify(name, CONFIG)


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mov")
    for path in (tmp_path / "pipe.mov", Path("/dev/null")):
        with pytest.raises(ClipError, match="not a regular file"):
            identify(str(path), CONFIG)


def test_one_picture_is_no_clip(footage: Any) -> None:
    footage.sequence("one.{}.png", [7])
    for name in ("one.7.png", "one.#.png"):
        with pytest.raises(ClipError, match=r"single picture|holds 1 frame"):
            identify(str(footage.folder / name), CONFIG)
    footage.picture("plate.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ClipError, match="single picture"):
        identify(str(footage.folder / "plate.png"), CONFIG)


def test_a_gap_is_an_error_unless_allowed(footage: Any) -> None:
    footage.sequence("sh.{}.png", (1, 2, 4))
    pattern = str(footage.folder / "sh.#.png")
    with pytest.raises(ClipError, match="has no frame 3") as caught:
        identify(pattern, CONFIG)
    assert "allow gaps" in caught.value.remedy
    files = identify(pattern, VideoConfig(allow_gaps=True)).files
    assert [file.repeated for file in files] == [False, False, True, False]


def test_an_empty_frame_is_named_at_once(footage: Any) -> None:
    for number in range(1, 5):
        footage.picture(f"sh.{number}.exr", np.ones((32, 32, 3), np.float32), "half")
    (footage.folder / "sh.3.exr").write_bytes(b"")
    with pytest.raises(ClipError, match=r"sh\.3\.exr is empty"):
        identify(str(footage.folder / "sh.#.exr"), CONFIG)


def test_too_many_frames_are_refused(footage: Any) -> None:
    footage.sequence("sh.{}.png", range(1, 6), size=(32, 32))
    with pytest.raises(ClipError, match="over 5 frames, at most 3"):
        identify(str(footage.folder / "sh.#.png"), VideoConfig(max_frames=3))
    with pytest.raises(ClipError, match="over 12 frames, at most 3"):
        identify(str(footage.movie("a.mp4", 12)), VideoConfig(max_frames=3))


def test_movie_frames_count_from_one(footage: Any) -> None:
    with pytest.raises(ClipError, match="counted from 1"):
        identify(str(footage.movie("a.mp4", 5)), VideoConfig(frames=(0, 3)))


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user who owns nothing, since root may read every file."""
    if os.name != "posix":
        pytest.skip("file permissions are POSIX's")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_may_not_be_read_is_told(footage: Any) -> None:
    movie = footage.movie("a.mp4", 5)
    pictures = footage.sequence("sh.{}.png", range(1, 4))
    with tempfile.TemporaryDirectory() as open_folder:  # the test's own folder is closed to other users
        os.chmod(open_folder, 0o755)
        target = Path(open_folder) / "a.mp4"
        target.write_bytes(movie.read_bytes())
        for number in (1, 2, 3):
            (Path(open_folder) / f"sh.{number}.png").write_bytes((pictures / f"sh.{number}.png").read_bytes())
        closed = Path(open_folder) / "closed"
        closed.mkdir()
        for path in (target, Path(open_folder) / "sh.2.png", closed):
            path.chmod(0)
        try:
            with unprivileged():
                for named in ("a.mp4", "sh.#.png", "closed", "closed/b.mp4"):
                    with pytest.raises(ClipError, match="Permission denied") as caught:
                        identify(str(Path(open_folder) / named), CONFIG)
                    assert "permissions" in caught.value.remedy
        finally:
            closed.chmod(0o755)
