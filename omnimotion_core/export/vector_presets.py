"""How each program wants a frame's motion: tables from the canonical form to channels, and back.

Every channel is ``scale * source + offset`` of one part of ``FrameMotion``. In pixels of the plate, x right, y up where
a preset does not say else; "next" and "previous" are positions in the neighboring frames, "here" in this one:

=================  ==================================================================================================
``blender``        ``Vector.X/.Y`` = previous - here, ``Vector.Z/.W`` = here - next; as Cycles' own Vector pass
``nuke``           ``forward.u/.v`` = next - here, ``backward.u/.v`` = previous - here; Natron reads it too
``nuke-smartvector``  ``smartvector_fLL_v01.n_u/.n_v`` = to frame + L, ``.p_u/.p_v`` = to frame - L, L = 1, 2, 4 … 64
``rsmb``           ``R, G`` = (vector / max_displace + 1) / 2 to the next frame, ``backward.R/.G`` to the previous one
``rsmb-16``        the same times 65534, rounded and held within 0..65534: zero is 32767; 16-bit PNG for each direction
``fusion``         ``Vector.X/.Y`` = next - here, ``BackVector.X/.Y`` = previous - here
``flo``            Middlebury's files of one direction, y *down*
``ndc``            ``R, G`` = next - here where the picture spans -1..1, ``backward.R/.G`` = previous - here
=================  ==================================================================================================

Sources: Cycles' Vector pass measured in Blender 4.2 to 5.2; Foundry's pages on motion vectors; RE:Vision Effects,
"motion vector math"; Blackmagic's Fusion manual, which does not tell the direction of y. SmartVector is not documented:
names, levels and zeros are those that two open writers agree on, who both leave the sign of v to a switch.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from omnimotion_core.config import ExportConfig
from omnimotion_core.export.exr import Attribute
from omnimotion_core.export.frame_motion import FrameMotion

SMARTVECTOR_DISTANCES = (1, 2, 4, 8, 16, 32, 64)
SOURCES = (  # what a channel can be made of
    "forward.x", "forward.y", "backward.x", "backward.y", "visibility", "visibility.next", "visibility.previous",
    "confidence", "depth", "zero",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One channel: ``scale * source + offset``."""

    source: str  # one of SOURCES: pixels, y down
    scale: float = 1.0
    offset: float = 0.0
    per: str = ""  # "width" or "height": the scale is divided by the plate's
    distance: int = 1  # of a vector: in frames

    def gain(self, shape: tuple[int, int]) -> np.float32:
        """The scale for a plate of ``shape`` (height, width)."""
        return np.float32(self.scale / {"": 1, "width": shape[1], "height": shape[0]}[self.per])


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How one program wants a frame's motion."""

    channels: Mapping[str, Channel]
    y_axis: str  # header: up or down
    direction: str  # header: what the channels mean
    units: str = "pixels"  # header
    container: str = "exr"  # or png (16 bit) or flo: a file for each direction
    half: frozenset[str] = frozenset()  # channels that are stored as half
    one_part: bool = False  # its reader knows no multi-part files
    facts: Mapping[str, Attribute] = field(default_factory=dict)  # further header entries

    @property
    def distances(self) -> tuple[int, ...]:
        """Over how many frames it tells motion."""
        return tuple(sorted({channel.distance for channel in self.channels.values()}))

    @property
    def with_depth(self) -> bool:
        """Whether it holds depth."""
        return any(channel.source == "depth" for channel in self.channels.values())

    def to_channels(self, motion: FrameMotion) -> dict[str, np.ndarray]:
        """Name → (H, W) float32; channels may share arrays."""
        constants = functools.cache(lambda value: np.full(motion.visibility.shape, value, np.float32))
        return {name: _value(channel, motion, constants) for name, channel in self.channels.items()}

    def from_channels(self, channels: Mapping[str, np.ndarray], has_next: bool, has_previous: bool) -> FrameMotion:
        """The canonical motion; what the preset does not hold is zero, and 1 in visibility and confidence.

        Raises:
            KeyError: a channel is missing.
        """
        found: dict[tuple[str, int], np.ndarray] = {}
        shape = next(iter(channels.values())).shape
        for name, channel in self.channels.items():
            if channel.source != "zero":
                values = channels[name].astype(np.float32, copy=False)
                plain = values if not channel.offset else values - np.float32(channel.offset)
                gain = channel.gain(shape)
                found[channel.source, channel.distance] = plain if gain == 1 else plain / gain
        steps = sorted({distance for _, distance in found if distance > 1})
        farther = {step: _motion(found, step, shape, True, True) for step in steps}
        held = {step: far for step, far in farther.items() if far.forward.any() or far.backward.any()}
        return _motion(found, 1, shape, has_next, has_previous, held)


def set_up(name: str, settings: ExportConfig) -> Preset:
    """The preset of ``PRESETS`` called ``name`` under other settings than the usual ones."""
    if name == "rsmb":
        return _rsmb(settings.max_displace)
    if name == "rsmb-16":
        return _rsmb_16(settings.max_displace)
    if name == "nuke-smartvector":
        return _smartvector(settings.flip_v)
    return PRESETS[name]


def _value(channel: Channel, motion: FrameMotion, constants: Callable[[float], np.ndarray]) -> np.ndarray:
    values: np.ndarray | None
    part, _, axis = channel.source.partition(".")
    if part in ("forward", "backward"):
        over = motion if channel.distance == 1 else motion.farther.get(channel.distance)
        if over is None:
            return constants(channel.offset)
        values = (over.forward if part == "forward" else over.backward)[..., 0 if axis == "x" else 1]
    elif channel.source == "zero":
        return constants(channel.offset)
    else:
        values = {
            "visibility": motion.visibility, "visibility.next": motion.seen_next,
            "visibility.previous": motion.seen_previous, "confidence": motion.confidence, "depth": motion.depth,
        }[channel.source]  # fmt: skip
        assert values is not None, "this preset asks for depth"
    gain = channel.gain((values.shape[0], values.shape[1]))
    scaled = values if gain == 1 else values * gain
    return scaled if not channel.offset else scaled + np.float32(channel.offset)


def _motion(
    found: Mapping[tuple[str, int], np.ndarray], step: int, shape: tuple[int, ...], has_next: bool,
    has_previous: bool, farther: Mapping[int, FrameMotion] | None = None,
) -> FrameMotion:  # fmt: skip
    zero, one = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    seen = [found.get((f"visibility.{side}", 1)) for side in ("next", "previous")]
    sides = [side for side, there in zip(seen, (has_next, has_previous), strict=True) if there and side is not None]
    least = np.minimum.reduce(sides) if sides else (one if has_next or has_previous else zero)
    visibility = found.get(("visibility", 1), least)
    return FrameMotion(
        forward=np.stack([found.get((f"forward.{axis}", step), zero) for axis in "xy"], axis=-1),
        backward=np.stack([found.get((f"backward.{axis}", step), zero) for axis in "xy"], axis=-1),
        visibility=visibility, confidence=found.get(("confidence", 1), one),
        seen_next=seen[0] if seen[0] is not None else visibility * np.float32(has_next),
        seen_previous=seen[1] if seen[1] is not None else visibility * np.float32(has_previous),
        has_next=has_next, has_previous=has_previous, depth=found.get(("depth", 1)), farther=farther or {},
    )  # fmt: skip


_TRUST = {"visibility.Y": Channel(source="visibility"), "confidence.Y": Channel(source="confidence")}
_DEPTH = {"depth.Z": Channel(source="depth")}  # not Z, which programs take for a distance


def _vectors(source: str, names: tuple[str, str], across: float, down: float, distance: int = 1) -> dict[str, Channel]:
    """The two channels of a direction; ``across`` and ``down`` are their scales."""
    return {
        names[0]: Channel(source=f"{source}.x", scale=across, distance=distance),
        names[1]: Channel(source=f"{source}.y", scale=down, distance=distance),
    }


def _smartvector(flip_v: bool) -> Preset:
    channels = {}
    for step in SMARTVECTOR_DISTANCES:
        layer = f"smartvector_f{step:02d}_v01"
        for source, letter in (("backward", "p"), ("forward", "n")):
            names = (f"{layer}.{letter}_u", f"{layer}.{letter}_v")
            channels.update(_vectors(source, names, 1.0, 1.0 if flip_v else -1.0, step))
    return Preset(
        channels=channels | _TRUST, y_axis="down" if flip_v else "up", half=frozenset(_TRUST),
        direction="n to frame + L, p to frame - L; L where (frame - first) % L is 0",
    )  # fmt: skip


def _both(gain: float, *, offset: float = 0.0, alpha: float = 1.0, per_side: bool = False) -> dict[str, Channel]:
    """R, G, B, A of the forward direction and ``backward.R`` … of the other; alpha tells what is seen there."""
    width, height = ("width", "height") if per_side else ("", "")
    channels = {}
    for prefix, source, side in (("", "forward", "next"), ("backward.", "backward", "previous")):
        channels[f"{prefix}R"] = Channel(source=f"{source}.x", scale=gain, offset=offset, per=width)
        channels[f"{prefix}G"] = Channel(source=f"{source}.y", scale=-gain, offset=offset, per=height)
        channels[f"{prefix}B"] = Channel(source="zero")
        channels[f"{prefix}A"] = Channel(source=f"visibility.{side}", scale=alpha)
    return channels


def _rsmb(max_displace: float) -> Preset:
    return Preset(
        channels=_both(0.5 / max_displace, offset=0.5) | _TRUST, y_axis="up", half=frozenset(_TRUST),
        direction="RGBA to next, backward.RGBA to previous", units="(pixels / te/max_displace + 1) / 2",
        facts={"te/max_displace": float(max_displace)},
    )  # fmt: skip


def _rsmb_16(max_displace: float) -> Preset:
    return Preset(
        channels=_both(32767.0 / max_displace, offset=32767.0, alpha=65535.0), y_axis="up", container="png",
        direction="forward to next, backward to previous", units="(pixels / te/max_displace + 1) * 32767",
        facts={"te/max_displace": float(max_displace)},
    )  # fmt: skip


PRESETS: Mapping[str, Preset] = {
    "blender": Preset(  # groups of two channels are left out on purpose: Blender up to 4.2 reads rubbish from them
        channels={
            **_vectors("backward", ("Vector.X", "Vector.Y"), 1.0, -1.0),
            **_vectors("forward", ("Vector.Z", "Vector.W"), -1.0, 1.0), **_TRUST,
        },
        y_axis="up", direction="XY previous-current, ZW current-next", one_part=True,
    ),
    "nuke": Preset(
        channels={
            **_vectors("forward", ("forward.u", "forward.v"), 1.0, -1.0),
            **_vectors("backward", ("backward.u", "backward.v"), 1.0, -1.0), **_TRUST, **_DEPTH,
        },
        y_axis="up", direction="forward next-current, backward previous-current", half=frozenset(_TRUST),
    ),
    "nuke-smartvector": _smartvector(ExportConfig.flip_v),
    "rsmb": _rsmb(ExportConfig.max_displace),
    "rsmb-16": _rsmb_16(ExportConfig.max_displace),
    "fusion": Preset(
        channels={
            **_vectors("forward", ("Vector.X", "Vector.Y"), 1.0, -1.0),
            **_vectors("backward", ("BackVector.X", "BackVector.Y"), 1.0, -1.0), **_TRUST, **_DEPTH,
        },
        y_axis="up", direction="Vector next-current, BackVector previous-current", half=frozenset(_TRUST),
    ),
    "flo": Preset(
        channels={
            **_vectors("forward", ("forward.u", "forward.v"), 1.0, 1.0),
            **_vectors("backward", ("backward.u", "backward.v"), 1.0, 1.0),
        },
        y_axis="down", direction="from the first frame of the name to the second", container="flo",
    ),
    "ndc": Preset(
        channels=_both(2.0, per_side=True) | _TRUST | _DEPTH,
        y_axis="up", direction="RGBA next-current, backward.RGBA previous-current", half=frozenset(_TRUST),
        units="ndc: the picture spans -1..1",
    ),
}  # fmt: skip
