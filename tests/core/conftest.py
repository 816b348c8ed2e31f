"""A short synthetic shot with known motion, its matches and its fitted field, each made once a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omnimotion_core.config import Config, FlowConfig
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.events import Reporter
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.flow.stage import find_correspondences, load_correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.video.clip import Clip

QUICK: dict[str, Any] = {
    "flow": {"long_side": 128, "gaps": [1, 2, 4, 8], "samples_per_pair": 1500},
    "fit": {"steps": 150, "batch": 2048, "checkpoint_every": 50},
    "model": {"knots": [[4.0, 6], [1.0, 16]]},
}
MakeClip = Callable[..., Clip]


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> MakeClip:
    """A function from pictures (h, w, 3) uint8 to a clip in a frame cache; keywords replace the clip's facts."""

    def make(pictures: list[np.ndarray], masks: list[np.ndarray] | None = None, **facts: Any) -> Clip:
        folder = tmp_path_factory.mktemp("frames")
        height, width = pictures[0].shape[:2]
        values: dict[str, Any] = {
            "folder": folder, "name": "shot", "path": "shot.mov", "sha256": "0" * 64, "size": (width, height),
            "working_size": (width, height), "num_frames": len(pictures), "first_frame": 1, "clip_first_frame": 1,
            "fps": 24.0, "has_mask": masks is not None,
        }  # fmt: skip
        clip = Clip(**(values | facts))
        for t, picture in enumerate(pictures):
            cv2.imwrite(str(clip.frame_path(t)), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257)
            if masks is not None:
                cv2.imwrite(str(clip.mask_path(t)), masks[t].astype(np.uint8) * 255)
        return clip

    return make


@pytest.fixture(scope="session")
def scene() -> Scene:
    """Twelve frames of parallax, a wheel, a cloth and a passing pillar."""
    return Scene.make(12, (128, 96), seed=3)


@pytest.fixture(scope="session")
def shot(scene: Scene, make_clip: MakeClip) -> Clip:
    """The scene's frames."""
    return make_clip([scene.render(t) for t in range(scene.num_frames)])


@pytest.fixture(scope="session")
def quick() -> Config:
    """Settings under which the shot is tracked in seconds."""
    return Config().override(QUICK)


@pytest.fixture(scope="session")
def matches(shot: Clip, quick: Config, tmp_path_factory: pytest.TempPathFactory) -> Correspondences:
    """The shot's matches."""
    return match_clip(shot, quick.flow, tmp_path_factory.mktemp("correspondences"))


@pytest.fixture(scope="session")
def field(shot: Clip, matches: Correspondences, quick: Config, tmp_path_factory: pytest.TempPathFactory) -> Field:
    """The field fitted to the shot's matches."""
    import torch

    from omnimotion_core.optimization.loop import fit

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoint")
    return fit(shot, matches, quick, checkpoint=folder, device=torch.device("cpu"), reporter=Reporter())


def match_clip(clip: Clip, config: FlowConfig, folder: Path, *, threads: int = 1) -> Correspondences:
    """The flow stage, whole."""
    find_correspondences(clip, folder, config, seed=0, threads=threads, reporter=Reporter())
    return load_correspondences(folder, clip, config)
