"""A clip whose motion is known exactly: what the demo tracks, and what tests and benchmarks measure against.

A camera swings before a wall and a slope (parallax); a wheel turns, a cloth waves, and a pillar sweeps across, behind
which points vanish and come back. Others leave the picture with the camera's swing and return. Everything follows from
formulas: ``Surface`` maps texture to frame and back exactly, so flow and visibility between any two frames are exact.
Speeds are per frame and relative to the picture, so that a longer clip shows more of the same motion.
"""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from omnimotion_core.coordinates import Size, inside, pixel_grid, pixel_to_raster, rescale_pixels
from omnimotion_core.errors import ConfigError
from omnimotion_core.evaluation.photography import Photography
from omnimotion_core.evaluation.surfaces import Camera, Surface, turn, wave
from omnimotion_core.evaluation.tapvid import Truth
from omnimotion_core.evaluation.textures import make_texture

SUPERSAMPLING = 3  # samples a pixel and axis
_MAX_SAMPLES = 1 << 20  # rendered at once; keeps the memory of a large picture small
_MAX_TEXTURE_SIDE = 2048
_EDGE_MARGIN_PX = 1.0  # truth points keep this distance from an outline in the frame that they are picked in

_PALETTES = {
    "wall": ((196, 178, 150), (120, 96, 80), (222, 208, 180), (92, 110, 124), (164, 84, 60)),
    "slope": ((74, 104, 62), (122, 142, 76), (48, 66, 50), (160, 150, 92), (96, 80, 58)),
    "wheel": ((206, 66, 48), (244, 214, 92), (60, 40, 56), (238, 238, 226), (240, 140, 40)),
    "cloth": ((40, 88, 168), (222, 232, 242), (24, 38, 86), (96, 178, 206), (214, 90, 130)),
    "pillar": ((30, 30, 36), (64, 62, 70), (18, 18, 24), (190, 176, 150), (96, 48, 44)),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """A synthetic clip; ``Scene.make`` builds one."""

    num_frames: int
    size: Size
    surfaces: tuple[Surface, ...]  # from back to front; the first covers the whole picture in every frame
    photography: Photography | None = None  # None: as sharp as the pixels allow

    @classmethod
    def make(cls, num_frames: int = 48, size: Size = (256, 256), seed: int = 0) -> Self:
        """The demo's scene; ``seed`` changes its textures and the phases of its motions.

        Raises:
            ConfigError: fewer than 2 frames, or a side below 32 pixels.
        """
        if num_frames < 2:
            raise ConfigError(f"a synthetic clip of {num_frames} frames is asked for", "ask for 2 or more")
        if min(size) < 32:
            raise ConfigError(f"a synthetic clip of {size[0]}x{size[1]} pixels is asked for", "ask for 32x32 or more")
        return cls(num_frames=num_frames, size=size, surfaces=_build(size, np.random.default_rng(seed)))

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers of ``owner`` and of the truth's owners stand for."""
        return tuple(surface.name for surface in self.surfaces)

    def render(self, t: float) -> np.ndarray:
        """Frame t, antialiased and as photographed: (H, W, 3) uint8, display-referred RGB."""
        return self._draw(t) if self.photography is None else self.photography.expose(self._draw, t)

    def _draw(self, t: float) -> np.ndarray:
        """The moment t, antialiased: (H, W, 3) uint8."""
        width, height = self.size
        rows = max(1, _MAX_SAMPLES // (width * SUPERSAMPLING**2))
        bands = [self._render_rows(t, top, min(top + rows, height)) for top in range(0, height, rows)]
        return np.concatenate(bands)

    def _render_rows(self, t: float, top: int, bottom: int) -> np.ndarray:
        """Rows top to bottom - 1 of frame t: (bottom - top, W, 3) uint8."""
        around = pixel_grid((self.size[0] + 2, bottom - top + 2)) + np.array([-1, top - 1], np.float32)
        fine = pixel_grid((self.size[0] * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
        samples = rescale_pixels(fine, (SUPERSAMPLING, SUPERSAMPLING), (1, 1))
        samples[..., 1] += top
        color = np.zeros((*samples.shape[:2], 3), np.float32)
        for surface in self.surfaces:
            box = _bounds(surface.hides(around, t))  # most surfaces fill a small part of the picture
            if box is None:
                continue
            points = surface.to_surface(samples[box], t)
            np.copyto(color[box], surface.color(points), where=surface.covers(points)[..., None])
        averaged = cv2.resize(color, (self.size[0], bottom - top), interpolation=cv2.INTER_AREA)
        return np.asarray(np.clip(averaged + 0.5, 0, 255), np.uint8)

    def owner(self, t: float) -> np.ndarray:
        """Which surface the centre of each pixel of frame t shows: (H, W) indices into ``surfaces``."""
        return self.owner_at(pixel_grid(self.size).astype(np.float64), t)

    def owner_at(self, pixels: np.ndarray, t: float) -> np.ndarray:
        """Which surface is at the given centre-origin pixels (..., 2) of frame t: (...) indices into ``surfaces``."""
        front = np.zeros(pixels.shape[:-1], np.int64)
        for index, surface in enumerate(self.surfaces):
            front[surface.hides(pixels, t)] = index
        return front

    def mask(self, t: float, name: str) -> np.ndarray:
        """Where frame t shows the surface of that name: (H, W) bool."""
        return np.asarray(self.owner(t) == self.names.index(name))

    def flow(self, i: float, j: float) -> tuple[np.ndarray, np.ndarray]:
        """The exact motion of every pixel centre from frame i to frame j.

        Returns:
            vectors (H, W, 2) float32 as (dx, dy) in pixels, true also where the surface is hidden in j; and visible
            (H, W) bool: the surface point is inside frame j and nothing is in front of it there.
        """
        pixels = pixel_grid(self.size).astype(np.float64)
        owner = self.owner_at(pixels, i)
        there, visible = np.empty_like(pixels), np.empty(owner.shape, np.bool_)
        for index, surface in enumerate(self.surfaces):
            own = owner == index
            there[own] = surface.to_frame(surface.to_surface(pixels[own], i), j)
            visible[own] = self._shown(there[own], index, j)
        return (there - pixels).astype(np.float32), visible

    def _shown(self, pixels: np.ndarray, index: int, t: float) -> np.ndarray:
        """Whether points of surface ``index``, at the given pixels (M, 2) of frame t, can be seen there."""
        shown = inside(pixels, self.size)
        for surface in self.surfaces[index + 1 :]:
            shown &= ~surface.hides(pixels, t)
        return shown

    def truth(self, num_points: int = 256, seed: int = 0) -> Truth:
        """Exact tracks of points picked at random, as many of each surface as of the others where it shows enough.

        Each is picked in a random frame, off every outline, and queried where it is first visible.
        """
        rng = np.random.default_rng(seed)
        owners, points = self._pick(rng, num_points)
        frames = range(self.num_frames)
        positions = np.empty((num_points, self.num_frames, 2))
        visible = np.empty((num_points, self.num_frames), np.bool_)
        for index, surface in enumerate(self.surfaces):
            own = owners == index
            for t in frames:
                positions[own, t] = surface.to_frame(points[own], t)
                visible[own, t] = self._shown(positions[own, t], index, t)
        target = pixel_to_raster(positions)
        first = visible.argmax(axis=1)
        at = target[np.arange(num_points), first]
        return Truth(
            target_points=target.astype(np.float32),
            occluded=~visible,
            query_points=np.stack([first, at[:, 1], at[:, 0]], axis=-1).astype(np.float32),
            owner=owners,
            size=self.size,
        )

    def _pick(self, rng: np.random.Generator, num_points: int) -> tuple[np.ndarray, np.ndarray]:
        """Surface indices (N,) and surface points u (N, 2)."""
        owners, points = np.empty(num_points, np.int64), np.empty((num_points, 2))
        offsets = _EDGE_MARGIN_PX * np.array([(0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1)])
        found = 0
        while found < num_points:
            t = int(rng.integers(self.num_frames))
            pixels = rng.uniform(-0.5, np.asarray(self.size) - 0.5, (4 * num_points, 2))
            around = self.owner_at(pixels[:, None] + offsets, t)
            sure = (around == around[:, :1]).all(axis=1)
            # A few of each surface from every frame, so that points begin all over the clip.
            for index, surface in enumerate(self.surfaces):
                own = pixels[sure & (around[:, 0] == index)][: max(1, num_points // (4 * len(self.surfaces)))]
                own = own[: num_points - found]
                owners[found : found + len(own)] = index
                points[found : found + len(own)] = surface.to_surface(own, t)
                found += len(own)
        return owners, points


def _bounds(covered: np.ndarray) -> tuple[slice, slice] | None:
    """The rectangle of samples of the covered pixels and of one more on each side; None: nothing is covered.

    ``covered`` has a border of one pixel, of which there are no samples.
    """
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    if not len(rows):
        return None
    top, left = max(rows[0] - 2, 0), max(columns[0] - 2, 0)
    return (
        slice(top * SUPERSAMPLING, (rows[-1] + 1) * SUPERSAMPLING),
        slice(left * SUPERSAMPLING, (columns[-1] + 1) * SUPERSAMPLING),
    )


def _build(size: Size, rng: np.random.Generator) -> tuple[Surface, ...]:
    """Wall, slope, wheel, cloth and pillar, from back to front."""
    width, height = size
    focal = 1.1 * max(size)
    short = min(size) / focal  # the picture's shorter side at depth 1, scene units
    half = np.array([width, height]) / focal / 2  # the picture's half sides at depth 1
    camera = _swinging_camera(size, focal, rng)
    phase = rng.uniform(-0.3, 0.3, 4)

    def place(x: float, y: float, z: float) -> np.ndarray:
        """The point at depth z that stands at the given place of the resting camera's picture, -1..1."""
        return np.array([x * half[0] * z, y * half[1] * z, z])

    def surface(name: str, depth: float, share: float, **motion: object) -> Surface:
        """``share``: how much of the picture's long side one texture period spans at the given depth."""
        period_px = share * max(size)
        side = min(_MAX_TEXTURE_SIDE, cv2.getOptimalDFTSize(round(2 * period_px)))
        texture = make_texture(rng, side, side / period_px, np.asarray(_PALETTES[name], np.float64))
        texels_per_unit = side / period_px * focal / depth
        return Surface(name=name, texture=texture, texels_per_unit=texels_per_unit, camera=camera, **motion)  # type: ignore[arg-type]

    def slope_top(u: np.ndarray) -> np.ndarray:
        return np.asarray(0.16 * np.sin(1.7 * u[..., 0] + 1.0) + 0.07 * np.sin(4.1 * u[..., 0]))

    def gear(u: np.ndarray) -> np.ndarray:
        radius = np.hypot(u[..., 0], u[..., 1])
        return np.asarray(radius < 0.82 * short * (1 + 0.1 * np.cos(7 * np.arctan2(u[..., 1], u[..., 0]))))

    def banner(u: np.ndarray) -> np.ndarray:
        return np.asarray((np.abs(u[..., 0]) / (0.62 * short)) ** 6 + (np.abs(u[..., 1]) / (0.44 * short)) ** 6 < 1)

    turning, turning_back = turn(2 * np.pi / 90, float(phase[0]))
    waving, waving_back = wave(0.05 * short, 0.75 * short, 17.0, float(phase[1]))
    return (
        surface("wall", 6.0, 1.5, origin=lambda t: place(0, 0, 6.0), axes=_tilted(0.14, 0.0),
                covers=lambda u: np.ones(u.shape[:-1], np.bool_)),
        surface("slope", 4.2, 1.5, origin=lambda t: place(0, 0.42, 4.4), axes=_tilted(0.0, 0.6),
                covers=lambda u: u[..., 1] > slope_top(u)),
        surface("wheel", 3.8, 0.5, origin=lambda t: place(0.42, -0.18, 3.8), axes=_tilted(-0.25, 0.1),
                covers=gear, deform=turning, restore=turning_back),
        surface("cloth", 3.0, 0.5,
                origin=lambda t: place(0.14 * _swing(t, 37, phase[2]) - 0.42, 0.22 - 0.1 * _swing(t, 29, np.pi / 2), 3),
                axes=_tilted(0.2, 0.0), covers=banner, deform=waving, restore=waving_back),
        surface("pillar", 2.2, 0.5,
                origin=lambda t: place(1.15 * _swing(t, 76, -0.99 + 0.3 * phase[3]), 0, 2.2),
                axes=_tilted(0.0, 0.0), covers=lambda u: np.abs(u[..., 0]) < 0.16 * short),
    )  # fmt: skip


def _swinging_camera(size: Size, focal: float, rng: np.random.Generator) -> Camera:
    """To the right and back within 44 frames, turning and nodding a little, coming nearer and going off again."""
    late = float(rng.uniform(-0.2, 0.2))

    def position(t: float) -> np.ndarray:
        return np.array([0.34 * _swing(t, 44, late), 0.1 * _swing(t, 31), 0.2 * (1 - _swing(t, 60, np.pi / 2))])

    def rotation(t: float) -> np.ndarray:
        yaw, roll = 0.045 * _swing(t, 44, late), 0.035 * _swing(t, 53)
        turned = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
        rolled = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        return np.asarray(rolled @ turned)

    return Camera(size=size, focal_px=focal, position=position, rotation=rotation)


def _swing(t: float, period: float, phase: float = 0.0) -> float:
    """To and fro between -1 and 1 within ``period`` frames; ``phase`` in radians."""
    return float(np.sin(2 * np.pi * t / period + phase))


def _tilted(yaw: float, pitch: float) -> np.ndarray:
    """The axes (3, 2) of a plane that faces the camera, turned about the vertical and the horizontal (radians)."""
    return np.array([[np.cos(yaw), 0.0], [0.0, np.cos(pitch)], [np.sin(yaw), -np.sin(pitch)]])
