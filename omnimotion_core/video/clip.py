"""The working frames of a shot, read from the frame cache and never from the footage itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import RunError


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip:
    """A shot's working frames and where they come from.

    The tracked frames are counted t = 0 … num_frames - 1; frame t is number ``first_frame + t`` of the source.
    """

    folder: Path  # the frame cache
    name: str  # of the source, safe as part of a file name
    path: str  # of the source, absolute
    sha256: str  # of the source's tracked content
    size: Size  # of the plate, (width, height)
    working_size: Size  # of the working frames
    num_frames: int
    first_frame: int  # the first tracked frame's number: a file's number in a sequence, counted from 1 in a movie
    clip_first_frame: int  # the whole clip's first frame in the same numbering
    fps: float
    pixel_aspect: float = 1.0  # width of a pixel divided by its height
    cuts: tuple[int, ...] = ()  # each t that begins a new shot
    has_mask: bool = False
    is_sequence: bool = False

    def frame(self, t: int) -> np.ndarray:
        """The working frame t: (h, w, 3) uint16, display-referred RGB, 0..65535."""
        picture = cv2.imread(str(self.frame_path(t)), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.dtype != np.uint16 or picture.shape[:2] != self.working_size[::-1]:
            raise RunError(f"{self.frame_path(t)} is missing or damaged", "run prepare again")
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def rgb8(self, t: int) -> np.ndarray:
        """The working frame t: (h, w, 3) uint8."""
        return ((self.frame(t).astype(np.uint32) + 128) // 257).astype(np.uint8)

    def mask(self, t: int) -> np.ndarray | None:
        """Which working pixels of frame t are to be tracked, (h, w) bool; None: all."""
        if not self.has_mask:
            return None
        matte = cv2.imread(str(self.mask_path(t)), cv2.IMREAD_GRAYSCALE)
        if matte is None or matte.shape != self.working_size[::-1]:
            raise RunError(f"{self.mask_path(t)} is missing or damaged", "run prepare again")
        return matte >= 128

    def frame_path(self, t: int) -> Path:
        """The cache file of frame t, 16-bit PNG."""
        return self.folder / f"{t:06d}.png"

    def mask_path(self, t: int) -> Path:
        """The cache file of frame t's matte, 8-bit PNG."""
        return self.folder / f"{t:06d}.mask.png"

    @property
    def offset(self) -> int:
        """How many frames the whole clip has before the first tracked one."""
        return self.first_frame - self.clip_first_frame

    @property
    def segments(self) -> list[range]:
        """The frames between cuts: ranges of t that cover the clip."""
        return segments_of(self.num_frames, self.cuts)


def segments_of(num_frames: int, cuts: Sequence[int]) -> list[range]:
    """Ranges of t between ``cuts``; each cut is the first frame of a new range."""
    edges = [0, *cuts, num_frames]
    return [range(start, end) for start, end in pairwise(edges)]
