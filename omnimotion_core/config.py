"""Settings: frozen records, checked once at birth, and the presets.

A stage receives its own part (``FlowConfig``), never the whole. ``Config.digest`` of a part decides whether what a
stage made earlier still stands.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from omnimotion_core.errors import ConfigError

PRESETS = ("draft", "standard", "paper")
MODEL_KINDS = ("tabulated", "volumetric")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
STEP_RUNS = ("eager", "graph", "compile")
GUIDED_ESTIMATORS = ("auto", "dis")  # whose flow a fitted field can guide


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value}", remedy)


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Which frames are read and at what size they are worked on."""

    frames: tuple[int, int] | None = None  # first and last, inclusive: file numbers of a sequence, 1-based in a movie
    long_side: int = 854  # the working frames' longer side at most, pixels
    mask: str | None = None  # matte (image or sequence): white is tracked, black is left out
    allow_gaps: bool = False  # a missing file of a sequence repeats the one before it
    max_frames: int = 2000

    def __post_init__(self) -> None:
        _require(self.long_side >= 64, "video.long_side", self.long_side, "set it to 64 or more")
        _require(self.max_frames >= 2, "video.max_frames", self.max_frames, "set it to 2 or more")
        if self.frames is not None:
            first, last = self.frames
            _require(first < last, "video.frames", f"{first}-{last}", "give a first frame before the last: 1001-1048")


@dataclass(frozen=True, kw_only=True)
class ExhaustiveConfig:
    """The paper's input motion: all pairs of frames, filtered as its authors do. See ``flow.exhaustive``."""

    enabled: bool = False  # in place of the distances ``gaps`` and of loop closures
    whole_neighbors: bool = True  # neighboring frames teach in every pixel, trusted or not, as in the published code
    chain: bool = False  # lengthen matches by the flow between neighbors, as the published code's main program does
    features: str | None = None  # DINO's file of weights; None: the known one from the cache folder, or colors instead
    min_similarity: float = 0.5  # cosine of two ends' DINO features
    memory_mb: int = 6144  # what all matches may take while they are drawn from; fewer of each pair are kept for it

    def __post_init__(self) -> None:
        _require(-1 <= self.min_similarity < 1, "flow.exhaustive.min_similarity", self.min_similarity,
                 "set it between -1 and 1")
        _require(self.memory_mb >= 64, "flow.exhaustive.memory_mb", self.memory_mb, "set it to 64 or more")


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Which pairs of frames are matched, how, and which matches are trusted to supervise the model."""

    estimator: str = "auto"  # a name, or a folder of flow made elsewhere; auto: DIS, and learned flow where it is here
    weights: str | None = None  # a learned estimator's file; None: a known one from the cache folder
    learned_budget_s: float = 300.0  # what auto may spend on learned flow; 0: none
    long_side: int = 640  # small frames are enlarged (twice at most) towards this side for matching, pixels
    full_size: bool = True  # DIS searches to the full size of the pictures; else to 320 pixels at most
    homographies: bool = True  # where much fails, flow by way of the homography of matched features is tried too
    gaps: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # frame distances that are matched
    keyframe_step: int = 8  # every so many frames one is compared with the others for loop closures; 0: none
    max_closures_per_keyframe: int = 2
    max_cycle_error_px: float = 1.0  # working pixels; a round trip that misses by more is not trusted
    max_appearance_error: float = 12.0  # CIELAB units between the two ends, after a small blur
    samples_per_pair: int = 5000  # matches kept of each direction of a pair
    exhaustive: ExhaustiveConfig = field(default_factory=ExhaustiveConfig)

    def __post_init__(self) -> None:
        _require(bool(self.estimator), "flow.estimator", repr(self.estimator), "name an estimator, such as dis")
        _require(self.learned_budget_s >= 0, "flow.learned_budget_s", self.learned_budget_s,
                 "set it to 0 (off) or more")
        _require(len(self.gaps) > 0 and self.gaps[0] == 1 and list(self.gaps) == sorted(set(self.gaps)),
                 "flow.gaps", self.gaps, "give rising distances that begin with 1")
        _require(self.long_side >= 64, "flow.long_side", self.long_side, "set it to 64 or more")
        _require(self.max_cycle_error_px > 0, "flow.max_cycle_error_px", self.max_cycle_error_px, "set it above 0")
        _require(self.max_appearance_error > 0, "flow.max_appearance_error", self.max_appearance_error,
                 "set it above 0")
        _require(self.samples_per_pair > 0, "flow.samples_per_pair", self.samples_per_pair, "set it above 0")
        _require(self.keyframe_step >= 0, "flow.keyframe_step", self.keyframe_step, "set it to 0 (off) or more")
        _require(self.max_closures_per_keyframe >= 0, "flow.max_closures_per_keyframe", self.max_closures_per_keyframe,
                 "set it to 0 (off) or more")


@dataclass(frozen=True, kw_only=True)
class VolumetricConfig:
    """The shape of the paper's model; the defaults are those of the networks that its authors published."""

    num_samples: int = 32  # on a ray
    axes: tuple[int, ...] = (1, 0, 2, 1, 0, 2)  # which of x, y, z each coupling layer transforms
    num_frequencies: int = 4  # of the positional encoding
    latent_size: int = 128
    latent_hidden: int = 256
    coupling_hidden: int = 256  # of the affine network too
    color_hidden: int = 512
    affine_layers: int = 0  # linear layers of the network before the couplings: 0 none, 2 as meant, 8 as once run
    imported: str = ""  # SHA-256 of the checkpoint that the parameters were read from, in place of a fit

    def __post_init__(self) -> None:
        for name in ("num_samples", "latent_size", "latent_hidden", "coupling_hidden", "color_hidden"):
            _require(getattr(self, name) >= 2, f"model.volumetric.{name}", getattr(self, name), "set it to 2 or more")
        _require({0, 1, 2} == set(self.axes), "model.volumetric.axes", self.axes,
                 "name each of 0, 1 and 2 at least once")
        _require(self.num_frequencies >= 1, "model.volumetric.num_frequencies", self.num_frequencies,
                 "set it to 1 or more")
        _require(self.affine_layers == 0 or self.affine_layers >= 2, "model.volumetric.affine_layers",
                 self.affine_layers, "set it to 0 (none), or to 2 or more")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The motion model's shape."""

    kind: str = "tabulated"  # or volumetric: the paper's
    num_layers: int = 8  # affine couplings, transforming z, x, y in turn
    knots: tuple[tuple[float, int], ...] = ((6.0, 6), (2.0, 16), (1.0, 32))  # (frames per time knot, knots per axis)
    depth_cells: int = 214  # of a depth map's longer side at most: motion has sharp edges where depth has
    volumetric: VolumetricConfig = field(default_factory=VolumetricConfig)

    def __post_init__(self) -> None:
        _require(self.kind in MODEL_KINDS, "model.kind", repr(self.kind), f"use one of {', '.join(MODEL_KINDS)}")
        _require(self.num_layers >= 3, "model.num_layers", self.num_layers, "set it to 3 or more, one for each axis")
        _require(len(self.knots) > 0 and all(step > 0 and count >= 2 for step, count in self.knots),
                 "model.knots", self.knots, "give (frames per knot above 0, knots per axis of 2 or more)")
        _require(self.depth_cells >= 2, "model.depth_cells", self.depth_cells, "set it to 2 or more")

    def depth_cell(self, working_size: tuple[int, int]) -> int:
        """Working pixels a cell of the depth map, 2 at least."""
        return max(math.ceil(max(working_size) / self.depth_cells), 2)

    def depth_size(self, working_size: tuple[int, int]) -> tuple[int, int]:
        """Cells of a depth map, across and down, 2 at least."""
        cell = self.depth_cell(working_size)
        width, height = (max(math.ceil(side / cell), 2) for side in working_size)
        return width, height


@dataclass(frozen=True, kw_only=True)
class VolumetricFitConfig:
    """The optimisation of the paper's model; the defaults are its authors'. Schedules are in steps of 100,000."""

    pairs: int = 8  # pairs of frames a step
    points: int = 256  # of each pair
    smooth_points: int = 64  # of those, that the smoothness of motion looks at
    lr_latent: float = 1e-3
    lr_couplings: float = 1e-4
    lr_canonical: float = 3e-4
    halve_every: int = 20_000  # steps between two halvings of the learning rates
    mine_every: int = 20_000  # steps between two looks at where the field is wrong
    start_interval: int = 20  # frames: how far apart the frames of a pair may be at first
    widen_every: int = 2000  # steps until they may be one frame farther apart
    mask_near_steps: int = 0  # steps in which the nearest fifth of each ray is held empty
    flow_weight: float = 1.0  # of the flow terms, which are in working pixels: small frames want more
    pace: float = 1.0  # how many times faster all schedules run; for a fit of fewer steps
    precision: str = "auto"  # of hidden layers in the fit: float32, bfloat16, or auto: bfloat16 on CUDA alone
    run: str = "eager"  # a step; or graph: replayed from a CUDA graph; or compile: by torch.compile

    def __post_init__(self) -> None:
        for name in ("pairs", "points", "halve_every", "mine_every", "start_interval", "widen_every"):
            _require(getattr(self, name) >= 1, f"fit.volumetric.{name}", getattr(self, name), "set it to 1 or more")
        _require(self.precision in PRECISIONS, "fit.volumetric.precision", repr(self.precision),
                 f"use one of {', '.join(PRECISIONS)}")
        _require(self.run in STEP_RUNS, "fit.volumetric.run", repr(self.run), f"use one of {', '.join(STEP_RUNS)}")
        for name in ("lr_latent", "lr_couplings", "lr_canonical", "flow_weight", "pace"):
            _require(getattr(self, name) > 0, f"fit.volumetric.{name}", getattr(self, name), "set it above 0")
        _require(self.mask_near_steps >= 0, "fit.volumetric.mask_near_steps", self.mask_near_steps,
                 "set it to 0 (off) or more")
        _require(0 <= self.smooth_points <= self.points, "fit.volumetric.smooth_points", self.smooth_points,
                 f"set it between 0 and fit.volumetric.points ({self.points})")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The optimisation: how long, how fast, and what is weighed against what."""

    rounds: int = 1  # of flow and fit: from the second on the field of the one before guides flow; each as long again
    steps: int = 2000  # of a clip of up to 60 frames; `tabulated` takes more in proportion for a longer one
    batch: int = 8192  # correspondences a step
    lr_tables: float = 2e-3
    lr_depth: float = 1e-2
    lr_affine: float = 5e-4
    warmup_steps: int = 50
    depth_weight: float = 20.0  # mapped depth against the depth map
    depth_smoothness: float = 50.0  # total variation of the depth map, pausing at image edges
    table_smoothness: float = 4.0
    level_starts: tuple[float, ...] = (0.0, 0.15, 0.45)  # share of the steps from which each level of tables counts
    depth_searches: tuple[float, ...] = (0.3, 0.45)  # shares of the steps at which depths are searched
    free_space_after: float = 0.35  # share of the steps after which points in free space are drawn back; 1: none is
    robust_after: float = 0.25  # share of the steps after which the penalty turns robust
    robust_scale_px: float = 2.0
    checkpoint_every: int = 100
    volumetric: VolumetricFitConfig = field(default_factory=VolumetricFitConfig)  # beside steps and checkpoint_every

    def __post_init__(self) -> None:
        for name in ("rounds", "steps", "batch", "checkpoint_every"):
            _require(getattr(self, name) >= 1, f"fit.{name}", getattr(self, name), "set it to 1 or more")
        for name in ("lr_tables", "lr_depth", "lr_affine", "robust_scale_px"):
            _require(getattr(self, name) > 0, f"fit.{name}", getattr(self, name), "set it above 0")
        for name in ("warmup_steps", "depth_weight", "depth_smoothness", "table_smoothness"):
            _require(getattr(self, name) >= 0, f"fit.{name}", getattr(self, name), "set it to 0 or more")
        for name in ("robust_after", "free_space_after"):
            _require(0 <= getattr(self, name) <= 1, f"fit.{name}", getattr(self, name), "set it between 0 and 1")
        _require(len(self.level_starts) > 0 and self.level_starts[0] == 0 and self.level_starts[-1] < 1
                 and list(self.level_starts) == sorted(self.level_starts), "fit.level_starts", self.level_starts,
                 "give rising shares that begin with 0 and stay below 1")
        _require(all(0 <= share < 1 for share in self.depth_searches), "fit.depth_searches", self.depth_searches,
                 "give shares from 0 to below 1, or none")


@dataclass(frozen=True, kw_only=True)
class TracksConfig:
    """Which points become tracks of their own."""

    max_tracks: int = 4000  # rows of tracks.npz
    max_markers: int = 500  # tracks of markers.json, the longest and surest of them, spread over the frame
    preview: int = 0  # tracks of preview.json, written while the field is fitted; no result depends on it
    memory_mb: int = 512  # what a query may hold at once

    def __post_init__(self) -> None:
        for name in ("max_tracks", "max_markers"):
            _require(getattr(self, name) >= 1, f"tracks.{name}", getattr(self, name), "set it to 1 or more")
        _require(self.preview >= 0, "tracks.preview", self.preview, "set it to 0 (none) or more")
        _require(self.memory_mb >= 16, "tracks.memory_mb", self.memory_mb, "set it to 16 or more")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What ``track`` writes when the field is fitted."""

    kinds: tuple[str, ...] = ("vectors:blender", "preview", "report")
    references: tuple[int, ...] = ()  # source's frame numbers of stmap and stabilized; none: the first tracked frame
    compression: str = "ZIP"  # of EXR files
    multipart: bool = False  # a part for each layer, in presets whose readers know parts
    max_displace: float = 256.0  # pixels that rsmb and rsmb-16 call 1; the same must be set in the plug-in
    flip_v: bool = False  # of nuke-smartvector: y down
    vectors_map: str | None = None  # JSON or TOML file with the channels of vectors:custom

    def __post_init__(self) -> None:
        _require(0 < self.max_displace <= 32767, "export.max_displace", self.max_displace, "set it above 0 (256 fits "
                 "most shots)")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole job's settings."""

    preset: str = "standard"
    seed: int = 0
    device: str = "auto"
    threads: int = 0  # 0: as many as this process may use
    video: VideoConfig = field(default_factory=VideoConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    tracks: TracksConfig = field(default_factory=TracksConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    def __post_init__(self) -> None:
        _require(self.preset in PRESETS, "preset", repr(self.preset), f"choose one of {', '.join(PRESETS)}")
        _require(self.device in DEVICES, "device", repr(self.device), f"choose one of {', '.join(DEVICES)}")
        _require(self.threads >= 0, "threads", self.threads, "set it to 0 (automatic) or more")
        if self.fit.rounds > 1:
            rounds = f"{self.fit.rounds} where "
            _require(self.model.kind == "tabulated", "fit.rounds", f"{rounds}model.kind is {self.model.kind}",
                     "set it to 1, or use the preset standard or draft")
            _require(self.flow.estimator in GUIDED_ESTIMATORS and not self.flow.exhaustive.enabled, "fit.rounds",
                     f"{rounds}flow is not searched for", "set it to 1, or use --flow auto or dis without "
                     "flow.exhaustive")

    @classmethod
    def from_preset(cls, preset: str) -> Self:
        """The settings of ``draft`` (a first look), ``standard`` (the default) or ``paper`` (OmniMotion's own model).

        Raises:
            ConfigError: there is no such preset.
        """
        if preset == "draft":
            return cls(
                preset="draft",
                video=VideoConfig(long_side=512),
                flow=FlowConfig(
                    long_side=256, full_size=False, gaps=(1, 2, 4, 8, 16, 32), samples_per_pair=4000,
                    learned_budget_s=60.0,
                ),
                fit=FitConfig(steps=450, warmup_steps=20, lr_tables=4e-3, depth_searches=()),  # few steps, larger ones
            )
        if preset == "paper":
            # the published code's length: hours on a good GPU; the paper tells of 200,000 steps
            return cls(
                preset="paper",
                flow=FlowConfig(
                    max_cycle_error_px=3.0, samples_per_pair=20_000, exhaustive=ExhaustiveConfig(enabled=True)
                ),
                model=ModelConfig(kind="volumetric"),
                fit=FitConfig(steps=100_000, checkpoint_every=1000),
            )
        return cls(preset=preset)

    def override(self, changes: Mapping[str, Any]) -> Self:
        """These settings with ``changes`` (nested, as JSON holds them) applied.

        Raises:
            ConfigError: a key is unknown, or a value has the wrong type or range.
        """
        return _override(self, changes, "")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values for JSON; ``Config().override`` of it gives the settings back."""
        return dataclasses.asdict(self)


def digest(*parts: Any) -> str:
    """A short hash of settings and other plain values; equal values give equal hashes in every process."""
    plain = [dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part for part in parts]  # type: ignore[arg-type]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _override(record: Any, changes: Mapping[str, Any], path: str) -> Any:
    hints = typing.get_type_hints(type(record))
    values: dict[str, Any] = {}
    for key, value in changes.items():
        name = f"{path}{key}"
        if key not in hints:
            raise ConfigError(f"{name} is not a setting", f"use one of {', '.join(sorted(hints))}")
        current = getattr(record, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} is {value!r}", "give a table of settings")
            values[key] = _override(current, value, f"{name}.")
        else:
            values[key] = _coerce(value, hints[key], name)
    return dataclasses.replace(record, **values)


def _coerce(value: Any, hint: Any, name: str) -> Any:
    """``value`` as JSON gave it, as the type ``hint`` asks."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        return _coerce(value, next(argument for argument in arguments if argument is not type(None)), name)
    if origin is tuple and isinstance(value, (list, tuple)):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_coerce(item, arguments[0], name) for item in value)
        if len(arguments) == len(value):
            return tuple(_coerce(item, argument, name) for item, argument in zip(value, arguments, strict=True))
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ConfigError(f"{name} is {value!r}", f"give a value of type {wanted}")
