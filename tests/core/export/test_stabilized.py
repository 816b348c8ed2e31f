from pathlib import Path

import cv2
import numpy as np
import OpenImageIO as oiio  # noqa: N813 - its own documentation calls it so
import pytest

from omnimotion_core.config import ExportConfig, VideoConfig
from omnimotion_core.coordinates import inside, pixel_grid
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Event, Progress, Reporter
from omnimotion_core.export.pictures import as_premultiplied
from omnimotion_core.export.sequences import Origin
from omnimotion_core.export.stabilized import stabilize, write_stabilized
from omnimotion_core.export.stmap import write_stmaps
from omnimotion_core.export.warp import read_bilinear
from omnimotion_core.video.picture import read_picture
from omnimotion_core.video.source import Source, identify

from .conftest import MakeClip
from .motions import read_with_oiio, rotating, translating

SIZE, FRAMES = (96, 64), 4
ORIGIN = Origin(tool_version="1", run_digest="d")


def plate(t: int, degrees: float = 3.0) -> np.ndarray:
    """Smooth waves (H, W, 3) 0..1, turned by so much a frame about the picture's centre: the true plate, no warp."""
    centre = (np.array(SIZE) - 1) / 2
    angle = np.deg2rad(degrees * t)
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    x, y = np.moveaxis((pixel_grid(SIZE) - centre) @ back.T, -1, 0)
    return np.stack([0.5 + 0.4 * np.sin(x / 5 + k) * np.cos(y / 6 - k) for k in range(3)], axis=-1)


def footage(folder: Path, kind: str) -> Source:
    """The plate as a sequence of 16-bit PNG, or of half or float EXR."""
    folder.mkdir()
    for t in range(FRAMES):
        if kind == "png":
            picture = cv2.cvtColor(np.rint(plate(t) * 65535).astype(np.uint16), cv2.COLOR_RGB2BGR)
            assert cv2.imwrite(str(folder / f"shot.{1001 + t}.png"), picture)
            continue
        path = str(folder / f"shot.{1001 + t}.exr")
        spec = oiio.ImageSpec(*SIZE, 3, kind)
        file = oiio.ImageOutput.create(path)
        assert file.open(path, spec)
        assert file.write_image((plate(t) * 3).astype(np.float32))  # brighter than white
        assert file.close()
    return identify(str(folder / ("shot.####.png" if kind == "png" else "shot.####.exr")), VideoConfig())


def write(make_clip: MakeClip, source: Source, folder: Path, **options: object) -> list[Path]:
    settings: dict[str, object] = {"reporter": Reporter(), "origin": ORIGIN}
    clip = make_clip(SIZE, num_frames=FRAMES)
    return write_stabilized(rotating(3), clip, source, folder, **(settings | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "stored"), [("png", "uint16"), ("half", "half"), ("float", "float")])
def test_every_frame_looks_like_the_reference_and_keeps_the_plate_s_kind(
    tmp_path: Path, make_clip: MakeClip, kind: str, stored: str
) -> None:
    paths = write(make_clip, footage(tmp_path / "plates", kind), tmp_path / "out",
                  settings=ExportConfig(references=(1002,)))
    suffix = "png" if kind == "png" else "exr"
    assert [path.name for path in paths] == [f"shot.stabilized.to_1002.{1001 + t}.{suffix}" for t in range(FRAMES)]
    bright = 1.0 if kind == "png" else 3.0
    for t, path in enumerate(paths):
        channels, spec = read_with_oiio(path)
        assert str(spec.format) == stored
        seen = channels["A"] == 1
        np.testing.assert_array_equal(seen, rotating(3)(1, t).visible)
        inner = cv2.erode(seen.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
        found = np.stack([channels[letter] for letter in "RGB"], axis=-1)
        step = {"png": 1e-5, "half": 2e-3, "float": 1e-6}[kind]
        # an eighth of the waves' second derivatives, 1/5² and 1/6² of their height
        must = bright * 0.4 * (1 / 25 + 1 / 36) / 8
        assert np.abs(found - plate(1) * bright)[inner].max() < must + step
        if t == 1:
            np.testing.assert_allclose(found, plate(1) * bright, atol=step)


def test_stabilized_and_put_back_the_plate_is_as_it_was(tmp_path: Path, make_clip: MakeClip) -> None:
    """The `from` maps undo it: what is seen changes by less than reading between pixels must change it."""
    paths = write(make_clip, footage(tmp_path / "plates", "float"), tmp_path / "out")
    maps = write_stmaps(rotating(3), make_clip(SIZE, num_frames=FRAMES), tmp_path / "maps", reporter=Reporter(),
                        origin=ORIGIN)
    into = {path.name: path for path in maps}
    for t, path in enumerate(paths):
        held = as_premultiplied(read_picture(path))
        held[..., 3] = cv2.erode(held[..., 3], np.ones((3, 3)), borderValue=0)  # the plate's outermost half pixel is
        channels, _ = read_with_oiio(into[f"shot.stmap.from_1001.{1001 + t}.exr"])  # its border repeated
        at = np.stack([channels["R"] * 96 - 0.5, (1 - channels["G"]) * 64 - 0.5], axis=-1)
        back = read_bilinear(held, at)
        whole = (channels["A"] == 1) & (back[..., 3] == 1)
        assert whole.mean() > 0.6
        must = 2 * 3 * 0.4 * (1 / 25 + 1 / 36) / 8  # of two readings
        assert np.abs(back[..., :3] - plate(t) * 3)[whole].max() < must


def test_color_is_kept_where_hidden_and_black_outside(make_clip: MakeClip) -> None:
    dense = translating(30, 0)(0, 1)
    dense.visible[:, :20] = False
    white = np.ones((64, 96, 4), np.float32)
    out = stabilize(white, dense)
    np.testing.assert_array_equal(out[..., 3], dense.visible)
    assert out[:, :66, :3].all()
    assert not out[:, 66:].any()
    assert inside(pixel_grid(SIZE) + dense.vectors, SIZE)[:, :66].all()


def test_a_part_is_as_the_whole_and_whole_files_are_kept(tmp_path: Path, make_clip: MakeClip) -> None:
    source = footage(tmp_path / "plates", "png")
    whole = write(make_clip, source, tmp_path / "whole")
    events: list[Event] = []
    part = write(make_clip, source, tmp_path / "part", frames=[2, 1], reporter=Reporter(events.append))
    assert [path.name for path in part] == [path.name for path in whole[1:3]]
    assert [path.read_bytes() for path in part] == [path.read_bytes() for path in whole[1:3]]
    assert events == [Progress(stage="export", done=done, total=2) for done in (1, 2)]
    part[0].write_bytes(part[0].read_bytes()[:-20])
    stamp = part[1].stat().st_mtime_ns
    again = write(make_clip, source, tmp_path / "part", frames=[1, 2])
    assert again[0].read_bytes() == whole[1].read_bytes()
    assert again[1].stat().st_mtime_ns == stamp


def test_footage_of_another_size_is_told(tmp_path: Path, make_clip: MakeClip) -> None:
    source = footage(tmp_path / "plates", "png")
    clip = make_clip((48, 32), num_frames=FRAMES)
    with pytest.raises(ExportError, match="is 96x64, the clip was 48x32"):
        write_stabilized(rotating(3, (48, 32)), clip, source, tmp_path / "out", reporter=Reporter(), origin=ORIGIN)
