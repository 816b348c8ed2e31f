from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813 - its own documentation calls it so
import pytest

from omnimotion_core.errors import ExportError
from omnimotion_core.export.png import read_png_facts, write_png


def noise(shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    rgba = np.random.default_rng(0).integers(0, 65536, (*shape, 4)).astype(np.uint16)
    rgba[..., 3] = 65535  # so that a reader that multiplies by alpha changes nothing
    return rgba


def test_another_reader_finds_pixels_text_and_aspect(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noise(), {"te/frame": 1001, "te/clip": "shot"}, pixel_aspect=2.0)
    file = oiio.ImageInput.open(str(tmp_path / "a.png"))
    spec, pixels = file.spec(), file.read_image(oiio.UINT16)
    file.close()
    np.testing.assert_array_equal(pixels, noise())
    assert spec.getattribute("te/frame") == "1001"
    assert spec.getattribute("te/clip") == "shot"
    assert spec.getattribute("PixelAspectRatio") == 2.0
    facts = read_png_facts(tmp_path / "a.png")
    assert facts.size == (30, 20)
    assert facts.text == {"te/frame": "1001", "te/clip": "shot"}


def test_letters_that_the_format_cannot_hold_become_question_marks(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noise(), {"te/clip": "シーン\0x"})
    assert read_png_facts(tmp_path / "a.png").text == {"te/clip": "????x"}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.png"
    write_png(path, noise(), {})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ExportError, match="damaged or truncated"):
        read_png_facts(path)


def test_a_single_wrong_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, noise(), {"te/run": "d"})
    data = bytearray(path.read_bytes())
    for at in (20, 50, len(data) // 2, len(data) - 6):
        wrong = bytearray(data)
        wrong[at] ^= 1
        path.write_bytes(wrong)
        with pytest.raises(ExportError, match="whole"):
            read_png_facts(path)


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be read"):
        read_png_facts(tmp_path / "a.png")
