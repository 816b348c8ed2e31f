"""Small clips of the batch's own, and settings under which each is tracked in a moment."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

WriteClip = Callable[..., Path]


@pytest.fixture(scope="session")
def write_clip() -> WriteClip:
    """A function that writes a moving sequence of a few frames, 64x48, and gives its folder."""

    def write(folder: Path, seed: int = 0, count: int = 4) -> Path:
        folder.mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), np.uint8)
        noise = cv2.GaussianBlur(noise, (5, 5), 0)
        for t in range(count):
            cv2.imwrite(str(folder / f"{folder.name}.{1001 + t}.png"), noise[t : t + 48, 2 * t : 2 * t + 64])
        return folder

    return write


@pytest.fixture
def plates(tmp_path: Path, write_clip: WriteClip) -> Path:
    """A folder with the clips sh010 and sh020."""
    for seed, name in enumerate(("sh010", "sh020")):
        write_clip(tmp_path / "plates" / name, seed)
    return tmp_path / "plates"
