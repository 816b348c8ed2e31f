"""The record of the frame cache is whole, or says what is missing."""

import json
from pathlib import Path

import pytest

from omnimotion_core.errors import RunError
from omnimotion_core.video.cache import RECORD, clear_cache, load_clip, save_clip
from omnimotion_core.video.clip import Clip


def clip_in(folder: Path) -> Clip:
    for t in range(3):
        (folder / f"{t:06d}.png").touch()
        (folder / f"{t:06d}.mask.png").touch()
    return Clip(
        folder=folder, name="shot", path="/plates/shot \udcff.1001.exr", sha256="ab" * 32, size=(1920, 1080),
        working_size=(854, 480), num_frames=3, first_frame=1001, clip_first_frame=990, fps=24000 / 1001,
        pixel_aspect=2.0, cuts=(2,), has_mask=True, is_sequence=True,
    )  # fmt: skip


def test_a_clip_comes_back_as_it_was(tmp_path: Path) -> None:
    clip = clip_in(tmp_path)
    save_clip(clip, [{"number": 1001 + t} for t in range(3)])
    assert vars(load_clip(tmp_path)) == vars(clip)
    assert json.loads((tmp_path / RECORD).read_text())["frames"][2] == {"number": 1003}


def test_without_a_record_there_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no prepared frames"):
        load_clip(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\xfe", b'{"version": 1, "size": 3}'])
def test_a_damaged_record_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        load_clip(tmp_path)


def test_another_version_is_told(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"version": 99}')
    with pytest.raises(RunError, match="version 99"):
        load_clip(tmp_path)


@pytest.mark.parametrize("name", ["000001.png", "000002.mask.png"])
def test_a_missing_picture_is_told(tmp_path: Path, name: str) -> None:
    save_clip(clip_in(tmp_path), [])
    (tmp_path / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing"):
        load_clip(tmp_path)


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    save_clip(clip_in(tmp_path), [])
    (tmp_path / "notes.png").touch()
    (tmp_path / ".000001.12.part.png").touch()
    clear_cache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.png"]
    clear_cache(tmp_path / "absent")  # nothing to do is no error
