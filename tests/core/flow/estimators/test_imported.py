from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest

from omnimotion_core.config import FlowConfig
from omnimotion_core.errors import FlowError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow.estimators import create_estimator
from omnimotion_core.flow.estimators.imported import ImportedFlow
from omnimotion_core.video.clip import Clip
from tests.core.conftest import match_clip

PAIRS = ((0, 1), (1, 0))


def write_flo(path: Path, flow: np.ndarray) -> None:
    with path.open("wb") as file:
        np.array([202021.25], "<f4").tofile(file)
        np.array([flow.shape[1], flow.shape[0]], "<i4").tofile(file)
        flow.astype("<f4").tofile(file)


def write_exr(path: Path, flow: np.ndarray, names: tuple[str, str]) -> None:
    spec = oiio.ImageSpec(flow.shape[1], flow.shape[0], 2, "float")
    spec.channelnames = names
    out = oiio.ImageOutput.create(str(path))
    assert out.open(str(path), spec)
    assert out.write_image(np.ascontiguousarray(flow, np.float32))
    out.close()


def read(folder: Path, shot: Clip) -> np.ndarray:
    estimator = create_estimator(str(folder), shot)
    assert isinstance(estimator, ImportedFlow)
    assert list(estimator.pairs()) == sorted(PAIRS)  # type: ignore[arg-type]
    frames = [estimator.prepare(t, shot.rgb8(t)) for t in range(2)]
    return estimator.flow(frames[0], frames[1], None)


@pytest.mark.parametrize("ending", ["flo", "npy", "npz", "R,G.exr", "forward.u,forward.v.exr"])
def test_each_format_gives_the_same_vectors(scene: Scene, shot: Clip, tmp_path: Path, ending: str) -> None:
    for i, j in PAIRS:
        flow, stem = scene.flow(i, j)[0], tmp_path / f"flow_{i + 1:04d}_{j + 1:04d}"
        if ending == "flo":
            write_flo(stem.with_suffix(".flo"), flow)
        elif ending == "npy":
            np.save(stem.with_suffix(".npy"), flow)
        elif ending == "npz":
            np.savez(stem.with_suffix(".npz"), flow=flow)
        else:
            names = ending.removesuffix(".exr").split(",")
            up = -1 if names[1].endswith("v") else 1
            write_exr(stem.with_suffix(".exr"), flow * [1, up], (names[0], names[1]))
    np.testing.assert_allclose(read(tmp_path, shot), scene.flow(0, 1)[0], atol=1e-6)


def test_one_npz_may_hold_all_pairs_at_another_size(scene: Scene, shot: Clip, tmp_path: Path) -> None:
    half = {f"flow_{i + 1}_{j + 1}": scene.flow(i, j)[0][::2, ::2] / 2 for i, j in PAIRS}
    np.savez(tmp_path / "all.npz", allow_pickle=False, **half)
    exact, visible = scene.flow(0, 1)
    assert np.median(np.abs(read(tmp_path, shot) - exact)[visible]) < 0.1


def test_exact_flow_gives_exact_matches(scene: Scene, shot: Clip, tmp_path: Path) -> None:
    (tmp_path / "flow").mkdir()
    for i, j in PAIRS:
        np.save(tmp_path / "flow" / f"f_{i + 1}_{j + 1}.npy", scene.flow(i, j)[0])
    found = match_clip(shot, FlowConfig(estimator=str(tmp_path / "flow"), long_side=128), tmp_path / "matches")
    assert found.pairs.tolist() == [[0, 1], [1, 0]]
    for row, (i, j) in enumerate(PAIRS):
        members = found.pair == row
        x, y = found.source[members].T
        exact = scene.flow(i, j)[0][y, x]
        np.testing.assert_allclose(found.target[members] - found.source[members], exact, atol=1e-4)


def test_a_pair_in_one_direction_only_is_not_enough(scene: Scene, shot: Clip, tmp_path: Path) -> None:
    np.save(tmp_path / "flow_0001_0002.npy", scene.flow(0, 1)[0])
    with pytest.raises(FlowError, match=r"in both directions; name files like flow_0001_0002\.flo"):
        create_estimator(str(tmp_path), shot)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.zeros((96, 128, 3)), "not \\(H, W, 2\\)"),
        (np.full((96, 128, 2), np.nan), "no numbers"),
        (np.zeros((96, 96, 2)), "proportions"),
        (np.array([{"a": 1}], object), "cannot be used"),
    ],
)
def test_an_unusable_file_is_told(shot: Clip, tmp_path: Path, content: np.ndarray, said: str) -> None:
    for i, j in PAIRS:
        np.save(tmp_path / f"flow_{i + 1}_{j + 1}.npy", content, allow_pickle=True)
    estimator = ImportedFlow(tmp_path, shot)
    with pytest.raises(FlowError, match=said):
        estimator.flow((0, (128, 96)), (1, (128, 96)), None)


def test_a_truncated_flo_is_told(shot: Clip, tmp_path: Path) -> None:
    for i, j in PAIRS:
        path = tmp_path / f"flow_{i + 1}_{j + 1}.flo"
        write_flo(path, np.zeros((96, 128, 2)))
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FlowError, match="cannot be used"):
        ImportedFlow(tmp_path, shot).flow((0, (128, 96)), (1, (128, 96)), None)
