"""Motion given by a formula, as dense flow; and files as another library reads them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813 - its own documentation calls it so

from omnimotion_core.coordinates import inside, pixel_grid
from omnimotion_core.trajectories.dense import DenseFlow

Flow = Callable[[int, int], DenseFlow]


def translating(dx: float, dy: float, size: tuple[int, int] = (96, 64)) -> Flow:
    """Everything moves by (dx, dy) pixels a frame, y down; seen where it is on the picture."""
    return moving(lambda points, frames: points + np.array([dx, dy]) * frames, size)


def rotating(degrees: float, size: tuple[int, int] = (96, 64)) -> Flow:
    """Everything turns about the picture's centre by so many degrees a frame, clockwise as it is looked at."""
    centre = (np.array(size) - 1) / 2

    def turn(points: np.ndarray, frames: int) -> np.ndarray:
        angle = np.deg2rad(degrees * frames)
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # y down: clockwise
        return (points - centre) @ turned.T + centre

    return moving(turn, size)


def moving(place: Callable[[np.ndarray, int], np.ndarray], size: tuple[int, int]) -> Flow:
    """``place`` tells where points (..., 2) are so many frames later, whatever the frame."""

    def flow(source: int, target: int) -> DenseFlow:
        grid = pixel_grid(size).astype(np.float64)
        landed = place(grid, target - source)
        sure = 0.75 if target > source else 0.5
        return DenseFlow(
            source=source, target=target, vectors=(landed - grid).astype(np.float32), visible=inside(landed, size),
            confidence=np.full(size[::-1], sure, np.float32),
            depth=(grid[..., 0] / size[0]).astype(np.float32),
        )  # fmt: skip

    return flow


def read_with_oiio(path: Path, kind: str = "float") -> tuple[dict[str, np.ndarray], oiio.ImageSpec]:
    """The channels of all parts by name, and the first part's header."""
    file = oiio.ImageInput.open(str(path))
    assert file, oiio.geterror()
    found, part, first = {}, 0, file.spec()
    while file.seek_subimage(part, 0):
        pixels, spec = file.read_image(part, 0, 0, file.spec().nchannels, kind), file.spec()
        assert pixels is not None, file.geterror()
        pixels = pixels.reshape(spec.height, spec.width, spec.nchannels)
        found.update({name: pixels[..., index] for index, name in enumerate(spec.channelnames)})
        part += 1
    file.close()
    return found, first
