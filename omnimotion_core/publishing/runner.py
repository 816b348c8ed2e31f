"""Our own runner of the plug-ins, strict where pyblish is not.

Pyblish goes on after a failed collector or extractor, skips a plug-in that cannot be loaded, and leaves it to the
caller to look at the results. Here a failed collector, extractor or integrator ends the publish at once; validators
all speak, and one error among them ends it; a file of ``plugin/`` that gives no plug-in is an error before anything
runs.
"""

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyblish.api
import pyblish.logic
import pyblish.plugin
import pyblish.util

from omnimotion_core.errors import OmniMotionError, PublishError
from omnimotion_core.events import Reporter
from omnimotion_core.publishing.facts import read_facts
from omnimotion_core.publishing.staging import staging_of

HOST = "shell"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a publish ended."""

    version: Path | None  # the folder that was published; None where nothing was
    errors: tuple[str, ...]  # a line each
    num_results: int


def plugin_folder() -> Path:
    """Where the plug-ins are: in the installed package, or beside it in a checkout.

    Raises:
        PublishError: they are in neither.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_plugin", package.parent / "plugin"):
        if (folder / "collect_run.py").is_file():
            return folder
    raise PublishError(f"{package} comes without its publish plug-ins", "install omnimotion-core again")


def load_plugins(folders: Sequence[Path]) -> list[Any]:
    """The plug-ins of all ``*.py`` in the folders, in their order.

    Raises:
        PublishError: a folder is not there, a file gives no plug-in, or two plug-ins share a name.
    """
    for folder in folders:
        if not folder.is_dir():
            raise PublishError(f"the plug-in folder {folder} is not there", "correct PYBLISHPLUGINPATH")
    with _telling() as told:
        found = list(pyblish.api.discover(paths=[str(folder) for folder in folders]))
    files = {os.path.normpath(path) for folder in folders for path in folder.glob("[!_]*.py")}
    lost = sorted(files - {os.path.normpath(plugin.__module__) for plugin in found})
    if lost:
        other = "it holds no plug-in, or one whose name is taken"
        why = next((text for text in told if f'"{Path(lost[0]).stem}"' in text), other)
        raise PublishError(f"the plug-in {lost[0]} cannot be loaded ({why})",
                           "mend it; nothing is published without it")
    return found


def run_plugins(plugins: Sequence[Any], context: Any) -> Iterator[dict[str, Any]]:
    """Process the plug-ins as pyblish does, and stop after an error; yields each result.

    Within the validators all are processed; of collectors, extractors and integrators none after one that failed.
    """
    failed = False
    processing = pyblish.util.publish_iter(context, plugins)
    while True:
        with contextlib.redirect_stdout(io.StringIO()):  # pyblish prints each error
            result = next(processing, None)
        if result is None:
            return
        failed = failed or result["error"] is not None
        yield result
        if failed and not _is_validator(result["plugin"]):
            return


def publish(
    run: Path | str, out: Path | str, *, reporter: Reporter, comment: str = "", env_plugins: bool = False,
    repair: bool = False,
) -> Outcome:  # fmt: skip
    """Publish a run folder as the next version of its clip below ``out``.

    Args:
        reporter: hears the plug-ins' warnings and may cancel the publish.
        comment: kept with the version.
        repair: where validators refuse what they can mend, have it mended, then publish anew.
        env_plugins: take the plug-ins of PYBLISHPLUGINPATH too: pyblish executes whatever it names.
    Raises:
        PublishError: a plug-in cannot be loaded.
        RunError: ``run`` is no run folder whose tracks are finished.
        Cancelled: the user asked to stop; nothing was published.
    """
    read_facts(run)
    folders = [plugin_folder()]
    if env_plugins:
        folders += [Path(path) for path in os.environ.get("PYBLISHPLUGINPATH", "").split(os.pathsep) if path]
    with _clean_pyblish(), _telling():
        plugins = load_plugins(folders)
        reporter.stage("publish")
        facts = {"runFolder": os.path.abspath(run), "publishDir": os.path.abspath(out), "comment": comment}
        outcome, context = _publish(plugins, facts, reporter)
        if outcome.errors and repair and _mend(context, reporter):
            outcome, _ = _publish(plugins, facts, reporter)
    return outcome


def _publish(plugins: Sequence[Any], facts: Mapping[str, str], reporter: Reporter) -> tuple[Outcome, Any]:
    """One publish, and the context that it leaves."""
    context = pyblish.api.Context()
    context.data.update(facts)
    errors = []
    try:
        for result in run_plugins(plugins, context):
            for line in _warnings_of(result):
                reporter.warning(line)
            if result["error"] is not None:
                errors.append(_line(result))
            if "publishedVersion" not in context.data:  # what is published is not taken back
                reporter.check()
    finally:
        staging = staging_of(context.data)
        if staging is not None:
            staging.discard()  # what became a version is no staging any more
    published = context.data.get("publishedVersion")
    outcome = Outcome(version=Path(published) if published else None, errors=tuple(errors),
                      num_results=len(context.data.get("results", [])))  # fmt: skip
    return outcome, context


def _mend(context: Any, reporter: Reporter) -> bool:
    """Run the repair of each validator that failed; whether there was one, and all of them worked."""
    failed = {result["plugin"].__name__: result["plugin"] for result in context.data["results"] if result["error"]}
    if not all(plugin.actions for plugin in failed.values()):
        return False
    mended: set[Path] = set()
    context.data["omnimotionMended"] = mended
    for plugin in failed.values():
        for action in plugin.actions:
            reporter.note(f"{plugin.label}: {action.label.lower()}")
            error = pyblish.plugin.process(plugin, context, None, action.id)["error"]
            if error is not None:
                reporter.warning(" ".join(str(error).split()))
                return False
    return True


def _is_validator(plugin: Any) -> bool:
    return abs(plugin.order - pyblish.api.ValidatorOrder) < 0.5


def _line(result: dict[str, Any]) -> str:
    """What went wrong, in one line: the plug-in, the product, the problem and the remedy."""
    error = result["error"]
    told = str(error) if isinstance(error, OmniMotionError) else f"{type(error).__name__}: {error}"
    return _who(result) + " ".join(told.split())


def _warnings_of(result: dict[str, Any]) -> list[str]:
    return [_who(result) + " ".join(record.getMessage().split()) for record in result["records"]
            if record.levelno == logging.WARNING and record.name.startswith("pyblish.")]  # fmt: skip


def _who(result: dict[str, Any]) -> str:
    plugin, instance = result["plugin"], result["instance"]
    name = plugin.label or plugin.__name__
    return f"{name}: " if instance is None else f"{name}, {instance.data.get('productName', instance.name)}: "


@contextlib.contextmanager
def _clean_pyblish() -> Iterator[None]:
    """Pyblish with nothing registered but our host, and afterwards as it was before."""
    api: Any = pyblish.api
    before: list[tuple[Callable[[Any], Any], list[Any]]] = [
        (api.register_plugin, list(api.registered_plugins())),
        (api.register_discovery_filter, list(pyblish.plugin.registered_discovery_filters())),
    ]
    test, knew_host = pyblish.logic.registered_test(), HOST in api.registered_hosts()
    api.deregister_all_plugins()
    api.deregister_all_discovery_filters()
    pyblish.logic.deregister_test()
    api.register_host(HOST)
    try:
        yield
    finally:
        if not knew_host:
            api.deregister_host(HOST)
        pyblish.logic.register_test(test)
        for register, values in before:
            for value in values:
                register(value)


@contextlib.contextmanager
def _telling() -> Iterator[list[str]]:
    """What is logged as an error, in place of lines on standard error."""
    told: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                told.append(record.getMessage())

    handler = Keep()
    logging.getLogger().addHandler(handler)
    try:
        yield told
    finally:
        logging.getLogger().removeHandler(handler)
