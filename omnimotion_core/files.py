"""Files that are there whole or not at all, and names that are safe as files."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omnimotion_core.errors import RunError

_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends well, and vanishes when it does not.

    The suffix is kept, since writers choose their format by it.

    Raises:
        RunError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # a parent that is a file, say: the error above tells it
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, as a whole or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def unwritable(path: Path, error: OSError) -> RunError:
    """The error to tell when ``path`` could not be written."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"no space is left for {path}", "free some disk space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunError(f"{path} cannot be written ({reason})", "choose a folder that you may write to")
    return RunError(f"{path} cannot be written ({reason})", "choose another folder")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed writer left in ``folder`` (not below it)."""
    for leftover in folder.glob(".*.part*"):
        leftover.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(name: str) -> str:
    """``name`` where it is safe as part of a file name on every system, else a readable form of it with a short hash.

    Allowed are 1 to 100 letters, digits, dots, underscores and dashes that do not begin with a dot or a dash and
    are no device name of Windows.
    """
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) and name.split(".")[0].lower() not in _WINDOWS_DEVICES:
        return name
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:80] or "clip"
    return f"{readable}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
