"""A clip with matches that are exact, on which a small volumetric field is fitted."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from omnimotion_core.config import Config
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow.correspondences import Correspondences, join
from omnimotion_core.video.clip import Clip

SIZE, FRAMES = (48, 40), 6


@pytest.fixture(scope="session")
def scene() -> Scene:
    """Six frames."""
    return Scene.make(FRAMES, SIZE, seed=1)


@pytest.fixture(scope="session")
def scene_clip(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """The frames of ``scene``."""
    folder = tmp_path_factory.mktemp("scene")
    for t in range(FRAMES):
        cv2.imwrite(str(folder / f"{t:06d}.png"), scene.render(t)[..., ::-1].astype(np.uint16) * 257)
    return Clip(
        folder=folder, name="scene", path=str(folder), sha256="0" * 64, size=SIZE, working_size=SIZE,
        num_frames=FRAMES, first_frame=1, clip_first_frame=1, fps=24.0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def matches(scene: Scene) -> Correspondences:
    """Exact matches of all pairs up to 3 frames apart, 400 a pair at most."""
    rng, blocks = np.random.default_rng(0), []
    for i in range(FRAMES):
        for j in range(FRAMES):
            if i == j or abs(i - j) > 3:
                continue
            vectors, visible = scene.flow(i, j)
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
