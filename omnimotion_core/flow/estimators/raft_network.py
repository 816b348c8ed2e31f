"""RAFT's two networks, large and small: encoders, recurrent update, upsampling.

Modules are named as in the authors' published files, so that those load as they are; ``princeton_names`` gives the same
names to torchvision's. Pictures are (B, 3, H, W) in -1..1, H and W multiples of 8 and at least ``MIN_SIDE``; "low"
flow is at an eighth of that size, in its own pixels.

Source: Teed and Deng 2020, arXiv:2003.12039.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimotion_core.flow.estimators.correlation import LEVELS, Correlation

STRIDE = 8
MIN_SIDE = 128  # pixels: the coarsest of the correlation's levels is then 2 pixels wide


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the network needs of pictures, made once for all their pairs."""

    features: Tensor  # (B, C, h, w)
    hidden: Tensor  # (B, D, h, w), the recurrent unit's first state
    context: Tensor  # (B, E, h, w)


class Raft(nn.Module):
    """The network; ``small`` is RAFT-S, with bottleneck blocks, one convolution a gate and plain upsampling."""

    def __init__(self, *, small: bool) -> None:
        super().__init__()
        self.small = small
        self.radius = 3 if small else 4
        self.hidden_width, context = (96, 64) if small else (128, 128)
        self.fnet = _Encoder(small, 128 if small else 256, "instance")
        self.cnet = _Encoder(small, self.hidden_width + context, "none" if small else "batch")
        self.update_block = _Update(small, LEVELS * (2 * self.radius + 1) ** 2, self.hidden_width, context)

    def encode(self, pictures: Tensor) -> Encoded:
        """What is needed of ``pictures`` (B, 3, H, W) as a source or a target."""
        context = self.cnet(pictures)
        hidden, context = context.split([self.hidden_width, context.shape[1] - self.hidden_width], dim=1)
        return Encoded(self.fnet(pictures), torch.tanh(hidden), torch.relu(context))

    def forward(
        self, source: Encoded, correlation: Correlation, iterations: int, initial: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Flow from the source to the target that ``correlation`` was made with.

        Args:
            source: B pictures.
            correlation: of the source's features with the target's.
            iterations: how often the flow is updated.
            initial: (B, 2, h, w) low flow to start from; zero when not given.
        Returns:
            Low flow (B, 2, h, w) and flow (B, 2, H, W), float32.
        """
        count, _, height, width = source.features.shape
        hidden = source.hidden
        grid = _grid(height, width, source.features.device).expand(count, -1, -1, -1)
        low = torch.zeros_like(grid) if initial is None else initial
        for _ in range(iterations):
            found = correlation.lookup(grid + low)
            hidden, change = self.update_block(hidden, source.context, found, low)
            low = low + change.float()
        if self.small:
            up = F.interpolate(low, scale_factor=STRIDE, mode="bilinear", align_corners=True) * STRIDE
        else:
            up = upsample_convex(low, 0.25 * self.update_block.mask(hidden).float(), STRIDE)
        return low, up


def upsample_convex(flow: Tensor, logits: Tensor, factor: int) -> Tensor:
    """Flow (B, 2, h, w) at ``factor`` times its size, each fine vector a learned mean of the 3x3 coarse ones around.

    Args:
        flow: in its own pixels; the result is in fine ones.
        logits: (B, 9 * factor², h, w), the means' weights before the softmax.
    """
    count, _, height, width = flow.shape
    weights = logits.reshape(count, 1, 9, factor, factor, height, width).softmax(dim=2)
    around = F.unfold(factor * flow, 3, padding=1).reshape(count, 2, 9, 1, 1, height, width)
    fine = (weights * around).sum(dim=2)  # (B, 2, factor, factor, h, w)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(count, 2, factor * height, factor * width)


def _grid(height: int, width: int, device: torch.device) -> Tensor:
    """Each pixel's own (x, y), (1, 2, h, w)."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y]).float()[None]


def _norm(kind: str, width: int) -> nn.Module:
    return {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d, "none": nn.Identity}[kind](width)


class _Encoder(nn.Module):
    """Pictures to features at an eighth of their size."""

    def __init__(self, small: bool, width_out: int, norm: str) -> None:
        super().__init__()
        widths = (32, 32, 64, 96) if small else (64, 64, 96, 128)
        block = _Bottleneck if small else _Residual
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3)
        self.norm1 = _norm(norm, widths[0])
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(block(before, after, stride, norm), block(after, after, 1, norm))
            for before, after, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        )
        self.conv2 = nn.Conv2d(widths[-1], width_out, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(pictures)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


def _shortcut(before: int, after: int, stride: int, norm: str) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride=stride), _norm(norm, after))


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.norm1, self.norm2 = _norm(norm, after), _norm(norm, after)
        self.downsample = _shortcut(before, after, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)))
        return torch.relu(self.downsample(x) + y)


class _Bottleneck(nn.Module):
    def __init__(self, before: int, after: int, stride: int, norm: str) -> None:
        super().__init__()
        inner = after // 4
        self.conv1 = nn.Conv2d(before, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(inner, after, 1)
        self.norm1, self.norm2, self.norm3 = _norm(norm, inner), _norm(norm, inner), _norm(norm, after)
        self.downsample = _shortcut(before, after, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)))
        y = torch.relu(self.norm3(self.conv3(y)))
        return torch.relu(self.downsample(x) + y)


class _Update(nn.Module):
    """One step: correlations and flow to a motion code, the code to the hidden state, that to a change of the flow."""

    def __init__(self, small: bool, correlations: int, hidden: int, context: int) -> None:
        super().__init__()
        code = 82 if small else 128
        self.encoder = _MotionEncoder(small, correlations, code)
        kernels = [(3, 3)] if small else [(1, 5), (5, 1)]
        self.gru = _Gru(hidden, code + context, kernels)
        self.flow_head = _FlowHead(hidden, 128 if small else 256)
        if not small:
            self.mask = nn.Sequential(nn.Conv2d(hidden, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * STRIDE**2, 1))

    def forward(self, hidden: Tensor, context: Tensor, found: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.gru(hidden, torch.cat([context, self.encoder(flow, found)], dim=1))
        return hidden, self.flow_head(hidden)


class _MotionEncoder(nn.Module):
    def __init__(self, small: bool, correlations: int, code: int) -> None:
        super().__init__()
        first, last, flows = (96, 96, (64, 32)) if small else (256, 192, (128, 64))
        self.convc1 = nn.Conv2d(correlations, first, 1)
        self.convc2 = nn.Identity() if small else nn.Conv2d(first, last, 3, padding=1)
        self.convf1 = nn.Conv2d(2, flows[0], 7, padding=3)
        self.convf2 = nn.Conv2d(flows[0], flows[1], 3, padding=1)
        self.conv = nn.Conv2d(last + flows[1], code - 2, 3, padding=1)

    def forward(self, flow: Tensor, found: Tensor) -> Tensor:
        agreement = torch.relu(self.convc2(torch.relu(self.convc1(found))))
        motion = torch.relu(self.convf2(torch.relu(self.convf1(flow))))
        code = torch.relu(self.conv(torch.cat([agreement, motion], dim=1)))
        return torch.cat([code, flow], dim=1)


class _Gru(nn.Module):
    """A gated recurrent unit of convolutions, once for each kernel; with two they are called 1 and 2."""

    def __init__(self, hidden: int, inputs: int, kernels: list[tuple[int, int]]) -> None:
        super().__init__()
        self._ends = [""] if len(kernels) == 1 else [str(number + 1) for number in range(len(kernels))]
        for end, (height, width) in zip(self._ends, kernels, strict=True):
            for gate in "zrq":
                conv = nn.Conv2d(hidden + inputs, hidden, (height, width), padding=(height // 2, width // 2))
                self.add_module(f"conv{gate}{end}", conv)

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        for end in self._ends:
            convz, convr, convq = (self.get_submodule(f"conv{gate}{end}") for gate in "zrq")
            both = torch.cat([hidden, inputs], dim=1)
            update, reset = torch.sigmoid(convz(both)), torch.sigmoid(convr(both))
            fresh = torch.tanh(convq(torch.cat([reset * hidden, inputs], dim=1)))
            hidden = (1 - update) * hidden + update * fresh
        return hidden


class _FlowHead(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hidden, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(torch.relu(self.conv1(hidden)))


_TORCHVISION = (  # in this order: torchvision's name as a pattern, the authors' name
    (r"^feature_encoder\.", "fnet."),
    (r"^context_encoder\.", "cnet."),
    (r"^(fnet|cnet)\.convnormrelu\.0\.", r"\1.conv1."),
    (r"^(fnet|cnet)\.convnormrelu\.1\.", r"\1.norm1."),
    (r"^(fnet|cnet)\.conv\.", r"\1.conv2."),
    (r"\.convnormrelu(\d)\.0\.", r".conv\1."),
    (r"\.convnormrelu(\d)\.1\.", r".norm\1."),
    (r"^update_block\.motion_encoder\.convcorr(\d)\.0\.", r"update_block.encoder.convc\1."),
    (r"^update_block\.motion_encoder\.convflow(\d)\.0\.", r"update_block.encoder.convf\1."),
    (r"^update_block\.motion_encoder\.conv\.0\.", "update_block.encoder.conv."),
    (r"^update_block\.recurrent_block\.convgru(\d)\.conv([zrq])\.", r"update_block.gru.conv\2\1."),
    (r"^mask_predictor\.convrelu\.0\.", "update_block.mask.0."),
    (r"^mask_predictor\.conv\.", "update_block.mask.2."),
)


def princeton_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of either published layout under the names that ``Raft`` has.

    Left out are counters of batches, and the shortcuts' normalization, which the authors' files hold twice.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.removeprefix("module.")
        for pattern, replacement in _TORCHVISION:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    if any(".convr2." in name for name in renamed):  # torchvision numbers the small network's only unit too
        single: dict[str, str] = {}
    else:
        single = {f"conv{gate}1.": f"conv{gate}." for gate in "zrq"}
    result: dict[str, Tensor] = {}
    for name, value in renamed.items():
        for numbered, plain in single.items():
            name = name.replace(f"gru.{numbered}", f"gru.{plain}")
        twice = ".norm3." in name and name.replace(".norm3.", ".downsample.1.") in renamed
        if not name.endswith("num_batches_tracked") and not twice:
            result[name] = value
    return result
