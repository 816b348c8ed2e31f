"""The canonical volume: color and density of every point of a clip's one quasi-3D scene."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimotion_core.model.networks import GaborNet

LAYERS, ALPHA = 3, 3.0
DENSITY_BIAS = 1.0


def contract(points: Tensor) -> Tensor:
    """Points (..., 3) drawn into the ball of radius 2, those of the unit ball left where they are.

    Source: Barron et al. 2022, mip-NeRF 360, equation 10. The published OmniMotion picks the outer points by a mask,
    for which a GPU has to wait; this is one formula for both.
    """
    norm = torch.linalg.vector_norm(points, dim=-1, keepdim=True).clamp(min=1.0)
    return points * ((2.0 - 1.0 / norm) / norm)


class CanonicalVolume(nn.Module):
    """A Gabor network from canonical points to color and density."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.network = GaborNet(3, hidden, 4, layers=LAYERS, alpha=ALPHA)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colors (..., 3) 0..1 and densities (...), 0 or more, at canonical points (..., 3)."""
        values = self.network(contract(points))
        return values[..., :3].sigmoid(), F.softplus(values[..., 3] - DENSITY_BIAS)
