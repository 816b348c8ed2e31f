"""What all tests share: fixed seeds, one thread, and the clips that the project does not ship."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run; no clocks, which on a busy machine fail what is right.
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    marked = [item for item in items if "gpu" in item.keywords]
    if marked:
        import torch

        for item in marked if not torch.cuda.is_available() else ():
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers in every run, whichever tests run before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global generator; tests use default_rng
    torch = sys.modules.get("torch")  # importing it costs seconds, and most tests do without
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)  # sums of many threads differ in the last bit from run to run


@pytest.fixture(autouse=True)
def _no_user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a test caches out of the home folder of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("OMNIMOTION_WEIGHTS_CACHE", str(tmp_path_factory.getbasetemp() / "weights"))


def _shared(name: str, holds: str) -> Path:
    """A folder of data that the project does not ship; skips where it is absent."""
    variable = f"OMNIMOTION_{name.upper()}"
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"no {holds} in {folder}: set {variable} to their folder")
    return folder


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of test clips: rendered ones with exact truth, real ones with masks."""
    return _shared("clips", "test clips")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of what published networks compute from known weights."""
    return _shared("golden", "golden data")


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of real pretrained weights."""
    return _shared("weights", "pretrained weights")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a synthetic sequence of 10 frames, 96x72, and its truth beside it as ``truth.npz``."""
    import cv2

    from omnimotion_core.evaluation.synthetic import Scene

    folder = tmp_path_factory.mktemp("tiny") / "shot"
    folder.mkdir()
    scene = Scene.make(10, (96, 72), seed=0)
    for t in range(scene.num_frames):
        cv2.imwrite(str(folder / f"shot.{1001 + t}.png"), cv2.cvtColor(scene.render(t), cv2.COLOR_RGB2BGR))
    scene.truth(num_points=40).save(folder.parent / "truth.npz")
    return folder


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for ``--config`` that makes a job on ``tiny_clip`` take seconds."""
    import json

    settings = {
        "threads": 1,
        "device": "cpu",
        "flow": {"long_side": 96, "gaps": [1, 2, 4], "samples_per_pair": 300},
        "model": {"num_layers": 3, "knots": [[4.0, 4]]},
        "fit": {"steps": 40, "batch": 256, "checkpoint_every": 5},
        "tracks": {"max_tracks": 60, "max_markers": 20},
    }
    path = tmp_path_factory.mktemp("settings") / "tiny.json"
    path.write_text(json.dumps(settings))
    return path
