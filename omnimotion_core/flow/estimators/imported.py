"""Flow that another program made, read from a folder.

One file a directed pair, named ``…<from>_<to>.<ending>`` by the frames' numbers in the source, or one npz of many pairs
whose keys are ``flow_<from>_<to>``. Vectors are (dx, dy) in pixels, y down, of a picture of any size:

- ``.flo``   Middlebury's format
- ``.npy``   an array (H, W, 2)
- ``.npz``   an array (H, W, 2) called ``flow``, or the only one
- ``.exr``   channels ``R, G`` or ``X, Y``, or Nuke's ``u, v`` (any layer), whose v points up
"""

import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import ClipError, FlowError
from omnimotion_core.flow.consistency import resize_flow
from omnimotion_core.video.clip import Clip
from omnimotion_core.video.picture import read_channels

_PAIR = re.compile(r"(\d+)[_-](\d+)$")
MAX_ASPECT_DIFFERENCE = 0.02


class ImportedFlow:
    """All flow of a folder; a pair counts where both of its directions are there.

    Raises:
        FlowError: the folder holds no pair of the clip in both directions.
    """

    refines = False

    def __init__(self, folder: Path, clip: Clip) -> None:
        self.folder, self.clip = folder, clip
        self._found = {pair: place for pair, place in self._scan() if self._in_clip(pair)}
        both = {(i, j) for i, j in self._found if (j, i) in self._found}
        if not both:
            first, last = clip.first_frame, clip.first_frame + clip.num_frames - 1
            raise FlowError(
                f"{folder} holds no flow between frames {first} to {last} in both directions",
                f"name files like flow_{first:04d}_{first + 1:04d}.flo and flow_{first + 1:04d}_{first:04d}.flo",
            )
        self._both = both

    def pairs(self) -> Iterable[tuple[int, int]] | None:
        """The directed pairs that are there in both directions."""
        return sorted(self._both)

    def prepare(self, t: int, picture: np.ndarray) -> tuple[int, Size]:
        """The frame and the size that its flow is wanted at."""
        return t, (picture.shape[1], picture.shape[0])

    def flow(self, source: tuple[int, Size], target: tuple[int, Size], initial: np.ndarray | None) -> np.ndarray:
        """The stored flow of the pair at the prepared pictures' size.

        Raises:
            FlowError: the file is absent, damaged, of another layout, or of a picture of other proportions.
        """
        pair, size = (source[0], target[0]), source[1]
        if pair not in self._found:
            raise FlowError(f"{self.folder} holds no flow of the pair {self._numbers(pair)}", "add its file")
        path, key = self._found[pair]
        flow = _read(path, key)
        aspect, expected = flow.shape[1] / flow.shape[0], size[0] / size[1]
        if abs(aspect / expected - 1) > MAX_ASPECT_DIFFERENCE:
            raise FlowError(
                f"{path} is {flow.shape[1]}x{flow.shape[0]} px, which has not the proportions of {size[0]}x{size[1]}",
                "give flow of the whole picture",
            )
        return resize_flow(flow, size)

    def _scan(self) -> Iterable[tuple[tuple[int, int], tuple[Path, str | None]]]:
        for path in sorted(self.folder.iterdir()):
            named = _PAIR.search(path.stem)
            if path.suffix.lower() not in _READERS:
                continue
            if named:
                yield self._indices(named), (path, None)
            elif path.suffix.lower() == ".npz":
                for key in _keys(path):
                    inside = re.fullmatch(r"flow[_-](\d+)[_-](\d+)", key)
                    if inside:
                        yield self._indices(inside), (path, key)

    def _indices(self, named: re.Match[str]) -> tuple[int, int]:
        return int(named[1]) - self.clip.first_frame, int(named[2]) - self.clip.first_frame

    def _in_clip(self, pair: tuple[int, int]) -> bool:
        return pair[0] != pair[1] and all(0 <= t < self.clip.num_frames for t in pair)

    def _numbers(self, pair: tuple[int, int]) -> str:
        return " to ".join(str(t + self.clip.first_frame) for t in pair)


def _keys(path: Path) -> list[str]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return list(data.keys())
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from error


def _read(path: Path, key: str | None) -> np.ndarray:
    """(H, W, 2) float32, finite."""
    try:
        flow = _READERS[path.suffix.lower()](path, key)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, ClipError) as error:
        raise _damaged(path, str(error)) from error
    if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape:
        raise _damaged(path, f"an array of shape {flow.shape}, not (H, W, 2)")
    flow = np.ascontiguousarray(flow, dtype=np.float32)
    if not np.isfinite(flow).all():
        raise _damaged(path, "values that are no numbers")
    return flow


def _read_flo(path: Path, key: str | None) -> Any:
    with path.open("rb") as file:
        if np.fromfile(file, np.float32, 1) != np.float32(202021.25):  # the format's mark
            raise ValueError("not Middlebury's format")
        width, height = (int(side) for side in np.fromfile(file, np.int32, 2))
        if not (0 < width <= 16384 and 0 < height <= 16384):
            raise ValueError(f"a size of {width}x{height}")
        return np.fromfile(file, np.float32, width * height * 2).reshape(height, width, 2)


def _read_npy(path: Path, key: str | None) -> Any:
    return np.load(path, allow_pickle=False)


def _read_npz(path: Path, key: str | None) -> Any:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        if key is None:
            key = "flow" if "flow" in data or len(data) != 1 else next(iter(data.keys()))
        return data[key]


def _read_exr(path: Path, key: str | None) -> Any:
    channels = read_channels(path)
    by_end: dict[str, str] = {}
    for name in channels:
        by_end.setdefault(name.rsplit(".", 1)[-1].lower(), name)
    for across, down, sign in (("u", "v", -1), ("r", "g", 1), ("x", "y", 1)):
        if across in by_end and down in by_end:
            return np.stack([channels[by_end[across]], sign * channels[by_end[down]]], axis=-1)
    raise ValueError(f"channels {', '.join(sorted(channels))}, not u, v nor R, G nor X, Y")


_READERS: dict[str, Callable[[Path, str | None], Any]] = {
    ".flo": _read_flo, ".npy": _read_npy, ".npz": _read_npz, ".exr": _read_exr,
}  # fmt: skip


def _damaged(path: Path, reason: str) -> FlowError:
    return FlowError(f"flow file {path} cannot be used ({reason})", "write it again or remove it")
