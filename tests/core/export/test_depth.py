from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.errors import ExportError
from omnimotion_core.events import Event, Progress, Reporter
from omnimotion_core.export.depth import write_depth
from omnimotion_core.export.sequences import Origin

from .conftest import MakeClip
from .motions import read_with_oiio

ORIGIN = Origin(tool_version="1", run_digest="d")


def sloping(t: int) -> np.ndarray:
    return (np.arange(64 * 96, dtype=np.float32) / 7 + t).reshape(64, 96)


def test_another_reader_finds_the_depth_of_each_frame(tmp_path: Path, make_clip: MakeClip) -> None:
    events: list[Event] = []
    paths = write_depth(sloping, make_clip(pixel_aspect=2.0), tmp_path, reporter=Reporter(events.append), origin=ORIGIN,
                        frames=[4, 2])
    assert [path.name for path in paths] == ["shot.depth.1003.exr", "shot.depth.1005.exr"]
    for t, path in zip((2, 4), paths, strict=True):
        channels, spec = read_with_oiio(path)
        assert set(channels) == {"Z"}
        np.testing.assert_array_equal(channels["Z"], sloping(t))
        assert spec.getattribute("te/frame") == 1001 + t
        assert spec.getattribute("PixelAspectRatio") == 2.0
        assert "smaller is nearer" in spec.getattribute("te/units")
    assert events == [Progress(stage="export", done=done, total=2) for done in (1, 2)]


def test_whole_files_are_kept(tmp_path: Path, make_clip: MakeClip) -> None:
    paths = write_depth(sloping, make_clip(), tmp_path, reporter=Reporter(), origin=ORIGIN)
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    asked: list[int] = []

    def depth(t: int) -> np.ndarray:
        asked.append(t)
        return sloping(t)

    write_depth(depth, make_clip(), tmp_path, reporter=Reporter(), origin=ORIGIN)
    assert asked == [1]
    write_depth(depth, make_clip(), tmp_path, reporter=Reporter(), origin=Origin(tool_version="1", run_digest="other"))
    assert asked == [1, *range(6)]


def test_depth_of_another_size_or_without_numbers_is_refused(tmp_path: Path, make_clip: MakeClip) -> None:
    with pytest.raises(ExportError, match="plate's resolution"):
        write_depth(lambda t: sloping(t)[::2], make_clip(), tmp_path, reporter=Reporter(), origin=ORIGIN)
    with pytest.raises(ExportError, match="not finite"):
        write_depth(lambda t: sloping(t) * np.float32(np.nan), make_clip(), tmp_path, reporter=Reporter(),
                    origin=ORIGIN)
    assert list(tmp_path.glob("*.exr")) == []
