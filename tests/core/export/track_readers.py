"""Readers of the track files of other programs, written from their formats and not from our writers.

Each gives ``{name: {frame: (x, y)}}`` with frames and positions as the file has them.
"""

import csv
import io
import json
import re
from typing import Any

Keys = dict[str, dict[int, tuple[float, float]]]


def read_3dequalizer(text: str) -> Keys:
    lines = iter(text.split("\n"))
    found: Keys = {}
    for _ in range(int(next(lines))):
        name, color, count = next(lines), int(next(lines)), int(next(lines))
        assert color == 0
        rows = [next(lines).split(" ") for _ in range(count)]
        found[name] = {int(frame): (float(x), float(y)) for frame, x, y in rows}
    assert list(lines) == [""]
    return found


def read_mmsolver(text: str) -> tuple[Keys, dict[str, list[float]]]:
    """The keys, and each track's weights."""
    lines = iter(text.split("\n"))
    found: Keys = {}
    weights = {}
    for _ in range(int(next(lines))):
        name, count = next(lines), int(next(lines))
        rows = [next(lines).split() for _ in range(count)]
        found[name] = {int(frame): (float(u), float(v)) for frame, u, v, _ in rows}
        weights[name] = [float(row[3]) for row in rows]
    assert list(lines) == [""]
    return found, weights


def read_syntheyes(text: str) -> tuple[Keys, dict[str, list[int]]]:
    """The keys, and each track's outcome codes."""
    found: Keys = {}
    outcomes: dict[str, list[int]] = {}
    order = []
    for line in text.splitlines():
        name, frame, u, v, outcome = line.split(" ")
        found.setdefault(name, {})[int(frame)] = (float(u), float(v))
        outcomes.setdefault(name, []).append(int(outcome))
        order.append((name, int(frame)))
    assert order == sorted(order)
    return found, outcomes


def read_pftrack(text: str) -> Keys:
    assert text.count("\n") == text.count("\r\n")
    found: Keys = {}
    for block in ("\r\n" + text).split("\r\n\r\n\r\n")[1:]:
        name, camera, count, *rows = block.removesuffix("\r\n").split("\r\n")
        assert camera == '"Primary"'
        assert int(count) == len(rows)
        keys = [row.split(" ") for row in rows]
        found[json.loads(name)] = {int(frame): (float(x), float(y)) for frame, x, y, _ in keys}
    return found


def read_after_effects(text: str) -> tuple[dict[str, str], Keys]:
    """The header, and the keys by effect."""
    lines = text.split("\r\n")
    assert lines[0] == "Adobe After Effects 8.0 Keyframe Data"
    assert [line for line in lines if line][-1] == "End of Keyframe Data"
    header: dict[str, str] = {}
    found: Keys = {}
    effect = None
    for line in lines[1:-2]:
        cells = line.split("\t")
        if cells[0] == "Effects":
            effect = cells[1]
            assert cells[2] == "Point #2"
            found[effect] = {}
        elif cells[0] == "" and len(cells) > 1:
            if effect is None:
                header[cells[1]] = cells[2]
            elif cells[1] != "Frame":
                found[effect][int(cells[1])] = (float(cells[2]), float(cells[3]))
    return header, found


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


Braced = Any  # nested lists of words


def read_braces(text: str) -> Braced:
    """Nested lists of a Tcl-like text: ``{…}`` is a list, ``"…"`` a word."""
    stack: list[Braced] = [[]]
    for token in re.findall(r'[{}]|"[^"]*"|[^\s{}"]+', text):
        if token == "{":
            stack.append([])
        elif token == "}":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token.strip('"'))
    assert len(stack) == 1, "braces do not match"
    return stack[0]


def read_curve(curve: Braced) -> dict[int, float]:
    """Keys of ``curve x1001 1 2 x1009 3``: a value goes one frame on, an ``x`` says where to."""
    words = [word for word in curve if isinstance(word, str)]
    assert words[0] == "curve"
    keys: dict[int, float] = {}
    frame = 0
    for word in words[1:]:
        if word == "K":
            continue
        if word.startswith("x"):
            frame = int(word[1:])
        else:
            keys[frame] = float(word)
            frame += 1
    return keys


def read_nuke(text: str) -> tuple[Keys, dict[str, dict[int, float]], dict[str, Any]]:
    """The keys, each track's ``enable`` steps, and the node's other knobs."""
    (node,) = re.findall(r"^Tracker4 (\{.*^\})", text, re.MULTILINE | re.DOTALL)
    (content,) = read_braces(node)
    knobs = {str(content[i]): content[i + 1] for i in range(0, len(content), 2)}
    tracks = knobs.pop("tracks")
    head, columns, rows = tracks
    assert isinstance(head, list)
    assert head == ["1", str(len(columns)), str(len(rows))]
    assert len(columns) == 31
    names = [column[4] for column in columns]
    found: Keys = {}
    enabled = {}
    for row in rows:
        assert len(row) == 31
        cells = dict(zip(names, row, strict=True))
        assert row[0][1] == "K", "enable has to hold its value, not to be interpolated"
        x, y = read_curve(row[2]), read_curve(row[3])
        assert list(x) == list(y)
        assert cells["name"] == row[1]
        found[row[1]] = {frame: (x[frame], y[frame]) for frame in x}
        enabled[row[1]] = read_curve(row[0])
    return found, enabled, knobs
