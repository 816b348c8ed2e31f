"""The matte that tells which pixels are tracked: a still picture or a sequence numbered as the footage."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import ClipError
from omnimotion_core.video.color import luma
from omnimotion_core.video.picture import Picture, read_picture
from omnimotion_core.video.sequence import (
    ImageSequence,
    is_image,
    is_pattern,
    sequence_of_file,
    sequence_of_folder,
    sequence_of_pattern,
)


@dataclass(frozen=True, kw_only=True)
class MaskSource:
    """Where the matte of each frame is, and which of its channels counts."""

    path: str  # as given
    still: Path | None  # one picture for all frames
    sequence: ImageSequence | None
    by_alpha: bool  # else by luminance

    def file(self, number: int) -> Path:
        """The picture of the frame that has this number in the footage.

        Raises:
            ClipError: the sequence has none.
        """
        if self.still is not None:
            return self.still
        assert self.sequence is not None
        if number not in self.sequence.files:
            raise ClipError(
                f"the mask {self.sequence.pattern} has no frame {number}, it holds {len(self.sequence.files)} frames "
                f"{self.sequence.first}-{self.sequence.last}",
                "number the mask as the footage, one file a frame, or give one still picture",
            )
        return self.sequence.files[number]

    def read(self, number: int, size: Size) -> np.ndarray:
        """The matte of a frame at ``size`` (width, height): (h, w) uint8, 255 is tracked."""
        matte = _matte(read_picture(self.file(number)), by_alpha=self.by_alpha)
        if (matte.shape[1], matte.shape[0]) != size:
            shrinks = matte.shape[1] >= size[0] and matte.shape[0] >= size[1]
            matte = cv2.resize(matte, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return np.asarray(np.rint(np.clip(matte, 0.0, 1.0) * 255.0), np.uint8)


def find_mask(named: str, first_number: int) -> MaskSource:
    """The matte that ``named`` stands for: a pattern, a folder, one file of a sequence, or a still picture.

    The alpha channel counts where there is one that is not solid in the first frame (renderers add a solid one to
    pictures whose matte is in the color); else the luminance.

    Args:
        named: what the user gave.
        first_number: of the first tracked frame.
    Raises:
        ClipError: there is no such picture.
    """
    path = Path(named).absolute()
    still: Path | None = None
    sequence: ImageSequence | None = None
    if path.is_dir():
        sequence = sequence_of_folder(path)
    elif path.is_file():
        if not is_image(path.name):
            raise ClipError(f"the mask {named} is no picture", "give a PNG, JPEG, TIFF, EXR or DPX picture or sequence")
        sequence = sequence_of_file(path)
        if sequence is None or len(sequence.files) == 1:
            still, sequence = path, None
    elif is_pattern(path.name):
        sequence = sequence_of_pattern(path)
    else:
        raise ClipError(f"the mask {named} does not exist", "check the path")
    unsettled = MaskSource(path=str(path), still=still, sequence=sequence, by_alpha=False)
    alpha = read_picture(unsettled.file(first_number)).alpha
    by_alpha = alpha is not None and bool((_unit(alpha) < 1).any())
    return MaskSource(path=str(path), still=still, sequence=sequence, by_alpha=by_alpha)


def _matte(picture: Picture, *, by_alpha: bool) -> np.ndarray:
    """(H, W) float32, 0..1."""
    if by_alpha and picture.alpha is not None:
        return _unit(picture.alpha)
    return luma(_unit(picture.rgb))


def _unit(values: np.ndarray) -> np.ndarray:
    """Stored values as float32 0..1; what is not a number is 0."""
    if values.dtype == np.uint16:
        return values.astype(np.float32) / np.float32(65535)
    return np.asarray(np.clip(np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0))
