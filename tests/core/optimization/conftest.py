"""A clip with matches that are exact, on which a small volumetric field is fitted, and the published step in the
plainest form, written from its formulas: nothing shared, nothing kept back."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnimotion_core.config import Config
from omnimotion_core.coordinates import pixel_to_normalized
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow.correspondences import Correspondences, join
from omnimotion_core.model.networks import CouplingLayer, GaborFilter, GaborNet, encode_positions
from omnimotion_core.model.volumetric import VolumetricField
from omnimotion_core.optimization.pair_sampling import PairBatch
from omnimotion_core.video.clip import Clip

SIZE, FRAMES = (48, 40), 6


@pytest.fixture(scope="session")
def small_scene() -> Scene:
    """Six frames."""
    return Scene.make(FRAMES, SIZE, seed=1)


@pytest.fixture(scope="session")
def scene_clip(small_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """The frames of ``small_scene``."""
    folder = tmp_path_factory.mktemp("scene")
    for t in range(FRAMES):
        cv2.imwrite(str(folder / f"{t:06d}.png"), small_scene.render(t)[..., ::-1].astype(np.uint16) * 257)
    return Clip(
        folder=folder, name="scene", path=str(folder), sha256="0" * 64, size=SIZE, working_size=SIZE,
        num_frames=FRAMES, first_frame=1, clip_first_frame=1, fps=24.0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def exact(small_scene: Scene) -> Correspondences:
    """Exact matches of all pairs up to 3 frames apart, 400 a pair at most."""
    rng, blocks = np.random.default_rng(0), []
    for i in range(FRAMES):
        for j in range(FRAMES):
            if i == j or abs(i - j) > 3:
                continue
            vectors, visible = small_scene.flow(i, j)
            row, column = np.nonzero(visible)
            chosen = np.sort(rng.choice(len(row), min(400, len(row)), replace=False))
            source = np.stack([column[chosen], row[chosen]], axis=-1).astype(np.int16)
            blocks.append({
                "pairs": np.array([[i, j]], np.int32), "pair": np.zeros(len(source), np.int32), "source": source,
                "target": (source + vectors[source[:, 1], source[:, 0]]).astype(np.float32),
                "weight": np.full(len(source), 255, np.uint8), "hidden_pair": np.zeros(0, np.int32),
                "hidden_source": np.zeros((0, 2), np.int16),
            })  # fmt: skip
    return Correspondences(**join(blocks))


@pytest.fixture(scope="session")
def small() -> Config:
    """The paper's preset with networks and batches that take milliseconds."""
    networks = {"num_samples": 6, "latent_size": 8, "latent_hidden": 16, "coupling_hidden": 16, "color_hidden": 16}
    settings = {"pairs": 4, "points": 24, "smooth_points": 6, "pace": 200.0}
    return Config.from_preset("paper").override({
        "device": "cpu", "threads": 1, "model": {"volumetric": networks},
        "fit": {"steps": 60, "checkpoint_every": 10, "volumetric": settings},
    })  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder for the resume state."""
    return tmp_path / "checkpoint"


@pytest.fixture(scope="session")
def published_loss() -> Callable[..., Tensor]:
    """The loss that the fast step is held against: more arithmetic and memory, the same result."""
    return plain_loss


def gabor_net(net: GaborNet, x: Tensor) -> Tensor:
    def gabor(k: int) -> Tensor:
        layer = net.filters[k]
        assert isinstance(layer, GaborFilter)
        distance = (x**2).sum(-1, keepdim=True) + (layer.mu**2).sum(-1) - 2 * (x @ layer.mu.T)
        return torch.sin(F.linear(x, layer.weight, layer.bias)) * torch.exp(-0.5 * distance * layer.gamma)

    z = gabor(0)
    for k, linear in enumerate(net.linears, 1):
        z = gabor(k) * linear(z)
    result: Tensor = net.output(z)
    return result


def scale_and_shift(layer: CouplingLayer, latent: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    projected = layer.projector[1](F.leaky_relu(layer.projector[0](latent), 0.01))
    encoded = F.leaky_relu(layer.encoder(encode_positions(others, layer.num_frequencies)), 0.01)
    x = torch.cat([projected[:, None].expand(*encoded.shape[:2], -1), encoded], dim=-1)
    for linear in layer.hidden:
        x = F.leaky_relu(linear(x), 0.01)
    log_scale, shift = layer.output(x).split(1, dim=-1)
    return log_scale.clamp(-8, 8), shift


def move(field: VolumetricField, frames: Tensor, points: Tensor, inverse: bool) -> Tensor:
    latent = gabor_net(field.latents, field.times[frames][:, None])
    steps = list(zip(field.layers, field.networks.axes, strict=True))
    for layer, axis in reversed(steps) if inverse else steps:
        assert isinstance(layer, CouplingLayer)
        kept = [k for k in range(3) if k != axis]
        log_scale, shift = scale_and_shift(layer, latent, points[..., kept])
        moved = torch.zeros(3)
        moved[axis] = 1
        changed = points * log_scale.exp() + shift if inverse else (points - shift) * torch.exp(-log_scale)
        points = points * (1 - moved) + changed * moved
    return points


def plain_loss(
    field: VolumetricField, batch: PairBatch, depths: Tensor, bin_widths: Tensor, step: int, smooth_points: int
) -> Tensor:
    """The loss of one batch at ``step``; ``depths`` (B, N, S) as drawn. For a field without an affine network."""
    width, height = field.shape.working_size
    num_pairs, num_points, num_samples = depths.shape
    xy = pixel_to_normalized(batch.source, (width, height))
    local = torch.cat([xy[:, :, None].expand(-1, -1, num_samples, -1), depths[..., None]], dim=-1)
    local = local.reshape(num_pairs, -1, 3)
    canonical = move(field, batch.frames_from, local, inverse=False)
    landed = move(field, batch.frames_to, canonical, inverse=True)
    radius = canonical.norm(dim=-1, keepdim=True)
    contracted = torch.where(radius <= 1, canonical, (2 - 1 / radius) * canonical / radius)
    values = gabor_net(field.canonical.network, contracted)
    alpha = (1 - torch.exp(-F.softplus(values[..., 3] - 1))).view(num_pairs, num_points, num_samples)
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-10], dim=-1), dim=-1)[..., :-1]
    weights = alpha * passed
    color = (torch.sigmoid(values[..., :3]).view(*weights.shape, 3) * weights[..., None]).sum(dim=2)
    landed = landed.view(*weights.shape, 3)
    inside = ((landed[..., 2] >= 0) & (landed[..., 2] <= 2)).float()
    soft = (landed[..., :2] * (weights * inside)[..., None]).sum(dim=2)
    predicted = (soft + 1) / 2 * torch.tensor([width - 1.0, height - 1.0])

    shown = ((predicted >= 0) & (predicted <= torch.tensor([width - 1.0, height - 1.0]))).all(dim=-1)
    error = (predicted - batch.target).abs().mean(dim=-1)
    loss = (error * batch.weight)[shown].mean()
    both = batch.weight[:, 1:] * batch.weight[:, :-1] * (shown[:, 1:] & shown[:, :-1])
    steps = ((predicted[:, 1:] - predicted[:, :-1]) - (batch.target[:, 1:] - batch.target[:, :-1])).abs().mean(dim=-1)
    loss = loss + min(step / 500_000, 0.1) * (steps * both).sum() / both.sum()
    color_steps = (color[:, 1:] - color[:, :-1]) - (batch.color[:, 1:] - batch.color[:, :-1])
    loss = loss + min(step / 5000, 10) * (F.mse_loss(color, batch.color) + color_steps.abs().mean())
    z = landed[..., 2]
    loss = loss + 10 * ((z[z < 0] ** 2).sum() + ((z[z > 2] - 2) ** 2).sum()) / z.numel()
    apart = (depths[..., :, None] - depths[..., None, :]).abs()
    spread = (weights[..., :, None] * weights[..., None, :] * apart).sum(dim=(-1, -2))
    spread = spread + (weights**2 * bin_widths).sum(dim=-1) / 3
    loss = loss + min(max(step - 40_000, 0) / 2000, 10) * spread.mean()
    inner = (batch.frames_from > 0) & (batch.frames_from < field.num_frames - 1)
    frames, here = batch.frames_from[inner], local[inner][:, : smooth_points * num_samples]
    anew = move(field, frames, here, inverse=False)
    before, after = (move(field, frames + d, anew, inverse=True) for d in (-1, 1))
    if len(frames):
        loss = loss + 20 * F.l1_loss(here - before, after - here)
    return loss
