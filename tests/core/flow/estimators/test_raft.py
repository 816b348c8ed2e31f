"""RAFT against what the published code computes from the same weights, and as an estimator."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from omnimotion_core.errors import FlowError
from omnimotion_core.flow.estimators import raft
from omnimotion_core.flow.estimators.correlation import OnDemand, Volume
from omnimotion_core.flow.estimators.raft import RaftFlow, RaftSmallFlow
from omnimotion_core.flow.estimators.raft_network import Raft, princeton_names

CPU = torch.device("cpu")
TOLERANCE_PX = 1e-3
FILES = [
    ("raft_small_princeton_layout.pth", True),
    ("raft_small_torchvision_layout.pth", True),
    ("raft_large_princeton_layout.pth", False),
]


def estimator(folder: Path, file: str, small: bool) -> RaftFlow:
    made = (RaftSmallFlow if small else RaftFlow)(folder / file, CPU)
    made.load((184, 136))
    return made


@pytest.mark.parametrize("form", [Volume, OnDemand])
@pytest.mark.parametrize(("file", "small"), FILES)
def test_flow_is_that_of_the_published_code(
    golden: Path, file: str, small: bool, form: type[Volume] | type[OnDemand]
) -> None:
    truth = np.load(golden / f"raft_{'small' if small else 'large'}_princeton_layout.npz")
    flow = estimator(golden, file, small)
    source, target = (flow.prepare(t, truth[name]).features for t, name in enumerate(("image1", "image2")))
    initial = torch.from_numpy(truth["flow_init_low_resolution"]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        correlation = form(source.features, target.features, flow.network.radius)
        for name, iterations, start in (
            ("flow_1_iteration", 1, None), ("flow_6_iterations", 6, None), ("flow_3_iterations_from_init", 3, initial),
        ):  # fmt: skip
            low, up = flow.network(source, correlation, iterations, start)
            assert np.abs(up[0].permute(1, 2, 0).numpy() - truth[name]).max() < TOLERANCE_PX
            if name == "flow_6_iterations":
                low_truth = truth["low_resolution_flow"]
                assert np.abs(low[0].permute(1, 2, 0).numpy() - low_truth).max() < TOLERANCE_PX


def test_torchvisions_large_layout_is_understood(golden: Path) -> None:
    shapes = json.loads((golden / "raft_large_torchvision_layout.json").read_text())
    renamed = princeton_names({name: torch.zeros(shape) for name, shape in shapes.items()})
    network = {name: value for name, value in Raft(small=False).state_dict().items() if "num_batches" not in name}
    assert {name: value.shape for name, value in renamed.items()} == {
        name: value.shape for name, value in network.items()
    }


def test_pairs_together_give_what_each_gives_alone_in_both_directions(golden: Path) -> None:
    truth = np.load(golden / "raft_small_princeton_layout.npz")
    flow = estimator(golden, *FILES[0])
    small = [flow.prepare(t, truth[name][:72, :100]) for t, name in enumerate(("image1", "image2", "image1"))]
    together = flow.flow_pairs([(small[0], small[1]), (small[1], small[2])])
    alone = flow.flow(small[0], small[1], None)
    back = flow.flow(small[1], small[0], None)
    assert alone.shape == (72, 100, 2)
    assert alone.dtype == np.float32
    np.testing.assert_allclose(together[0][0], alone, atol=1e-3)
    np.testing.assert_allclose(together[0][1], back, atol=1e-3)
    np.testing.assert_allclose(together[1][0], back, atol=1e-3)


def test_updates_start_from_a_first_guess(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.load(golden / "raft_small_princeton_layout.npz")
    monkeypatch.setattr(raft, "ITERATIONS", 0)
    flow = estimator(golden, *FILES[0])
    frames = [flow.prepare(t, truth[name]) for t, name in enumerate(("image1", "image2"))]
    guess = np.broadcast_to(np.array([5, -3], np.float32), truth["flow_1_iteration"].shape)
    np.testing.assert_allclose(flow.flow(frames[0], frames[1], guess), guess, atol=1e-4)


def test_a_volume_beyond_the_bound_changes_nothing(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.load(golden / "raft_small_princeton_layout.npz")
    flow = estimator(golden, *FILES[0])
    monkeypatch.setattr(raft, "ITERATIONS", 2)
    frames = [flow.prepare(t, truth[name]) for t, name in enumerate(("image1", "image2"))]
    within = flow.flow(frames[0], frames[1], None)
    monkeypatch.setattr(raft, "VOLUME_BYTES", 1000)
    np.testing.assert_allclose(flow.flow(frames[0], frames[1], None), within, atol=1e-4)


def test_weights_of_the_other_size_are_refused(golden: Path) -> None:
    with pytest.raises(FlowError, match="is not RAFT large"):
        estimator(golden, "raft_small_princeton_layout.pth", False)


@pytest.mark.gpu
def test_half_precision_on_a_gpu_stays_near(golden: Path) -> None:
    truth = np.load(golden / "raft_large_princeton_layout.npz")
    flows = []
    for device in (CPU, torch.device("cuda")):
        flow = RaftFlow(golden / "raft_large_princeton_layout.pth", device)
        flow.load((184, 136))
        frames = [flow.prepare(t, truth[name]) for t, name in enumerate(("image1", "image2"))]
        flows.append(flow.flow_pairs([(frames[0], frames[1])] * 2)[1][0])
    assert np.median(np.abs(flows[0] - flows[1])) < 0.2
