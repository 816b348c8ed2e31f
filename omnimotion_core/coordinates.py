"""Every change of coordinates, each beside its inverse.

| space      | convention                                                                                |
|------------|-------------------------------------------------------------------------------------------|
| pixel      | (x, y), x right, y down, the centre of the top-left pixel is (0, 0); of the plate         |
| working    | the same on the resized working frames                                                    |
| normalized | the same axes, centres of the first and last pixel at -1 and +1 (``align_corners=True``)  |
| raster     | TAP-Vid files and OpenEXR windows: the image's top-left *corner* is (0, 0), y down        |
| marker     | Blender: fraction of width and height, bottom-left *corner* is (0, 0), y up               |
| lower-left | Nuke, 3DEqualizer: pixels, the image's bottom-left *corner* is (0, 0), y up               |
| centered   | PFTrack: pixels, the *centre* of the bottom-left pixel is (0, 0), y up                    |

Every function takes and returns arrays (..., 2) whose last axis is (x, y), or torch tensors where a
docstring says so; ``size`` is always (width, height). Needs numpy alone.
"""

from typing import Any

import numpy as np

Size = tuple[int, int]  # (width, height) in pixels


def pixel_to_raster(xy: np.ndarray) -> np.ndarray:
    """Centre-origin pixels to corner-origin raster coordinates (TAP-Vid's)."""
    return xy + 0.5


def raster_to_pixel(xy: np.ndarray) -> np.ndarray:
    """Corner-origin raster coordinates to centre-origin pixels."""
    return xy - 0.5


def pixel_to_marker(xy: np.ndarray, size: Size) -> np.ndarray:
    """Pixels to Blender marker positions."""
    uv = (xy + 0.5) / np.asarray(size, dtype=np.float64)  # a pixel's centre is half a pixel from the image's edge
    return np.stack([uv[..., 0], 1.0 - uv[..., 1]], axis=-1)


def marker_to_pixel(co: np.ndarray, size: Size) -> np.ndarray:
    """Blender marker positions to pixels."""
    uv = np.stack([co[..., 0], 1.0 - co[..., 1]], axis=-1)
    return uv * np.asarray(size, dtype=np.float64) - 0.5


def pixel_to_lower_left(xy: np.ndarray, size: Size) -> np.ndarray:
    """Pixels to pixels counted from the bottom-left corner, y up."""
    return np.stack([xy[..., 0] + 0.5, size[1] - (xy[..., 1] + 0.5)], axis=-1)


def lower_left_to_pixel(xy: np.ndarray, size: Size) -> np.ndarray:
    """Pixels counted from the bottom-left corner, y up, to pixels."""
    return np.stack([xy[..., 0] - 0.5, size[1] - xy[..., 1] - 0.5], axis=-1)


def pixel_to_centered(xy: np.ndarray, size: Size) -> np.ndarray:
    """Pixels to pixels counted from the centre of the bottom-left pixel, y up."""
    return np.stack([xy[..., 0], size[1] - 1 - xy[..., 1]], axis=-1)


def centered_to_pixel(xy: np.ndarray, size: Size) -> np.ndarray:
    """Pixels counted from the centre of the bottom-left pixel, y up, to pixels."""
    return pixel_to_centered(xy, size)  # it is its own inverse


def rescale_pixels(xy: Any, source: Size, target: Size) -> Any:
    """Pixels of an image of size ``source`` to pixels of the same picture at size ``target``.

    Edges, not pixel centres, coincide: that is what image resizing does. Arrays or tensors.
    Its inverse is the same function with the sizes exchanged.
    """
    scale = (target[0] / source[0], target[1] / source[1])
    if isinstance(xy, np.ndarray):
        factor = np.asarray(scale, dtype=xy.dtype)
        return (xy + 0.5) * factor - 0.5
    factor = xy.new_tensor(scale)
    return (xy + 0.5) * factor - 0.5


def pixel_to_normalized(xy: Any, size: Size, span: Any = None) -> Any:
    """Pixels to normalized coordinates; arrays or tensors.

    Args:
        span: what ``span_of`` gave, for tensors of a GPU, which has to be waited for to make it anew.
    """
    span = span_of(xy, size) if span is None else span
    return xy * (2.0 / span) - 1.0


def normalized_to_pixel(xy: Any, size: Size, span: Any = None) -> Any:
    """Normalized coordinates to pixels; arrays or tensors. For ``span`` see ``pixel_to_normalized``."""
    span = span_of(xy, size) if span is None else span
    return (xy + 1.0) * (span / 2.0)


def span_of(xy: Any, size: Size) -> Any:
    """Pixels between the centers of the first and the last in x and y, (2,), of the kind that ``xy`` is."""
    extent = (max(size[0] - 1, 1), max(size[1] - 1, 1))
    return np.asarray(extent, dtype=xy.dtype) if isinstance(xy, np.ndarray) else xy.new_tensor(extent)


def pixel_grid(size: Size) -> np.ndarray:
    """Centres of all pixels, (height, width, 2) float32 as (x, y)."""
    x, y = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
    return np.stack([x, y], axis=-1)


def inside(xy: np.ndarray, size: Size) -> np.ndarray:
    """Whether pixels (..., 2) lie on the picture, its half-pixel border included: (...) bool."""
    x, y = xy[..., 0], xy[..., 1]
    return (x >= -0.5) & (y >= -0.5) & (x <= size[0] - 0.5) & (y <= size[1] - 0.5)
