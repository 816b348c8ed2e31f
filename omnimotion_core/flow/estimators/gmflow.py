"""GMFlow as a flow estimator, and the size and windows that suit a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimotion_core.coordinates import Size
from omnimotion_core.flow.estimators.checkpoints import fill, read_weights
from omnimotion_core.flow.estimators.gmflow_network import STRIDES, GmFlow
from omnimotion_core.flow.estimators.learned import LearnedFlow, Prepared

ENLARGED = ((384, 1.5), (288, 3.0))  # small pictures grow towards a short side, so many times at most; the most counts
MAX_PIXELS = 736 * 416  # larger pictures are shrunk: time and memory grow with the square of it
CPU_MAX_PIXELS = 512 * 288  # the same where a pair takes seconds: a third of the time, and hardly less exact
COARSE_SPLITS = 2
FINE_SPLITS = (4, 2, 1)  # the first that leaves windows of ``MIN_WINDOW``
MIN_WINDOW = 18  # pixels at a quarter of the size, twice the side of the local matching


class GmFlowEstimator(LearnedFlow):
    """GMFlow with two scales; needs no first guess, since it matches every pixel with every other."""

    name = "gmflow"
    resizes = True  # see ``choose_size``

    def _read(self, path: Path) -> nn.Module:
        network = GmFlow()
        fill(network, read_weights(path), path, "GMFlow with two scales")
        return network

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        size, _ = self._size_for((pixels.shape[3], pixels.shape[2]))
        coarse, fine = self.network.encode(_resize(pixels, size))
        return coarse, fine

    def _both(
        self, pairs: Sequence[tuple[Prepared, Prepared]],
        initials: Sequence[tuple[np.ndarray | None, np.ndarray | None]],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        size = pairs[0][0].size
        inner, splits = self._size_for(size)
        source, target = ([torch.cat([pair[side].features[scale] for pair in pairs]) for scale in (0, 1)]
                          for side in (0, 1))  # fmt: skip
        flows = self.network(source, target, splits)
        scale = flows[0].new_tensor([size[0] / inner[0], size[1] / inner[1]])[:, None, None]
        there, back = (_resize(flow, size) * scale for flow in flows)
        return there, back

    def _pair_bytes(self, size: Size) -> int:
        (width, height), _ = self._size_for(size)
        return width * height * 5500  # measured

    def _size_for(self, picture: Size) -> tuple[Size, tuple[int, int]]:
        return choose_size(picture, CPU_MAX_PIXELS if self.device.type == "cpu" else MAX_PIXELS)


def choose_size(picture: Size, max_pixels: int = MAX_PIXELS) -> tuple[Size, tuple[int, int]]:
    """At what size a picture is given to the network, and into how many windows its features are split.

    The published splits are 2 and 8 to each side. Where the fine windows are narrow beside the 9 pixels of the local
    matching the flow is biased. Measured with a picture moved by (-6, 5), mean error in pixels: at 200x150, enlarged
    1.5 times, 0.6 with windows of 14 and 0.2 with 28; at 128x96 0.7 with 9 and 0.3 with 12; at 832x464 0.44 with the
    published splits, 0.21 with (2, 4), and 0.25 with (2, 4) at four fifths of the size, in half the time. So the fine
    scale is split less, and less the smaller the picture; small pictures are enlarged, very large ones shrunk. What is
    lost by that is little: hand-placed joints of a walking cow (854x480) are missed over 8 and 16 frames by 4.1 and 5.7
    pixels (medians) at 736x416, by 4.3 and 5.9 at 512x288, by 4.8 and 6.5 at 448x256, by 4.9 and 6.6 at 384x224.

    Args:
        picture: its size.
        max_pixels: of the size that is chosen, about.

    Returns:
        The size, whose sides divide by what the windows ask, and the splits at an eighth and at a quarter of it.
    """
    short = min(picture)
    scale = max(1.0, *(min(side / short, most) for side, most in ENLARGED))
    scale = min(scale, (max_pixels / (picture[0] * picture[1])) ** 0.5)
    wide_enough = [splits for splits in FINE_SPLITS if round(short * scale) / STRIDES[1] / splits >= MIN_WINDOW]
    fine = (wide_enough or FINE_SPLITS[-1:])[0]
    step = max(COARSE_SPLITS * STRIDES[0], fine * STRIDES[1])
    width, height = (max(round(side * scale / step), 1) * step for side in picture)
    return (width, height), (COARSE_SPLITS, fine)


def _resize(values: Tensor, size: Size) -> Tensor:
    """(B, C, h, w) at another size; the pixels' edges stay where they are."""
    if (values.shape[3], values.shape[2]) == size:
        return values
    return F.interpolate(values, size[::-1], mode="bilinear", align_corners=False, antialias=True)
