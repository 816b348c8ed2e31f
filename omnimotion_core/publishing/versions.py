"""A staged publish becomes a version: its documents are written, then one rename hands all of it on.

    v003/<product>/…                       the files
    v003/<product>_metadata.json           the product as AYON's farm publishes it
    v003/publish.json                      all of it, with the SHA-256 of every file; written last
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omnimotion_core import __version__
from omnimotion_core.errors import PublishError
from omnimotion_core.files import unwritable, write_text
from omnimotion_core.publishing.staging import Staging, file_lock

FORMAT, VERSION = "omnimotion.publish", 1  # of publish.json
_LOCK = ".lock"
_WAIT_S = 600.0  # another publish of this clip writes its documents and renames: milliseconds
_INSTANCE_KEYS = (  # of what AYON reads; the rest of an instance's data is not plain
    "name", "family", "families", "productName", "productType", "productBaseType", "variant", "folderPath",
    "frameStart", "frameEnd", "handleStart", "handleEnd", "frameStartHandle", "frameEndHandle", "fps",
    "resolutionWidth", "resolutionHeight", "pixelAspect", "colorspace", "comment", "review", "farm", "source",
)  # fmt: skip


def integrate(staging: Staging, context: Mapping[str, Any], instances: Sequence[Mapping[str, Any]]) -> Path:
    """Hand a staged publish on as the next version of its clip; on any error nothing of it is left.

    Args:
        staging: what the extractors put together.
        context: the context's data.
        instances: the data of the instances that were extracted.
    Returns:
        The version's folder.
    Raises:
        PublishError: a file is outside of the staging folder, or the folder cannot be written.
    """
    try:
        assert staging.folder is not None
        for instance in instances:
            _require_inside(staging.folder, instance)
        with file_lock(staging.target / _LOCK, _WAIT_S):
            number = next_version(staging.target)
            version = staging.target / f"v{number:03d}"
            _write_documents(staging.folder, version, number, context, instances)
            _sync(staging.folder)
            if version.exists():
                raise PublishError(f"{version} is there already", "publish again")
            os.rename(staging.folder, version)
            _sync(staging.target)
        staging.close()
    except OSError as error:
        staging.discard()
        told = unwritable(staging.target, error)
        raise PublishError(told.problem, told.remedy) from error
    except BaseException:
        staging.discard()
        raise
    return version


def next_version(target: Path) -> int:
    """One more than the highest version there is; whatever has a version's name counts."""
    taken = [int(match[1]) for path in target.iterdir() if (match := re.fullmatch(r"v(\d+)", path.name))]
    return max(taken, default=0) + 1


def _require_inside(staging: Path, instance: Mapping[str, Any]) -> None:
    """Refuse what a representation names and staging does not hold as a file of its own."""
    own = staging / instance["productName"]
    for representation in instance["representations"]:
        if Path(representation["stagingDir"]) != own:
            raise PublishError(f"{instance['productName']} is staged in {representation['stagingDir']}, not in {own}",
                               "leave stagingDir as its extractor set it")
        for name in files_of(representation):
            if Path(name).name != name or not stat.S_ISREG((own / name).lstat().st_mode):
                raise PublishError(f"{name!r} is no file of {own}", "name files of the staging folder, without folders")


def files_of(representation: Mapping[str, Any]) -> list[str]:
    """The names of a representation's files; a single one is text and no list, as AYON wants it."""
    files = representation["files"]
    return [files] if isinstance(files, str) else list(files)


def _write_documents(
    staging: Path, version: Path, number: int, context: Mapping[str, Any], instances: Iterable[Mapping[str, Any]]
) -> None:
    common = {"user": context.get("user", ""), "comment": context.get("comment", "")}
    products = []
    for instance in instances:
        name = instance["productName"]
        # the files are in staging now and in the version when this is read
        representations = [{**one, "stagingDir": str(version / name)} for one in instance["representations"]]
        plain = {key: instance[key] for key in _INSTANCE_KEYS if key in instance}
        _write(staging / f"{name}_metadata.json", {
            **common, "job": {}, "version": number, "folderPath": instance.get("folderPath", ""),
            "frameStart": instance["frameStart"], "frameEnd": instance["frameEnd"], "fps": instance["fps"],
            "instances": [{**plain, "version": number, "representations": representations}],
        })  # fmt: skip
        sizes = {path.name: path.stat().st_size for path in (staging / name).iterdir()}
        products.append({
            "name": name, "family": instance["family"], "families": instance["families"],
            "frames": [instance["frameStart"], instance["frameEnd"]],
            "representations": [
                {key: value for key, value in one.items() if key != "stagingDir"} for one in representations
            ],
            "files": {
                f"{name}/{file}": {"sha256": digest, "bytes": sizes[file]}
                for file, digest in instance["digests"].items()
            },
        })  # fmt: skip
    _write(staging / "publish.json", {
        "format": FORMAT, "version": VERSION, "publish_version": number, **common,
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "omnimotion": __version__,
        "clip": context["clip"], "run": context["omnimotionRun"], "run_digest": context["runDigest"],
        "products": products,
    })  # fmt: skip


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
