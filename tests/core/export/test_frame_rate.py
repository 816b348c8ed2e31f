import math
from fractions import Fraction

import pytest

from omnimotion_core.export.frame_rate import exact_frame_rate


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (24.0, Fraction(24)), (25.0, Fraction(25)), (24000 / 1001, Fraction(24000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)), (29.97, Fraction(30000, 1001)), (59.94, Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)), (14.7, Fraction(147, 10)), (1.0, Fraction(1)), (1000.0, Fraction(1000)),
    ],
)  # fmt: skip
def test_rates_as_files_write_them_become_exact(fps: float, rate: Fraction) -> None:
    assert exact_frame_rate(fps) == rate


@pytest.mark.parametrize("fps", [0.0, -24.0, 0.5, 90000.0, math.nan, math.inf])
def test_what_is_no_rate_is_none(fps: float) -> None:
    assert exact_frame_rate(fps) is None
