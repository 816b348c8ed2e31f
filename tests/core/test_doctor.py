"""The doctor tells the truth about this machine, and about machines where something is missing."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from omnimotion_core.doctor import DISTRIBUTION, MODULES, examine

ROOT = Path(__file__).resolve().parents[2]


def examine_elsewhere(before: str = "", path: Path | None = None) -> dict[str, Any]:
    """The report of a new Python that ran ``before`` first and finds modules in ``path`` before all others."""
    paths = [str(path)] if path else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)])}
    code = f"import sys\n{before}\nfrom omnimotion_core.doctor import examine\nprint(examine().to_json())"
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    report: dict[str, Any] = json.loads(child.stdout)
    return report


def needed(report: dict[str, Any]) -> list[str]:
    return [f"{advice['problem']}; {advice['remedy']}" for advice in report["advice"] if advice["needed"]]


def test_every_dependency_is_examined_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {re.split(r"[<>=]", line)[0] for line in project["dependencies"]} == set(MODULES)
    assert project["name"] == DISTRIBUTION


def test_this_machine_is_told_as_it_is(tmp_path: Path) -> None:
    report = examine(tmp_path)
    assert report.ok
    assert report.python == ".".join(map(str, sys.version_info[:3]))
    assert report.memory_gb == pytest.approx(psutil.virtual_memory().total / 1024**3)
    assert 0 < (report.memory_free_gb or 0) <= (report.memory_gb or 0)
    status = os.statvfs(tmp_path) if hasattr(os, "statvfs") else None
    if status is not None:
        assert report.disk_free_gb == pytest.approx(status.f_bavail * status.f_frsize / 1024**3, rel=0.05, abs=0.5)
    assert 1 <= report.cores <= (os.cpu_count() or 1)
    assert {package.name: package.version for package in report.packages}["torch"] == torch.__version__
    assert report.devices[-1].name == "cpu"
    assert len([device for device in report.devices if device.name.startswith("cuda")]) == torch.cuda.device_count()


def test_the_codecs_of_the_pyav_wheel_are_found() -> None:
    report = examine()
    assert all(report.decoders.values())
    assert all(report.encoders.values())
    assert all(report.formats.values())


def test_the_two_forms_tell_the_same() -> None:
    report = examine()
    values, text = json.loads(report.to_json()), report.to_text()
    assert values["ok"] is True
    for package in values["packages"]:
        assert f"{package['name']} {package['version']}" in text
    assert text.endswith("All that is needed is here.")


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_package_is_told_with_its_remedy(name: str) -> None:
    report = examine_elsewhere(f"sys.modules[{MODULES[name]!r}] = sys.modules['torch'] = None")  # torch takes a second
    assert not report["ok"]
    assert {package["name"] for package in report["packages"] if package["version"] is None} >= {name, "torch"}
    assert any(re.fullmatch(rf"{name} is missing; run: pip install '{name}[^']*'", line) for line in needed(report))


def test_with_no_package_at_all_there_still_is_a_report() -> None:
    report = examine_elsewhere("\n".join(f"sys.modules[{module!r}] = None" for module in MODULES.values()))
    assert len(needed(report)) == len(MODULES)
    assert report["memory_gb"] is None
    assert report["devices"] == []
    assert not any(report["decoders"].values())
    assert not any(report["formats"].values())
    assert report["cores"] >= 1


def test_a_package_that_breaks_while_loading_is_told_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "av.py").write_text("raise OSError('libx264.so.165: no such file')")
    report = examine_elsewhere(path=tmp_path)
    assert not report["ok"]
    assert len(needed(report)) == 1
    assert needed(report)[0].startswith("av cannot be loaded (OSError: libx264.so.165: no such file); run: pip install")


def test_what_a_package_itself_lacks_is_told(tmp_path: Path) -> None:
    (tmp_path / "fileseq.py").write_text("import a_module_that_is_nowhere")
    assert needed(examine_elsewhere(path=tmp_path))[0].startswith("a_module_that_is_nowhere, which fileseq needs,")


@pytest.mark.parametrize(
    ("version", "too_old"),
    [("2.9.1", True), ("2.10", False), ("2.10.0+cpu", False), ("2.9.1+cu13", True), ("2.10rc1", False), ("10", False)],
)  # fmt: skip
def test_a_package_that_is_too_old_is_told(tmp_path: Path, version: str, too_old: bool) -> None:
    asked = "Requires-Dist: openexr>=2.10\nRequires-Dist: openexr>=9; extra == 'future'"
    for name, facts in {"OpenEXR": f"Version: {version}", DISTRIBUTION: f"Version: 0\n{asked}"}.items():
        folder = tmp_path / f"{name.replace('-', '_')}-0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\n{facts}\n")
    (tmp_path / "OpenEXR.py").touch()
    expected = [f"OpenEXR {version} is too old, OpenEXR>=2.10 is needed; run: pip install --upgrade 'OpenEXR>=2.10'"]
    report = examine_elsewhere("sys.modules['torch'] = None", tmp_path)  # importing torch takes a second
    assert [line for line in needed(report) if "torch" not in line] == (expected if too_old else [])
