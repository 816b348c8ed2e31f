"""An installed wheel publishes as a checkout does."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from omnimotion_core.events import Reporter
from omnimotion_core.publishing import runner

from .conftest import MakeRun, content


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as pip lays it out."""
    built, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_the_wheel_carries_the_very_plugins(installed: Path, root: Path) -> None:
    carried = {path.name: path.read_bytes() for path in (installed / "omnimotion_core" / "_plugin").glob("*.py")}
    assert carried == {path.name: path.read_bytes() for path in (root / "plugin").glob("*.py")}


def test_an_installed_copy_publishes(installed: Path, make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = (
        "import sys; from omnimotion_core import cli; from omnimotion_core.publishing import runner\n"
        "print(runner.plugin_folder(), flush=True); sys.exit(cli.main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "publish", str(run.path), "--out", str(tmp_path / "installed")]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(installed.resolve() / "omnimotion_core" / "_plugin")
    here = runner.publish(run.path, tmp_path / "checkout", reporter=Reporter()).version
    assert here is not None
    assert content(tmp_path / "installed" / "shot" / "v001") == content(here)


