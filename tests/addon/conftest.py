"""Real Blenders, each in a process of its own: bpy wheels named by ``OMNIMOTION_BPY``, and ``blender`` itself.

``OMNIMOTION_BPY`` holds one Python that can import bpy, or several with the system's path separator between them;
without it the Python that runs the tests is asked. ``OMNIMOTION_BLENDER`` names a Blender in place of the PATH's.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimotion_core import cli
from omnimotion_core.addon import build_addon
from omnimotion_core.export.markers import write_markers
from omnimotion_core.trajectories.tracks import Tracks

INSIDE = Path(__file__).with_name("inside_blender.py")
Ask = Callable[..., Any]
MakeRun = Callable[..., Path]


def pythons_with_bpy() -> list[str]:
    """The Pythons that have bpy."""
    named = os.environ.get("OMNIMOTION_BPY")
    if named:
        return named.split(os.pathsep)
    return [sys.executable] if importlib.util.find_spec("bpy") is not None else []


def programs() -> list[str]:
    """Blender as a program, where it is installed."""
    found = os.environ.get("OMNIMOTION_BLENDER") or shutil.which("blender")
    return [found] if found else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of a Blender runs in every one that there is."""
    if "blender" in metafunc.fixturenames:
        every = [*pythons_with_bpy(), *programs()]
        names = [Path(one).parent.parent.name if Path(one).name.startswith("python") else "program" for one in every]
        metafunc.parametrize("blender", every or [None], ids=names or ["absent"])


@pytest.fixture(scope="session")
def addon_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The add-on as its command builds it."""
    return build_addon(tmp_path_factory.mktemp("addon"))


@pytest.fixture(scope="session")
def tiny_run(tiny_clip: Path, tiny_settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ``tiny_clip`` with its motion vectors."""
    out = tmp_path_factory.mktemp("läufe mit raum") / "run"
    assert cli.main(["track", str(tiny_clip), "--out", str(out), "--config", str(tiny_settings)]) == cli.DONE
    return out


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function from tracks to a finished run folder that holds nothing but what the add-on reads."""

    def make(tracks: Tracks, *, first_frame: int = 1001, name: str = "shot") -> Path:
        run = tmp_path / f"{name} run"
        run.mkdir()
        clip = {"name": name, "path": "/plates/shot.1001.png", "sha256": "0", "size": list(tracks.size),
                "frames": tracks.num_frames, "first_frame": first_frame, "clip_first_frame": first_frame}  # fmt: skip
        manifest = {"version": 1, "clip": clip, "stages": {"fit": {"state": "done"}, "tracks": {"state": "done"}}}
        (run / "run.json").write_text(json.dumps(manifest))
        tracks.save(run / "tracks.npz")
        write_markers(tracks, run / "markers.json", clip_offset=0, max_markers=500)
        return run

    return make


def environment_for(folder: Path) -> dict[str, str]:
    """An environment in which a Blender finds nothing of its user's, and leaves nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ, "BLENDER_USER_RESOURCES": str(folder), "BLENDER_USER_SCRIPTS": str(folder / "scripts"),
        "BLENDER_USER_CONFIG": str(folder / "config"), "XDG_DATA_HOME": str(folder / "data"),
        "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def command_for(blender: str, script: Path, *arguments: str) -> list[str]:
    """How a script is run in a Blender."""
    if Path(blender).name.startswith("python"):
        return [blender, str(script), "--", *arguments]
    return [blender, "-b", "--factory-startup", "-P", str(script), "--", *arguments]


@pytest.fixture
def ask(blender: str | None, addon_zip: Path, tmp_path: Path) -> Ask:
    """A function that does a scenario of ``inside_blender.py`` in a Blender and gives its answer."""
    if blender is None:
        pytest.skip("no Blender: install a bpy wheel or Blender, or set OMNIMOTION_BPY to Pythons that have bpy")

    def run(scenario: str, timeout_s: float = 120.0, **given: Any) -> Any:
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        plain |= {"zip": str(addon_zip), "core": sys.executable, "folder": str(tmp_path)}
        done = subprocess.run(
            command_for(blender, INSIDE, scenario, json.dumps(plain)), env=environment_for(tmp_path / "user"),
            capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        assert answers, done.stdout[-4000:] + done.stderr[-4000:]
        return json.loads(answers[0].removeprefix("ANSWER "))

    return run
