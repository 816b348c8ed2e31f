"""Who may import whom, executed over the source.

    cli → commands → batch → api → pipeline → stages → products → results → export, evaluation → trajectories
        → optimization
        → flow, model → video → run … → config, coordinates … → errors, events

Each room imports only rooms further right, so there are no cycles between rooms. ``flow`` and ``model`` stand side by
side and do not know each other; so do ``export`` and ``evaluation``.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = "omnimotion_core"

LAYERS = (  # lowest first; rooms of one layer do not import each other
    {"errors", "events"},
    {"config", "coordinates", "files", "points", "devices", "compilation"},
    {"run", "terminal", "doctor", "addon"},
    {"video"},
    {"flow", "model"},
    {"optimization"},
    {"trajectories"},
    {"export", "evaluation"},
    {"results", "publishing"},
    {"products", "comparison"},
    {"stages"},
    {"pipeline"},
    {"api", "demo", "bench"},
    {"batch"},  # calls the command line, and reads jobs with what the command line reads settings with
    {"commands"},
    {"cli"},
    {"__main__"},
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}

# Foreign packages and where they enter; doctor looks at everything that is installed.
ENTRANCES = {
    "OpenEXR": {"export.exr"},
    "OpenImageIO": {"video"},
    "fileseq": {"video"},
    "av": {"video", "export.preview", "evaluation.footage"},  # the last two write movies
    "safetensors": {"model", "optimization"},
    "filelock": {"run", "batch.gpus", "publishing"},
    "numba": {"compilation"},
    "pyblish": {"publishing.runner", "publishing.actions"},
    "psutil": {"devices"},
    "rich": {"terminal", "batch.views"},
}
NUMPY_ALONE = ("coordinates", "trajectories.tracks", "export.markers", "export.track_text")  # what plugin/ uses
PUBLISHING = ("facts", "sequences", "instances", "problems", "staging", "versions", "repair", "actions")
WITHOUT_TORCH = tuple(f"publishing.{name}" for name in PUBLISHING)  # what plugin/ uses of the core beside those
BLENDER = {"bpy", "bpy_extras", "mathutils", "gpu", "gpu_extras", "blf", "numpy"}
WITHOUT_BPY = tuple(f"blender_addon.{name}" for name in (
    "asking", "choosing", "core_process", "events", "installation", "installer", "job", "matte", "plane_motion", "steps"
))  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import statement's target."""

    target: str  # absolute, or with leading dots where a package of unknown name is left
    line: int
    lazy: bool  # inside a function
    type_only: bool  # under TYPE_CHECKING


def imports_of(source: str, module: str, known: Mapping[str, str], is_package: bool = False) -> Iterator[Import]:
    """The imports of ``source``, which is ``module``; ``from a import b`` is a.b where that is one of ``known``."""

    def walk(node: ast.AST, lazy: bool, type_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            in_function = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                for name in child.names:
                    yield Import(name.name, child.lineno, lazy, type_only)
            elif isinstance(child, ast.ImportFrom):
                base = _absolute(child, module, is_package)
                for name in child.names:
                    inner = f"{base}.{name.name}"
                    yield Import(inner if inner in known else base, child.lineno, lazy, type_only)
            elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                for inner_node in child.body:
                    yield from walk(ast.Module([inner_node], []), in_function, True)
                for inner_node in child.orelse:
                    yield from walk(ast.Module([inner_node], []), in_function, type_only)
            else:
                yield from walk(child, in_function, type_only)

    yield from walk(ast.parse(source), False, False)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def modules_of(package: str) -> dict[str, Path]:
    """Every module of a folder of the checkout by its dotted name."""
    paths = sorted((ROOT / package).rglob("*.py"))
    named = {path: path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in paths}
    return {name.removesuffix(".__init__"): path for path, name in named.items()}


def all_imports(package: str) -> dict[str, list[Import]]:
    """The imports of every module of ``package``."""
    modules = modules_of(package)
    known = dict.fromkeys([*modules, *modules_of(CORE)], "")
    return {
        name: list(imports_of(path.read_text("utf-8"), name, known, path.name == "__init__.py"))
        for name, path in modules.items()
    }


# --- the rules: each gives what breaks it, so that it can be tried on code that does


def against_layers(imports: Mapping[str, list[Import]]) -> list[str]:
    """Imports of a room that is not further down; the root, which is lazy, may be imported by all."""
    found = []
    for module, entries in imports.items():
        room = _room(module)
        for entry in entries:
            target = _room(entry.target)
            if room is None or target is None or room == target or not entry.target.startswith(f"{CORE}."):
                continue
            if RANK[target] >= RANK[room]:
                found.append(f"{module}:{entry.line} imports {entry.target}, which is not below it")
    return found


def cycles(imports: Mapping[str, list[Import]]) -> list[str]:
    """Modules that import themselves by way of others; imports for types alone do not run."""
    graph = {
        module: {entry.target for entry in entries if not entry.type_only and entry.target in imports}
        for module, entries in imports.items()
    }
    while leaves := [module for module, targets in graph.items() if not targets]:
        for leaf in leaves:
            del graph[leaf]
        graph = {module: targets.difference(leaves) for module, targets in graph.items()}
    return sorted(graph)


def against_entrances(imports: Mapping[str, list[Import]]) -> list[str]:
    """Foreign packages imported elsewhere than where they enter."""
    found = []
    for module, entries in imports.items():
        place = module.removeprefix(f"{CORE}.")
        for entry in entries:
            allowed = ENTRANCES.get(entry.target.split(".")[0])
            inside = allowed is None or any(place == door or place.startswith(f"{door}.") for door in allowed)
            if not inside and place != "doctor":
                found.append(f"{module}:{entry.line} imports {entry.target}, which enters in {allowed}")
    return found


def against_addon(imports: Mapping[str, list[Import]]) -> list[str]:
    """Imports of the add-on beyond the standard library and Blender; its own name differs from host to host."""
    found = []
    for module, entries in imports.items():
        for entry in entries:
            top = entry.target.split(".")[0]
            own = top == "blender_addon"
            foreign = top not in sys.stdlib_module_names and top not in BLENDER and not own
            if foreign or (top in BLENDER and module in WITHOUT_BPY):
                found.append(f"{module}:{entry.line} imports {entry.target}")
    return found


def against_plugin(source: str, module: str, known: Mapping[str, str]) -> list[str]:
    """What a plug-in, which pyblish executes outside of any package, may not do."""
    found = []
    free = {"errors", "events", "files", "config", *NUMPY_ALONE, *WITHOUT_TORCH}
    for entry in imports_of(source, module, known):
        top, _, rest = entry.target.partition(".")
        allowed = top in sys.stdlib_module_names or top == "pyblish" or (top == CORE and rest in free)
        if not allowed or top == "dataclasses":
            found.append(f"{module}:{entry.line} imports {entry.target}")
    return found + [f"{module}:{node.lineno} has a relative import" for node in _relative(source)]


def _relative(source: str) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level]


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


# --- the rules on the project


@pytest.fixture(scope="module")
def core() -> dict[str, list[Import]]:
    return all_imports(CORE)


def test_every_room_has_its_layer(core: dict[str, list[Import]]) -> None:
    assert {room for room in map(_room, core) if room} - set(RANK) == set()


def test_rooms_import_only_rooms_below(core: dict[str, list[Import]]) -> None:
    assert against_layers(core) == []


def test_no_module_imports_itself_by_way_of_others(core: dict[str, list[Import]]) -> None:
    assert cycles(core) == []


def test_foreign_packages_enter_in_one_place(core: dict[str, list[Import]]) -> None:
    assert against_entrances(core) == []


def test_the_lowest_rooms_know_almost_nothing(core: dict[str, list[Import]]) -> None:
    for module, allowed in {"errors": set(), "events": set(), "config": {"errors"}, "coordinates": {"errors"}}.items():
        ours = {entry.target for entry in core[f"{CORE}.{module}"] if entry.target.startswith(CORE)}
        assert ours <= {f"{CORE}.{name}" for name in allowed}


def test_the_root_and_the_command_line_load_the_work_only_when_asked(core: dict[str, list[Import]]) -> None:
    light = {f"{CORE}.{name}" for name in ("errors", "events", "config", "terminal", "cli")} | {CORE}
    for module in (CORE, f"{CORE}.cli", f"{CORE}.__main__"):
        eager = {entry.target for entry in core[module] if not entry.lazy and not entry.type_only}
        assert {target for target in eager if target.startswith(CORE)} <= light


def test_the_addon_needs_the_standard_library_and_blender_alone() -> None:
    modules = all_imports("blender_addon")
    assert modules
    assert against_addon(modules) == []
    for name, path in modules_of("blender_addon").items():
        source = path.read_text("utf-8")
        ast.parse(source, feature_version=(3, 10))  # the Python of Blender 3.4
        entries = imports_of(source, name, {}, path.name == "__init__.py")
        ours = {entry.line for entry in entries if entry.target.startswith("blender_addon")}
        assert ours == {node.lineno for node in _relative(source)}, f"{name} imports the add-on by a name of its own"


def test_plugins_stand_alone() -> None:
    known = dict.fromkeys(modules_of(CORE), "")
    for name, path in modules_of("plugin").items():
        assert against_plugin(path.read_text("utf-8"), name, known) == []


def loaded_by(code: str) -> set[str]:
    """The foreign packages that a new Python has loaded after ``code``."""
    after = "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    command = [sys.executable, "-c", f"import sys; before = set(sys.modules)\n{code}\n{after}"]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    return set(child.stdout.splitlines()[-1].split()) - sys.stdlib_module_names - {CORE}


@pytest.mark.parametrize("module", NUMPY_ALONE)
def test_what_plugins_use_needs_numpy_alone(module: str) -> None:
    assert loaded_by(f"import {CORE}.{module}") <= {"numpy"}


def test_publishing_needs_no_torch() -> None:
    code = "\n".join(f"import {CORE}.{name}" for name in (*WITHOUT_TORCH, "publishing.runner"))
    assert "torch" not in loaded_by(code)


def test_importing_the_core_loads_nothing_foreign() -> None:
    assert loaded_by(f"import {CORE}") == set()


def test_help_loads_nothing_foreign() -> None:
    code = f"from {CORE}.cli import main\ntry: main(['--help'])\nexcept SystemExit as end: assert not end.code"
    assert loaded_by(code) == set()


# --- the rules on code that breaks them


def parse(**sources: str) -> dict[str, list[Import]]:
    named = {f"{CORE}.{name.replace('__', '.')}": source for name, source in sources.items()}
    known = dict.fromkeys([*named, *modules_of(CORE)], "")
    return {name: list(imports_of(source, name, known)) for name, source in named.items()}


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("flow__pairs", "from omnimotion_core.model import networks"),
        ("model__networks", "import omnimotion_core.flow.pairs"),
        ("video__movie", "def late():\n    from omnimotion_core.pipeline import track"),
        ("video__movie", "from ..trajectories import tracks"),
        ("errors", "import omnimotion_core.events"),
        ("trajectories__query", "import typing\nif typing.TYPE_CHECKING:\n    import omnimotion_core.export.exr"),
    ],
)  # fmt: skip
def test_an_import_upwards_or_sideways_is_seen(module: str, statement: str) -> None:
    assert len(against_layers(parse(**{module: statement}))) == 1


def test_imports_downwards_and_within_a_room_are_fine() -> None:
    statements = "import os", "from omnimotion_core import __version__", "from omnimotion_core.errors import FlowError"
    assert against_layers(parse(flow__pairs="\n".join([*statements, "from . import consistency"]))) == []


def test_a_cycle_is_seen_unless_it_is_for_types_alone() -> None:
    there, back = "from omnimotion_core.flow import b", "from omnimotion_core.flow import a"
    assert cycles(parse(flow__a=there, flow__b=back)) == [f"{CORE}.flow.a", f"{CORE}.flow.b"]
    typed = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {back}"
    assert cycles(parse(flow__a=there, flow__b=typed)) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [("export__tracks", "import OpenEXR"), ("flow__imported", "from OpenImageIO import ImageInput"),
     ("pipeline", "def f():\n    import av"), ("export__exrs", "import OpenEXR as exr")],
)  # fmt: skip
def test_a_second_entrance_is_seen(module: str, statement: str) -> None:
    assert len(against_entrances(parse(**{module: statement}))) == 1


@pytest.mark.parametrize(
    ("module", "statement"),
    [("panel", "import torch"), ("panel", "from omnimotion_core import events"), ("events", "import bpy")],
)
def test_the_addon_reaching_out_is_seen(module: str, statement: str) -> None:
    name = f"blender_addon.{module}"
    assert against_addon({name: list(imports_of(statement, name, {}))})
    assert not against_addon({name: list(imports_of("import json\nfrom . import markers", name, {}))})


@pytest.mark.parametrize(
    "statement", ["import torch", "from . import shared", "from omnimotion_core import pipeline", "import dataclasses"]
)
def test_a_plugin_reaching_out_is_seen(statement: str) -> None:
    known = dict.fromkeys(modules_of(CORE), "") | {f"{CORE}.pipeline": ""}
    assert against_plugin(statement, "plugin.collect_run", known)
    assert not against_plugin("import json\nimport pyblish.api\nfrom omnimotion_core.coordinates import inside",
                              "plugin.collect_run", known)  # fmt: skip
