"""What is decided once for matching all pairs: how many matches are kept of each, and what appearance is told by.

The decision is written to ``exhaustive.json`` before the first block, so that a stage that is gone on with, or shared
out over machines with more or less memory, keeps to it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnimotion_core.config import FlowConfig
from omnimotion_core.devices import choose_device, free_memory
from omnimotion_core.errors import FlowError, RunError
from omnimotion_core.events import Reporter
from omnimotion_core.files import sha256_of
from omnimotion_core.flow.appearance import Appearance, ColorAppearance, FeatureAppearance
from omnimotion_core.flow.estimators import Estimator, LearnedEstimator
from omnimotion_core.flow.exhaustive import MIN_FRAMES
from omnimotion_core.flow.matching import input_size
from omnimotion_core.flow.plan import write_first
from omnimotion_core.flow.weights import find_features, terms_to_show
from omnimotion_core.video.clip import Clip

FILE = "exhaustive.json"
VERSION = 1
FREE_SHARE = 0.5  # of the free memory that matches may take
FRAMES_SHARE = 0.25  # that frames held ready may take
MATCH_BYTES = 110  # of a match while it is loaded and drawn from, at most; measured
MIN_SAMPLES = 32  # of a pair's direction; with fewer a fit makes no sense
FEATURE_BYTES = 40  # of a learned estimator's features, for each pixel of the picture it is given


@dataclass(frozen=True, kw_only=True)
class ExhaustivePlan:
    """How all pairs are matched."""

    samples_per_pair: int  # matches kept of each direction of a pair
    features_sha256: str = ""  # of DINO's weights; empty: appearance is told by color

    def appearance(self, clip: Clip, config: FlowConfig, device: str) -> Appearance:
        """What judges the ends of matches.

        Raises:
            FlowError: the features that the stage began with are gone, or other ones.
        """
        if not self.features_sha256:
            return ColorAppearance(config.max_appearance_error)
        weights = find_features(config.exhaustive.features)
        if weights is None or sha256_of(weights) != self.features_sha256:
            raise FlowError("the flow stage began with DINO's weights, and they are gone or others now",
                            "bring those back, or delete the correspondences folder to begin anew")  # fmt: skip
        from omnimotion_core.flow.dino import DinoFeatures  # it loads torch, which takes seconds

        features = DinoFeatures(weights, choose_device(device))
        return FeatureAppearance(
            lambda t: features.of(clip.rgb8(t)), clip.working_size, config.exhaustive.min_similarity
        )

    @classmethod
    def read(cls, folder: Path) -> "ExhaustivePlan | None":
        """The plan in ``folder``; None where none is there yet.

        Raises:
            RunError: it is damaged.
        """
        path = folder / FILE
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
            if values.pop("version") != VERSION:
                raise ValueError("another version")
            return cls(**values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged ({error})", f"delete {folder} and run the flow stage again") from error


def plan_exhaustive(
    clip: Clip, config: FlowConfig, folder: Path, *, num_pairs: int, reporter: Reporter
) -> ExhaustivePlan:
    """The plan in ``folder``, which is decided and written where it is not there.

    Raises:
        FlowError: the matches of so many pairs have no room, or the weights asked for are absent.
        RunError: the plan is damaged or cannot be written.
    """
    plan = ExhaustivePlan.read(folder)
    if plan is not None:
        return plan
    weights = find_features(config.exhaustive.features)
    if weights is None:
        reporter.warning("flow: without DINO's features the appearance of matches is told by color alone "
                         "(omnimotion weights get dino-vits16)")  # fmt: skip
    else:
        terms = terms_to_show(weights)
        if terms is not None:
            reporter.note(terms)
    plan = ExhaustivePlan(
        samples_per_pair=affordable_samples(clip, config, 2 * num_pairs, free_memory(), reporter),
        features_sha256="" if weights is None else sha256_of(weights),
    )
    write_first(folder / FILE, json.dumps({"version": VERSION, **dataclasses.asdict(plan)}, indent=1) + "\n")
    return ExhaustivePlan.read(folder) or plan


def affordable_samples(clip: Clip, config: FlowConfig, num_pairs: int, free_bytes: int, reporter: Reporter) -> int:
    """How many matches of each of so many directed pairs there is room for, as many as are asked for at most.

    Raises:
        FlowError: too few for a fit.
    """
    wanted = min(config.samples_per_pair, clip.working_size[0] * clip.working_size[1])
    allowed, free = config.exhaustive.memory_mb * 2**20, int(FREE_SHARE * free_bytes)
    count = min(allowed, free) // (MATCH_BYTES * max(num_pairs, 1))
    if count >= wanted:
        return wanted
    limit = f"flow.exhaustive.memory_mb allows {allowed / 2**30:.1f} GB"
    if free < allowed:
        limit = f"{free / 2**30:.1f} GB may be taken of the free memory"
    needed = wanted * num_pairs * MATCH_BYTES
    need = f"{wanted} matches of each of {num_pairs} pairs of frames take {needed / 2**30:.1f} GB"
    if count < MIN_SAMPLES:
        raise FlowError(f"{need}, and {limit}",
                        "track fewer frames, set flow.exhaustive.memory_mb higher where there is memory, or set "
                        "flow.exhaustive.enabled to false")  # fmt: skip
    reporter.warning(f"flow: {need}, and {limit}: {count} of each are kept")
    return count


def affordable_frames(
    clip: Clip, config: FlowConfig, estimator: Estimator | LearnedEstimator, reporter: Reporter
) -> int:
    """How many frames may be held ready at once; with fewer than the clip has, each block prepares them anew."""
    width, height = clip.working_size
    matching = input_size(estimator, clip.working_size, config.long_side)
    features = FEATURE_BYTES if isinstance(estimator, LearnedEstimator) else 1
    each = width * height * 12 + matching[0] * matching[1] * (3 + features)
    count = int(FRAMES_SHARE * free_memory() // each)
    if isinstance(estimator, LearnedEstimator) and estimator.device.type == "cuda":
        import torch

        free = torch.cuda.mem_get_info(estimator.device)[0]
        count = min(count, int(FRAMES_SHARE * free // (matching[0] * matching[1] * FEATURE_BYTES)))
    if count >= clip.num_frames:
        return clip.num_frames
    count = max(count, MIN_FRAMES)
    if count < clip.num_frames:
        reporter.warning(f"flow: there is no memory to hold all {clip.num_frames} frames ready, but {count}: "
                         "the others are prepared anew for each block")  # fmt: skip
    return count
