import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimotion_core.errors import RunError
from omnimotion_core.files import (
    remove_leftovers,
    safe_name,
    sha256_of,
    unwritable,
    write_atomically,
    write_text,
)


def test_a_whole_file_replaces_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.json", "old")
    write_text(tmp_path / "deep" / "a.json", "né")
    assert (tmp_path / "deep" / "a.json").read_text("utf-8") == "né"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(KeyError), write_atomically(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_the_temporary_file_keeps_the_ending_and_hides(tmp_path: Path) -> None:
    with write_atomically(tmp_path / "a.exr") as temporary:
        assert temporary.suffix == ".exr"
        assert temporary.name.startswith(".")
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"), write_atomically(tmp_path / "file" / "a") as temporary:
        temporary.write_text("x")


@pytest.mark.parametrize(
    ("number", "said"), [("ENOSPC", "no space is left"), ("EACCES", "may write"), ("EIO", "another")]
)
def test_the_reason_decides_the_remedy(number: str, said: str) -> None:
    import errno

    code = getattr(errno, number)
    assert said in str(unwritable(Path("out/a"), OSError(code, os.strerror(code))))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no space is left"), write_atomically(tmp_path / "a"):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    for name in (".a.123.part.npz", ".b.part", "a.npz", ".hidden"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.npz"]


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.mark.parametrize("name", ["shot_010", "A-b.c", "7"])
def test_a_safe_name_stays(name: str) -> None:
    assert safe_name(name) == name


HOSTILE = ["-rf", "clip;rm $(x)", "%n", ".", "..", "", "con", "LPT1.mov", "a/b", "naïve shot", "x" * 101]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_a_safe_one_of_its_own(name: str) -> None:
    safe = safe_name(name)
    assert safe != name
    assert safe_name(safe) == safe
    assert safe != safe_name(name + "!")


@given(st.text())
def test_every_name_becomes_a_safe_one(name: str) -> None:
    safe = safe_name(name)
    assert safe_name(safe) == safe
    assert "/" not in safe
    assert not safe.startswith((".", "-"))
