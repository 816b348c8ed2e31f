"""Footage made for these tests: small movies and sequences whose pictures carry their number."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest

from omnimotion_core.events import Event, Progress, Reporter, Warned

SQUARES = 10  # in the top row of a picture: dark, bright, then the number's 8 bits, the lowest first


def coded(number: int, size: tuple[int, int] = (160, 96)) -> np.ndarray:
    """A picture (H, W, 3) uint8 that spells ``number`` along its top and drifts with it below."""
    width, height = size
    band = max(height // 4, 4)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin((x + 2 * number) / (5 + k) + y / (7 - k)) for k in range(3)]
    picture = np.stack([128 + 60 * wave for wave in waves], axis=-1).astype(np.uint8)
    for square in range(SQUARES):
        left, right = square * width // SQUARES, (square + 1) * width // SQUARES
        picture[:band, left:right] = 220 if (number << 2 | 2) >> square & 1 else 30
    return picture


def spelled(picture: np.ndarray) -> int:
    """The number that a picture carries, of any kind and range."""
    height, width = picture.shape[:2]
    band = picture[: max(height // 4, 4)].astype(np.float64).mean(axis=(0, 2))
    squares = [band[(2 * square + 1) * width // (2 * SQUARES)] for square in range(SQUARES)]
    return sum(1 << bit for bit, value in enumerate(squares[2:]) if value > (squares[0] + squares[1]) / 2)


class Footage:
    """Writes the test clips of one test into its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    coded = staticmethod(coded)
    spelled = staticmethod(spelled)

    def movie(
        self, name: str, pictures: Sequence[np.ndarray] | int = 12, *, codec: str = "libx264", pixels: str = "yuv420p",
        rate: int = 24, pts: Sequence[int] | None = None, rotation: int | None = None, hflip: bool = False,
        aspect: Fraction | None = None, options: dict[str, str] | None = None, faststart: bool = False,
    ) -> Path:  # fmt: skip
        """Encode pictures (H, W, 3) uint8 or uint16, or so many coded ones; pts count 1/600 s."""
        frames = [coded(number) for number in range(pictures)] if isinstance(pictures, int) else list(pictures)
        path, base = self.folder / name, Fraction(1, 600)
        with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
            stream: Any = container.add_stream(codec, rate=rate)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pixels
            stream.codec_context.time_base = base
            if codec == "libx264":
                stream.options = {"bf": "2", "g": "12", "crf": "12", "threads": "1", **(options or {})}
            if aspect:
                stream.codec_context.sample_aspect_ratio = aspect
            if rotation is not None:
                stream.set_display_rotation(rotation, hflip=hflip)
            for index, picture in enumerate(frames):
                frame = self._frame(picture, pixels)
                frame.pts, frame.time_base = (pts[index] if pts else index * 600 // rate), base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    @staticmethod
    def _frame(picture: np.ndarray, pixels: str) -> av.VideoFrame:
        layout = {(3, 1): "rgb24", (3, 2): "rgb48le", (4, 1): "rgba"}[picture.shape[2], picture.itemsize]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), layout)
        if layout != pixels:
            frame = frame.reformat(format=pixels, dst_color_range=1 if pixels.startswith("yuv4") else 2)
        return frame

    def picture(self, name: str, pixels: np.ndarray, kind: str = "uint8", **attributes: Any) -> Path:
        """Write one picture (H, W[, C]) with OpenImageIO; DPX depth is ``kind`` "uint10"."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1))  # a flat grey array would be misread
        channels = pixels.shape[2]
        spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], channels, "uint16" if kind == "uint10" else kind)
        if kind == "uint10":
            spec.attribute("oiio:BitsPerSample", 10)
        for key, value in attributes.items():
            if key == "channelnames":
                spec.channelnames = value
            elif key == "window":  # data window's offset and display window
                spec.x, spec.y, spec.full_x, spec.full_y, spec.full_width, spec.full_height = value
            else:
                spec.attribute(key.replace("__", ":"), value)
        out = oiio.ImageOutput.create(str(path))
        assert out.open(str(path), spec), out.geterror()
        assert out.write_image(pixels), out.geterror()
        out.close()
        return path

    def sequence(self, name: str, numbers: Sequence[int], size: tuple[int, int] = (160, 96)) -> Path:
        """PNG files by a ``{}``-style name, each spelling its number modulo 256; gives their folder."""
        for number in numbers:
            path = self.folder / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), coded(number % 256, size)[..., ::-1])
        return (self.folder / name).parent


class Listener(Reporter):
    """A reporter that remembers."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[Event] = []
        super().__init__(self.events.append, lambda: stop_after is not None and len(self.progress_seen) >= stop_after)

    @property
    def progress_seen(self) -> list[tuple[int, int]]:
        """(done, total) of each step."""
        return [(event.done, event.total) for event in self.events if isinstance(event, Progress)]

    @property
    def warnings(self) -> list[str]:
        """Messages of the warnings."""
        return [event.message for event in self.events if isinstance(event, Warned)]


@pytest.fixture
def footage(tmp_path: Path) -> Footage:
    """A maker of clips in this test's folder."""
    return Footage(tmp_path)


@pytest.fixture
def listener() -> Listener:
    """A reporter that remembers."""
    return Listener()


@pytest.fixture
def cancelling() -> Listener:
    """A reporter that asks to stop after the second frame."""
    return Listener(stop_after=2)
