import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import OpenImageIO as oiio  # noqa: N813 - its own documentation calls it so
import pytest

from omnimotion_core.errors import ExportError
from omnimotion_core.export.exr import COMPRESSIONS, MAX_SIDE, compressing_with, read_exr, write_exr


def noise(shape: tuple[int, int] = (40, 60), dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 20, shape).astype(dtype)


def read_with_oiio(path: Path) -> tuple[dict[str, np.ndarray], oiio.ImageSpec]:
    """The channels as another library reads them."""
    file = oiio.ImageInput.open(str(path))
    assert file, oiio.geterror()
    pixels = file.read_image(oiio.FLOAT)
    assert pixels is not None, file.geterror()
    spec = file.spec()
    file.close()
    return {name: pixels[..., index] for index, name in enumerate(spec.channelnames)}, spec


STRIDED = {
    "plane of a stack": noise((40, 120)).reshape(40, 60, 2)[..., 1],
    "flipped": noise()[::-1],
    "mirrored": noise()[:, ::-1],
    "transposed": noise((60, 40)).T,
    "crop": noise((80, 90))[10:50, 20:80],
    "every second": noise((80, 120))[::2, ::2],
    "one row repeated": np.broadcast_to(noise((1, 60)), (40, 60)),
}


@pytest.mark.parametrize("kind", STRIDED)
def test_strided_arrays_are_written_as_they_look(tmp_path: Path, kind: str) -> None:
    write_exr(tmp_path / "a.exr", {"Vector.X": STRIDED[kind]}, {})
    channels, _ = read_with_oiio(tmp_path / "a.exr")
    np.testing.assert_array_equal(channels["Vector.X"], STRIDED[kind])


def test_neither_the_dicts_nor_the_arrays_of_the_caller_change(tmp_path: Path) -> None:
    pixels, attributes = noise(), {"te/units": "pixels"}
    before, channels = pixels.copy(), {"Vector.X": pixels}
    write_exr(tmp_path / "a.exr", channels, attributes)
    assert channels["Vector.X"] is pixels
    assert attributes == {"te/units": "pixels"}
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    pixels = noise()
    pixels[3, 4] = value
    with pytest.raises(ExportError, match=r"Vector\.X has 1 values that are not finite"):
        write_exr(tmp_path / "a.exr", {"Vector.X": pixels}, {})
    assert list(tmp_path.iterdir()) == []


def test_what_half_cannot_hold_is_refused(tmp_path: Path) -> None:
    pixels = noise()
    pixels[0, 0] = 65505.0
    with pytest.raises(ExportError, match="half ends at 65504"):
        write_exr(tmp_path / "a.exr", {"X": pixels}, {}, half=["X"])
    pixels[0, 0] = 65504.0
    write_exr(tmp_path / "a.exr", {"X": pixels, "Y": noise()}, {}, half=["X"])
    channels = read_exr(tmp_path / "a.exr").channels
    assert {name: array.dtype for name, array in channels.items()} == {"X": np.float16, "Y": np.float32}
    np.testing.assert_array_equal(channels["X"], pixels.astype(np.float16))


@pytest.mark.parametrize("compression", ["DWAA", "DWAB", "B44", "B44A", "LZMA"])
def test_compressions_that_harm_data_are_refused(tmp_path: Path, compression: str) -> None:
    with pytest.raises(ExportError, match="use one of NONE, RLE, ZIPS, ZIP"):
        write_exr(tmp_path / "a.exr", {"R": noise()}, {}, compression=compression)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressions_on_offer_keep_float_and_half(tmp_path: Path, compression: str) -> None:
    channels = {"Vector.Y": noise(), "confidence.Y": noise(dtype=np.float16)}  # Y: the name that DWA damages
    write_exr(tmp_path / "a.exr", channels, {}, compression=compression)
    back, _ = read_with_oiio(tmp_path / "a.exr")
    np.testing.assert_array_equal(back["confidence.Y"], channels["confidence.Y"].astype(np.float32))
    tolerance = 0.001 if compression == "PXR24" else 0.0
    np.testing.assert_allclose(back["Vector.Y"], channels["Vector.Y"], rtol=0, atol=tolerance)


def test_header_entries_reach_another_reader(tmp_path: Path) -> None:
    write_exr(
        tmp_path / "a.exr", {"Vector.X": noise()},
        {"te/version": "1.2", "te/frame": 1001, "te/scale": 0.5, "framesPerSecond": Fraction(24000, 1001)},
        pixel_aspect=2.0,
    )  # fmt: skip
    _, spec = read_with_oiio(tmp_path / "a.exr")
    assert (spec.width, spec.height, str(spec.format)) == (60, 40, "float")
    assert spec.getattribute("te/version") == "1.2"
    assert spec.getattribute("te/frame") == 1001
    assert spec.getattribute("te/scale") == 0.5
    assert spec.getattribute("FramesPerSecond") == (24000, 1001)
    assert spec.getattribute("PixelAspectRatio") == 2.0
    assert spec.getattribute("compression") == "zip"
    assert read_exr(tmp_path / "a.exr").attributes["framesPerSecond"] == Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("channels", "attributes", "problem"),
    [
        ({}, {}, "0 channels"),
        ({"R": noise().astype(np.float64)}, {}, "R is float64"),
        ({"R": noise() > 0}, {}, "R is bool"),
        ({"R": noise(), "G": noise((40, 61))}, {}, r"G is \(40, 61\)"),
        ({"R": np.zeros((4, 4, 3), np.float32)}, {}, r"shape is \(4, 4, 3\)"),
        ({"R": np.zeros((0, 4), np.float32)}, {}, r"shape is \(0, 4\)"),
        ({"R": np.zeros((1, MAX_SIDE + 1), np.float32)}, {}, "shape is"),
        ({"R/../x": noise()}, {}, "channel name"),
        ({"R": noise()}, {"te/flag": True}, "te/flag is True"),
        ({"R": noise()}, {"te/none": None}, "te/none is None"),
        ({"R": noise()}, {"dataWindow": "x"}, "dataWindow describes"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, channels: dict[str, np.ndarray], attributes: dict[str, object], problem: str
) -> None:
    with pytest.raises(ExportError, match=problem):
        write_exr(tmp_path / "a.exr", channels, attributes)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_too_many_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="257 channels"):
        write_exr(tmp_path / "a.exr", {f"c{n}": noise((2, 2)) for n in range(257)}, {})


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="cannot be written"):
        write_exr(tmp_path / "file" / "a.exr", {"R": noise()}, {})


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from typing import Any
import numpy as np
from omnimotion_core.errors import ExportError
from omnimotion_core.export.exr import write_exr
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_exr(Path(sys.argv[1]), {"R": np.random.default_rng(0).random((80, 80)).astype(np.float32)}, {})
except ExportError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limits")
def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "a.exr"
    write_exr(path, {"R": noise((4, 4))}, {})
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60, check=True, cwd=root
    )
    assert "cannot be written" in done.stdout, done
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float, parts: int) -> None:
    path = tmp_path / "a.exr"
    if parts == 1:
        write_exr(path, {"R": noise(), "G": noise()}, {})
    else:
        write_parts(path, {f"part{n}": noise() for n in range(parts)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ExportError, match="damaged or truncated"):
        read_exr(path)


def test_scrambled_pixels_are_refused(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(60, dtype=np.float32), (40, 1))  # noise would be stored as it is, without a checksum
    write_exr(tmp_path / "a.exr", {"R": ramp}, {})
    data = bytearray((tmp_path / "a.exr").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = b"\xff" * 20
    (tmp_path / "a.exr").write_bytes(data)
    with pytest.raises(ExportError, match="damaged"):
        read_exr(tmp_path / "a.exr")


def test_a_part_for_each_layer_and_whole_names_in_all(tmp_path: Path) -> None:
    channels = {"forward.u": noise(), "forward.v": -noise(), "visibility.Y": noise() > 0, "A": noise()}
    channels = {name: array.astype(np.float32) for name, array in channels.items()}
    write_exr(tmp_path / "a.exr", channels, {"te/frame": 7}, half=["visibility.Y"], pixel_aspect=2.0, multipart=True)
    file, part, found = oiio.ImageInput.open(str(tmp_path / "a.exr")), 0, {}
    while file.seek_subimage(part, 0):
        spec = file.spec()
        assert spec.getattribute("te/frame") == 7
        assert spec.getattribute("PixelAspectRatio") == 2.0
        assert spec.getattribute("compression") == "zip"
        found[spec.getattribute("oiio:subimagename")] = (list(spec.channelnames), str(spec.format))
        for index, name in enumerate(spec.channelnames):
            pixels = file.read_image(part, 0, index, index + 1, oiio.FLOAT)
            np.testing.assert_array_equal(pixels.reshape(40, 60), channels[name], err_msg=name)
        part += 1
    file.close()
    assert found == {"forward": (["forward.u", "forward.v"], "float"), "visibility": (["visibility.Y"], "half"),
                     "rgba": (["A"], "float")}
    back = read_exr(tmp_path / "a.exr")
    assert (back.num_parts, back.compression) == (3, "ZIP")
    assert set(back.channels) == set(channels)


def test_threads_change_no_bit_and_are_given_back(tmp_path: Path) -> None:
    before = OpenEXR.global_thread_count()
    write_exr(tmp_path / "a.exr", {"R": noise((300, 200))}, {})
    with compressing_with(3):
        assert OpenEXR.global_thread_count() == 3
        write_exr(tmp_path / "b.exr", {"R": noise((300, 200))}, {})
    assert OpenEXR.global_thread_count() == before
    assert (tmp_path / "a.exr").read_bytes() == (tmp_path / "b.exr").read_bytes()


def write_parts(path: Path, parts: dict[str, np.ndarray]) -> None:
    """A multi-part file by another writer, each part with the channel ``Z``."""
    specs = []
    for name, pixels in parts.items():
        spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], 1, oiio.FLOAT)
        spec.channelnames = ("Z",)
        spec.attribute("name", name)
        specs.append(spec)
    file = oiio.ImageOutput.create(str(path))
    assert file.open(str(path), tuple(specs)), file.geterror()
    for index, pixels in enumerate(parts.values()):
        assert index == 0 or file.open(str(path), specs[index], "AppendSubimage"), file.geterror()
        assert file.write_image(pixels[..., None]), file.geterror()
    assert file.close()


def test_all_parts_of_another_program_s_file_are_read(tmp_path: Path) -> None:
    parts = {"near": noise((8, 9)), "far": -noise((8, 9))}
    write_parts(tmp_path / "a.exr", parts)
    channels = read_exr(tmp_path / "a.exr").channels
    np.testing.assert_array_equal(channels["Z"], parts["near"])
    np.testing.assert_array_equal(channels["far.Z"], parts["far"])


def test_a_header_that_claims_an_absurd_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    write_exr(tmp_path / "a.exr", {"R": noise()}, {})
    data = bytearray((tmp_path / "a.exr").read_bytes())
    window = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[window : window + 16] = np.array([0, 0, 59999, 59999], "<i4").tobytes()
    (tmp_path / "a.exr").write_bytes(data)
    with pytest.raises(ExportError, match="claims 1 channels of 60000x60000"):
        read_exr(tmp_path / "a.exr")


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_what_is_no_exr_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.exr").write_bytes(content)
    with pytest.raises(ExportError):
        read_exr(tmp_path / "a.exr")


def test_a_header_that_does_not_match_the_data_is_noticed_after_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OpenEXR.File

    def forgetful(*args: Any, **options: Any) -> Any:
        """The true library, but for a channel that it loses when it writes."""
        if isinstance(args[0], dict):
            return real(args[0], {"R": args[1]["R"]}, **options)
        return real(*args, **options)

    monkeypatch.setattr(OpenEXR, "File", forgetful)
    with pytest.raises(ExportError, match="came out as"):
        write_exr(tmp_path / "a.exr", {"R": noise(), "G": noise()}, {})
    assert list(tmp_path.iterdir()) == []
