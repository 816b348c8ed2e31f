"""DINO's vision transformer (ViT-S/16): one feature vector for each 16x16 pixels of a picture.

Modules are named as in the published file of weights. Pictures are (B, 3, H, W), tokens (B, N, C), the first of which
stands for the whole picture and is not given out.

Sources: Caron et al. 2021, "Emerging properties in self-supervised vision transformers", arXiv:2104.14294; size and
layer as in the published preprocessing of Wang et al. 2023, arXiv:2306.05422.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimotion_core.coordinates import Size
from omnimotion_core.errors import FlowError
from omnimotion_core.flow.estimators.checkpoints import fill, read_weights

PATCH = 16
WIDTH, HEADS, LAYERS = 384, 6, 12
TRAINED_SIDE = 14  # patches a side, of the pictures that the position embedding belongs to
SHORT_SIDE, STEP = 480, 64  # pixels; a picture's longer side is cut to a multiple
_EPSILON = 1e-6  # of the norms
_MEAN, _STD = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)  # as in that preprocessing; DINO itself has 0.229


class VisionTransformer(nn.Module):
    """The network; smaller ones of the same layout serve for tests."""

    def __init__(
        self, width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS, trained_side: int = TRAINED_SIDE
    ) -> None:
        super().__init__()
        self.trained_side = trained_side
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + trained_side**2, width))
        self.patch_embed = _PatchEmbedding(width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=_EPSILON)

    def forward(self, pictures: Tensor) -> Tensor:
        """The last layer's vectors, (B, H / 16, W / 16, C), of normalized pictures whose sides divide by 16."""
        patches = self.patch_embed.proj(pictures)
        height, width = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions(height, width)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:].unflatten(1, (height, width))

    def positions(self, height: int, width: int) -> Tensor:
        """The position embedding, (1, 1 + height * width, C), of so many patches."""
        side = self.trained_side
        if (height, width) == (side, side):
            return self.pos_embed
        own, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        # the tenth of a patch is the published code's, against rounding down; results depend on it
        scale = ((height + 0.1) / side, (width + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        assert grid.shape[-2:] == (height, width)
        return torch.cat([own, grid.flatten(2).transpose(1, 2)], dim=1)


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = _Perceptron(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # (B, N, 3, heads, C / heads) to three of (B, heads, N, C / heads)
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DinoFeatures:
    """DINO's features of pictures.

    Args:
        weights: the published file.
        device: where to compute.
    Raises:
        FlowError: the file is absent, damaged, or of another network.
    """

    def __init__(self, weights: Path, device: torch.device) -> None:
        network = VisionTransformer()
        try:
            fill(network, read_weights(weights), weights, "DINO's ViT-S/16")
        except FlowError as error:
            raise FlowError(error.problem, "set flow.exhaustive.features to another file, or delete this one and run "
                                           "`omnimotion weights get dino-vits16`") from error
        self.network, self.device = network.eval().requires_grad_(False).to(device), device

    def of(self, picture: np.ndarray) -> np.ndarray:
        """The map (h, w, 384) float32 of a picture (H, W, 3) uint8 RGB."""
        size = suitable_size((picture.shape[1], picture.shape[0]))
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(self.device).permute(2, 0, 1)[None].float() / 255
        pixels = F.interpolate(pixels, size[::-1], mode="bilinear", align_corners=False)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        with torch.inference_mode():
            found = self.network((pixels - mean) / std)[0]
        return np.asarray(found.cpu().numpy(), np.float32)


def suitable_size(picture: Size) -> Size:
    """At what size a picture is given to the network."""
    short = min(picture)
    width, height = (SHORT_SIDE if side == short else SHORT_SIDE * side // short // STEP * STEP for side in picture)
    return width, height
