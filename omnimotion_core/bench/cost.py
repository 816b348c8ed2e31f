"""What a match costs, counted; what the machine can do at most, measured; and how a cost grows.

The arithmetic of a match in a step of the fit, forward and back, is counted from ``optimization.compiled``, with L
coupling layers. Additions, multiplications, divisions and square roots count one each, an expression that is used twice
while a layer is passed counts once; changes of sign, comparisons, conversions and whole numbers count nothing.

    each layer is passed twice, in the frame that the match begins in and in the one where it ends:
        forward     two knot positions 6, two bilinear lookups with their slopes 24, the slopes along the two
                    conditioning axes 6, scale and its derivative 5, affine map 2                         43
        backward    affine map and scale 3, chain rule to the two conditioning axes 8,
                    spreading of two gradients 20                                                         31
    the rest        pixels to normalized and to cells, depth maps, affine maps, loss, and their gradients 178
    in all          2 (43 + 31) L + 178 = 148 L + 178 FLOP

    a pass reads two tables' four entries and adds to as many gradients: 2·4·4·(1 + 2) = 96 bytes
    the rest        the match 56, affine maps 48, their gradients (float64) 192, depth maps and theirs 128
    in all          192 L + 424 bytes

These are loads and stores: where the tables fit the cache, most of them never reach the memory. What a layer leaves for
the way back stays in the nearest cache and is not counted.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from omnimotion_core.devices import computing

REPEATS = 3  # of what is short; the fastest counts, since other work on the machine only ever adds time
_MATRIX, _COPIED_BYTES = 1024, 1 << 26  # of the machine's own figures


def match_cost(num_layers: int) -> tuple[int, int]:
    """FLOP and bytes of one match in one step of the fit, by the count at the top of this module."""
    return 148 * num_layers + 178, 192 * num_layers + 424


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent p of cost ~ size^p: least squares of the logarithms. Sizes differ, costs are above 0."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def machine_speed(device: torch.device, threads: int) -> tuple[float, float]:
    """FLOP a second of a product of two float32 matrices, and bytes a second of a copy, read and written."""
    with computing(device, threads):
        matrix = torch.ones(_MATRIX, _MATRIX, device=device)
        source = torch.ones(_COPIED_BYTES // 4, device=device)
        target = torch.empty_like(source)
        product_s = fastest(lambda: _finished(torch.mm(matrix, matrix)), 2 * REPEATS)
        copy_s = fastest(lambda: _finished(target.copy_(source)), 2 * REPEATS)
    return 2 * _MATRIX**3 / product_s, 2 * _COPIED_BYTES / copy_s


def _finished(tensor: torch.Tensor) -> None:
    """Wait for a device that computes by itself: reading one value does."""
    tensor.flatten()[0].item()


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of several runs."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
