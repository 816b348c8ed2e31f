# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the core lives, which Python makes its environment, and whether it can be used. Needs no Blender.

The environment lies in the user's own folder and serves every version of Blender. It is not in Blender's folder of
extensions: on Windows the paths inside PyTorch would grow too long there.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .core_process import clean_environment, core_command

VERSION = "0.1.0"  # of this add-on; a core fits when its first two numbers are the same
DISTRIBUTION = "omnimotion-core"
PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that the core runs on
TORCH = "torch>=2.10"
_TORCH_INDEX = {  # where PyPI's own build is not the one asked for
    ("linux", "CPU"): "https://download.pytorch.org/whl/cpu",
    ("win32", "CUDA"): "https://download.pytorch.org/whl/cu128",
}
SIZES = {"CPU": "0.4 GB to load, 1.5 GB on disk", "CUDA": "3 GB to load, 7 GB on disk"}  # about
_CHECK_S = 180.0  # the first import of PyTorch on a cold disk takes long
_NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows alone has it
_PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"

MISSING, CHECKING, WRONG_VERSION, BROKEN, READY = "MISSING", "CHECKING", "WRONG_VERSION", "BROKEN", "READY"


@dataclass(frozen=True)
class CoreState:
    """What is known of the core; ``text`` says it in one line."""

    kind: str
    text: str
    python: str = ""
    version: str = ""
    devices: tuple[str, ...] = ()  # as people read them, the best first


def home() -> Path:
    """The user's folder for the core and for runs of unsaved files; not made."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "track_everything"


def own_environment() -> Path:
    """The environment that the add-on makes."""
    return home() / "core"


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def chosen_python(given: str) -> str:
    """The Python that is to have the core: the one given, else the add-on's own environment's."""
    return given.strip() or str(python_of(own_environment()))


def is_installed(environment: Path) -> bool:
    """Whether the installer went through to its end."""
    return (environment / "installed.json").is_file() and python_of(environment).exists()


def torch_index(build: str, platform: str | None = None) -> str:
    """The index that has the build of PyTorch, ``CPU`` or ``CUDA``, for a platform; empty where PyPI has it."""
    return _TORCH_INDEX.get((platform or sys.platform, build), "")


def find_base_python(given: str = "") -> str:
    """A Python that can make the core's environment: the one given, else Blender's own, else one on the PATH.

    Raises:
        LookupError: there is none; its text says in one line what to do.
    """
    low, high = (f"{major}.{minor}" for major, minor in PYTHONS)
    if given.strip():
        if _fits(given.strip()):
            return given.strip()
        raise LookupError(f"{given.strip()} is no Python {low} to {high} with venv; choose another one")
    names = [f"python3.{minor}" for minor in range(PYTHONS[1][1], PYTHONS[0][1] - 1, -1)]
    on_path = [found for found in map(shutil.which, [*names, "python3", "python"]) if found]
    for candidate in [sys.executable, *on_path]:
        if candidate and _fits(candidate):
            return candidate
    raise LookupError(f"no Python {low} to {high} was found; install one from python.org, or choose one under Python")


def _fits(python: str) -> bool:
    """Whether it is a Python of the right version that can make environments."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run([python, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=20, check=False,
                              env=clean_environment(), creationflags=_NO_WINDOW)  # fmt: skip
        major, minor = map(int, done.stdout.split(".")) if done.returncode == 0 else (0, 0)
        return PYTHONS[0] <= (major, minor) <= PYTHONS[1]
    return False


def install_command(base: str, source: str, build: str, index: str = "", *, offline: bool = False) -> list[str]:
    """The installer's command, which speaks the core's protocol.

    Args:
        base: the Python that makes the environment.
        source: a wheel or folder on disk; empty: from PyPI.
        build: of PyTorch, ``CPU`` or ``CUDA``.
        index: in place of the known one for that build.
        offline: nothing is loaded; PyTorch, like all else, has to lie beside ``source``.
    """
    series = ".".join(VERSION.split(".")[:2])
    command = [base, "-I", "-X", "utf8", str(Path(__file__).with_name("installer.py")),
               "--environment", str(own_environment()), "--source", source or f"{DISTRIBUTION}=={series}.*"]
    chosen = index.strip() or torch_index(build)
    return [*command, "--torch", TORCH, "--torch-index", chosen] if chosen and not offline else command


def check(python: str) -> CoreState:
    """Ask a Python for the core in it; takes seconds, so that ``Checker`` does it in a thread."""
    if not Path(python).exists() and shutil.which(python) is None:
        return CoreState(MISSING, "The core is not installed", python)
    try:
        done = subprocess.run(
            core_command(python, "doctor", "--json"), capture_output=True, timeout=_CHECK_S, check=False,
            stdin=subprocess.DEVNULL, env=clean_environment(), creationflags=_NO_WINDOW,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return CoreState(BROKEN, f"The core did not answer within {_CHECK_S:.0f} s; repair it", python)
    except OSError as error:
        return CoreState(BROKEN, f"{python} cannot be run ({error.strerror})", python)
    return read_report(python, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def read_report(python: str, report: str, log: str = "") -> CoreState:
    """What ``omnimotion doctor --json`` says of a core."""
    try:
        values = json.loads(report)
        version = str(values["version"])
        devices = tuple(f"{one['name']} ({one['description']})" for one in values["devices"])
        advice = [f"{one['problem']}; {one['remedy']}" for one in values["advice"] if one["needed"]]
    except (ValueError, KeyError, TypeError):
        words = next((line for line in reversed(log.splitlines()) if line.strip()), "it says nothing")
        if "No module named omnimotion_core" in log:
            return CoreState(MISSING, f"{python} does not have the core", python)
        return CoreState(BROKEN, f"The core cannot run: {words.strip()[:200]}", python)
    if not fits(version):
        return CoreState(WRONG_VERSION, f"The core is {version}, this add-on wants {_series(VERSION)}: repair it",
                         python, version, devices)  # fmt: skip
    if advice or not values.get("ok", False):
        return CoreState(BROKEN, f"The core lacks something: {(advice or ['repair it'])[0]}", python, version, devices)
    return CoreState(READY, f"Core {version} is ready on {devices[0]}" if devices else f"Core {version} is ready",
                     python, version, devices)  # fmt: skip


def fits(version: str) -> bool:
    """Whether a core of this version is the add-on's."""
    return _series(version) == _series(VERSION)


def _series(version: str) -> str:
    return ".".join(re.findall(r"\d+", version)[:2])


class Checker:
    """Checks a core in a thread and remembers what it found, over restarts too."""

    def __init__(self) -> None:
        self.state: CoreState | None = None
        self._thread: threading.Thread | None = None

    def start(self, python: str) -> None:
        """Begin to check; a second call while one runs does nothing."""
        if not self.running:
            self._thread = threading.Thread(target=self._check, args=(python,), daemon=True)
            self._thread.start()

    @property
    def running(self) -> bool:
        """Whether an answer is awaited."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Until the answer is there."""
        if self._thread is not None:
            self._thread.join()

    def known(self, python: str) -> CoreState | None:
        """What was found of this Python, last or in an earlier session."""
        if self.state is None or self.state.python != python:
            self.state = _remembered(python)
        return self.state

    def forget(self) -> None:
        """Know nothing any more: the core was changed."""
        self.state = None
        _memory().unlink(missing_ok=True)

    def _check(self, python: str) -> None:
        state = check(python)
        with contextlib.suppress(OSError):
            _memory().parent.mkdir(parents=True, exist_ok=True)
            _memory().write_text(json.dumps(asdict(state)), encoding="utf-8")
        self.state = state


def _memory() -> Path:
    return home() / "core.json"


def _remembered(python: str) -> CoreState | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        values = json.loads(_memory().read_text(encoding="utf-8"))
        values["devices"] = tuple(values["devices"])
        state = CoreState(**values)
        if state.python == python and Path(python).exists():
            return state
    return None


def last_lines(log: Iterable[str], count: int) -> list[str]:
    """The last lines of a log, each short enough for a panel."""
    return [line if len(line) <= 100 else f"{line[:97]}..." for line in list(log)[-count:]]
