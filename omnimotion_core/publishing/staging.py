"""Where a publish is put together before anybody sees it.

A publish into a folder is staged inside that folder, so that one rename can hand it on::

    OUT/<clip>/v001/, v002/ …          what was published: whole versions, never changed
    OUT/<clip>/.staging-<random>/      a publish on its way; held by a lock, so that what a killed one left is known

Where a host integrates by itself, each instance is staged in the folder that the host has set for it, or in a temporary
one of its own.
"""

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from filelock import BaseFileLock, FileLock, Timeout

from omnimotion_core.errors import PublishError
from omnimotion_core.files import unwritable

_PREFIX, _LOCK = ".staging-", ".lock"
_STAGING = "omnimotionStaging"  # the key of a context's data
_BLOCK = 1 << 20
_WAIT_S = 10.0  # another publish that looks for abandoned stagings holds a lock for an instant


class Staging:
    """A folder on its way to become a version of ``target``; ``folder`` is None when it was given up or handed on."""

    def __init__(self, target: Path, folder: Path, lock: BaseFileLock, made: list[Path]) -> None:
        self.target, self._lock, self._made = target, lock, made
        self.folder: Path | None = folder

    @classmethod
    def begin(cls, target: Path) -> Self:
        """Make the folder, after removing what killed publishes left.

        Raises:
            PublishError: the target cannot be written.
        """
        missing = [folder for folder in (target, *target.parents) if not folder.exists()]
        try:
            target.mkdir(parents=True, exist_ok=True)
            remove_abandoned(target)
            folder = target / f"{_PREFIX}{secrets.token_hex(8)}"
            lock = file_lock(Path(f"{folder}{_LOCK}"), _WAIT_S)  # before the folder: what has no lock is nobody's
            lock.acquire()
            folder.mkdir()
        except (OSError, Timeout) as error:
            _remove_empty(missing)
            raise _publish_error(target, error) from error
        return cls(target, folder, lock, missing)

    def discard(self) -> None:
        """Remove it and all that it made."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()
        _remove_empty(self._made)

    def close(self) -> None:
        """Let go of a folder that is no more, or has become a version."""
        if self.folder is not None:
            self._lock.release()
            Path(f"{self.folder}{_LOCK}").unlink(missing_ok=True)
            self.folder = None


def staging_of(context: Mapping[str, Any]) -> Staging | None:
    """The staging of a publish that writes versions, where one has begun."""
    return context.get(_STAGING)


@contextmanager
def staged(context: MutableMapping[str, Any], instance: MutableMapping[str, Any]) -> Iterator[Path]:
    """The folder in which an instance's files are put together; on any error nothing of the publish is left.

    Args:
        context: a context's data; ``publishDir`` is the folder that gets versions, where we are to integrate.
        instance: an instance's data.
    Raises:
        PublishError: the folder cannot be written.
    """
    name = instance["productName"]
    if not context.get("publishDir") and instance.get("stagingDir"):
        folder = Path(instance["stagingDir"])  # the host's choice, and the host's to clean up
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    if not context.get("publishDir"):
        folder = Path(tempfile.mkdtemp(prefix="omnimotion-"))
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return
    staging: Staging | None = context.get(_STAGING)
    if staging is None:
        staging = context[_STAGING] = Staging.begin(Path(os.path.abspath(context["publishDir"])) / context["clipName"])
    if staging.folder is None:
        raise PublishError(f"{name} is not extracted, since another product could not be", "see that product's error")
    try:
        folder = staging.folder / name
        folder.mkdir()
        yield folder
    except OSError as error:
        staging.discard()
        raise _publish_error(staging.target, error) from error
    except BaseException:
        staging.discard()
        raise


def copy_file(source: Path, folder: Path, name: str, digests: MutableMapping[str, str]) -> None:
    """Copy a file into a staging folder, down to the disk, and note its SHA-256 in ``digests`` under its new name.

    Raises:
        PublishError: the source cannot be read.
        OSError: the copy cannot be written.
    """
    try:
        reading = source.open("rb")
    except OSError as error:
        raise PublishError(f"{source} cannot be read ({error.strerror})", "export it again") from error
    digest = hashlib.sha256()
    with reading, (folder / name).open("xb") as writing:
        while block := reading.read(_BLOCK):
            digest.update(block)
            writing.write(block)
        writing.flush()
        os.fsync(writing.fileno())
    digests[name] = digest.hexdigest()


def remove_abandoned(target: Path) -> None:
    """Remove the stagings of publishes that were killed; one whose publish lives is left alone."""
    for lock_path in target.glob(f"{_PREFIX}*{_LOCK}"):
        with suppress(OSError):  # a Timeout is one: somebody holds it
            with file_lock(lock_path, 0.0):
                shutil.rmtree(lock_path.with_name(lock_path.name.removesuffix(_LOCK)), ignore_errors=True)
                lock_path.unlink(missing_ok=True)


def file_lock(path: Path, timeout_s: float) -> BaseFileLock:
    """A lock that every user of a shared folder may take, whoever made its file."""
    return FileLock(path, timeout=timeout_s, mode=0o666)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            if {path.name for path in folder.iterdir()} == {_LOCK}:  # else another publish may hold it
                (folder / _LOCK).unlink()
            folder.rmdir()


def _publish_error(target: Path, error: Exception) -> PublishError:
    if isinstance(error, OSError):
        told = unwritable(target, error)
        return PublishError(told.problem, told.remedy)
    return PublishError(f"{target} is locked", "wait for the other publish to end")
