"""Small plots as inline SVG, colored by the page's style sheet: curves over frames, histograms and bars.

Each is drawn 360 units wide, so that its labels stay legible on a telephone. Values that are not finite leave gaps.
"""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 12, 36  # margins around the axes, for the labels
_LOG_FLOOR = 1e-6  # zero is drawn here on a logarithmic axis


def curve(
    values: np.ndarray,
    *,
    label: str,
    unit: str,
    first_frame: int,
    cuts: Sequence[int] = (),
    ceiling: float | None = None,
    log: bool = False,
    limit: float | None = None,
) -> str:
    """A value over frames.

    Args:
        values: (T,), one a frame.
        label: what is shown, also for those who cannot see it; with ``unit`` beside the axis.
        first_frame: the number of the first value's frame.
        cuts: each t that begins a new shot, marked by an upright line.
        ceiling: the vertical axis' end; by default a round number above the largest value.
        log: a logarithmic axis in whole decades.
        limit: a value that is marked by a dashed line.
    """
    shown = np.asarray(values, np.float64)
    axis = _LogAxis(shown, limit) if log else _LinearAxis(shown, ceiling, limit)
    num_frames = len(shown)

    def x(t: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (t / max(num_frames - 1, 1))

    parts = [_grid(axis, unit)]
    for t in round_ticks(first_frame, first_frame + max(num_frames - 1, 1), 5):
        if t == round(t):
            parts.append(_below(x(t - first_frame), f"{t:.0f}"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, "frame", "unit"))
    parts += [f'<line class="cut" x1="{x(t - 0.5):.1f}" x2="{x(t - 0.5):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
              for t in cuts]  # fmt: skip
    if limit is not None:
        parts.append(_level("limit", axis.place(limit)))
    finite = np.isfinite(shown)
    for run in _runs(finite):
        points = [(x(t), axis.place(float(shown[t]))) for t in run]
        if len(points) == 1:
            parts.append(f'<circle class="dot" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2"/>')
        else:
            parts.append('<polyline class="curve" points="' + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + '"/>')
    if not finite.any():
        parts.append(_text(_WIDTH / 2, _HEIGHT / 2, "no finite value", "empty"))
    return _svg(f"{label} over frames, {unit}", parts)


def histogram(values: np.ndarray, *, label: str, unit: str, maximum: float, bins: int = 24) -> str:
    """How many of ``values`` (N,) lie in each of ``bins`` equal steps from 0 to ``maximum``."""
    finite = np.asarray(values, np.float64)
    counts, edges = np.histogram(finite[np.isfinite(finite)], bins=bins, range=(0.0, maximum))
    axis = _LinearAxis(counts.astype(np.float64), None, None)
    span = _WIDTH - _LEFT - _RIGHT
    parts = [_grid(axis, "tracks")]
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        top = axis.place(float(count))
        parts.append(
            f'<rect class="bar" x="{_LEFT + span * left / maximum + 0.5:.1f}" y="{top:.1f}" '
            f'width="{span * (right - left) / maximum - 1:.1f}" height="{_HEIGHT - _BOTTOM - top:.1f}"/>'
        )
    parts += [_below(_LEFT + span * tick / maximum, number(tick)) for tick in round_ticks(0.0, maximum, 5)]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, unit, "unit"))
    return _svg(f"{label}: number of tracks by {unit}", parts)


def bars(rows: Sequence[tuple[str, float, str]], *, label: str) -> str:
    """Lying bars, one a row of (name, value, value as text); values that are not finite have none."""
    largest = max((value for _, value, _ in rows if math.isfinite(value)), default=0.0)
    left, right, step = 70, 74, 26
    parts = []
    for index, (name, value, text) in enumerate(rows):
        middle = index * step + step / 2
        width = (_WIDTH - left - right) * value / largest if math.isfinite(value) and largest > 0 else 0.0
        parts.append(_text(left - 8, middle + 4, name, "tick end"))
        parts.append(f'<rect class="bar" x="{left}" y="{middle - 7}" width="{max(width, 0.5):.1f}" height="14"/>')
        parts.append(_text(left + width + 6, middle + 4, text, "tick start"))
    return _svg(label, parts, height=max(len(rows), 1) * step)


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float, digits: int = 3) -> str:
    """``value`` with so many significant digits; a dash where it is not finite."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        decimals = digits - 1 - (math.floor(math.log10(abs(value))) if value else 0)
        text = f"{value:.{max(decimals, 0)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{max(digits - 2, 0)}e}"


class _LinearAxis:
    """From 0 upwards."""

    def __init__(self, values: np.ndarray, ceiling: float | None, limit: float | None) -> None:
        finite = values[np.isfinite(values)]
        wanted = max([float(finite.max()) if len(finite) else 0.0, *([limit] if limit is not None else [])])
        if ceiling is None:
            wanted = wanted if wanted > 0 else 1.0
            step = round_ticks(0.0, wanted, 4)[1]
            ceiling = step * math.ceil(wanted / step - 1e-9)
        self.ceiling = ceiling
        self.ticks = [(tick, number(tick)) for tick in round_ticks(0.0, ceiling, 4)]

    def place(self, value: float) -> float:
        share = min(max(value / self.ceiling, 0.0), 1.0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


class _LogAxis:
    """Whole decades, the smaller ones below."""

    def __init__(self, values: np.ndarray, limit: float | None) -> None:
        marked = [value for value in (*values[np.isfinite(values)], limit) if value is not None and value > _LOG_FLOOR]
        low, high = min(marked, default=_LOG_FLOOR), max(marked, default=1.0)
        self.low = math.floor(math.log10(low))
        self.high = max(math.ceil(math.log10(high)), self.low + 1)
        powers = range(self.low, self.high + 1, max(1, (self.high - self.low) // 5))
        self.ticks = [(10.0**power, number(10.0**power) if abs(power) < 4 else f"1e{power}") for power in powers]

    def place(self, value: float) -> float:
        power = math.log10(max(value, 10.0**self.low))
        share = min((power - self.low) / (self.high - self.low), 1.0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _grid(axis: _LinearAxis | _LogAxis, unit: str) -> str:
    lines = [_level("grid", axis.place(value)) for value, _ in axis.ticks]
    labels = [_text(_LEFT - 6, axis.place(value) + 3.5, text, "tick end") for value, text in axis.ticks]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    name = f'<text class="unit" transform="translate(10 {middle:.1f}) rotate(-90)">{escape(unit)}</text>'
    return "".join([*lines, *labels, name, _level("axis", _HEIGHT - _BOTTOM)])


def _level(kind: str, y: float) -> str:
    return f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _below(x: float, text: str) -> str:
    return _text(x, _HEIGHT - _BOTTOM + 14, text, "tick")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _runs(flags: np.ndarray) -> list[range]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [range(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _svg(label: str, parts: Sequence[str], height: int = _HEIGHT) -> str:
    return (
        f'<svg class="plot" role="img" viewBox="0 0 {_WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )
