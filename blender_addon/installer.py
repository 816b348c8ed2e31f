# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the core into an environment of its own. A program, run by another Python than Blender's own process.

It speaks the core's protocol: JSON lines on standard output, pip's words on standard error. It is cancelled by a line
or by the end of its standard input, and then removes what is half-made. The last thing it writes into the environment
is ``installed.json``: an environment without it is not to be used.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

_PIP = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-warn-script-location")
_NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows alone has it
_RAW_PROGRESS = (24, 1)  # the first pip that tells its progress in plain numbers


class Cancelled(Exception):
    """The user asked to stop."""


class Failure(Exception):
    """What went wrong and how to mend it."""


class Installer:
    """One installation."""

    def __init__(self, environment: Path, source: str, torch: str, torch_index: str) -> None:
        self.environment, self.source, self.torch, self.torch_index = environment, source, torch, torch_index
        self.python = str(environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
        self.cancelled = threading.Event()
        self.child: subprocess.Popen[str] | None = None
        self.stages = ["environment", *(["torch"] if torch_index else []), "core", "check"]

    def work(self) -> None:
        """All steps; raises ``Cancelled`` or ``Failure``."""
        if self.environment.exists() and not (self.environment / "pyvenv.cfg").exists() and any(
            self.environment.iterdir()
        ):
            raise Failure(f"{self.environment} holds something else; move it away")
        self._stage("environment")
        (self.environment / "installed.json").unlink(missing_ok=True)
        self._run([sys.executable, "-I", "-m", "venv", "--clear", str(self.environment)],
                  "the environment cannot be made; choose another Python in the preferences")  # fmt: skip
        if self.torch_index:
            self._stage("torch")
            self._pip(self.torch, "--index-url", self.torch_index)
        self._stage("core")
        self._pip(*found_on_disk(self.source))
        self._stage("check")
        report = self._run([self.python, "-I", "-X", "utf8", "-m", "omnimotion_core", "doctor", "--json"],
                           "the core does not work; read the log", keep=True)  # fmt: skip
        try:
            version = json.loads(report)["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise Failure("the core does not answer; read the log") from error
        part = self.environment / ".installed.json.part"
        part.write_text(json.dumps({"version": version, "source": self.source}), encoding="utf-8")
        os.replace(part, self.environment / "installed.json")
        say("note", message=f"core {version} is installed")

    def listen(self) -> None:
        """Thread: a line that asks to stop, or the end of standard input."""
        for line in sys.stdin:
            if '"cancel"' in line:
                break
        self.cancelled.set()
        if self.child is not None:
            self.child.terminate()

    def _pip(self, *what: str) -> None:
        progress = "raw" if self._pip_version() >= _RAW_PROGRESS else "off"
        self._run([self.python, "-I", *_PIP, "--progress-bar", progress, *what],
                  "pip could not install it; read the log")  # fmt: skip

    def _pip_version(self) -> tuple[int, ...]:
        words = self._run([self.python, "-I", "-m", "pip", "--version"], "the environment has no pip; repair it",
                          keep=True).split()  # fmt: skip
        return tuple(int(part) for part in re.findall(r"\d+", words[1] if len(words) > 1 else "")[:2])

    def _run(self, command: list[str], failure: str, *, keep: bool = False) -> str:
        """Run a program; its words go to the log, or are given back where they are to be kept."""
        if self.cancelled.is_set():
            raise Cancelled
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=None if keep else subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace", creationflags=_NO_WINDOW,
        ) as child:  # fmt: skip
            self.child = child
            assert child.stdout is not None
            last, kept = "", []
            for line in child.stdout:
                if keep:
                    kept.append(line)
                elif numbers := re.match(r"Progress (\d+) of (\d+)", line):
                    say("progress", stage=self.stage, done=int(numbers[1]), total=int(numbers[2]))
                elif line.strip():
                    last = line.strip() if "ERROR" in line or not last.startswith("ERROR") else last
                    print(line.rstrip(), file=sys.stderr, flush=True)
            code = child.wait()
        self.child = None
        if self.cancelled.is_set():
            raise Cancelled
        if code:
            raise Failure(f"{last[:200] or f'exit code {code}'}; {failure}")
        return "".join(kept)

    def _stage(self, stage: str) -> None:
        self.stage = stage
        say("stage", stage=stage, index=self.stages.index(stage), count=len(self.stages))


def found_on_disk(source: str) -> list[str]:
    """What pip is to install: a source folder or wheel as it is, the newest core of a folder of wheels.

    Wheels that lie beside it are used for what the core needs, so that all can come from one folder.
    """
    path = Path(source)
    if not path.exists():
        return [source]  # a name for PyPI
    folder = path if path.is_dir() else path.parent
    if path.is_dir() and not (path / "pyproject.toml").is_file():
        wheels = sorted(path.glob("omnimotion_core-*.whl"), key=lambda wheel: wheel.stat().st_mtime)
        if not wheels:
            raise Failure(f"{path} holds neither the core's source nor a wheel of it; choose another folder")
        path = wheels[-1]
    return ["--find-links", str(folder), str(path)]


def say(event: str, **values: object) -> None:
    """One line of the protocol."""
    print(json.dumps({"event": event, **values}), flush=True)


def main() -> int:
    """Install as the arguments say; the core's exit codes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--torch", default="torch")
    parser.add_argument("--torch-index", default="")
    options = parser.parse_args()
    say("started", protocol=1, version="installer")
    installer = Installer(options.environment, options.source, options.torch, options.torch_index)
    threading.Thread(target=installer.listen, daemon=True).start()
    try:
        installer.work()
    except Cancelled:
        shutil.rmtree(options.environment, ignore_errors=True)
        say("cancelled", resumable=False)
        return 3
    except Failure as failure:
        problem, _, remedy = str(failure).rpartition("; ")
        say("error", problem=problem, remedy=remedy)
        return 2
    except OSError as error:
        say("error", problem=f"{options.environment} cannot be written ({error.strerror})",
            remedy="free some space, or check the folder's permissions")  # fmt: skip
        return 2
    say("finished", seconds=0.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
