"""The Blender add-on as one zip: an extension for Blender 4.2 and later, a legacy add-on for those before.

Blender 3.x installs a zip with one folder that holds ``__init__.py`` with ``bl_info``; Blender 4.2 and later one whose
folder holds ``blender_manifest.toml``. So one zip serves all.
"""

import ast
import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from omnimotion_core import __version__
from omnimotion_core.errors import ExportError
from omnimotion_core.files import write_atomically

FOLDER = "blender_addon"
_OLDEST_PYTHON = (3, 10)  # of Blender 3.4
_OLDEST_BLENDER = (3, 4, 0)
_NEEDED = ("schema_version", "id", "version", "name", "tagline", "maintainer", "type", "blender_version_min", "license")
_LONGEST = 64  # characters of a tagline or a permission, as Blender's own check has it
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files give the same zip


def build_addon(out: Path, source: Path | None = None) -> Path:
    """Write ``<id>-<version>.zip`` into ``out`` and check it.

    Args:
        out: a folder, made where it is absent.
        source: the add-on's folder; the one that came with this package when not given.
    Raises:
        ExportError: the add-on's files are absent or not what Blender wants.
        RunError: the zip cannot be written.
    """
    source = source or find_source()
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in _files(source)}
    manifest = check_addon(files)
    path = out / f"{manifest['id']}-{manifest['version']}.zip"
    with write_atomically(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(f"{manifest['id']}/{name}", _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def find_source() -> Path:
    """The add-on's folder: inside the installed package, beside it in a checkout."""
    package = Path(__file__).parent
    for folder in (package / FOLDER, package.parent / FOLDER):
        if (folder / "blender_manifest.toml").is_file():
            return folder
    raise ExportError("this installation lacks the add-on's files", "install omnimotion-core again from its wheel")


def check_addon(files: dict[str, bytes]) -> dict[str, Any]:
    """The manifest of an add-on, given its files by their names within its folder.

    Raises:
        ExportError: Blender would refuse it, or a module cannot be read by the oldest Blender's Python.
    """
    for name in ("__init__.py", "blender_manifest.toml", "LICENSE"):
        if name not in files:
            raise _unfit(f"it has no {name}")
    manifest = _manifest(files["blender_manifest.toml"])
    for name, content in files.items():
        if name.endswith(".py"):
            try:
                ast.parse(content, name, feature_version=_OLDEST_PYTHON)
            except SyntaxError as error:
                raise _unfit(f"{name}, line {error.lineno}, is no Python {_OLDEST_PYTHON[0]}.{_OLDEST_PYTHON[1]}"
                             ) from error
    info = _bl_info(files["__init__.py"])
    if ".".join(map(str, info.get("version", ()))) != manifest["version"] or info.get("name") != manifest["name"]:
        raise _unfit("bl_info and blender_manifest.toml tell another name or version")
    if info.get("blender") != _OLDEST_BLENDER:
        raise _unfit(f"bl_info asks for Blender {info.get('blender')}, not {_OLDEST_BLENDER}")
    if manifest["version"] != __version__:
        raise _unfit(f"it is version {manifest['version']}, the core {__version__}")
    return manifest


def _manifest(content: bytes) -> dict[str, Any]:
    try:
        manifest = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:
        raise _unfit(f"blender_manifest.toml cannot be read ({error})") from error
    missing = [name for name in _NEEDED if not manifest.get(name)]
    if missing:
        raise _unfit(f"blender_manifest.toml lacks {', '.join(missing)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", str(manifest["id"])):
        raise _unfit(f"its id is {manifest['id']!r}, not a name of lower-case words")
    for name in ("version", "blender_version_min"):
        if not re.fullmatch(r"\d+\.\d+\.\d+", str(manifest[name])):
            raise _unfit(f"its {name} is {manifest[name]!r}, not three numbers")
    if not all(str(entry).startswith("SPDX:") for entry in manifest["license"]):
        raise _unfit("a license is no SPDX name")
    for text in (manifest["tagline"], *manifest.get("permissions", {}).values()):
        if len(text) > _LONGEST or not text[-1].isalnum() or text != text.strip():
            raise _unfit(f"{text!r} is over {_LONGEST} characters or ends with a sign")
    return manifest


def _bl_info(content: bytes) -> dict[str, Any]:
    """What Blender reads out of ``__init__.py`` without running it."""
    for node in ast.parse(content).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "bl_info" for target in node.targets):
            try:
                info = ast.literal_eval(node.value)
            except ValueError as error:
                raise _unfit("bl_info is no literal") from error
            if isinstance(info, dict):
                return info
    raise _unfit("__init__.py has no bl_info")


def _files(source: Path) -> list[Path]:
    paths = (path for path in source.rglob("*") if path.is_file())
    return sorted(path for path in paths
                  if not any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(source).parts))


def _unfit(reason: str) -> ExportError:
    return ExportError(f"Blender would not take the add-on: {reason}", "mend the add-on's files")
