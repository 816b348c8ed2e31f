"""Names, patterns and folders find exactly the files that a person means."""

from pathlib import Path

import pytest

from omnimotion_core.errors import ClipError
from omnimotion_core.video.sequence import (
    ImageSequence,
    is_pattern,
    sequence_of_file,
    sequence_of_folder,
    sequence_of_pattern,
    split_number,
)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def of_file(path: Path) -> ImageSequence:
    sequence = sequence_of_file(path)
    assert sequence is not None
    return sequence


@pytest.mark.parametrize(
    "pattern", [f"shot.{token}.exr" for token in ("####", "%04d", "$F4", "@@@@", "#", "%d", "$F")]
)
def test_every_spelling_of_a_pattern_finds_the_files(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, *(f"shot.{digits}.exr" for digits in ("0998", "0999", "1000", "10000", "99")), "shot.1000.png")
    found = sequence_of_pattern(tmp_path / pattern)
    assert list(found.files) == [998, 999, 1000, 10000]
    assert found.files[999].name == "shot.0999.exr"


@pytest.mark.parametrize(
    "prefix", ["a [1]*?", "sh#t.", "50%_", "me@home ", "-rf ", "shot_v001_", "\u00e9t\u00e9.", "new\nline", "shot-", ""]
)
def test_hostile_and_odd_names_are_taken_literally(tmp_path: Path, prefix: str) -> None:
    touch(tmp_path, f"{prefix}0001.png", f"{prefix}0002.png", "other0001.png")
    assert list(sequence_of_pattern(tmp_path / f"{prefix}####.png").files) == [1, 2]
    assert list(of_file(tmp_path / f"{prefix}0002.png").files) == [1, 2]


def test_a_dash_is_no_sign(tmp_path: Path) -> None:
    touch(tmp_path, *(f"shot-{n:04d}.png" for n in range(1, 13)))
    assert list(sequence_of_folder(tmp_path).files) == list(range(1, 13))


def test_numbers_without_padding_sort_by_value(tmp_path: Path) -> None:
    touch(tmp_path, *(f"f{n}.jpg" for n in (8, 9, 10, 11, 100)))
    for named in ("f8.jpg", "f10.jpg", "f100.jpg"):
        assert list(of_file(tmp_path / named).files) == [8, 9, 10, 11, 100]


def test_only_one_padding_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "f0001.jpg", "f0002.jpg", "f0003.jpg", "f1.jpg", "f2.jpg")
    assert {path.name for path in of_file(tmp_path / "f0001.jpg").files.values()} == {f"f000{n}.jpg" for n in (1, 2, 3)}
    assert {path.name for path in of_file(tmp_path / "f1.jpg").files.values()} == {"f1.jpg", "f2.jpg"}


def test_the_last_number_counts(tmp_path: Path) -> None:
    assert split_number("sh010_v003.1001.beauty.exr") == ("sh010_v003.", "1001", ".beauty.exr")
    assert split_number("plate.png") is None


def test_an_at_sign_in_a_movie_name_is_no_pattern() -> None:
    assert not is_pattern("me@home.mov")
    assert is_pattern("shot.@@@@.tif")


def test_a_folder_with_one_sequence_stands_for_it(tmp_path: Path) -> None:
    touch(tmp_path, "00000.jpg", "00001.jpg", "00002.jpg", "cover.jpg", "notes1.txt", "._00000.jpg", "still_7.png")
    found = sequence_of_folder(tmp_path)
    assert list(found.files) == [0, 1, 2]
    assert found.title == tmp_path.name  # nothing but a number in the names


def test_a_folder_with_two_names_both(tmp_path: Path) -> None:
    touch(tmp_path, "a.01.png", "a.02.png", "b.01.png", "b.02.png")
    with pytest.raises(ClipError, match=r"2 image sequences \(a\.##\.png, b\.##\.png\)"):
        sequence_of_folder(tmp_path)


def test_a_folder_with_none_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "still.png")
    with pytest.raises(ClipError, match="holds no image sequence"):
        sequence_of_folder(tmp_path)


def test_a_pattern_without_files_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "shot.01.png")
    with pytest.raises(ClipError, match="no file matches"):
        sequence_of_pattern(tmp_path / "shot.####.png")
    with pytest.raises(ClipError, match="does not exist"):
        sequence_of_pattern(tmp_path / "nowhere" / "shot.####.png")


def test_a_gap_is_told_with_its_frames(tmp_path: Path) -> None:
    touch(tmp_path, *(f"s.{n:04d}.png" for n in (1001, 1002, 1005, 1006, 1008)))
    sequence = sequence_of_folder(tmp_path)
    with pytest.raises(ClipError, match=r"s\.####\.png has no frame 1003-1004,1007"):
        sequence.select(None, allow_gaps=False)
    assert [file.number for file in sequence.select((1005, 1006), allow_gaps=False)] == [1005, 1006]


def test_an_allowed_gap_repeats_the_file_before(tmp_path: Path) -> None:
    touch(tmp_path, *(f"s.{n:04d}.png" for n in (1001, 1002, 1005)))
    sequence = sequence_of_folder(tmp_path)
    files = sequence.select(None, allow_gaps=True)
    assert [(file.number, file.path.name[2:6], file.repeated) for file in files] == [
        (1001, "1001", False), (1002, "1002", False), (1003, "1002", True), (1004, "1002", True), (1005, "1005", False),
    ]  # fmt: skip
    assert sequence.select((1004, 1005), allow_gaps=True)[0].path.name == "s.1002.png"  # from before the range


def test_a_range_beyond_the_files_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "s.1001.png", "s.1002.png")
    with pytest.raises(ClipError, match=r"holds frames 1001-1002 and frames 1000-1002 were asked for"):
        sequence_of_folder(tmp_path).select((1000, 1002), allow_gaps=True)
