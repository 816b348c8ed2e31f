"""Scenes that trackers fail on, each for a reason of its own, whose motion is known exactly.

`SCENES` names them and tells the reason. All are flat: sheets before the camera, whose unit is a pixel of the picture
where they lie at depth 1, with (0, 0) at the middle of the resting camera's picture.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import ConfigError
from omnimotion_core.evaluation.photography import Photography
from omnimotion_core.evaluation.surfaces import Camera, Motion, Surface, rotation, turn, wave
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.evaluation.textures import make_shading, make_texture

SIZE: Size = (256, 160)
NUM_FRAMES = 32
_TEXELS = 2  # a pixel and axis
_FILM = Photography(shutter=0.5, grain=2.0)

Place = Callable[[float], tuple[float, float]]  # t → (x, y), pixels
Value = Callable[[float], float]  # t → a number
Shape = Callable[[np.ndarray], np.ndarray]  # u (..., 2) → (...) bool: inside
Palette = tuple[tuple[int, int, int], ...]

_EARTH = ((92, 84, 70), (124, 116, 96), (70, 66, 58), (150, 140, 118), (110, 92, 72))
_LEAVES = ((74, 104, 62), (122, 142, 76), (48, 66, 50), (160, 150, 92), (96, 80, 58))
_TOY = ((206, 66, 48), (244, 214, 92), (60, 40, 56), (238, 238, 226), (240, 140, 40))
_CLOTH = ((40, 88, 168), (222, 232, 242), (24, 38, 86), (96, 178, 206), (214, 90, 130))
_FUR = ((206, 190, 168), (168, 140, 112), (226, 214, 196), (146, 116, 90), (192, 164, 134))
_METAL = ((60, 62, 70), (110, 112, 118), (38, 38, 44), (150, 150, 152), (86, 84, 92))
_WALL = (186, 180, 168)
_BLUE = (52, 112, 226)
_SKY = (168, 192, 222)


def make_hard_scene(name: str, seed: int = 0) -> Scene:
    """The scene of that name of `SCENES`; ``seed`` changes its textures and the phases of its motions.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in SCENES:
        raise ConfigError(f"{name!r} is none of the scenes", f"choose of {', '.join(SCENES)}")
    build, _ = SCENES[name]
    return build(np.random.default_rng([seed, *name.encode()]))  # other textures in each scene


def _middle(t: float) -> tuple[float, float]:
    return (0.0, 0.0)


def _zero(t: float) -> float:
    return 0.0


class _Stage:
    """Sheets before a camera that pans, rolls and comes nearer."""

    def __init__(
        self, rng: np.random.Generator, *, pan: Place = _middle, roll: Value = _zero, nearness: Value = _zero,
        photography: Photography = _FILM,
    ) -> None:  # fmt: skip
        """``pan`` in pixels, ``roll`` in radians, ``nearness``: how much of the way to depth 1 the camera has gone."""
        self.rng, self.photography = rng, photography
        self.camera = Camera(
            size=SIZE, focal_px=1.0, position=lambda t: np.array([*pan(t), nearness(t)]),
            rotation=lambda t: _rolled(roll(t)),
        )  # fmt: skip
        self.sheets: list[Surface] = []

    def sheet(
        self, name: str, covers: Shape, *, at: Place = _middle, depth: Value = lambda t: 1.0,
        motion: tuple[Motion, Motion] | None = None, palette: Palette = (), softness: float = 1.5,
        period_px: int = 320, texture: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """One more sheet, before those that there are, its origin ``at`` a place of depth 1, which it moves about."""
        side = cv2.getOptimalDFTSize(_TEXELS * period_px)
        if texture is None:
            texture = make_texture(self.rng, side, _TEXELS, np.asarray(palette, np.float64), softness=softness)
        moved: dict[str, Any] = {} if motion is None else {"deform": motion[0], "restore": motion[1]}
        self.sheets.append(Surface(
            name=name, texture=texture, texels_per_unit=_TEXELS, camera=self.camera, covers=covers,
            origin=lambda t: np.array([*at(t), depth(t)]), axes=np.eye(3)[:, :2], **moved,
        ))  # fmt: skip

    def bare(self, name: str, covers: Shape, color: tuple[int, int, int]) -> None:
        """One more sheet without texture."""
        side = cv2.getOptimalDFTSize(_TEXELS * 320)
        self.sheet(name, covers, texture=make_shading(self.rng, side, np.asarray(color), 3.0))

    def scene(self) -> Scene:
        """All of it, from back to front."""
        return Scene(num_frames=NUM_FRAMES, size=SIZE, surfaces=tuple(self.sheets), photography=self.photography)

    def phase(self) -> float:
        """Where a motion begins, radians."""
        return float(self.rng.uniform(-0.4, 0.4))


def _turning(rng: np.random.Generator) -> Scene:
    stage = _Stage(rng, roll=lambda t: 0.06 * t, nearness=lambda t: 0.008 * t)
    stage.sheet("ground", _everywhere, palette=_EARTH)
    stage.sheet("disc", _disc(46), at=lambda t: (14 * _swing(t, 60), 6), palette=_TOY,
                motion=turn(-0.09, stage.phase()))
    return stage.scene()


def _crossing(rng: np.random.Generator) -> Scene:
    stage = _Stage(rng, pan=lambda t: (0.6 * t, 0.0))
    stage.sheet("ground", _everywhere, palette=_LEAVES)

    def around(period: float, start: float) -> Place:
        return lambda t: (0.6 * t + 64 * _swing(t, period, start), 34 * _swing(t, period, start + 1.3))

    for index, (palette, speed) in enumerate(((_CLOTH, 0.12), (_FUR, -0.1), (_TOY, 0.08), (_METAL, -0.14))):
        at = around(52 - 6 * index, index * np.pi / 2 + stage.phase())
        stage.sheet(f"disc {index + 1}", _disc(24 + 4 * index), at=at, palette=palette,
                    motion=turn(speed, stage.phase()))
    return stage.scene()


def _walker(rng: np.random.Generator) -> Scene:
    def follow(t: float) -> tuple[float, float]:
        return (4.0 * t, 2.0 * _swing(t, 19))

    stage = _Stage(rng, pan=follow, photography=Photography(shutter=0.6, grain=3.0))
    stage.sheet("ground", _everywhere, palette=_LEAVES, softness=1.2)

    def body(t: float) -> tuple[float, float]:
        return (4.3 * t - 6, 1.5 * _swing(t, 8))

    step = 16.0
    phase = stage.phase()

    def limb(name: str, hip: tuple[float, float], late: float) -> None:
        """Two parts of a leg, the lower one hinged to the upper one's end."""
        length = 22.0

        def upper(t: float) -> float:
            return 0.55 * _swing(t, step, late)

        def at_hip(t: float) -> tuple[float, float]:
            x, y = body(t)
            return (x + hip[0], y + hip[1])

        def knee(t: float) -> tuple[float, float]:
            x, y = at_hip(t)
            return (x - length * np.sin(upper(t)), y + length * np.cos(upper(t)))

        stage.sheet(f"{name} upper", _bar(5.0, 0, length), at=at_hip, motion=rotation(upper), palette=_FUR)
        stage.sheet(f"{name} lower", _bar(3.5, -3, length), at=knee, palette=_FUR,
                    motion=rotation(lambda t: upper(t) + 0.4 + 0.4 * _swing(t, step, late + 1.2)))

    limb("far hind leg", (-30, 12), phase + np.pi)
    limb("far fore leg", (30, 10), phase)
    stage.sheet("body", _ellipse(44, 19), at=body, palette=_FUR)
    stage.sheet("head", _ellipse(15, 11), at=lambda t: (body(t)[0] + 52, body(t)[1] - 16 + 2 * _swing(t, step)),
                motion=rotation(lambda t: 0.2 * _swing(t, step)), palette=_FUR)
    limb("near hind leg", (-30, 12), phase)
    limb("near fore leg", (30, 10), phase + np.pi)
    stage.sheet("post", _post(9), at=lambda t: (70, 0), palette=_METAL)
    return stage.scene()


def _bars(rng: np.random.Generator) -> Scene:
    stage = _Stage(rng, pan=lambda t: (0.5 * t, 0.2 * t))
    stage.bare("wall", _everywhere, _WALL)

    def put(index: int, drift: float, phase: float) -> None:
        stage.sheet(f"bar {index + 1}", _post(4.5), palette=_METAL if index % 2 else _TOY,
                    at=lambda t: (48 * (index - 2) + drift * t, 0),
                    motion=rotation(lambda t: 0.5 * phase + 0.12 * _swing(t, 40, phase)))

    for index in range(5):
        put(index, 1.4 - 0.5 * index, stage.phase())
    return stage.scene()


def _light(rng: np.random.Generator) -> Scene:
    stage = _Stage(rng, pan=lambda t: (12 * _swing(t, 50), 0.0), photography=Photography(
        shutter=0.5, grain=2.0, exposure=lambda t: 2 ** (0.7 * _swing(t, 34))
    ))  # fmt: skip
    stage.sheet("ground", _everywhere, palette=_EARTH)
    stage.sheet("disc", _disc(26), at=lambda t: (20 * _swing(t, 45), 4), depth=lambda t: 1 - 0.016 * t, palette=_CLOTH,
                motion=turn(0.03, stage.phase()))
    stage.sheet("bar", _post(8), at=lambda t: (110 * _swing(t, 70, -1.3), 0), palette=_METAL)
    return stage.scene()


def _ball(rng: np.random.Generator) -> Scene:
    stage = _Stage(rng, pan=lambda t: (3 * _swing(t, 30), 0.0))
    stage.sheet("ground", _everywhere, palette=_LEAVES)
    stage.sheet("ball", _disc(14), motion=turn(0.15, stage.phase()), palette=_TOY, period_px=128,
                at=lambda t: (95 * _swing(t, 46, -1.4), 52 - 85 * abs(_swing(t, 26))))
    return stage.scene()


def _drape(rng: np.random.Generator) -> Scene:
    stage = _Stage(rng)
    stage.sheet("ground", _everywhere, palette=_EARTH, softness=2.0)
    stage.sheet("cloth", _box(84, 56), palette=_CLOTH,
                motion=wave(7, 96, 18, stage.phase()), at=lambda t: (8 * _swing(t, 37), 0))
    stage.sheet("bar", _post(7), at=lambda t: (0, 110), palette=_METAL,
                motion=rotation(lambda t: 0.8 * _swing(t, 48, -1.2)))
    return stage.scene()


def _head(rng: np.random.Generator) -> Scene:
    stage = _Stage(rng)
    stage.bare("wall", _everywhere, _WALL)
    stage.sheet("window", _box(26, 20), at=lambda t: (-84, -40), palette=_LEAVES)

    def neck(t: float) -> tuple[float, float]:
        return (16 * _swing(t, 25), 3 * _swing(t, 14))

    stage.sheet("shoulders", _ellipse(72, 44), at=lambda t: (0.5 * neck(t)[0], 88), palette=_CLOTH, softness=2.0)
    stage.sheet("head", _ellipse(30, 38), at=neck, motion=rotation(lambda t: 0.15 * _swing(t, 25, 0.5)), palette=_FUR,
                softness=2.5)
    return stage.scene()


def _screen(rng: np.random.Generator) -> Scene:
    stage = _Stage(rng, photography=Photography(shutter=0.5, grain=1.0))
    stage.bare("screen", _everywhere, _BLUE)
    stage.sheet("shoulders", _ellipse(96, 46), at=lambda t: (9 * _swing(t, 52, -1.2), 92), palette=_METAL, softness=3.0,
                motion=wave(3, 80, 26, stage.phase()))
    stage.sheet("head", _ellipse(40, 50), at=lambda t: (26 * _swing(t, 52, -1.2), 5 * _swing(t, 19)), palette=_FUR,
                softness=4.0, motion=wave(7, 60, 22, stage.phase()))
    return stage.scene()


def _sky(rng: np.random.Generator) -> Scene:
    lens = dataclasses.replace(_FILM, falloff=0.4)
    stage = _Stage(rng, pan=lambda t: (2.2 * t, 4 * _swing(t, 40)), photography=lens)
    stage.bare("sky", _everywhere, _SKY)

    def hills(u: np.ndarray) -> np.ndarray:
        return np.asarray(u[..., 1] > 12 + 6 * np.sin(u[..., 0] / 31) + 3 * np.sin(u[..., 0] / 11))

    stage.sheet("ground", hills, palette=_LEAVES)
    stage.sheet("flyer", _ellipse(24, 12), at=lambda t: (90 - 1.5 * t, -30 + 14 * _swing(t, 28)), palette=_METAL,
                motion=rotation(lambda t: 0.2 * _swing(t, 28, 1.6)))
    return stage.scene()


def _dusk(rng: np.random.Generator) -> Scene:
    little = Photography(shutter=0.9, grain=8.0, exposure=lambda t: 0.25)
    stage = _Stage(rng, pan=lambda t: (1.5 * t, 0.0), photography=little)
    stage.sheet("ground", _everywhere, palette=_EARTH, softness=2.0)
    stage.sheet("car", _ellipse(48, 22, power=4), palette=_METAL, softness=2.0, at=lambda t: (-70 + 5.5 * t, 16),
                depth=lambda t: 1 + 0.01 * t)
    stage.sheet("post", _post(7), at=lambda t: (46, 0), palette=_FUR)
    return stage.scene()


def _everywhere(points: np.ndarray) -> np.ndarray:
    """The shape of what has no end."""
    return np.ones(points.shape[:-1], np.bool_)


def _disc(radius: float) -> Shape:
    return _ellipse(radius, radius)


def _ellipse(half_width: float, half_height: float, power: int = 2) -> Shape:
    return lambda u: np.abs(u[..., 0] / half_width) ** power + np.abs(u[..., 1] / half_height) ** power < 1


def _box(half_width: float, half_height: float) -> Shape:
    return lambda u: (np.abs(u[..., 0]) < half_width) & (np.abs(u[..., 1]) < half_height)


def _bar(half_width: float, top: float, bottom: float) -> Shape:
    return lambda u: (np.abs(u[..., 0]) < half_width) & (u[..., 1] > top) & (u[..., 1] < bottom)


def _post(half_width: float) -> Shape:
    """From above the picture to below it."""
    return lambda u: np.abs(u[..., 0]) < half_width


def _swing(t: float, period: float, phase: float = 0.0) -> float:
    """To and fro between -1 and 1 within ``period`` frames; ``phase`` in radians."""
    return float(np.sin(2 * np.pi * t / period + phase))


def _rolled(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


# Name: how it is built, and what it is hard for.
SCENES: dict[str, tuple[Callable[[np.random.Generator], Scene], str]] = {
    "turning": (_turning, "the camera rolls by 110° and comes nearer, a disc turns against it"),
    "crossing": (_crossing, "four discs turn and cross each other"),
    "walker": (_walker, "an animal walks behind a post, the camera follows; thin legs, blur"),
    "bars": (_bars, "thin bars before a bare wall"),
    "light": (_light, "exposure changes by 1.4 stops, a disc comes nearer, a bar sweeps past"),
    "ball": (_ball, "a small ball flies fast, turning"),
    "drape": (_drape, "a cloth waves behind a swinging bar"),
    "head": (_head, "a head moves before a bare wall"),
    "screen": (_screen, "a head moves before a blue screen, and nothing else is there"),
    "sky": (_sky, "the camera pans, half of the picture is sky; its lens darkens the corners"),
    "dusk": (_dusk, "little light, much grain and blur, a car behind a post"),
}
