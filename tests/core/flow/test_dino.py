"""DINO's network against its formulas in loops over tokens and heads, and how its file is read."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from omnimotion_core.errors import FlowError
from omnimotion_core.flow import dino
from omnimotion_core.flow.dino import DinoFeatures, VisionTransformer, suitable_size

CPU = torch.device("cpu")
SIDE, WIDTH, HEADS, LAYERS = 3, 12, 3, 2


@pytest.fixture(scope="module")
def network() -> VisionTransformer:
    """A small stand-in of the same layout, with random parameters."""
    generator = torch.Generator().manual_seed(0)
    made = VisionTransformer(WIDTH, HEADS, LAYERS, SIDE)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return made.eval().requires_grad_(False)


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.75, which torch has."""
    x = abs(x)
    if x <= 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def slow(state: dict[str, Tensor], picture: np.ndarray) -> np.ndarray:
    """The last layer's vectors of a normalized picture (3, H, W), in float64, without any of torch's layers."""
    p = {name: value.double().numpy() for name, value in state.items()}
    rows, columns = picture.shape[1] // 16, picture.shape[2] // 16

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centered = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
        return centered / scale * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def position(row: int, column: int) -> np.ndarray:
        grid = p["pos_embed"][0, 1:].reshape(SIDE, SIDE, WIDTH)
        y, x = ((k + 0.5) * SIDE / (n + 0.1) - 0.5 for k, n in ((row, rows), (column, columns)))
        total = np.zeros(WIDTH)
        for v in range(math.floor(y) - 1, math.floor(y) + 3):
            for u in range(math.floor(x) - 1, math.floor(x) + 3):
                value = grid[min(max(v, 0), SIDE - 1), min(max(u, 0), SIDE - 1)]
                total += cubic(y - v) * cubic(x - u) * value
        return total

    tokens = [p["cls_token"][0, 0] + p["pos_embed"][0, 0]]
    for row in range(rows):
        for column in range(columns):
            patch = picture[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            vector = (p["patch_embed.proj.weight"] * patch).sum(axis=(1, 2, 3)) + p["patch_embed.proj.bias"]
            tokens.append(vector + position(row, column))
    x = np.stack(tokens)
    for k in range(LAYERS):
        three = linear(norm(x, f"blocks.{k}.norm1"), f"blocks.{k}.attn.qkv")
        size, heads = WIDTH // HEADS, []
        for head in range(HEADS):
            query, key, value = (
                three[:, part * WIDTH + head * size : part * WIDTH + (head + 1) * size] for part in range(3)
            )
            agreement = np.exp(query @ key.T / math.sqrt(size))
            heads.append(agreement / agreement.sum(-1, keepdims=True) @ value)
        x = x + linear(np.concatenate(heads, axis=-1), f"blocks.{k}.attn.proj")
        hidden = linear(norm(x, f"blocks.{k}.norm2"), f"blocks.{k}.mlp.fc1")
        hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = x + linear(hidden, f"blocks.{k}.mlp.fc2")
    return norm(x, "norm")[1:].reshape(rows, columns, WIDTH)


@pytest.mark.parametrize("size", [(64, 96), (32, 80)])
def test_vectors_are_those_of_the_formulas(network: VisionTransformer, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).normal(size=(3, *size))
    expected = slow(network.state_dict(), picture)
    found = network(torch.from_numpy(picture).float()[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)


def test_positions_are_taken_as_they_are_at_the_size_of_training(network: VisionTransformer) -> None:
    assert network.positions(SIDE, SIDE) is network.pos_embed


def test_the_layout_is_that_of_the_published_file() -> None:
    shapes = {name: tuple(value.shape) for name, value in VisionTransformer().state_dict().items()}
    block = {
        "norm1.weight": (384,), "norm1.bias": (384,), "attn.qkv.weight": (1152, 384), "attn.qkv.bias": (1152,),
        "attn.proj.weight": (384, 384), "attn.proj.bias": (384,), "norm2.weight": (384,), "norm2.bias": (384,),
        "mlp.fc1.weight": (1536, 384), "mlp.fc1.bias": (1536,), "mlp.fc2.weight": (384, 1536), "mlp.fc2.bias": (384,),
    }  # fmt: skip
    assert shapes == {
        "cls_token": (1, 1, 384), "pos_embed": (1, 197, 384), "norm.weight": (384,), "norm.bias": (384,),
        "patch_embed.proj.weight": (384, 3, 16, 16), "patch_embed.proj.bias": (384,),
    } | {f"blocks.{k}.{name}": shape for k in range(12) for name, shape in block.items()}  # fmt: skip


@pytest.mark.parametrize(
    ("picture", "size"), [((854, 480), (832, 480)), ((256, 256), (480, 480)), ((480, 854), (480, 832)),
                          ((64, 48), (640, 480))]
)  # fmt: skip
def test_the_size_is_that_of_the_published_preprocessing(picture: tuple[int, int], size: tuple[int, int]) -> None:
    assert suitable_size(picture) == size


def test_a_picture_is_resized_and_normalized_before_the_network(
    network: VisionTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dino, "VisionTransformer", lambda: VisionTransformer(WIDTH, HEADS, LAYERS, SIDE))
    path = tmp_path / "weights.pth"
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, path)
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8), (0, 0), 2.0)
    found = DinoFeatures(path, CPU).of(texture)
    assert found.shape == (30, 40, WIDTH)
    pixels = cv2.resize(texture.astype(np.float32) / 255, (640, 480), interpolation=cv2.INTER_LINEAR)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.228, 0.224, 0.225])
    picture = torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1)).float()
    np.testing.assert_allclose(found, network(picture[None])[0].numpy(), atol=1e-3)


def test_weights_of_another_network_are_refused(network: VisionTransformer, tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    torch.save(network.state_dict(), path)
    with pytest.raises(FlowError, match=r"it is not DINO's ViT-S/16: cls_token is \(1, 1, 12\)"):
        DinoFeatures(path, CPU)
    torch.save({"nothing": torch.zeros(1)}, path)
    with pytest.raises(FlowError, match="cls_token is missing"):
        DinoFeatures(path, CPU)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FlowError, match=r"no file of PyTorch.*; set flow\.exhaustive\.features to another"):
        DinoFeatures(path, CPU)
