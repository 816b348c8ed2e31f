"""Our runner is strict where pyblish is not; and what pyblish does by itself, which is why."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyblish.api
import pyblish.logic
import pyblish.util
import pytest

from omnimotion_core import cli
from omnimotion_core.errors import PublishError
from omnimotion_core.events import Cancelled, Reporter
from omnimotion_core.publishing import runner

from .conftest import MakeRun, PublishBare, errors_of

PLUGIN = """
import pyblish.api
class {name}(pyblish.api.ContextPlugin):
    order = {order}
    def process(self, context):
        context.data.setdefault("ran", []).append("{name}")
        {body}
"""


def write_plugins(folder: Path, **bodies: str) -> Path:
    """Plug-ins ``collect_a="pass"`` and so on, by whose first word their stage is known."""
    folder.mkdir(exist_ok=True)
    orders = {"collect": 0, "validate": 1, "extract": 2, "integrate": 3}
    for number, (name, body) in enumerate(bodies.items()):
        order = orders[name.partition("_")[0]] + number / 100
        (folder / f"{name}.py").write_text(PLUGIN.format(name=name.title().replace("_", ""), order=order, body=body))
    return folder


def ran(folder: Path) -> list[str]:
    context = pyblish.api.Context()
    list(runner.run_plugins(runner.load_plugins([folder]), context))
    return list(context.data["ran"])


FAIL = "raise ValueError('no')"
ALL = dict.fromkeys(
    ("collect_a", "collect_b", "validate_a", "validate_b", "extract_a", "extract_b", "integrate_a"), "pass"
)


@pytest.mark.parametrize(
    ("failing", "last"),
    [("collect_a", "CollectA"), ("validate_a", "ValidateB"), ("extract_a", "ExtractA"), ("integrate_a", "IntegrateA")],
)
def test_a_failure_stops_all_that_comes_after_its_stage(tmp_path: Path, failing: str, last: str) -> None:
    order = [name.title().replace("_", "") for name in ALL]
    assert ran(write_plugins(tmp_path / "all", **{**ALL, failing: FAIL})) == order[: order.index(last) + 1]


def test_without_failures_all_run(tmp_path: Path) -> None:
    assert len(ran(write_plugins(tmp_path / "all", **ALL))) == len(ALL)


def test_pyblish_itself_goes_on_after_collectors_and_extractors(tmp_path: Path) -> None:
    for failing in ("collect_a", "extract_a"):
        folder = write_plugins(tmp_path / failing, **{**ALL, failing: FAIL})
        context = pyblish.util.publish(plugins=pyblish.api.discover(paths=[str(folder)]))
        assert context.data["ran"][-1] == "IntegrateA", "our integrator has to look at the results itself"


def test_every_file_of_the_folder_is_discovered() -> None:
    folder = runner.plugin_folder()
    files = {path.name for path in folder.glob("*.py")}
    plugins = pyblish.api.discover(paths=[str(folder)])
    assert {Path(plugin.__module__).name for plugin in plugins} == files
    assert len(plugins) == len(files), "a file holds one plug-in"
    assert {path.name.split("_")[0] for path in folder.glob("*.py")} == {"collect", "validate", "extract", "integrate"}
    for plugin in plugins:
        assert plugin.__doc__
        assert plugin.label
        assert plugin.hosts == ["*"], "where its host is not registered, a plug-in vanishes without a word"
        stage = Path(plugin.__module__).name.split("_")[0]
        assert round(plugin.order) == ["collect", "validate", "extract", "integrate"].index(stage)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("def broken(", "never closed"),
        ("x = 1", "holds no plug-in"),
        ("from . import shared", "__name__"),
        ("from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    b: int = 1",
         "__dict__"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_loaded_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    folder = write_plugins(tmp_path / "all", collect_a="pass")
    (folder / "validate_b.py").write_text(text)
    with pytest.raises(PublishError, match=r"validate_b\.py cannot be loaded") as caught:
        runner.load_plugins([folder])
    assert words in str(caught.value)


def test_a_folder_of_plugins_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="absent is not there"):
        runner.load_plugins([runner.plugin_folder(), tmp_path / "absent"])


def test_a_folder_may_be_named_in_any_way(tmp_path: Path) -> None:
    folder = write_plugins(tmp_path / "all", **ALL)
    assert len(runner.load_plugins([folder / ".." / "all"])) == len(ALL)


def test_two_plugins_of_one_name_are_an_error(tmp_path: Path) -> None:
    folder = write_plugins(tmp_path / "all", validate_a="pass")
    (folder / "validate_b.py").write_text((folder / "validate_a.py").read_text())
    with pytest.raises(PublishError, match="whose name is taken"):
        runner.load_plugins([folder])


def test_a_broken_plugin_ends_the_command_before_anything_runs(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    (write_plugins(tmp_path / "studio") / "validate_studio.py").write_text("import nothing_of_this_name")
    monkeypatch.setenv("PYBLISHPLUGINPATH", str(tmp_path / "studio"))
    argv = ["publish", str(run.path), "--out", str(tmp_path / "out")]
    assert cli.main([*argv, "--allow-env-plugins"]) == cli.MENDABLE
    assert "validate_studio.py cannot be loaded" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(argv) == cli.DONE, "without the option, nobody's plug-ins but ours are executed"


def test_a_studio_s_validator_counts_where_it_is_allowed(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    monkeypatch.setenv("PYBLISHPLUGINPATH", str(write_plugins(tmp_path / "studio", validate_studio=FAIL)))
    assert cli.main(["publish", str(run.path), "--out", str(tmp_path / "out"), "--allow-env-plugins"]) == 1
    assert "omnimotion: ValidateStudio: ValueError: no\n" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def registered() -> tuple[Any, ...]:
    api = pyblish.api
    names = [plugin.__name__ for plugin in api.registered_plugins()]  # pyblish gives copies of the classes
    return names, list(api.registered_paths()), list(api.registered_hosts())


def test_pyblish_is_left_as_it_was(make_run: MakeRun, host: None, tmp_path: Path) -> None:
    class Mine(pyblish.api.ContextPlugin):  # type: ignore[misc]
        """Of the host."""

        def process(self, context: Any) -> None:
            raise AssertionError("a host's own plug-ins are not run by our runner")

    def own_test(**values: Any) -> str:
        return "never"

    pyblish.api.register_plugin(Mine)
    pyblish.logic.register_test(own_test)
    before = registered()
    try:
        assert runner.publish(make_run().path, tmp_path / "out", reporter=Reporter()).version is not None
        assert pyblish.logic.registered_test() is own_test
        assert registered() == before
    finally:
        pyblish.api.deregister_plugin(Mine)
        pyblish.logic.deregister_test()


def test_a_cancelled_publish_leaves_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    run, asked = make_run(), [0]

    def after_some() -> bool:
        asked[0] += 1
        return (tmp_path / "out").exists()

    with pytest.raises(Cancelled):
        runner.publish(run.path, tmp_path / "out", reporter=Reporter(cancelled=after_some))
    assert asked[0] > 10
    assert not (tmp_path / "out").exists()


def test_what_is_published_is_told_so_though_a_cancel_comes_late(make_run: MakeRun, tmp_path: Path) -> None:
    version = tmp_path / "out" / "shot" / "v001"
    outcome = runner.publish(make_run().path, tmp_path / "out", reporter=Reporter(cancelled=version.exists))
    assert outcome.version == version


def test_a_bare_host_does_not_publish_after_a_failed_extractor(
    make_run: MakeRun, publish_bare: PublishBare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    run = make_run()
    monkeypatch.setattr("omnimotion_core.files.os.replace", fail)
    context = publish_bare(run, publishDir=str(tmp_path / "out"))
    errors = errors_of(context)
    assert "no space is left" in errors["ExtractTracks"]
    assert "is not extracted, since another product could not be" in "".join(errors.values())
    assert "nothing is published" in errors["IntegrateVersion"]
    assert not (tmp_path / "out").exists()


def test_pyblish_s_own_command_publishes_too_and_exits_zero_whatever_happens(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    environment = {
        **os.environ, "PYBLISHPLUGINPATH": str(runner.plugin_folder()), "PYBLISH_HOSTS": "shell",
        "OMNIMOTION_RUN": str(run.path), "OMNIMOTION_PUBLISH_DIR": str(tmp_path / "out"),
    }  # fmt: skip
    command = [sys.executable, "-m", "pyblish", "publish"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "shot" / "v001" / "publish.json").is_file()
    run.markers.write_text("{")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, "pyblish tells failures by its exit code now: the runner may lean on it"
    assert not (tmp_path / "out" / "shot" / "v002").exists()
