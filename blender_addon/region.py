# SPDX-License-Identifier: GPL-3.0-or-later
"""Where to track: what is drawn on the clip, or a mask, as a matte for the core."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

from .footage import Footage
from .matte import Matte, Polygon

_CURVE_STEPS = 16  # straight pieces of a curve between two points


def write_region(
    clip: "bpy.types.MovieClip", footage: Footage, frames: "tuple[int, int]", region: str, mask_name: str, folder: Path
) -> "str | None":
    """The matte of a region, for ``--mask``: one still picture, or a sequence where the region moves.

    Args:
        frames: first and last clip frame that are tracked.
        region: as the settings name it.
        folder: is emptied and gets the pictures.
    Raises:
        LookupError: nothing is drawn, or there is no such mask.
    """
    if region == "FRAME":
        return None
    outside = region.endswith("_OUT")
    if region.startswith("MASK"):
        mask = bpy.data.masks.get(mask_name)
        if mask is None:
            raise LookupError(f"there is no mask {mask_name!r}; choose one under Mask" if mask_name
                              else "no mask is chosen; choose one under Mask")  # fmt: skip
        return _write_mask(mask, footage, frames, outside, folder)
    matte = Matte(footage.size)
    for polygon in _annotation(clip):
        matte.fill([polygon])
    if matte.empty:
        raise LookupError(f"nothing is drawn on {clip.name}; draw with Annotate, or take another region")
    return _write_still(matte, outside, folder)


def _write_mask(
    mask: "bpy.types.Mask", footage: Footage, frames: "tuple[int, int]", outside: bool, folder: Path
) -> str:
    scene = bpy.context.scene
    if not _moves(mask):
        matte = mask_matte(mask, footage.size)
        if matte.empty:
            raise LookupError(f"the mask {mask.name} covers nothing; close its curves")
        return _write_still(matte, outside, folder)
    _clear(folder)
    before, covered = scene.frame_current, False
    try:
        for frame in range(frames[0], frames[1] + 1):
            scene.frame_set(frame + footage.frame_start - 1)
            matte = mask_matte(mask, footage.size)
            covered = covered or not matte.empty
            if outside:
                matte.invert()
            matte.write(folder / f"region.{footage.number(frame):06d}.png")
    finally:
        scene.frame_set(before)
    if not covered:
        raise LookupError(f"the mask {mask.name} covers nothing in these frames; close its curves")
    return str(folder)


def _write_still(matte: Matte, outside: bool, folder: Path) -> str:
    _clear(folder)
    if outside:
        matte.invert()
    if matte.empty:
        raise LookupError("the region leaves nothing to track; exchange inside and outside")
    path = folder / "region.png"
    matte.write(path)
    return str(path)


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def mask_matte(mask: "bpy.types.Mask", size: "tuple[int, int]") -> Matte:
    """A mask as it stands at the present frame, without its feather."""
    evaluated = mask.evaluated_get(bpy.context.evaluated_depsgraph_get())
    matte = Matte(size)
    for layer in reversed(evaluated.layers):  # the first is on top
        if layer.hide_render:
            continue
        one = Matte(size)
        splines = [polygon for spline in layer.splines if (polygon := list(_outline(spline, size)))]
        for polygons in [splines] if layer.use_fill_holes else [[polygon] for polygon in splines]:
            one.fill(polygons)
        if layer.invert:
            one.invert()
        matte.add(one, subtract="SUBTRACT" in layer.blend)
    return matte


def _outline(spline: "bpy.types.MaskSpline", size: "tuple[int, int]") -> "Iterator[tuple[float, float]]":
    """A closed curve's corners in fractions of the frame; nothing of an open one."""
    points = list(spline.points)
    if not spline.use_cyclic or len(points) < 2 or not spline.use_fill:
        return
    for start, end in zip(points, [*points[1:], points[0]], strict=True):
        a, b, c, d = (tuple(corner) for corner in (start.co, start.handle_right, end.handle_left, end.co))
        for step in range(_CURVE_STEPS):
            t = step / _CURVE_STEPS
            u = 1 - t
            x, y = (u**3 * p + 3 * u * u * t * q + 3 * u * t * t * r + t**3 * s
                    for p, q, r, s in zip(a, b, c, d, strict=True))  # fmt: skip
            yield _to_frame(x, y, size)


def _to_frame(x: float, y: float, size: "tuple[int, int]") -> "tuple[float, float]":
    """A mask's square, whose side is the frame's longer one, to fractions of the frame."""
    width, height = size
    side = max(width, height)
    return (x - 0.5) * side / width + 0.5, (y - 0.5) * side / height + 0.5


def _moves(mask: "bpy.types.Mask") -> bool:
    if mask.animation_data is not None and mask.animation_data.action is not None:
        return True
    points = [point for layer in mask.layers for spline in layer.splines for point in spline.points]
    return any(point.parent.id is not None for point in points)


def _annotation(clip: "bpy.types.MovieClip") -> "Iterator[Polygon]":
    """Every stroke that is drawn on the clip, as a polygon in fractions of the frame."""
    drawn: Any = getattr(clip, "annotation", None) or getattr(clip, "grease_pencil", None)  # the name since 5.0, before
    for layer in drawn.layers if drawn is not None else ():
        if getattr(layer, "annotation_hide", False) or getattr(layer, "hide", False) or layer.active_frame is None:
            continue
        for stroke in layer.active_frame.strokes:
            yield [(point.co[0], point.co[1]) for point in stroke.points]
