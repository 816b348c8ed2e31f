"""One step of the paper's optimization, from drawn points to gradients, and the ways to run it.

Nothing in it depends on values: shapes are those of the settings, what does not count is multiplied by zero, constants
are on the device beforehand, and random numbers come from outside. So a GPU is never waited for, and a step can be
captured once and replayed. Which terms are on changes a few times in a fit, and each such set has a capture of its own.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from omnimotion_core.config import VolumetricFitConfig
from omnimotion_core.coordinates import normalized_to_pixel, pixel_to_normalized, span_of
from omnimotion_core.devices import require_graphs
from omnimotion_core.model import rendering
from omnimotion_core.model.motion import FAR
from omnimotion_core.model.volumetric import VolumetricField
from omnimotion_core.optimization import volumetric_losses as losses
from omnimotion_core.optimization.pair_sampling import PairBatch, to_device
from omnimotion_core.video.clip import Clip

WARM_UPS = 3  # runs before a capture, in which libraries allocate what they keep


class StepLoss:
    """The loss of one batch of points."""

    def __init__(self, field: VolumetricField, clip: Clip, settings: VolumetricFitConfig) -> None:
        self.field, self.settings, device = field, settings, field.device
        self.depths = rendering.even_depths(field.networks.num_samples, FAR, device)
        near, far = rendering.depth_bins(self.depths)
        self.bin_widths = far - near
        self._span = span_of(self.depths, field.shape.working_size)
        frames = torch.arange(clip.num_frames)
        inner = torch.zeros(clip.num_frames)  # 1 for the frames that have both neighbors in their shot
        for segment in clip.segments:
            inner[segment.start + 1 : max(segment.stop - 1, segment.start + 1)] = 1.0
        self.inner = inner.to(device)
        self.neighbors = torch.stack([frames - 1, frames + 1]).clamp(0, clip.num_frames - 1).to(device)

    def __call__(self, weights: losses.LossWeights, near_masked: bool, batch: PairBatch, where: Tensor) -> Tensor:
        """The sum of the terms whose weight is not the number 0.

        Args:
            near_masked: whether the nearest fifth of each ray is held empty.
            where: (B, N, S) in 0..1, places each ray's samples in their bins.
        """
        field, size = self.field, self.field.shape.working_size
        depths = rendering.stratified_depths(self.depths, where)
        local = rendering.cast_rays(pixel_to_normalized(batch.source, size, self._span), depths)  # (B, N, S, 3)
        codes = field.frame_codes()
        canonical = field.map_to_canonical(codes, batch.frames_from, local.flatten(1, 2))
        landed = field.map_from_canonical(codes, batch.frames_to, canonical).view(local.shape)
        color, density = field.canonical(canonical.view(local.shape))
        if near_masked:
            density = rendering.near_masked(density)
        seen = rendering.composite_weights(density)
        moved = rendering.within_depths(seen, landed[..., 2], FAR)
        predicted = normalized_to_pixel(rendering.composite(landed[..., :2], moved), size, self._span)
        counted = losses.in_frame(predicted.detach(), size)
        total = weights.flow * losses.flow_loss(predicted, batch.target, batch.weight, counted)
        if _is_on(weights.flow_gradient):
            total = total + weights.flow_gradient * losses.flow_gradient_loss(
                predicted, batch.target, batch.weight, counted
            )
        if _is_on(weights.color):
            total = total + weights.color * losses.color_loss(rendering.composite(color, seen), batch.color)
        total = total + weights.depth_range * losses.depth_range_loss(landed[..., 2], FAR)
        if _is_on(weights.distortion):
            total = total + weights.distortion * losses.distortion_loss(depths, self.bin_widths, seen)
        if _is_on(weights.smoothness) and self.settings.smooth_points:
            total = total + weights.smoothness * self._smoothness(codes, batch.frames_from, local, canonical)
        if _is_on(weights.sphere):
            total = total + weights.sphere * losses.sphere_loss(canonical)
        return total

    def _smoothness(self, codes: Tensor, frames: Tensor, local: Tensor, canonical: Tensor) -> Tensor:
        """Of the first points' samples, whose canonical points are at hand."""
        count = self.settings.smooth_points * local.shape[2]
        some = canonical[:, :count]
        around = self.field.map_from_canonical(codes, self.neighbors[:, frames].flatten(), some.repeat(2, 1, 1))
        before, after = around.chunk(2)
        here = local.flatten(1, 2)[:, :count]
        return losses.smoothness_loss(before, here, after, self.inner[frames])


MakeGradients = Callable[[losses.LossWeights, bool, PairBatch, Tensor], Tensor]  # gives the loss, without gradients


def make_gradients(run: str, loss: StepLoss, device: torch.device) -> MakeGradients:
    """A function that fills the gradients of the field's parameters; its arguments are those of a ``StepLoss``.

    Args:
        run: ``eager``, ``graph`` or ``compile``.
    Raises:
        ConfigError: the device has no such graphs.
    """
    if run == "eager":
        return _eager(loss)
    if run == "compile":
        return _on_device_weights(_eager(torch.compile(loss.__call__, fullgraph=True, dynamic=False)), device)
    require_graphs(run, device)
    return CapturedGradients(loss, device)


def _eager(loss: Callable[[losses.LossWeights, bool, PairBatch, Tensor], Tensor]) -> MakeGradients:
    def run(weights: losses.LossWeights, near_masked: bool, batch: PairBatch, where: Tensor) -> Tensor:
        value = loss(weights, near_masked, batch, where)
        value.backward()
        return value.detach()

    return run


def _on_device_weights(run: MakeGradients, device: torch.device) -> MakeGradients:
    """``run`` with weights as tensors, so that a new number is no reason to compile anew."""

    def on_device(weights: losses.LossWeights, near_masked: bool, batch: PairBatch, where: Tensor) -> Tensor:
        values = to_device(torch.tensor([float(value) for value in vars(weights).values()]), device)
        return run(_as_tensors(weights, values), near_masked, batch, where)

    return on_device


def _as_tensors(weights: losses.LossWeights, values: Tensor) -> losses.LossWeights:
    """``weights`` as views of ``values`` (7,), but for those that are 0, whose terms are left out."""
    names = vars(weights)
    return losses.LossWeights(
        **{name: 0.0 if names[name] == 0 else values[k] for k, name in enumerate(names)}
    )


def _is_on(weight: float | Tensor) -> bool:
    return isinstance(weight, Tensor) or weight != 0


@dataclass(frozen=True, eq=False)
class _Capture:
    """A step as it is replayed: what it reads, and what it fills."""

    graph: "torch.cuda.CUDAGraph"
    inputs: tuple[Tensor, ...]
    loss: Tensor
    gradients: list[Tensor | None]


class CapturedGradients:
    """Loss and gradients by CUDA graphs, one for each set of terms, captured when it is first met.

    A replay is one call of the driver in place of some thousand kernels' launches, which the published step's time
    mostly goes to. The optimizer's own step stays outside: it is three kernels.
    """

    def __init__(self, loss: StepLoss, device: torch.device) -> None:
        self._loss, self._device = loss, device
        self._parameters = list(loss.field.parameters())
        self._captures: dict[tuple[bool, ...], _Capture] = {}

    def __call__(self, weights: losses.LossWeights, near_masked: bool, batch: PairBatch, where: Tensor) -> Tensor:
        values = to_device(torch.tensor([float(value) for value in vars(weights).values()]), self._device)
        inputs = (values, where, *(getattr(batch, field.name) for field in dataclasses.fields(batch)))
        key = (near_masked, *(value != 0 for value in vars(weights).values()))
        if key not in self._captures:
            self._captures[key] = self._capture(weights, near_masked, inputs)
        capture = self._captures[key]
        for held, given in zip(capture.inputs, inputs, strict=True):
            held.copy_(given, non_blocking=True)
        capture.graph.replay()
        for parameter, gradient in zip(self._parameters, capture.gradients, strict=True):
            parameter.grad = gradient
        return capture.loss

    def _capture(self, weights: losses.LossWeights, near_masked: bool, inputs: tuple[Tensor, ...]) -> _Capture:
        held = tuple(given.clone() for given in inputs)
        values, where, *parts = held
        names = [field.name for field in dataclasses.fields(PairBatch)]
        batch = PairBatch(**dict(zip(names, parts, strict=True)))
        on_device = _as_tensors(weights, values)

        def run() -> Tensor:
            for parameter in self._parameters:
                parameter.grad = None  # so that gradients are written anew and not added to
            value = self._loss(on_device, near_masked, batch, where)
            value.backward()
            return value.detach()

        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = run()
        return _Capture(graph, held, loss, [parameter.grad for parameter in self._parameters])
