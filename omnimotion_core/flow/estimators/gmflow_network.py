"""GMFlow's network with two scales: a shared encoder, a transformer over both pictures, matching, propagation.

At an eighth of the pictures' size every pixel is matched with every other; at a quarter the flow so found warps the
target, and the rest is matched within ``RADIUS`` pixels. At both scales flow is then propagated to where matching is
unsure (what is hidden in the other picture), weighted by how alike the features of one picture are.

The transformer attends within windows, ``splits`` of them to each side: sizes must divide by them. Pictures are
(B, 3, H, W) in 0..255, tokens (B, N, C) in reading order. Modules are named as in the published files.

Source: Xu et al. 2022, "GMFlow: Learning optical flow via global matching", arXiv:2111.13680.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimotion_core.flow.estimators.raft_network import upsample_convex

WIDTH = 128  # channels of the features
LAYERS = 6
RADIUS = 4  # of the local matching, pixels at a quarter of the size
PROPAGATION_RADIUS = 1  # at a quarter of the size; at an eighth all pixels are propagated from
STRIDES = (8, 4)  # of the two scales
MATCH_BYTES = 32 * 2**20  # of the all-to-all agreement that is held at once
BLOCKED = -100.0  # added between pixels that a shifted window brings together from opposite borders
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures that encoders are trained on, 0..1


class GmFlow(nn.Module):
    """The network."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Backbone()
        self.transformer = _Transformer()
        self.feature_flow_attn = _Propagation()
        self.upsampler = nn.Sequential(
            nn.Conv2d(2 + WIDTH, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * STRIDES[-1] ** 2, 1)
        )

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Features at an eighth and at a quarter of the pictures' size, (B, WIDTH, h, w) each."""
        mean, std = (pictures.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        return self.backbone((pictures / 255 - mean) / std)

    def forward(
        self, source: Sequence[Tensor], target: Sequence[Tensor], splits: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Flow from the source to the target and back, (B, 2, H, W) each, from what ``encode`` gave of both.

        Args:
            splits: windows to each side at an eighth and at a quarter of the size.
        """
        coarse_source, coarse_target = self.transformer(source[0], target[0], splits[0])
        features = torch.cat([coarse_source, coarse_target])
        flow = _match_all(features, torch.cat([coarse_target, coarse_source]))
        flow = self.feature_flow_attn(features, flow, local=False)

        flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
        features, others = torch.cat([source[1], target[1]]), torch.cat([target[1], source[1]])
        features, others = self.transformer(features, _warp(others.float(), flow), splits[1])
        flow = flow + _match_near(features, others)
        flow = self.feature_flow_attn(features, flow, local=True)
        logits = self.upsampler(torch.cat([flow, features], dim=1)).float()
        forward, backward = upsample_convex(flow, logits, STRIDES[-1]).chunk(2)
        return forward, backward


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.norm1 = nn.InstanceNorm2d(64)
        self.layer1 = nn.Sequential(_Residual(64, 64, 1), _Residual(64, 64, 1))
        self.layer2 = nn.Sequential(_Residual(64, 96, 2), _Residual(96, 96, 1))
        self.layer3 = nn.Sequential(_Residual(96, 128, 1), _Residual(128, 128, 1))
        self.conv2 = nn.Conv2d(128, WIDTH, 1)
        self.trident_conv = nn.Conv2d(WIDTH, WIDTH, 3, bias=False)  # one kernel, applied at both scales

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.norm1(self.conv1(pictures)))
        x = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        kernel = self.trident_conv.weight
        return F.conv2d(x, kernel, stride=2, padding=1), F.conv2d(x, kernel, padding=1)


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm2d(after)  # without parameters, so one serves all
        same = stride == 1 and before == after
        self.downsample = nn.Identity() if same else nn.Sequential(nn.Conv2d(before, after, 1, stride), self.norm)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv1(x)))
        y = torch.relu(self.norm(self.conv2(y)))
        return torch.relu(self.downsample(x) + y)


class _Transformer(nn.Module):
    """Features of two pictures made comparable: each attends to itself and to the other, ``LAYERS`` times."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block() for _ in range(LAYERS))

    def forward(self, first: Tensor, second: Tensor, splits: int) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) each, before and after; h and w divide by ``splits``."""
        height, width = first.shape[-2:]
        position = _position(height // splits, width // splits, first.device).repeat(1, 1, splits, splits)
        x = _tokens(torch.cat([first, second]) + position)
        windows = _Windows(height, width, splits, first.device)
        for number, layer in enumerate(self.layers):
            x = layer(x, torch.cat(x.chunk(2)[::-1]), windows, shifted=number % 2 == 1 and splits > 1)
        a, b = _picture(x, height).float().chunk(2)
        return a, b


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = _Attention(mixes=False)
        self.cross_attn_ffn = _Attention(mixes=True)

    def forward(self, x: Tensor, other: Tensor, windows: "_Windows", *, shifted: bool) -> Tensor:
        x = self.self_attn(x, x, windows, shifted=shifted)
        return self.cross_attn_ffn(x, other, windows, shifted=shifted)


class _Attention(nn.Module):
    """Attention of one head within windows; where it ``mixes``, a small network over the result and the input."""

    def __init__(self, *, mixes: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.merge = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.norm1 = nn.LayerNorm(WIDTH)
        if mixes:
            self.mlp = nn.Sequential(
                nn.Linear(2 * WIDTH, 8 * WIDTH, bias=False), nn.GELU(), nn.Linear(8 * WIDTH, WIDTH, bias=False)
            )
            self.norm2 = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, other: Tensor, windows: "_Windows", *, shifted: bool) -> Tensor:
        message = windows.attend(self.q_proj(x), self.k_proj(other), self.v_proj(other), shifted=shifted)
        message = self.norm1(self.merge(message))
        if hasattr(self, "mlp"):
            message = self.norm2(self.mlp(torch.cat([x, message], dim=-1)))
        return x + message


class _Windows:
    """Attention within ``splits`` x ``splits`` windows, which may be shifted by half of their size, around the borders.

    Source: Liu et al. 2021, "Swin transformer", arXiv:2103.14030.
    """

    def __init__(self, height: int, width: int, splits: int, device: torch.device) -> None:
        if height % splits or width % splits:
            raise ValueError(f"features of {width}x{height} pixels do not divide into {splits}x{splits} windows")
        self.height, self.width, self.splits = height, width, splits
        self.shift = (height // splits // 2, width // splits // 2)
        rows, columns = (
            torch.bucketize(torch.arange(side, device=device), self._edges(side, shift, device), right=True)
            for side, shift in ((height, self.shift[0]), (width, self.shift[1]))
        )
        region = (rows[:, None] * 3 + columns).reshape(1, -1, 1)  # what lay together before the shift
        region = self._divide(region)[0, :, :, 0]  # (windows, pixels)
        self._mask = BLOCKED * (region[:, :, None] != region[:, None, :]).float()

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, shifted: bool) -> Tensor:
        """Each pixel's mean of the values (B, N, C) in its window, weighted by agreement of query and key."""
        if shifted:
            query, key, value = (self._roll(x, -1) for x in (query, key, value))
        mask = self._mask.to(query.dtype)[None] if shifted else None
        query, key, value = (self._divide(x) for x in (query, key, value))
        found = self._unite(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
        return self._roll(found, 1) if shifted else found

    def _edges(self, side: int, shift: int, device: torch.device) -> Tensor:
        return torch.tensor([side - side // self.splits, side - shift], device=device)

    def _roll(self, x: Tensor, direction: int) -> Tensor:
        shift = [direction * one for one in self.shift]
        return x.unflatten(1, (self.height, self.width)).roll(shift, dims=(1, 2)).flatten(1, 2)

    def _divide(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, windows, pixels of a window, C)."""
        count, k = len(x), self.splits
        x = x.reshape(count, k, self.height // k, k, self.width // k, -1)
        return x.transpose(2, 3).reshape(count, k * k, -1, x.shape[-1])

    def _unite(self, x: Tensor) -> Tensor:
        count, k = len(x), self.splits
        x = x.reshape(count, k, k, self.height // k, self.width // k, -1)
        return x.transpose(2, 3).reshape(count, self.height * self.width, -1)


class _Propagation(nn.Module):
    """Flow as a mean of the flow at pixels with like features."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, features: Tensor, flow: Tensor, *, local: bool) -> Tensor:
        """Flow (B, 2, h, w), from all pixels or from those at most ``PROPAGATION_RADIUS`` away."""
        tokens, height = _tokens(features), features.shape[2]
        query = self.q_proj(tokens)
        if not local:
            # the key is made from the query and not from the features: so the published weights were trained
            return _picture(_softmax_mean(query, self.k_proj(query), _tokens(flow)), height)
        side = 2 * PROPAGATION_RADIUS + 1
        key, query = _picture(self.k_proj(tokens), height).float(), _picture(query, height).float()
        keys = F.unfold(key, side, padding=PROPAGATION_RADIUS).unflatten(1, (WIDTH, -1))  # (B, C, 9, N)
        flows = F.unfold(flow, side, padding=PROPAGATION_RADIUS).unflatten(1, (2, -1))
        agreement = (query.flatten(2)[:, :, None] * keys).sum(dim=1, keepdim=True) / math.sqrt(WIDTH)
        return (agreement.softmax(dim=2) * flows).sum(dim=2).reshape_as(flow)


def _match_all(source: Tensor, target: Tensor) -> Tensor:
    """Flow (B, 2, h, w) to the mean of all target pixels, weighted by agreement of the features (B, C, h, w)."""
    grid = _grid(source)
    return _picture(_softmax_mean(_tokens(source), _tokens(target), _tokens(grid)), source.shape[2]) - grid


def _match_near(source: Tensor, target: Tensor) -> Tensor:
    """Flow (B, 2, h, w) to the mean of the target pixels at most ``RADIUS`` away in x and in y, likewise weighted."""
    count, _, height, width = source.shape
    padded = F.pad(target, [RADIUS] * 4)
    inside = F.pad(target.new_ones(1, height, width), [RADIUS] * 4)
    offsets = [(x, y) for y in range(2 * RADIUS + 1) for x in range(2 * RADIUS + 1)]
    agreement = source.new_empty(count, len(offsets), height, width)
    for index, (x, y) in enumerate(offsets):  # one offset at a time: unfolded, the features would take 81 times as much
        near = slice(y, y + height), slice(x, x + width)
        product = (source * padded[:, :, near[0], near[1]]).sum(dim=1) / math.sqrt(source.shape[1])
        agreement[:, index] = product.masked_fill(inside[:, near[0], near[1]] == 0, -1e9)
    vectors = source.new_tensor(offsets) - RADIUS
    return torch.einsum("bkhw,kc->bchw", agreement.softmax(dim=1), vectors)


def _softmax_mean(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention (B, N, D) in float32, some queries at a time, so that memory does not grow with N²."""
    query, key, value = query.float(), key.float().transpose(1, 2), value.float()
    step = max(MATCH_BYTES // (4 * key.shape[2]), 1)
    parts = [
        [(rows @ keys / math.sqrt(WIDTH)).softmax(dim=-1) @ values for rows in queries.split(step)]
        for queries, keys, values in zip(query, key, value.expand(len(query), -1, -1), strict=True)
    ]
    return torch.stack([torch.cat(rows) for rows in parts])


def _warp(target: Tensor, flow: Tensor) -> Tensor:
    """``target`` (B, C, h, w) at the ends of ``flow``, bilinear, 0 outside."""
    height, width = target.shape[-2:]
    position = (_grid(target) + flow).permute(0, 2, 3, 1)
    last = position.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    return F.grid_sample(target, 2 * position / last - 1, align_corners=True)


def _position(height: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of a pixel's place in its window, (1, WIDTH, height, width): first of y, then of x."""
    half = WIDTH // 2
    wavelength = 10000.0 ** (2 * torch.arange(half // 2, device=device) / half)
    parts = []
    for side in (height, width):
        place = torch.arange(1, side + 1, device=device) / (side + 1e-6) * 2 * math.pi
        angle = place[:, None] / wavelength
        parts.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1))  # (side, half)
    rows = parts[0][:, None].expand(-1, width, -1)
    columns = parts[1][None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).permute(2, 0, 1)[None]


def _grid(like: Tensor) -> Tensor:
    """Each pixel's own (x, y), (1, 2, h, w) float32."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(side, device=like.device) for side in (height, width)), indexing="ij")
    return torch.stack([x, y]).float()[None]


def _tokens(picture: Tensor) -> Tensor:
    return picture.flatten(2).transpose(1, 2)


def _picture(tokens: Tensor, height: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (height, -1))
