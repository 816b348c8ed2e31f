"""What a camera adds to a picture: blur by motion, corners that its lens darkens, exposure that changes, grain."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GAMMA = 2.2  # of display-referred values: light adds up, they do not
_GRAIN_SEED = 20231


def constant(t: float) -> float:
    """An exposure that does not change."""
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Photography:
    """How a scene is photographed; as it stands, sharply, evenly and without grain."""

    shutter: float = 0.0  # how much of a frame's time the shutter is open, around the frame's own time
    moments: int = 5  # that blur is averaged from
    grain: float = 0.0  # standard deviation, gray levels
    exposure: Callable[[float], float] = constant  # t → factor of light
    falloff: float = 0.0  # share of the light that is lost in the corners; it grows with the square of the distance

    def expose(self, picture: Callable[[float], np.ndarray], t: float) -> np.ndarray:
        """Frame t of what ``picture`` shows at any time, (H, W, 3), 0..255: (H, W, 3) uint8.

        Grain is the same whenever a frame is asked for.
        """
        light = self._light(picture, t) * self.exposure(t)
        if self.falloff:
            height, width = light.shape[:2]
            x, y = (np.linspace(-1, 1, side) for side in (width, height))
            light = light * (1 - self.falloff * (x**2 + y[:, None] ** 2) / 2)[..., None]
        shown = 255 * np.clip(light, 0, 1) ** (1 / GAMMA)
        if self.grain:
            rng = np.random.default_rng([_GRAIN_SEED, round(1000 * t)])
            shown = shown + self.grain * rng.standard_normal(shown.shape)
        return np.asarray(np.clip(shown + 0.5, 0, 255), np.uint8)

    def _light(self, picture: Callable[[float], np.ndarray], t: float) -> np.ndarray:
        """The mean light while the shutter is open, (H, W, 3), 0..1."""
        times = [t]
        if self.shutter:
            middles = (np.arange(self.moments) + 0.5) / self.moments - 0.5
            times = (t + self.shutter * middles).tolist()
        return np.mean([(np.asarray(picture(time), np.float64) / 255) ** GAMMA for time in times], axis=0)
