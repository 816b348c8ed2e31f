"""The core's environment: found, made, checked, cancelled; really made, with a stand-in of the core as a wheel."""

import json
import os
import sys
import time
import zipfile
from pathlib import Path

import pytest

from blender_addon import events, installation
from blender_addon.core_process import clean_environment
from blender_addon.installation import BROKEN, MISSING, READY, WRONG_VERSION, Checker
from blender_addon.job import Job, Step
from omnimotion_core.doctor import examine

DEVICES = [{"name": "cuda:0", "description": "GPU", "memory_gb": 8}, {"name": "cpu", "description": "x"}]
REPORT = {"version": installation.VERSION, "ok": True, "advice": [], "devices": DEVICES}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, with a space and letters beyond ASCII."""
    folder = tmp_path / "benutzer ä 東"
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    monkeypatch.setenv("LOCALAPPDATA", str(folder))
    monkeypatch.setattr(Path, "home", lambda: folder)
    return installation.home()


def wheel(folder: Path, version: str = installation.VERSION, works: bool = True) -> Path:
    """A wheel that is called like the core and answers like its doctor."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"omnimotion_core-{version}-py3-none-any.whl"
    report = json.dumps({**REPORT, "version": version})
    info = f"omnimotion_core-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("omnimotion_core/__init__.py", "")
        archive.writestr("omnimotion_core/__main__.py", f"print({report!r})" if works else "raise OSError('no torch')")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: omnimotion-core\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def install(source: Path | str, build: str = "CUDA") -> Job:
    command = installation.install_command(sys.executable, str(source), build, offline=True)
    return Job("Installation", [Step(command, {**clean_environment(keep_pip=True), "PIP_NO_INDEX": "1"})])


@pytest.mark.slow
def test_the_core_is_installed_checked_and_repaired(home: Path, tmp_path: Path) -> None:
    environment = installation.own_environment()
    python = installation.chosen_python("")
    assert Path(python).is_relative_to(environment)
    assert installation.check(python).kind == MISSING
    assert not installation.is_installed(environment)

    job = install(wheel(tmp_path / "räder mit raum", "0.0.1"))
    assert isinstance(job.run(0.05), events.Finished), (job.message(), job.log)
    assert any("omnimotion" in line for line in job.log)
    assert installation.is_installed(environment)
    state = installation.check(python)
    assert (state.kind, state.version) == (WRONG_VERSION, "0.0.1")

    job = install(wheel(tmp_path / "räder mit raum").parent)  # a folder of wheels; the newest counts
    assert isinstance(job.run(0.05), events.Finished), (job.message(), job.log)
    state = installation.check(python)
    assert (state.kind, state.version) == (READY, installation.VERSION)
    assert state.devices[0] == "cuda:0 (GPU)"

    job = install(wheel(tmp_path / "broken", works=False))
    assert isinstance(job.run(0.05), events.Failed)
    assert "the core does not work" in job.message()
    assert not installation.is_installed(environment)
    assert installation.check(python).kind == BROKEN
    assert "no torch" in installation.check(python).text


def test_a_cancelled_installation_leaves_nothing_half_made(home: Path, tmp_path: Path) -> None:
    job = install(wheel(tmp_path))
    while job.status.text == "Starting the core":
        job.poll()
        time.sleep(0.01)
    job.cancel()
    assert isinstance(job.run(0.02), events.Cancelled)
    for _ in range(100):
        if not installation.own_environment().exists():
            break
        time.sleep(0.05)
    assert not installation.own_environment().exists()


def test_what_is_not_ours_is_not_deleted(home: Path, tmp_path: Path) -> None:
    environment = installation.own_environment()
    environment.mkdir(parents=True)
    (environment / "thesis.txt").write_text("all of it")
    job = install(wheel(tmp_path))
    assert isinstance(job.run(0.02), events.Failed)
    assert "holds something else" in job.message()
    assert (environment / "thesis.txt").read_text() == "all of it"


def test_a_folder_without_the_core_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    job = install(tmp_path / "empty")
    assert isinstance(job.run(0.02), events.Failed)
    assert "neither the core's source nor a wheel" in job.message()


def test_a_base_python_is_found_and_another_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.find_base_python(sys.executable) == sys.executable
    assert installation.find_base_python() == sys.executable
    with pytest.raises(LookupError, match=r"is no Python 3\.11 to 3\.13"):
        installation.find_base_python(str(tmp_path / "python"))
    monkeypatch.setattr(installation, "PYTHONS", ((3, 98), (3, 99)))
    with pytest.raises(LookupError, match="no Python"):
        installation.find_base_python()


def test_builds_of_pytorch_come_from_where_they_are() -> None:
    assert installation.torch_index("CUDA", "linux") == ""
    assert installation.torch_index("CPU", "win32") == ""
    assert installation.torch_index("CPU", "darwin") == installation.torch_index("CUDA", "darwin") == ""
    assert installation.torch_index("CPU", "linux").endswith("/cpu")
    assert "/cu" in installation.torch_index("CUDA", "win32")
    command = installation.install_command("python", "", "CPU", "https://mirror/simple")
    assert command[command.index("--torch-index") + 1] == "https://mirror/simple"
    offline = installation.install_command("python", "/wheels", "CPU", "https://mirror", offline=True)
    assert "--torch-index" not in offline
    assert f"omnimotion-core=={installation.VERSION.rsplit('.', 1)[0]}.*" in command


def test_the_real_doctor_is_understood() -> None:
    state = installation.read_report("python", examine().to_json())
    assert (state.kind, state.version) == (READY, installation.VERSION)
    assert state.devices


@pytest.mark.parametrize(
    ("report", "log", "kind", "words"),
    [
        ("", "x: No module named omnimotion_core", MISSING, "does not have the core"),
        ("", "ImportError: DLL load failed", BROKEN, "DLL load failed"),
        ("{}", "", BROKEN, "it says nothing"),
        (json.dumps({**REPORT, "version": "9.9.9"}), "", WRONG_VERSION, "wants 0.1"),
        (json.dumps({**REPORT, "ok": False}), "", BROKEN, "repair"),
        (json.dumps({**REPORT, "advice": [{"problem": "no av", "remedy": "get it", "needed": True}]}), "", BROKEN,
         "no av; get it"),
    ],
)  # fmt: skip
def test_every_answer_has_a_plain_state(report: str, log: str, kind: str, words: str) -> None:
    state = installation.read_report("python", report, log)
    assert (state.kind, words in state.text) == (kind, True), state


def test_a_check_is_remembered_over_restarts_until_the_core_changes(tmp_path: Path) -> None:
    checker = Checker()
    assert checker.known(sys.executable) is None
    checker.start(sys.executable)
    checker.wait()
    state = checker.known(sys.executable)
    assert state is not None
    assert state.kind == READY
    again = Checker()
    assert again.known(sys.executable) == state
    assert again.known(os.devnull) is None
    again.forget()
    assert Checker().known(sys.executable) is None
