"""Textured surfaces before a moving camera, each with an exact map between its texture and every frame.

A surface is a plane in space whose points may move within it. Letters: u a surface point (texture coordinates, fixed to
the material), v the same point after the surface's own motion within its plane, H_t the plane's homography to frame t.
World: x right, y down, z away from the camera, in units of the scene.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from omnimotion_core.coordinates import Size

Motion = Callable[[np.ndarray, float], np.ndarray]  # (points (..., 2), t) → (..., 2)


def stay(points: np.ndarray, t: float) -> np.ndarray:
    """No motion within the plane."""
    return points


def rotation(angle: Callable[[float], float]) -> tuple[Motion, Motion]:
    """Rotation about the plane's origin by ``angle`` of the time, radians from x to y, and its inverse."""
    def rotate(points: np.ndarray, by: float) -> np.ndarray:
        c, s = np.cos(by), np.sin(by)
        return np.stack([c * points[..., 0] - s * points[..., 1], s * points[..., 0] + c * points[..., 1]], axis=-1)

    return (lambda points, t: rotate(points, angle(t))), (lambda points, t: rotate(points, -angle(t)))


def turn(speed: float, phase: float = 0.0) -> tuple[Motion, Motion]:
    """Rotation about the plane's origin by ``speed`` radians a frame, and its inverse."""
    return rotation(lambda t: speed * t + phase)


def wave(amplitude: float, wavelength: float, period: float, phase: float = 0.0) -> tuple[Motion, Motion]:
    """Two running waves, one across the other, and the exact inverse: each is a shear, undone by subtracting it.

    Args:
        amplitude, wavelength: in scene units; the second wave has 0.7 of the amplitude and 1.3 of the length.
        period: frames.
        phase: radians.
    """
    def down(x: np.ndarray, t: float) -> np.ndarray:
        return np.asarray(amplitude * np.sin(2 * np.pi * (x / wavelength - t / period) + phase))

    def across(y: np.ndarray, t: float) -> np.ndarray:
        return np.asarray(0.7 * amplitude * np.sin(2 * np.pi * (y / (1.3 * wavelength) + t / (1.37 * period)) - phase))

    def deform(points: np.ndarray, t: float) -> np.ndarray:
        y = points[..., 1] + down(points[..., 0], t)
        return np.stack([points[..., 0] + across(y, t), y], axis=-1)

    def restore(points: np.ndarray, t: float) -> np.ndarray:
        x = points[..., 0] - across(points[..., 1], t)
        return np.stack([x, points[..., 1] - down(x, t)], axis=-1)

    return deform, restore


@dataclass(frozen=True, eq=False, kw_only=True)
class Camera:
    """A pinhole camera on a path."""

    size: Size
    focal_px: float
    position: Callable[[float], np.ndarray]  # t → (3,)
    rotation: Callable[[float], np.ndarray]  # t → (3, 3), world to camera

    def projection(self, t: float, plane: np.ndarray) -> np.ndarray:
        """The homography (3, 3) from a plane to centre-origin pixels; ``plane`` (3, 3): its two axes and its origin."""
        intrinsic = np.array([
            [self.focal_px, 0, (self.size[0] - 1) / 2], [0, self.focal_px, (self.size[1] - 1) / 2], [0, 0, 1]
        ])  # fmt: skip
        relative = plane.copy()
        relative[:, 2] -= self.position(t)
        return np.asarray(intrinsic @ self.rotation(t) @ relative)


@dataclass(frozen=True, eq=False, kw_only=True)
class Surface:
    """A plane with a texture, a shape cut out of it, and a motion."""

    name: str
    texture: np.ndarray  # (S, S, 3) float32, 0..255, periodic
    texels_per_unit: float
    camera: Camera
    origin: Callable[[float], np.ndarray]  # t → (3,), world
    axes: np.ndarray  # (3, 2), world directions of the two coordinates of v
    covers: Callable[[np.ndarray], np.ndarray]  # u (..., 2) → (...) bool: inside the shape
    deform: Motion = stay  # u → v
    restore: Motion = stay  # v → u, the exact inverse

    def homography(self, t: float) -> np.ndarray:
        """H_t (3, 3), from v to pixels of frame t."""
        return self.camera.projection(t, np.column_stack([self.axes, self.origin(t)]))

    def to_frame(self, points: np.ndarray, t: float) -> np.ndarray:
        """Surface points u (..., 2) to centre-origin pixels of frame t (..., 2)."""
        return _apply(self.homography(t), self.deform(points, t))

    def to_surface(self, pixels: np.ndarray, t: float) -> np.ndarray:
        """Centre-origin pixels of frame t (..., 2) to surface points u (..., 2)."""
        return self.restore(_apply(np.linalg.inv(self.homography(t)), pixels), t)

    def hides(self, pixels: np.ndarray, t: float) -> np.ndarray:
        """Whether the shape lies at the given pixels (..., 2) of frame t: (...) bool."""
        return self.covers(self.to_surface(pixels, t))

    def color(self, points: np.ndarray) -> np.ndarray:
        """The texture at surface points u (H, W, 2), bilinear: (H, W, 3) float32, 0..255."""
        at = (points * self.texels_per_unit).astype(np.float32)
        return np.asarray(cv2.remap(self.texture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))


def _apply(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A homography (3, 3) on points (..., 2)."""
    x, y = points[..., 0], points[..., 1]
    (a, b, c), (d, e, f), (g, h, i) = (row.tolist() for row in homography)
    scale = 1.0 / (g * x + h * y + i)
    return np.stack([(a * x + b * y + c) * scale, (d * x + e * y + f) * scale], axis=-1)
