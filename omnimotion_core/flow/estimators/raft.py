"""RAFT, large and small, as flow estimators."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimotion_core.coordinates import Size
from omnimotion_core.flow.estimators.checkpoints import fill, read_weights
from omnimotion_core.flow.estimators.correlation import correlate
from omnimotion_core.flow.estimators.learned import LearnedFlow, Prepared
from omnimotion_core.flow.estimators.raft_network import MIN_SIDE, STRIDE, Encoded, Raft, princeton_names

ITERATIONS = 20  # as the published OmniMotion prepares its input
VOLUME_BYTES = 512 * 2**20  # of correlations that a pair on the CPU holds; beyond it they are computed on demand
VOLUME_SHARE = 0.4  # of a GPU's free memory, for a batch


class RaftFlow(LearnedFlow):
    """RAFT from weights of either published layout; ``initial`` is where its updates start from."""

    name = "raft"
    refines = True
    small = False

    def _read(self, path: Path) -> nn.Module:
        network = Raft(small=self.small)
        fill(network, princeton_names(read_weights(path)), path, "RAFT small" if self.small else "RAFT large")
        return network

    def _encode(self, pixels: Tensor) -> Encoded:
        encoded: Encoded = self.network.encode(_pad(pixels / 255 * 2 - 1))
        return encoded

    def _both(
        self, pairs: Sequence[tuple[Prepared, Prepared]],
        initials: Sequence[tuple[np.ndarray | None, np.ndarray | None]],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        size = pairs[0][0].size
        first, second = (_join([pair[side].features for pair in pairs]) for side in (0, 1))
        source = _join([first, second])
        target = torch.cat([second.features, first.features])
        guesses = [both[side] for side in (0, 1) for both in initials]
        with torch.autocast(self.device.type, enabled=False):
            correlation = correlate(source.features, target, self.network.radius, self._volume_bytes())
        _, flow = self.network(source, correlation, ITERATIONS, self._low(guesses, size))
        left, top = _padding(size)[0], _padding(size)[2]
        there, back = flow[:, :, top : top + size[1], left : left + size[0]].chunk(2)
        return there, back

    def _low(self, guesses: Sequence[np.ndarray | None], size: Size) -> Tensor | None:
        """First guesses (h, w, 2) as low flow (2P, 2, h/8, w/8); zero where a pair has none."""
        if all(guess is None for guess in guesses):
            return None
        none = np.zeros((size[1], size[0], 2), np.float32)
        dense = np.stack([none if guess is None else guess for guess in guesses]).astype(np.float32)
        return F.avg_pool2d(_pad(torch.from_numpy(dense).to(self.device).permute(0, 3, 1, 2)), STRIDE) / STRIDE

    def _volume_bytes(self) -> int:
        if self.device.type != "cuda":
            return VOLUME_BYTES
        return int(VOLUME_SHARE * torch.cuda.mem_get_info(self.device)[0])

    def _pair_bytes(self, size: Size) -> int:
        pixels = size[0] * size[1] / STRIDE**2
        return int(2 * (pixels**2 * 4 * 4 / 3 + pixels * 40_000))  # both directions: correlations; states and gates


class RaftSmallFlow(RaftFlow):
    """RAFT-S: a fifth of the weights."""

    name = "raft-small"
    small = True


def _padding(size: Size) -> tuple[int, int, int, int]:
    """Pixels to add left, right, above and below, half on each side."""
    sides = []
    for side in size:
        missing = max(-(-side // STRIDE) * STRIDE, MIN_SIDE) - side
        sides += [missing // 2, missing - missing // 2]
    left, right, top, bottom = sides
    return left, right, top, bottom


def _pad(pictures: Tensor) -> Tensor:
    """The border's pixels repeated up to a size that the network takes."""
    return F.pad(pictures, _padding((pictures.shape[3], pictures.shape[2])), mode="replicate")


def _join(parts: Sequence[Encoded]) -> Encoded:
    return Encoded(*(torch.cat([getattr(part, name) for part in parts]) for name in ("features", "hidden", "context")))
