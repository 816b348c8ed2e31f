"""The matte is found, chosen and sized as the user means it."""

from typing import Any

import numpy as np
import pytest

from omnimotion_core.errors import ClipError
from omnimotion_core.video.mask import find_mask


def half(height: int = 32, width: int = 48) -> np.ndarray:
    """A matte (H, W) uint8: white on the left."""
    matte = np.zeros((height, width), np.uint8)
    matte[:, : width // 2] = 255
    return matte


def test_luminance_of_a_still_serves_every_frame(footage: Any) -> None:
    mask = find_mask(str(footage.picture("matte.png", half())), 1001)
    for number in (1001, 1048):
        np.testing.assert_array_equal(mask.read(number, (48, 32)), half())


def test_a_numbered_still_alone_is_a_still(footage: Any) -> None:
    mask = find_mask(str(footage.picture("matte_v2.png", half())), 7)
    assert mask.sequence is None
    assert mask.read(7, (48, 32)).mean() == pytest.approx(127.5)


def test_alpha_counts_where_it_is_not_solid(footage: Any) -> None:
    picture = np.full((32, 48, 4), 255, np.uint8)
    picture[..., 3] = half()
    mask = find_mask(str(footage.picture("a.png", picture)), 1)
    assert mask.by_alpha
    np.testing.assert_array_equal(mask.read(1, (48, 32)), half())


def test_solid_alpha_says_nothing(footage: Any) -> None:
    picture = np.full((32, 48, 4), 255, np.uint8)
    picture[..., :3] = half()[..., None]
    mask = find_mask(str(footage.picture("a.png", picture)), 1)
    assert not mask.by_alpha
    np.testing.assert_array_equal(mask.read(1, (48, 32)), half())


def test_float_mattes_with_strange_values_work(footage: Any) -> None:
    picture = np.zeros((32, 48), np.float32)
    picture[:, :24] = 3.0
    picture[0, :] = np.nan
    picture[1, :] = -4
    mask = find_mask(str(footage.picture("a.exr", picture, "float", channelnames=("Y",))), 1)
    matte = mask.read(1, (48, 32))
    assert (matte[2:, :24] == 255).all()
    assert (matte[:2] == 0).all()


@pytest.mark.parametrize("size", [(24, 16), (96, 64)])
def test_the_matte_takes_the_working_size(footage: Any, size: tuple[int, int]) -> None:
    matte = find_mask(str(footage.picture("a.png", half())), 1).read(1, size)
    assert matte.shape == size[::-1]
    assert ((matte >= 128) == half(size[1], size[0]).astype(bool)).all()


def test_a_sequence_is_numbered_as_the_footage(footage: Any) -> None:
    for number in (1001, 1002):
        footage.picture(f"m/m.{number}.png", np.roll(half(), number - 1001, axis=1))
    for named in ("m", "m/m.####.png", "m/m.1002.png"):
        mask = find_mask(str(footage.folder / named), 1001)
        np.testing.assert_array_equal(mask.read(1002, (48, 32)), np.roll(half(), 1, axis=1))
    with pytest.raises(ClipError, match=r"mask m\.####\.png has no frame 1003, it holds 2 frames 1001-1002"):
        mask.read(1003, (48, 32))
    with pytest.raises(ClipError, match="has no frame 1"):
        find_mask(str(footage.folder / "m"), 1)


def test_what_is_no_mask_is_told(footage: Any) -> None:
    with pytest.raises(ClipError, match="does not exist"):
        find_mask(str(footage.folder / "nothing.png"), 1)
    (footage.folder / "mask.txt").write_text("white")
    with pytest.raises(ClipError, match="is no picture"):
        find_mask(str(footage.folder / "mask.txt"), 1)
