# SPDX-License-Identifier: GPL-3.0-or-later
"""The run's points drawn over the clip by the GPU: thousands of them cost less than a hundred of Blender's tracks."""

import colorsys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bpy

from . import running
from .footage import Footage, examine
from .markers import read_file, run_of
from .steps import RunFacts, read_run

try:
    import numpy as np
except ImportError:  # some distributions' Blender comes without
    np = None  # type: ignore[assignment]

_POINT_PX, _PREVIEW_PX = 3.0, 6.0
_FULL_MOTION = 0.024  # of the width a frame: motion that is drawn at full strength


class Points:
    """What is drawn of one run: read once, in Blender's fractions of the frame."""

    def __init__(self, run: RunFacts, places: Any, visible: Any, confidence: Any, nearness: Any) -> None:
        self.run, self.aspect = run, run.size[1] / run.size[0]
        self.places = places  # (N, T, 2)
        self.visible, self.confidence, self.nearness = visible, confidence, nearness  # (N, T), the last two 0..1

    @classmethod
    def of_run(cls, run: RunFacts) -> "Points":
        """All that a finished run has."""
        with np.load(run.path / "tracks.npz", allow_pickle=False) as file:
            positions, visible = file["positions"], file["visible"]
            confidence, depth = file["confidence"], file["depth"]
        width, height = run.size
        scale = np.array([1 / width, -1 / height], np.float32)
        # the core counts pixels from the first one's centre, y down
        places = (positions + np.float32(0.5)) * scale + np.array([0, 1], np.float32)
        return cls(run, places, visible, confidence, _nearness(depth, visible))

    @classmethod
    def of_markers(cls, run: RunFacts, content: "Mapping[str, Any]") -> "Points":
        """Those of a file of markers, which knows no depth."""
        first, last = content["clip_frames"]
        entries, frames = content["tracks"], np.arange(first, last + 1)
        places = np.zeros((len(entries), len(frames), 2), np.float32)
        visible = np.zeros(places.shape[:2], bool)
        for row, entry in enumerate(entries):
            given, co = np.array(entry["frames"]), np.array(entry["co"]).reshape(-1, 2)
            for axis in (0, 1):
                places[row, :, axis] = np.interp(frames, given, co[:, axis])
            visible[row, given[~np.array(entry["mute"], bool)] - first] = True
        return cls(run, places, visible, np.ones_like(places[..., 0]), np.zeros_like(places[..., 0]))

    def geometry(self, t: int, trail: int, least: float, color_by: str) -> "tuple[Any, Any, Any, Any]":
        """Points (P, 2) with colors (P, 4), and lines (2 L, 2) with colors (2 L, 4), of frame index t."""
        shown = self.visible[:, t] & (self.confidence[:, t] >= least)
        colors = np.concatenate([self._colors(t, color_by), np.ones((len(shown), 1), np.float32)], axis=1)
        points, point_colors = self.places[shown, t], colors[shown]
        lines, line_colors = [np.zeros((0, 2), np.float32)], [np.zeros((0, 4), np.float32)]
        for step in range(min(trail, t)):
            here, before = t - step, t - step - 1
            drawn = shown & self.visible[:, here] & self.visible[:, before]
            pair = np.stack([self.places[drawn, before], self.places[drawn, here]], axis=1)
            lines.append(pair.reshape(-1, 2))
            faded = colors[drawn] * np.array([1, 1, 1, 1 - (step + 1) / (trail + 1)], np.float32)
            line_colors.append(np.repeat(faded, 2, axis=0))
        return points, point_colors, np.concatenate(lines), np.concatenate(line_colors)

    def _colors(self, t: int, color_by: str) -> Any:
        """(N, 3) float32, display-referred."""
        if color_by == "CONFIDENCE":
            sure = self.confidence[:, t, None]
            return ((1 - sure) * np.array([1.0, 0.1, 0.05]) + sure * np.array([0.1, 0.95, 0.2])).astype(np.float32)
        if color_by == "DEPTH":
            near = self.nearness[:, t, None]
            return (near * np.array([1.0, 0.85, 0.4]) + (1 - near) * np.array([0.05, 0.1, 0.5])).astype(np.float32)
        last = self.places.shape[1] - 1
        step = self.places[:, min(t + 1, last)] - self.places[:, max(t - 1, 0)]
        step = step * np.array([1.0, self.aspect], np.float32) / max(min(t + 1, last) - max(t - 1, 0), 1)
        hue = (np.arctan2(step[:, 1], step[:, 0]) / (2 * np.pi)) % 1.0
        strength = np.clip(np.hypot(step[:, 0], step[:, 1]) / _FULL_MOTION, 0.15, 1.0)
        wheel = np.array([colorsys.hsv_to_rgb(k / 256, 1.0, 1.0) for k in range(256)], np.float32)
        pure = wheel[(hue * 255).astype(int)]
        return pure * strength[:, None] + (1 - strength[:, None])


def _nearness(depth: Any, visible: Any) -> Any:
    """Depth by rank, (N, T) 0..1, 1 the nearest: its values have no unit."""
    values = depth[visible]
    if len(values) == 0:
        return np.zeros_like(depth)
    knots = np.quantile(values, np.linspace(0, 1, 33))
    return 1 - np.interp(depth, knots, np.linspace(0, 1, 33)).astype(np.float32)


class _Cache:
    """The run that was read last, and what was built for the last frame."""

    def __init__(self) -> None:
        self.key: Any = None
        self.points: Points | None = None
        self.frame_key: Any = None
        self.batches: Any = None
        self.problem = ""


_cache, _preview = _Cache(), _Cache()
_handler: Any = None


def points_of(path: Path) -> "Points | None":
    """The points of a run, read anew where its file changed; None where it has none."""
    try:
        key = (str(path), (path / "tracks.npz").stat().st_mtime_ns)
        if key != _cache.key:
            _cache.points, _cache.frame_key, _cache.problem = None, None, ""
            _cache.key = key
            _cache.points = Points.of_run(read_run(path))
    except (OSError, LookupError, KeyError, ValueError) as error:
        _cache.problem = str(error)
    return _cache.points


def preview_of(clip: "bpy.types.MovieClip") -> "Points | None":
    """What the running job shows of this clip: its last tracks, until it ends."""
    shown = running.preview()
    if shown is None:
        _preview.__init__()  # type: ignore[misc]
        return None
    reference, path = shown
    try:
        if reference.find() != clip:
            return None
        key = (str(path), path.stat().st_mtime_ns)
        if key != _preview.key:
            points = Points.of_markers(read_run(path.parent), read_file(path))
            _preview.points, _preview.frame_key, _preview.key = points, None, key
    except (OSError, LookupError, KeyError, ValueError) as error:  # the fit has ended: the last ones stay
        _preview.problem = str(error)
        if _preview.key is not None and _preview.key[0] != str(path):
            return None
    return _preview.points


def draw() -> None:
    """Blender's call at each redraw of a clip editor."""
    context = bpy.context
    settings = context.window_manager.track_everything_overlay
    space = context.space_data
    if space is None or space.clip is None or np is None:
        return
    cache, points = _preview, preview_of(space.clip)
    if points is None and settings.show:
        run = run_of(space.clip)
        cache, points = _cache, points_of(run) if run is not None else None
    if points is None:
        return
    try:
        footage = examine(space.clip)
    except LookupError:
        return
    t = frame_index(footage, points.run, context.scene.frame_current)
    if not 0 <= t < points.places.shape[1]:
        return
    size = _PREVIEW_PX if cache is _preview else _POINT_PX
    _draw_batches(context.region.view2d, _batches(cache, points, t, settings), size)


def frame_index(footage: Footage, run: RunFacts, scene_frame: int) -> int:
    """The tracked frame, counted from 0, that a scene frame shows."""
    return footage.number_shown(footage.clip_frame_at(scene_frame), run) - run.first_number


def _batches(cache: _Cache, points: Points, t: int, settings: Any) -> Any:
    from gpu_extras.batch import batch_for_shader

    # a preview knows neither confidence nor depth
    least, color_by = (0.0, "MOTION") if cache is _preview else (settings.least_confidence, settings.color_by)
    key = (cache.key, t, settings.trail, least, color_by, settings.opacity)
    if key != cache.frame_key:
        spots, spot_colors, lines, line_colors = points.geometry(t, settings.trail, least, color_by)
        fade = np.array([1, 1, 1, settings.opacity], np.float32)
        cache.batches = [
            (_shader(kind), batch_for_shader(_shader(kind), kind, {"pos": _flat(places), "color": colors * fade}))
            for kind, places, colors in (("LINES", lines, line_colors), ("POINTS", spots, spot_colors))
            if len(places)
        ]
        cache.frame_key = key
    return cache.batches


def _flat(places: Any) -> Any:
    """(P, 3) float32 with z = 0: the built-in shaders want three coordinates."""
    return np.concatenate([places, np.zeros((len(places), 1), np.float32)], axis=1).astype(np.float32)


def _shader(kind: str) -> Any:
    import gpu

    # since 4.5 there are backends on which only a shader for points knows their size
    of_points = kind == "POINTS" and bpy.app.version >= (4, 5, 0)
    return gpu.shader.from_builtin("POINT_FLAT_COLOR" if of_points else "SMOOTH_COLOR")


def _draw_batches(view: Any, batches: Any, size: float) -> None:
    import gpu
    from mathutils import Matrix

    x0, y0 = view.view_to_region(0, 0, clip=False)
    x1, y1 = view.view_to_region(1, 1, clip=False)
    gpu.state.blend_set("ALPHA")
    gpu.state.point_size_set(size)
    with gpu.matrix.push_pop():
        gpu.matrix.multiply_matrix(Matrix.Translation((x0, y0, 0)) @ Matrix.Diagonal((x1 - x0, y1 - y0, 1, 1)))
        for shader, batch in batches:
            shader.bind()
            batch.draw(shader)
    gpu.state.point_size_set(1.0)
    gpu.state.blend_set("NONE")


def register() -> None:
    """Draw in every clip editor."""
    global _handler
    _handler = bpy.types.SpaceClipEditor.draw_handler_add(draw, (), "WINDOW", "POST_PIXEL")


def unregister() -> None:
    """Draw no more."""
    global _handler
    if _handler is not None:
        bpy.types.SpaceClipEditor.draw_handler_remove(_handler, "WINDOW")
        _handler = None
    for cache in (_cache, _preview):
        cache.__init__()  # type: ignore[misc]
