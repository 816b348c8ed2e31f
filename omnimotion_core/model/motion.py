"""What a motion model is: what fits, queries and exports ask of one, whichever it is.

A ``Motion`` maps between every frame's local volume and one canonical volume. For many questions it is prepared once;
the ``PreparedMotion`` answers them for flat points (P, ...) with their ``frames`` (P,) int64.

Local points are (x, y, z): normalized x and y of the working frame, depth z from 0 (near) to ``FAR``.
"""

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from omnimotion_core.coordinates import Size
from omnimotion_core.model.interpolation import build_atlas, look_up
from omnimotion_core.video.clip import Clip

FAR = 2.0  # local volumes reach from depth 0 to this, as the paper's do
EVIDENCE_CELL_PX = 16  # working pixels per cell of the evidence maps


@dataclass(frozen=True, kw_only=True)
class FieldShape:
    """What a motion model must know of its clip."""

    size: Size  # of the plate
    working_size: Size
    num_frames: int
    cuts: tuple[int, ...] = ()
    first_frame: int = 0
    fps: float = 24.0

    @classmethod
    def of(cls, clip: Clip) -> Self:
        """What is to be known of ``clip``."""
        return cls(
            size=clip.size, working_size=clip.working_size, num_frames=clip.num_frames, cuts=clip.cuts,
            first_frame=clip.first_frame, fps=clip.fps,
        )  # fmt: skip


class PreparedMotion(Protocol):
    """A motion model ready for lookups with the same parameters."""

    single_surface: bool  # a pixel shows one surface, the one that ``lift`` gives, and not several weighed

    @property
    def shape(self) -> FieldShape:
        """Of the clip."""

    @property
    def device(self) -> torch.device:
        """Where points are to be."""

    @property
    def threads(self) -> int:
        """That may ask at once, to no other answer."""

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local (P, 3) to canonical (P, 3)."""

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Canonical (P, 3) to local (P, 3): the exact inverse."""

    def lift(self, frames: Tensor, pixels: Tensor) -> Tensor:
        """Working pixels (P, 2) to the local points (P, 3) of the surface seen there."""

    def to_pixels(self, points: Tensor) -> Tensor:
        """Local points (P, 3) to working pixels (P, 2)."""

    def shown(self, frames: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Whether nothing in their frame hides local points (P, 3): (P,) bool; and how sure that is, (P,) 0.5..1."""

    def appearance_at(self, frames: Tensor, xy: Tensor) -> Tensor | None:
        """The color near normalized positions (P, 2): (P, 3) CIELAB; None where the model does not keep it."""

    def evidence_at(self, frames: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        """What matches say near normalized positions (P, 2).

        Returns:
            By how many working pixels they are missed, (P,), and how well the place is supported by them, (P,) 0..1.
        """


@runtime_checkable
class Motion(Protocol):
    """A motion model: an ``nn.Module`` whose state is what a run folder keeps."""

    shape: FieldShape
    residual_map: Tensor  # (T, h, w), by how many working pixels matches are missed
    support_map: Tensor  # (T, h, w), how well each place is supported by matches, 0..1

    @property
    def num_frames(self) -> int:
        """T."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """Local points (B, N, S, 3) of ``frames`` (B,) to canonical points of the same shape."""

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        """The exact inverse of ``to_canonical``."""

    def prepare(self) -> PreparedMotion:
        """The model ready for many lookups with its present parameters."""


def evidence_maps(shape: FieldShape) -> tuple[Tensor, Tensor]:
    """Residual and support maps (T, h, w) before anything is known."""
    width, height = (max(-(-side // EVIDENCE_CELL_PX), 2) for side in shape.working_size)
    return torch.zeros(shape.num_frames, height, width), torch.ones(shape.num_frames, height, width)


def look_up_evidence(motion: Motion, frames: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """The evidence maps read at normalized positions (P, 2): ``PreparedMotion.evidence_at``."""
    maps = build_atlas(torch.stack([motion.residual_map, motion.support_map], dim=1))
    found = look_up(maps, motion.num_frames, frames, xy)
    return found[:, 0], found[:, 1]
