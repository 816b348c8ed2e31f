"""The user's own layout of motion vectors: a JSON or TOML file that names channels and what they are made of.

::

    {"y_axis": "up",                              or down; up when not given
     "units": "pixels",                           or ndc (the picture spans -1..1), or fraction (it spans 0..1)
     "channels": {"motion.R": "forward.x",
                  "motion.G": {"from": "forward.y", "scale": 0.5, "offset": 0.5, "half": true},
                  "motion.A": "visibility"}}

A channel holds ``scale * value + offset``; a negative scale turns a direction round. ``from`` is one of
``vector_presets.SOURCES``; units and y_axis concern vectors alone.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnimotion_core.config import ExportConfig
from omnimotion_core.errors import ExportError
from omnimotion_core.export.exr import CHANNEL_NAME, MAX_CHANNELS
from omnimotion_core.export.vector_presets import PRESETS, SOURCES, Channel, Preset, set_up

CUSTOM = "custom"  # the preset whose channels a file of the user's tells
_UNITS = {"pixels": (1.0, False), "ndc": (2.0, True), "fraction": (1.0, True)}  # scale, and whether by width and height
_REMEDY = 'write a table such as {"y_axis": "up", "channels": {"motion.R": "forward.x", "motion.G": "forward.y"}}'


def find_preset(name: str, settings: ExportConfig) -> Preset:
    """The preset called ``name``, set up; ``custom`` is that of the user's map.

    Raises:
        ExportError: there is none, the map cannot be used, or the preset's readers know no files of several parts.
    """
    if name == CUSTOM:
        return read_map(settings.vectors_map)
    if name not in PRESETS:
        raise ExportError(f"{name!r} is no preset for motion vectors", f"use one of {', '.join((*PRESETS, CUSTOM))}")
    preset = set_up(name, settings)
    if settings.multipart and preset.one_part:
        raise ExportError(f"files of preset {name} cannot have several parts, since their readers know one alone",
                          "leave --multipart out")
    return preset


def read_map(path: str | None) -> Preset:
    """The preset that a map file describes.

    Raises:
        ExportError: no file is given, or it cannot be used.
    """
    if path is None:
        raise ExportError("vectors:custom needs a map of channels", "add --map FILE, or set export.vectors_map")
    try:
        text = Path(path).read_text(encoding="utf-8")
        table = tomllib.loads(text) if path.lower().endswith(".toml") else json.loads(text)
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror})", "give --map a JSON or TOML file") from error
    except ValueError as error:
        raise ExportError(f"{path} is not {'TOML' if path.lower().endswith('.toml') else 'JSON'} ({error})",
                          _REMEDY) from error
    return parse_map(table, path)


def parse_map(table: Any, name: str) -> Preset:
    """The preset that a map's table describes; ``name`` is told in errors.

    Raises:
        ExportError: the table is no such map.
    """
    if not isinstance(table, Mapping) or not isinstance(table.get("channels"), Mapping) or not table["channels"]:
        raise ExportError(f"{name} has no table of channels", _REMEDY)
    if unknown := set(table) - {"channels", "y_axis", "units"}:
        raise ExportError(f"{name} has an unknown entry {min(unknown)!r}", "use channels, y_axis and units")
    y_axis, units = table.get("y_axis", "up"), table.get("units", "pixels")
    if y_axis not in ("up", "down"):
        raise ExportError(f"{name}: y_axis is {y_axis!r}", "use up or down")
    if units not in _UNITS:
        raise ExportError(f"{name}: units is {units!r}", f"use one of {', '.join(_UNITS)}")
    if len(table["channels"]) > MAX_CHANNELS:
        raise ExportError(f"{name} names {len(table['channels'])} channels", f"name at most {MAX_CHANNELS}")
    channels, half = {}, set()
    for channel, given in table["channels"].items():
        if not re.fullmatch(CHANNEL_NAME, channel):
            raise ExportError(f"{name}: channel name {channel!r}", "use 1 to 31 letters, digits, '.', '_' and '-'")
        entry = given if isinstance(given, Mapping) else {"from": given}
        channels[channel] = _channel(entry, f"{name}: channel {channel}", y_axis, units)
        if entry.get("half", False):
            half.add(channel)
    return Preset(
        channels=channels, y_axis=y_axis, units=units, half=frozenset(half),
        direction="forward next-current, backward previous-current, scaled as te/map tells",
        facts={"te/map": json.dumps(table, sort_keys=True)},
    )  # fmt: skip


def _channel(entry: Mapping[str, Any], name: str, y_axis: str, units: str) -> Channel:
    if unknown := set(entry) - {"from", "scale", "offset", "half"}:
        raise ExportError(f"{name} has an unknown entry {min(unknown)!r}", "use from, scale, offset and half")
    source = entry.get("from")
    if source not in SOURCES:
        raise ExportError(f"{name} is made from {source!r}", f"use one of {', '.join(SOURCES)}")
    numbers: dict[str, float] = {}
    for key, usual in (("scale", 1.0), ("offset", 0.0)):
        value = entry.get(key, usual)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e6:
            raise ExportError(f"{name}: {key} is {value!r}", "give a number below a million")
        numbers[key] = float(value)
    if numbers["scale"] == 0 and source != "zero":
        raise ExportError(f"{name}: scale is 0", "give another scale, or make the channel from zero")
    if not isinstance(entry.get("half", False), bool):
        raise ExportError(f"{name}: half is {entry['half']!r}", "give true or false")
    part, _, axis = source.partition(".")
    if part not in ("forward", "backward"):
        return Channel(source=source, scale=numbers["scale"], offset=numbers["offset"])
    unit, per_side = _UNITS[units]
    sign = -1.0 if axis == "y" and y_axis == "up" else 1.0
    per = ("width" if axis == "x" else "height") if per_side else ""
    return Channel(source=source, scale=sign * unit * numbers["scale"], offset=numbers["offset"], per=per)
