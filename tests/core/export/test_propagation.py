from pathlib import Path

import cv2
import numpy as np
import OpenImageIO as oiio  # noqa: N813 - its own documentation calls it so
import pytest

from omnimotion_core.errors import ClipError, ConfigError, ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.pictures import PictureKind
from omnimotion_core.export.propagation import Painted, carry, read_painted, write_propagated
from omnimotion_core.export.sequences import Origin
from omnimotion_core.trajectories.dense import DenseFlow

from .conftest import MakeClip
from .motions import Flow, read_with_oiio, translating

SIZE, FRAMES = (96, 64), 5
ORIGIN = Origin(tool_version="1", run_digest="d")


def patch(x: int, y: int, color: tuple[float, float, float], alpha: float = 1.0) -> np.ndarray:
    """A square of 10 pixels, straight color (H, W, 4) 0..1."""
    rgba = np.zeros((64, 96, 4))
    rgba[y : y + 10, x : x + 10] = (*color, alpha)
    return rgba


def save(path: Path, rgba: np.ndarray, kind: str = "uint16") -> Path:
    """A picture by another writer; EXR color is multiplied by alpha, PNG color is not."""
    spec = oiio.ImageSpec(rgba.shape[1], rgba.shape[0], rgba.shape[2], kind)
    spec.attribute("oiio:UnassociatedAlpha", 1)
    file = oiio.ImageOutput.create(str(path))
    assert file.open(str(path), spec)
    assert file.write_image(np.ascontiguousarray(rgba, np.float32))
    assert file.close()
    return path


def stored(path: Path) -> np.ndarray:
    """What a PNG file holds, unchanged, (H, W, C) as BGRA."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def write(
    make_clip: MakeClip, images: dict[int, Path], folder: Path, flow: Flow | None = None, **options: object
) -> list[Path]:
    settings: dict[str, object] = {"reporter": Reporter(), "origin": ORIGIN}
    clip = make_clip(SIZE, num_frames=FRAMES)
    return write_propagated(flow or translating(4, 2), clip, read_painted(images, clip), folder,
                            **(settings | options))  # type: ignore[arg-type]


def test_paint_moves_with_the_shot_and_its_own_frame_is_unchanged(tmp_path: Path, make_clip: MakeClip) -> None:
    image = save(tmp_path / "paint.png", patch(40, 20, (1, 0.5, 0)))
    paths = write(make_clip, {1003: image}, tmp_path / "out")
    assert [path.name for path in paths] == [f"shot.propagated.{1001 + t}.png" for t in range(FRAMES)]
    original = stored(image)
    np.testing.assert_array_equal(stored(paths[2]), original)
    for t, path in enumerate(paths):
        moved = np.roll(original, ((t - 2) * 2, (t - 2) * 4), axis=(0, 1))
        np.testing.assert_array_equal(stored(path), moved)


@pytest.mark.parametrize("kind", ["half", "float"])
def test_a_float_picture_stays_one_and_may_be_brighter_than_white(
    tmp_path: Path, make_clip: MakeClip, kind: str
) -> None:
    image = save(tmp_path / "paint.exr", patch(40, 20, (6.5, 0.25, -1)) * [0.5, 0.5, 0.5, 0.5], kind)
    paths = write(make_clip, {1003: image}, tmp_path / "out")
    channels, spec = read_with_oiio(paths[3])
    assert str(spec.format) == kind
    assert spec.getattribute("te/sources").startswith("1003:")
    assert [float(channels[letter][25, 48]) for letter in "RGBA"] == [3.25, 0.125, -0.5, 0.5]
    assert not channels["A"][:, :44].any()


def test_a_grey_matte_keeps_its_values_where_it_is_seen(tmp_path: Path, make_clip: MakeClip) -> None:
    matte = np.linspace(0, 1, 96)[None].repeat(64, 0)[..., None]
    paths = write(make_clip, {1001: save(tmp_path / "matte.png", matte)}, tmp_path / "out")
    picture = stored(paths[2])
    original = stored(tmp_path / "matte.png")
    np.testing.assert_array_equal(picture[4:, 8:, 1], original[:-4, :-8])
    assert (picture[4:, 8:, 3] == 65535).all()
    assert not picture[:4].any()
    assert not picture[:, :8].any()


def test_half_a_pixel_is_half_of_each_neighbor(tmp_path: Path, make_clip: MakeClip) -> None:
    image = save(tmp_path / "paint.exr", patch(40, 20, (1, 1, 1)), "float")
    channels, _ = read_with_oiio(write(make_clip, {1001: image}, tmp_path / "out", translating(0.5, 0))[1])
    assert channels["A"][25, 39:52].tolist() == [0, 0.5, *[1] * 9, 0.5, 0]


def test_hidden_surfaces_carry_no_paint(tmp_path: Path, make_clip: MakeClip) -> None:
    def flow(source: int, target: int) -> DenseFlow:
        dense = translating(0, 0)(source, target)
        dense.visible[:, 45:] = source == target
        return dense

    image = save(tmp_path / "paint.png", patch(40, 20, (1, 0, 0)))
    picture = stored(write(make_clip, {1001: image}, tmp_path / "out", flow)[1])
    assert (picture[20:30, 40:45, 3] == 65535).all()
    assert not picture[:, 45:].any()


def test_paint_of_two_frames_keeps_its_strength_and_dissolves_where_both_are_solid(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    red = patch(20, 20, (1, 0, 0)) + patch(50, 20, (1, 0, 0))
    blue = patch(70, 20, (0, 0, 1), 0.5) + patch(50, 20, (0, 0, 1))
    images = {1001: save(tmp_path / "a.exr", red * red[..., 3:], "float"),
              1005: save(tmp_path / "b.exr", blue * blue[..., 3:] ** [1, 1, 1, 0], "float")}
    still = translating(0, 0)
    paths = write(make_clip, images, tmp_path / "out", still)
    first, middle, last = (read_with_oiio(paths[t])[0] for t in (0, 2, 4))

    def at(channels: dict[str, np.ndarray], x: int) -> list[float]:
        return [round(float(channels[letter][25, x]), 5) for letter in "RGBA"]

    assert at(first, 55) == [1, 0, 0, 1]  # a painted frame shows its own picture alone where that is solid
    assert at(last, 55) == [0, 0, 1, 1]
    for channels in (first, middle, last):  # and nothing goes out for a frame because another picture lacks it
        assert at(channels, 25) == [1, 0, 0, 1]
        assert at(channels, 75) == [0, 0, 0.5, 0.5]
    assert at(middle, 55) == [0.4, 0, 0.6, 1]  # both two frames away, sure by 0.5 back and by 0.75 forth


def test_a_painted_frame_has_its_own_solid_picture_to_the_bit_whatever_the_others_hold(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    rng = np.random.default_rng(0)
    pictures = {n: rng.random((64, 96, 4)).astype(np.float32) for n in (1001, 1003, 1005)}
    for picture in pictures.values():
        picture[..., 3] = 1
    images = {n: save(tmp_path / f"{n}.exr", picture, "float") for n, picture in pictures.items()}
    paths = write(make_clip, images, tmp_path / "out")
    for number, picture in pictures.items():
        channels, _ = read_with_oiio(paths[number - 1001])
        for index, letter in enumerate("RGBA"):
            np.testing.assert_array_equal(channels[letter], picture[..., index])


def test_soft_edges_are_filled_by_what_another_picture_has_there(tmp_path: Path, make_clip: MakeClip) -> None:
    soft, solid = patch(20, 20, (0.25, 0, 0), 0.25), patch(20, 20, (0, 0, 1))  # color is multiplied by alpha
    images = {1001: save(tmp_path / "a.exr", soft, "float"), 1003: save(tmp_path / "b.exr", solid, "float")}
    paths = write(make_clip, images, tmp_path / "out", translating(0, 0))
    channels, _ = read_with_oiio(paths[0])
    assert [float(channels[letter][25, 25]) for letter in "RGBA"] == [0.25, 0, 0.75, 1]
    between, _ = read_with_oiio(paths[1])
    assert float(between["A"][25, 25]) == 1.0
    same = {1001: images[1001], 1003: save(tmp_path / "c.exr", soft, "float")}
    for path in write(make_clip, same, tmp_path / "same", translating(0, 0)):  # twice the same is no stronger
        assert float(read_with_oiio(path)[0]["A"][25, 25]) == pytest.approx(0.25, abs=1e-6)


def test_carry_where_no_picture_is_seen_is_nothing() -> None:
    dense = translating(0, 0)(0, 1)
    dense.visible[:] = False
    one = Painted(t=1, rgba=np.ones((64, 96, 4), np.float32), kind=PictureKind(is_float=True, is_half=False), sha256="")
    for painted in ([one], [one, one]):
        assert not carry(painted, [dense] * len(painted)).any()


def test_another_picture_has_the_files_written_again_and_whole_files_are_kept(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    image = save(tmp_path / "paint.png", patch(40, 20, (1, 0.5, 0)))
    paths = write(make_clip, {1003: image}, tmp_path / "out")
    stamps = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    write(make_clip, {1003: image}, tmp_path / "out")
    assert [path.stat().st_mtime_ns == stamp for path, stamp in zip(paths, stamps, strict=True)] == [
        True, False, True, True, True,
    ]  # fmt: skip
    save(image, patch(40, 20, (0, 0.5, 1)))
    part = write(make_clip, {1003: image}, tmp_path / "out", frames=[2])
    assert part == [paths[2]]
    assert stored(part[0])[25, 45].tolist() == [65535, 32768, 0, 65535]


def test_pictures_that_cannot_be_used_are_told(tmp_path: Path, make_clip: MakeClip) -> None:
    good = save(tmp_path / "a.png", patch(40, 20, (1, 0, 0)))
    small = save(tmp_path / "small.png", patch(40, 20, (1, 0, 0))[::2])
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:100])
    bright = save(tmp_path / "b.exr", patch(40, 20, (1, 0, 0)), "half")
    for images, kind, problem in (
        ({}, ConfigError, "add --frame N --image FILE"),
        ({1006: good}, ConfigError, "frame 1006 is not in the clip; give frames from 1001 to 1005"),
        ({1001: small}, ExportError, "is 96x32, the plate is 96x64; give a picture of the plate's size"),
        ({1001: tmp_path / "broken.png"}, ClipError, "broken.png"),
        ({1001: tmp_path / "absent.png"}, ClipError, "absent.png"),
        ({1001: good, 1003: bright}, ExportError, "different kinds"),
    ):
        with pytest.raises(kind, match=problem):
            write(make_clip, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()
