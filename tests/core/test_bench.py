"""The benchmark: that it measures, and that its file and its table tell the same. No time is judged."""

import json
import math
import operator
import types
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnimotion_core import cli
from omnimotion_core.bench.cost import match_cost, slope
from omnimotion_core.bench.measure import QUICK
from omnimotion_core.bench.table import COLUMNS, GROWN, format_value
from omnimotion_core.comparison import NAMES, OURS
from omnimotion_core.evaluation import hard_scenes
from omnimotion_core.model import kernels
from omnimotion_core.optimization import compiled

SVG = "{http://www.w3.org/2000/svg}"


class Counted:
    """A number whose arithmetic is counted, an expression that is used twice once until ``forget``."""

    count = 0
    known: dict[Any, "Counted"] = {}  # noqa: RUF012  # shared by all
    __array_ufunc__ = None

    def __init__(self, value: float) -> None:
        self.value = float(value)

    @classmethod
    def of(cls, name: str, function: Callable[..., float], *operands: "Counted | float") -> "Counted":
        key = (name, *operands)
        if key not in cls.known:
            cls.known[key] = cls(function(*map(float, operands)))
            cls.count += 1
        return cls.known[key]

    def __add__(self, other: "Counted | float") -> "Counted":
        return Counted.of("+", operator.add, self, other)

    def __sub__(self, other: "Counted | float") -> "Counted":
        return Counted.of("-", operator.sub, self, other)

    def __mul__(self, other: "Counted | float") -> "Counted":
        return Counted.of("*", operator.mul, self, other)

    def __truediv__(self, other: "Counted | float") -> "Counted":
        return Counted.of("/", operator.truediv, self, other)

    def __radd__(self, other: float) -> "Counted":
        return self + other

    def __neg__(self) -> "Counted":
        return Counted(-self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return self.value

    def __abs__(self) -> "Counted":
        return Counted(abs(self.value))

    def __lt__(self, other: "Counted | float") -> bool:
        return self.value < float(other)

    def __gt__(self, other: "Counted | float") -> bool:
        return self.value > float(other)

    def __le__(self, other: "Counted | float") -> bool:
        return self.value <= float(other)


@pytest.mark.parametrize("num_layers", [3, 8])
def test_the_arithmetic_of_a_match_is_what_the_loop_does(num_layers: int) -> None:
    def transformed_axis(layer: int) -> int:  # a pass over a layer begins
        Counted.known.clear()
        axis: int = kernels.transformed_axis.py_func(layer)
        return axis

    def counted(values: Any) -> Any:
        return np.vectorize(Counted, otypes=[object])(np.asarray(values, np.float64))

    one = {value: Counted(value) for value in (0.0, 0.5, 1.0, 1.5)}
    room: dict[str, Any] = {
        "np": types.SimpleNamespace(empty=lambda shape, kind: np.empty(shape, object), int32=int,
                                    zeros=lambda shape, kind: counted(np.zeros(shape)),
                                    float32=lambda value: one.setdefault(float(value), Counted(value))),
        "math": types.SimpleNamespace(sqrt=lambda value: Counted.of("sqrt", math.sqrt, value)),
        "_ZERO": one[0.0], "_HALF": one[0.5], "_ONE": one[1.0], "_SOFTENING": Counted(0.1), "_MAX_RAW": Counted(1.0),
        "_STEP": Counted(0.2), "_INDEX": int, "_UNSIGNED": int, "_NEXT": 1, "LANES": 1,
    }  # fmt: skip
    for function in (kernels.knot_position, kernels.tile_starts, kernels.corners_at,
                     kernels.layer_axes, kernels.bilinear, kernels.cell_position, kernels.depth_position,
                     compiled._spread, compiled._slopes, compiled._spread_on_tile, compiled._value_and_slopes,
                     compiled._cell_of, compiled._part):  # fmt: skip
        room[function.__name__] = types.FunctionType(function.py_func.__code__, room)
    room["transformed_axis"] = transformed_axis
    room["knot_scale"] = lambda *_: (counted([0.75] * 3), counted([1.5, 1.5, 0.7]))  # once for all matches
    rng = np.random.default_rng(0)
    parameters = [counted(0.05 * rng.normal(size=(num_layers, 2, 2, 4, 4))), counted([[1, 0, 0, 0, 1, 0]] * 2),
                  counted(np.ones((2, 6, 6)))]
    geometry = counted([0, 0, 1]), counted([2, 2, 2]), counted([5.5, 5.5]), Counted(2)
    match = np.array([0]), np.array([1]), counted([[5.2, 6.1]]), counted([[5.9, 6.3]]), counted([1]), counted([1])
    gradients = [counted(np.zeros(part.shape)) for part in parameters]
    Counted.known.clear()
    Counted.count = 0
    room["_part"](*parameters, *geometry, *match, Counted(1), Counted(2), Counted(20), *gradients, 0, 1)
    assert Counted.count == match_cost(num_layers)[0]


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    sizes = np.array([12.0, 24.0, 48.0, 100.0])
    assert slope(sizes.tolist(), (3.0 * sizes**power).tolist()) == pytest.approx(power, abs=1e-9)


def test_clips_go_from_small_to_large_and_none_is_measured_twice() -> None:
    assert QUICK.clips == [(4, 48), (4, 64), (8, 48)]


def test_the_quick_benchmark_tells_the_same_in_its_file_and_in_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = tmp_path / "bench.json"
    assert cli.main(["bench", "--quick", "--device", "cpu", "--threads", "1", "--json", str(path)]) == cli.DONE
    told, text = json.loads(path.read_bytes()), capfd.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    clips = {(row[0], row[1]): row for row in lines if len(row) == len(COLUMNS) and row[0].isdigit()}
    assert len(clips) == len(told["clips"]) == len(QUICK.clips)
    for clip in told["clips"]:
        assert set(clip) == set(COLUMNS)
        assert all(value > 0 for value in clip.values())
        assert clips[str(clip["num_frames"]), str(clip["side"])] == [format_value(name, clip[name]) for name in COLUMNS]
        assert clip["pair_s"] == pytest.approx(clip["flow_s"] / clip["num_pairs"])
        assert clip["fit_s"] == pytest.approx(clip["start_s"] + clip["step_ms"] * told["model"]["steps"] / 1e3)
        arithmetic = told["model"]["flop_per_match"] / clip["match_us"] / 1e3  # GFLOP/s
        assert clip["flop_share"] == pytest.approx(arithmetic / told["machine"]["gflops"])
    for over, names in (("frames", GROWN), ("pixels", GROWN), ("points", ["query_s"])):
        row = next(line[2:] for line in lines if line[:2] == ["over", over])
        assert row == [f"{told['growth'][over][name]:.2f}" for name in names]
    by_frames = {clip["num_frames"]: clip["num_pairs"] for clip in told["clips"]}
    assert by_frames == {4: 3 + 2 + 1, 8: 7 + 6 + 5 + 4 + 2}  # at distances 1, 2, 3, 4 and 6
    assert list(map(int, told["questions"])) == list(QUICK.points)
    for seconds in (*told["questions"].values(), told["plate_s"]):
        assert seconds > 0
        assert f" {format_value('', seconds)} s" in text
    assert list(scratch.glob("omnimotion-*")) == []  # torch keeps a folder of its own there


def test_accuracy_is_told_of_the_scenes_that_are_named_and_of_all_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hard_scenes, "NUM_FRAMES", 6)
    path, plot, scratch = tmp_path / "accuracy.json", tmp_path / "accuracy.svg", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    settings = '{"fit": {"steps": 100}, "flow": {"estimator": "dis"}}'
    assert cli.main(["bench", "--accuracy", "turning", "light", "--preset", "draft", "--config", settings, "--device",
                     "cpu", "--threads", "1", "--json", str(path), "--plot", str(plot)]) == cli.DONE  # fmt: skip
    told, text = json.loads(path.read_bytes()), capfd.readouterr().out
    assert list(told) == ["turning", "light"]
    width = max(map(len, NAMES))
    for name, figures in told.items():
        assert set(figures) == set(NAMES)
        assert figures[OURS]["average_jaccard"] > 0.8
        table = text[text.index(f"{name}: {hard_scenes.SCENES[name][1]}") :]
        assert f"{OURS:{width}}  {figures[OURS]['average_jaccard']:.3f}" in table
    mean = np.mean([figures[OURS]["average_jaccard"] for figures in told.values()])
    assert f"{OURS:{width}}  {mean:.3f}" in text[text.index("means of 2 scenes") :]
    assert list(scratch.glob("omnimotion-*")) == []
    svg = ET.parse(plot).getroot()
    marks = {mark[0].text: float(mark.attrib["cx"]) for mark in svg.iter(f"{SVG}circle")}
    left, right = (line.attrib["x1"] for line in list(svg.iter(f"{SVG}line"))[0:6:5])
    assert 0 < float(left) < float(right) < float(svg.attrib["viewBox"].split()[2])
    assert len(marks) == len(NAMES) * (1 + 2 + 1)  # the legend, the scenes and the means
    for name in ("turning", "light"):
        jaccard = told[name][OURS]["average_jaccard"]
        place = float(left) + jaccard * (float(right) - float(left))
        assert marks[f"{name}, {OURS}: {jaccard:.3f}"] == pytest.approx(place, abs=0.1)
    assert f"mean, {OURS}: {mean:.3f}" in marks


@pytest.mark.parametrize(
    ("argv", "words"),
    [("--accuracy nonsense", "'nonsense' is none of the scenes"), ("--seed 1", "--seed is given without --accuracy"),
     ("--plot a.svg", "--plot is given without --accuracy"), ("--accuracy --plot .", "is a folder"),
     ("--accuracy --preset fast", "fast"), ("--accuracy turning --quick", "not allowed with")],
)  # fmt: skip
def test_what_cannot_be_measured_is_told(argv: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *argv.split()]) == cli.MENDABLE
    assert words in capfd.readouterr().err


@pytest.mark.parametrize("what", [[], ["--accuracy", "head"]])
def test_a_device_that_is_absent_is_told_before_anything_is_measured(
    what: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    path = tmp_path / "bench.json"
    assert cli.main(["bench", *what, "--device", absent, "--json", str(path)]) == cli.MENDABLE
    assert f"no device '{absent}'" in capfd.readouterr().err
    assert not path.exists()
