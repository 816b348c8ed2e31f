"""The clip's frame rate as an exact fraction, which files for other programs ask for."""

import math
from fractions import Fraction


def exact_frame_rate(fps: float) -> Fraction | None:
    """The rate that ``fps`` stands for: 23.976 is 24000/1001; None where the footage tells no usable rate.

    A rate below 1 or above 1000 frames a second is not usable: players and EXR headers do not keep it.
    """
    if not math.isfinite(fps) or not 1.0 <= fps <= 1000.0:
        return None
    whole, ntsc = Fraction(round(fps)), Fraction(round(fps * 1.001) * 1000, 1001)
    nearest = min(whole, ntsc, key=lambda rate: abs(float(rate) - fps))
    if abs(float(nearest) - fps) < 0.0045:  # 24000/1001 is also written 23.976 and 23.98
        return nearest
    return Fraction(fps).limit_denominator(1001)
