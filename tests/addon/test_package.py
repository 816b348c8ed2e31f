"""The add-on as a zip that every Blender takes."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from blender_addon import bl_info, installation
from omnimotion_core import __version__, cli
from omnimotion_core.addon import build_addon, check_addon, find_source
from omnimotion_core.errors import ExportError

FILES = {path.name: path.read_bytes() for path in find_source().iterdir() if path.is_file()}


def test_the_command_builds_one_folder_with_both_kinds_of_metadata(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["addon", "--out", str(tmp_path / "new folder")]) == cli.DONE
    [path] = (tmp_path / "new folder").iterdir()
    assert path.name == f"track_everything-{__version__}.zip"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        assert {name.split("/")[0] for name in names} == {"track_everything"}
        assert {f"track_everything/{name}" for name in FILES} == names
        assert archive.read("track_everything/__init__.py") == FILES["__init__.py"]
    again = build_addon(tmp_path)
    assert again.read_bytes() == path.read_bytes()


def test_all_places_tell_the_same_version() -> None:
    assert check_addon(FILES)["version"] == __version__ == installation.VERSION
    assert ".".join(map(str, bl_info["version"])) == __version__


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("__init__.py", b'"version": (0,', b'"version": (9,', "another name or version"),
        ("__init__.py", b"bl_info = {", b"info = {", "no bl_info"),
        ("__init__.py", b'"category": "Tracking"', b'"category": str()', "no literal"),
        ("__init__.py", b"(3, 4, 0)", b"(2, 80, 0)", "asks for Blender"),
        ("blender_manifest.toml", b'id = "track_everything"', b'id = "Track Everything"', "its id"),
        ("blender_manifest.toml", b"SPDX:", b"", "SPDX"),
        ("blender_manifest.toml", b'maintainer = "Track Everything"', b"", "lacks maintainer"),
        ("blender_manifest.toml", b"from footage", b"from footage.", "ends with a sign"),
        ("blender_manifest.toml", b"[permissions]", b"[permissions", "cannot be read"),
        ("panel.py", b"import bpy", b"type X = int\nimport bpy", "panel.py, line"),
    ],
)
def test_what_blender_would_not_take_is_told(name: str, old: bytes, new: bytes, words: str) -> None:
    assert old in FILES[name]
    with pytest.raises(ExportError, match=re.escape(words)):
        check_addon({**FILES, name: FILES[name].replace(old, new, 1)})


@pytest.mark.parametrize("name", ["__init__.py", "blender_manifest.toml", "LICENSE"])
def test_a_missing_file_is_told(name: str) -> None:
    with pytest.raises(ExportError, match=name):
        check_addon({other: content for other, content in FILES.items() if other != name})


def test_a_wheel_brings_the_addon_along(root: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import sys; from omnimotion_core.addon import *; print(find_source(), build_addon(Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], cwd=tmp_path / "site",
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    source, path = done.stdout.split()
    assert Path(source) == tmp_path / "site" / "omnimotion_core" / "blender_addon"
    assert Path(path).read_bytes() == build_addon(tmp_path).read_bytes()
