"""The accuracy of all trackers as a picture: a row a scene, a mark a tracker."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping

import numpy as np

from omnimotion_core.comparison import CHAINED, DIRECT, LUCAS_KANADE, NAMES, OURS, SEVERAL, VOLUMETRIC, Comparison

_WIDTH, _LEFT, _RIGHT = 720, 110, 24  # units; the margins hold the names and half a mark
_TOP, _STEP, _BOTTOM = 64, 30, 44
_GAP = 0.5  # steps before the means
_LEGEND = (20, 42)  # the heights of its two rows
_COLORS = {  # Okabe and Ito's, which the color-blind can tell apart
    OURS: "#0072b2", CHAINED: "#e69f00", LUCAS_KANADE: "#777777", DIRECT: "#cc79a7", SEVERAL: "#009e73",
    VOLUMETRIC: "#d55e00",
}  # fmt: skip
_STYLE = (
    "text{font:13px sans-serif;fill:#222}.name{text-anchor:end}.tick{text-anchor:middle;fill:#666}"
    ".grid{stroke:#ddd}.row{stroke:#eee}.other{fill:#fff;stroke-width:2.5}"
)


def accuracy_plot(found: Mapping[str, Comparison]) -> str:
    """The average Jaccard of every tracker in every scene, and the means, as an SVG document.

    Args:
        found: comparisons by the scene's name, one at least. A tracker that a scene lacks, or whose figure cannot be
            had there, has no mark in it.
    """
    values = {
        scene: {name: figures.average_jaccard for name, figures in one.figures.items() if name in _COLORS}
        for scene, one in found.items()
    }
    names = [name for name in NAMES if any(name in row for row in values.values())]
    num_scenes = len(values)
    if num_scenes > 1:
        everywhere = [name for name in names if all(name in row for row in values.values())]
        values["mean"] = {name: float(np.mean([row[name] for row in values.values()])) for name in everywhere}
    bottom = _TOP + _STEP * (len(values) + _GAP * (len(values) > num_scenes))
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img",
                             "viewBox": f"0 0 {_WIDTH} {bottom + _BOTTOM}"})  # fmt: skip
    ET.SubElement(svg, "title").text = "Average Jaccard of all trackers, scene by scene"
    ET.SubElement(svg, "style").text = _STYLE
    ET.SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    _legend(svg, names)
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        _line(svg, "grid", (_x(tick), _TOP), (_x(tick), bottom))
        _text(svg, "tick", (_x(tick), bottom + 18), f"{tick:g}")
    _text(svg, "tick", (_x(0.5), bottom + 36), "average Jaccard, more is better")
    for index, (scene, row) in enumerate(values.items()):
        y = _TOP + _STEP * (index + 0.5 + _GAP * (index == num_scenes))
        _line(svg, "row", (_x(0.0), y), (_x(1.0), y))
        _text(svg, "name", (_LEFT - 14, y + 4.5), scene)
        for name in reversed(names):  # ours last, above the others
            if name in row and math.isfinite(row[name]):
                _mark(svg, name, (_x(row[name]), y), f"{scene}, {name}: {row[name]:.3f}")
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _x(jaccard: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * jaccard


def _legend(svg: ET.Element, names: list[str]) -> None:
    columns = math.ceil(len(names) / len(_LEGEND))
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        x = _LEFT + column * (_WIDTH - _LEFT - _RIGHT) / columns
        _mark(svg, name, (x, _LEGEND[row]), name)
        _text(svg, "label", (x + 14, _LEGEND[row] + 4.5), name)


def _mark(svg: ET.Element, name: str, at: tuple[float, float], told: str) -> None:
    looks = {"r": "7", "fill": _COLORS[name]} if name == OURS else {"r": "4.5", "class": "other"}
    place = {"cx": f"{at[0]:.1f}", "cy": f"{at[1]:.1f}", "stroke": _COLORS[name]}
    ET.SubElement(ET.SubElement(svg, "circle", {**place, **looks}), "title").text = told


def _line(svg: ET.Element, kind: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    ends = zip(("x1", "y1", "x2", "y2"), (*start, *end), strict=True)
    ET.SubElement(svg, "line", {"class": kind, **{key: f"{value:.1f}" for key, value in ends}})


def _text(svg: ET.Element, kind: str, at: tuple[float, float], text: str) -> None:
    ET.SubElement(svg, "text", {"class": kind, "x": f"{at[0]:.1f}", "y": f"{at[1]:.1f}"}).text = text
