import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from omnimotion_core.export.plots import bars, curve, histogram, number, round_ticks

SVG = "{http://www.w3.org/2000/svg}"


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    found = ET.fromstring(svg).findall(f"{SVG}polyline")
    pairs = [[pair.split(",") for pair in line.attrib["points"].split()] for line in found]
    return [[(float(x), float(y)) for x, y in line] for line in pairs]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_curve_runs_from_edge_to_edge_and_in_proportion() -> None:
    (line,) = polylines(curve(np.array([0.0, 1.0, 2.0, 4.0]), label="a", unit="px", first_frame=1001, ceiling=4.0))
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = line
    assert x1 - x0 == pytest.approx(x3 - x2, abs=0.2)
    assert (y0 - y1) * 4 == pytest.approx(y0 - y3, abs=0.5)
    assert (y0 - y2) * 2 == pytest.approx(y0 - y3, abs=0.5)
    assert x3 > 300 > 60 > x0


def test_axes_are_labelled_with_frames_and_the_unit() -> None:
    svg = curve(np.linspace(0, 1.7, 48), label="Residual", unit="pixels", first_frame=1001)
    found = texts(svg)
    assert {"1010", "1020", "1030", "1040", "frame", "pixels", "0", "1", "2"} <= set(found)
    assert ET.fromstring(svg).find(f"{SVG}title") is not None


def test_values_that_are_not_finite_leave_gaps_and_break_nothing() -> None:
    svg = curve(np.array([1, 2, np.nan, 3, np.inf, 4, 5.0]), label="a", unit="px", first_frame=1)
    assert [len(line) for line in polylines(svg)] == [2, 2]
    assert len(ET.fromstring(svg).findall(f"{SVG}circle")) == 1  # the lonely value between two gaps
    assert "nan" not in svg
    assert "inf" not in svg
    nothing = curve(np.full(4, np.nan), label="a", unit="px", first_frame=1, log=True)
    assert "no finite value" in texts(nothing)


def test_a_decade_is_as_high_as_the_next_on_a_logarithmic_axis() -> None:
    svg = curve(np.array([1e-4, 1e-3, 1e-2, 0.0]), label="a", unit="px", first_frame=1, log=True, limit=0.01)
    ((_, y0), (_, y1), (_, y2), (_, y3)) = polylines(svg)[0]
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y3 == y0  # zero lies at the floor
    assert {"0.01", "0.001", "1e-4"} <= set(texts(svg))
    assert len([line for line in ET.fromstring(svg).findall(f"{SVG}line") if line.attrib["class"] == "limit"]) == 1


def test_cuts_are_marked_between_the_frames() -> None:
    svg = curve(np.arange(11.0), label="a", unit="px", first_frame=1, cuts=(5,))
    (mark,) = [line for line in ET.fromstring(svg).findall(f"{SVG}line") if line.attrib["class"] == "cut"]
    points = polylines(svg)[0]
    assert points[4][0] < float(mark.attrib["x1"]) < points[5][0]


@pytest.mark.parametrize("values", [np.zeros(5), np.ones(1), np.full(3, 1e-12), np.full(3, 1e12), -np.ones(3)])
def test_flat_tiny_huge_and_single_values_can_be_drawn(values: np.ndarray) -> None:
    for log in (False, True):
        for line in polylines(curve(values, label="a", unit="px", first_frame=1, log=log)):
            assert all(0 <= x <= 360 and 0 <= y <= 190 for x, y in line)


def test_bars_of_a_histogram_stand_for_the_counts() -> None:
    svg = histogram(np.array([1, 1, 1, 9, np.nan]), label="a", unit="frames", maximum=10.0, bins=10)
    heights = [float(bar.attrib["height"]) for bar in ET.fromstring(svg).findall(f"{SVG}rect")]
    assert len(heights) == 10
    assert heights[1] == pytest.approx(3 * heights[9], abs=0.2)
    assert sum(height > 0 for height in heights) == 2


def test_lying_bars_are_in_proportion_and_escape_their_names() -> None:
    svg = bars([("a<b", 10.0, "10 s"), ("c", 5.0, "5 s"), ("d", math.nan, "–")], label="time")
    widths = [float(bar.attrib["width"]) for bar in ET.fromstring(svg).findall(f"{SVG}rect")]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert widths[2] < 1
    assert "a<b" in texts(svg)
    assert ET.fromstring(bars([], label="none")) is not None


def test_ticks_are_round_and_within() -> None:
    assert round_ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_ticks(1001, 1048, 5) == [1010, 1020, 1030, 1040]
    assert round_ticks(3, 3, 5) == []
    assert round_ticks(0, math.nan, 5) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.41234, "0.412"), (1234.5, "1234"), (100, "100"), (2.0, "2"), (0.00012345, "0.000123"),
     (1e-7, "1.0e-07"), (math.nan, "–"), (-math.inf, "–"), (-0.5, "-0.5")],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_the_page_s_style_knows_every_class_of_the_plots() -> None:
    from importlib.resources import files

    style = files("omnimotion_core.export").joinpath("report.css").read_text(encoding="utf-8")
    drawn = curve(np.arange(9.0), label="a", unit="px", first_frame=1, cuts=(3,), limit=2.0)
    drawn += bars([("a", 1.0, "b")], label="")
    used = {name for group in re.findall(r'class="([^"]+)"', drawn) for name in group.split()}
    assert {name for name in used if f".{name}" not in style} <= {"tick", "unit"}  # these two are as .plot text
