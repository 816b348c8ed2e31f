"""What the project says of itself holds: pins, commands, events, licenses."""

import argparse
import dataclasses
import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from omnimotion_core import __version__
from omnimotion_core.cli import build_parser
from omnimotion_core.events import Event

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
README = (ROOT / "README.md").read_text("utf-8")


def pins() -> dict[str, Version]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()]
    parts = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): Version(version) for name, version in parts}


def section(text: str, title: str) -> str:
    return re.split(r"^## ", text.split(f"## {title}\n")[1], flags=re.MULTILINE)[0]


def test_every_requirement_is_pinned_to_a_version_that_meets_it() -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_pins_fit_every_build_of_a_package() -> None:
    assert [name for name, version in pins().items() if version.local] == []


def test_run_and_test_are_one_command_each() -> None:
    for title in ("Run", "Test"):
        blocks = re.findall(r"```sh\n(.*?)```", section(README, title), re.DOTALL)
        assert len(blocks[0].splitlines()) == 1, title


def test_ci_runs_the_readmes_own_test_command(tmp_path: Path) -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text(script, "utf-8")
    sections = (("Run", "false"), ("Test", "echo told > ran"), ("More", "false"))
    text = "\n\n".join(f"## {title}\n\n```sh\n{command}\n```" for title, command in sections)
    (tmp_path / "README.md").write_text(text, "utf-8")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho \"$@\" >> checks\n")
    python.chmod(0o755)
    subprocess.run(["bash", ".ci/run"], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    assert (tmp_path / "ran").read_text() == "told\n"
    assert (tmp_path / "checks").read_text().splitlines() == ["-m ruff check .", "-m mypy"]


def test_the_readme_tells_every_command_and_no_other() -> None:
    actions = build_parser()._actions
    commands = next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices
    told = re.findall(r"^\| `([a-z]+)", section(README, "Commands"), re.MULTILINE)
    assert sorted(told) == sorted(commands)


def test_options_that_the_readme_tells_exist() -> None:
    actions = build_parser()._actions
    commands = next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices
    for row in re.findall(r"^\| `([a-z]+[^`]*)`", section(README, "Commands"), re.MULTILINE):
        name = row.split()[0]
        known = {option for action in commands[name]._actions for option in action.option_strings}
        assert set(re.findall(r"--[a-z-]+", row)) <= known, row


def test_the_formats_page_tells_every_event_with_its_fields() -> None:
    page = section((ROOT / "docs" / "formats.md").read_text("utf-8"), "Events")
    rows = dict(re.findall(r"^\| `([a-z]+)` \| (.*) \|$", page, re.MULTILINE))
    assert sorted(rows) == sorted(event.name for event in Event.__subclasses__())
    for event in Event.__subclasses__():
        for field in dataclasses.fields(event):
            assert f"`{field.name}`" in rows[event.name], event.name


def test_each_license_is_whole() -> None:
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text("utf-8")
    assert "GNU GENERAL PUBLIC LICENSE\n                       Version 3" in (
        ROOT / "blender_addon" / "LICENSE"
    ).read_text("utf-8")


def test_the_version_is_a_release_number() -> None:
    assert str(Version(__version__)) == __version__
