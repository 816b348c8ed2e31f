"""The flow stage with learned flow: alone, beside DIS, gone on with, and refused."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from omnimotion_core import cli
from omnimotion_core.config import FlowConfig
from omnimotion_core.errors import FlowError
from omnimotion_core.events import Event, Noted, Reporter
from omnimotion_core.flow.blocks import FlowBlocks
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.flow.estimators import gmflow
from omnimotion_core.flow.estimators.learned import LearnedFlow
from omnimotion_core.flow.estimators.raft import RaftSmallFlow
from omnimotion_core.flow.learned import LearnedFields
from omnimotion_core.flow.pairs import Pair
from omnimotion_core.flow.plan import Plan
from omnimotion_core.flow.stage import adjacent_flow, find_correspondences, load_correspondences
from omnimotion_core.flow.weights import known_weights
from omnimotion_core.video.clip import Clip

from .conftest import DecodeClip

CPU = torch.device("cpu")
CONFIG = FlowConfig(long_side=96, gaps=(1, 2, 4), samples_per_pair=300, keyframe_step=0)


@pytest.fixture
def clip(tiny_clip: Path, decode_clip: DecodeClip) -> Clip:
    """Six frames: two pairs over four of them."""
    return decode_clip(f"{tiny_clip}/shot.####.png", (1001, 1006))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMNIMOTION_WEIGHTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def have_gmflow(cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder with GMFlow's weights; small pictures stay small, which is quick and inexact."""
    cache.mkdir()
    shutil.copy(weights / "gmflow.pth", cache / known_weights("gmflow").file)
    usual = gmflow.choose_size
    monkeypatch.setattr(
        gmflow, "choose_size", lambda size, most: ((96, 72), (1, 1)) if size == (96, 72) else usual(size, most)
    )
    return cache


def find(clip: Clip, folder: Path, config: FlowConfig = CONFIG, threads: int = 1) -> tuple[Correspondences, list[str]]:
    """The matches, and the notes that were told."""
    events: list[Event] = []
    find_correspondences(clip, folder, config, seed=0, threads=threads, reporter=Reporter(events.append))
    notes = [event.message for event in events if isinstance(event, Noted)]
    return load_correspondences(folder, clip, config), notes


def equal(a: Correspondences, b: Correspondences) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_without_weights_auto_is_dis_and_says_so(clip: Clip, tmp_path: Path, cache: Path) -> None:
    auto, notes = find(clip, tmp_path / "auto")
    dis, silent = find(clip, tmp_path / "dis", FlowConfig(**{**vars(CONFIG), "estimator": "dis"}))
    assert equal(auto, dis)
    assert notes == ["flow: DIS alone; learned flow is better over long distances: omnimotion weights get gmflow"]
    assert silent == []
    assert not cache.exists()
    assert Plan.read(tmp_path / "auto") == Plan()
    assert Plan.read(tmp_path / "dis") is None


def test_with_weights_auto_plans_once_and_keeps_to_it(clip: Clip, tmp_path: Path, have_gmflow: Path) -> None:
    whole, notes = find(clip, tmp_path / "a", threads=2)
    plan = Plan.read(tmp_path / "a")
    assert plan is not None
    assert (plan.estimator, plan.every, plan.closures) == ("gmflow", {4: 1}, False)
    assert plan.weights_sha256 == known_weights("gmflow").sha256
    assert 0 < plan.seconds_per_pair * 2 <= CONFIG.learned_budget_s
    assert notes[0].startswith("weights gmflow: ")
    assert notes[1].startswith("flow: DIS, and gmflow over 4 frames: 2 of 11 pairs, about ")
    assert not equal(whole, find(clip, tmp_path / "dis", FlowConfig(**{**vars(CONFIG), "estimator": "dis"}))[0])

    (tmp_path / "a" / "000000.npz").unlink()  # as after a kill
    again, notes = find(clip, tmp_path / "a")
    assert equal(again, whole)
    assert notes == []  # nothing was decided, and the terms were told


def test_weights_that_come_later_do_not_change_a_stage_that_began(
    clip: Clip, tmp_path: Path, cache: Path, weights: Path
) -> None:
    before, _ = find(clip, tmp_path / "a")
    cache.mkdir()
    shutil.copy(weights / "gmflow.pth", cache / known_weights("gmflow").file)
    (tmp_path / "a" / "000000.npz").unlink()
    assert equal(find(clip, tmp_path / "a")[0], before)


def test_a_stage_that_began_with_other_weights_is_not_gone_on_with(
    clip: Clip, tmp_path: Path, have_gmflow: Path
) -> None:
    Plan(estimator="gmflow", weights_sha256="0" * 64, every={4: 1}).keep(tmp_path / "a")
    with pytest.raises(FlowError, match="began with other weights"):
        find(clip, tmp_path / "a")
    shutil.rmtree(have_gmflow)
    with pytest.raises(FlowError, match="there are no weights for 'gmflow'"):
        find(clip, tmp_path / "a")


@pytest.mark.parametrize("budget", [0.0, 1e-3])
def test_without_time_auto_is_dis(clip: Clip, tmp_path: Path, have_gmflow: Path, budget: float) -> None:
    config = FlowConfig(**{**vars(CONFIG), "learned_budget_s": budget})
    _, notes = find(clip, tmp_path / "a", config)
    assert [note for note in notes if "DIS alone; gmflow would take" in note] == notes[1:]
    plan = Plan.read(tmp_path / "a")
    assert plan is not None
    assert plan.estimator is None


def test_a_finished_stage_is_read_without_weights(
    clip: Clip, tmp_path: Path, golden: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnimotion_core.flow.estimators.raft.ITERATIONS", 1)
    weights = str(shutil.copy(golden / "raft_small_torchvision_layout.pth", tmp_path / "mine.pth"))
    config = FlowConfig(**{**vars(CONFIG), "gaps": (1,), "estimator": "raft-small", "weights": weights,
                           "max_cycle_error_px": 50.0, "max_appearance_error": 100.0})  # fmt: skip
    found, notes = find(clip, tmp_path / "a", config)
    assert len(found.pairs) == 10
    assert notes == []
    flow = adjacent_flow(clip, config)(0, 1)
    assert flow.shape == (72, 96, 2)
    Path(weights).unlink()
    assert equal(load_correspondences(tmp_path / "a", clip, config), found)
    (tmp_path / "a" / "000000.npz").unlink()
    with pytest.raises(FlowError, match=r"there are no weights at .*mine\.pth"):
        find(clip, tmp_path / "a", config)


def test_what_a_gpu_gets_in_batches_is_what_each_pair_gets_alone(
    clip: Clip, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LearnedFlow, "batch", lambda self, size: 3)
    monkeypatch.setattr("omnimotion_core.flow.estimators.raft.ITERATIONS", 2)
    estimator = RaftSmallFlow(golden / "raft_small_torchvision_layout.pth", CPU)
    estimator.load((96, 72))
    pairs = [Pair(first, first + gap) for gap in (1, 4) for first in range(2)]
    fields = LearnedFields(clip, CONFIG, estimator, Plan(estimator="raft-small", every={4: 1, 1: 1}))
    batches = fields.in_batches(pairs)
    assert set(batches) == set(pairs)
    for pair in pairs:
        alone = fields.alone(pair)
        assert alone is not None
        np.testing.assert_allclose(batches[pair], alone, atol=1e-3)
    fields.plan = Plan(estimator="raft-small", every={4: 2})
    assert set(fields.in_batches(pairs)) == {Pair(0, 4)}
    assert fields.alone(Pair(1, 5)) is None


def test_a_block_matched_in_batches_holds_the_same_matches(
    clip: Clip, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnimotion_core.flow.estimators.raft.ITERATIONS", 2)
    blocks = []
    for batch in (1, 3):
        monkeypatch.setattr(LearnedFlow, "batch", lambda self, size, batch=batch: batch)
        estimator = RaftSmallFlow(golden / "raft_small_torchvision_layout.pth", CPU)
        estimator.load((96, 72))
        config = FlowConfig(**{**vars(CONFIG), "max_cycle_error_px": 50.0, "max_appearance_error": 100.0})
        with ThreadPoolExecutor(1) as pool:
            worker = FlowBlocks(clip, config, estimator, pool, seed=0)
            blocks.append(worker.run([Pair(0, 1), Pair(1, 2), Pair(0, 2), Pair(0, 4)], on_pair=lambda done: None))
    np.testing.assert_array_equal(blocks[0]["pairs"], blocks[1]["pairs"])
    np.testing.assert_array_equal(blocks[0]["source"], blocks[1]["source"])
    np.testing.assert_allclose(blocks[0]["target"], blocks[1]["target"], atol=0.05)


def test_memory_bounds_how_many_pairs_are_under_way(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = RaftSmallFlow(golden / "raft_small_torchvision_layout.pth", CPU)
    need = estimator._pair_bytes((854, 480))
    assert [estimator._affordable((854, 480), free) for free in (0, need, 4 * need, 20 * need)] == [1, 1, 2, 10]


# --- asked for on the command line


def test_missing_weights_are_told_before_anything_is_written(
    tiny_clip: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for flow in ("gmflow", "raft", "raft-small"):
        assert cli.main(["track", f"{tiny_clip}/shot.####.png", "--out", str(run), "--flow", flow]) == cli.MENDABLE
        assert f"there are no weights for '{flow}' in {cache}; run `omnimotion weights get" in capsys.readouterr().err
        assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--flow", "raft", "--weights", "/nowhere/a.pth"], "there are no weights at /nowhere/a.pth"),
        (["--flow", "dis", "--weights", "a.pth"], "flow by 'dis' reads no weights"),
        (["--weights", "a.pth"], "say of which estimator they are: --flow gmflow or raft or raft-small"),
    ],
)
def test_weights_that_nothing_reads_are_told(
    tiny_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    asked = ["track", f"{tiny_clip}/shot.####.png", "--out", str(tmp_path / "run"), *arguments]
    assert cli.main(asked) == cli.MENDABLE
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_unusable_weights_are_told_in_one_line(
    tiny_clip: Path, tiny_settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(b"PK\x03\x04 truncated")
    asked = ["track", f"{tiny_clip}/shot.####.png", "--out", str(tmp_path / "run"), "--config", str(tiny_settings),
             "--flow", "raft", "--weights", str(file)]  # fmt: skip
    assert cli.main(asked) == cli.MENDABLE
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"omnimotion: weights {file} cannot be used (")
    assert said.endswith("; give another file with --weights, or get a known one: omnimotion weights list")


def test_a_weights_file_reaches_the_estimator(
    tiny_clip: Path, tiny_settings: Path, tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(golden / "raft_small_princeton_layout.pth", tmp_path / "mine.pth")
    monkeypatch.setattr("omnimotion_core.flow.estimators.raft.ITERATIONS", 1)
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({**json.loads(tiny_settings.read_text()), "flow": {"gaps": [1], "long_side": 96}}))
    asked = ["prepare", "run", "--clip", f"{tiny_clip}/shot.####.png", "--frames", "1001-1003", "--config",
             str(settings), "--flow", "raft-small", "--weights", "mine.pth"]  # fmt: skip
    assert cli.main(asked) == cli.DONE
    monkeypatch.chdir("/")
    assert cli.main(["flow", str(tmp_path / "run")]) == cli.DONE
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]["flow"]
    assert (config["estimator"], config["weights"]) == ("raft-small", str(tmp_path / "mine.pth"))


@pytest.mark.slow
def test_learned_flow_beside_dis_gives_more_and_better_long_matches(
    clips: Path, decode_clip: DecodeClip, tmp_path: Path, have_gmflow: Path
) -> None:
    folder = clips / "rendered" / "flag"
    clip = decode_clip(str(next(iter(sorted((folder / "frames").glob("*.png"))))), (0, 8))
    right = {}
    for name in ("dis", "auto"):
        config = FlowConfig(estimator=name, gaps=(1, 2, 4, 8), samples_per_pair=40_000, learned_budget_s=1000.0)
        found, _ = find(clip, tmp_path / name, config, threads=2)
        row = next(index for index, pair in enumerate(found.pairs) if tuple(pair) == (0, 8))
        of_pair = found.pair == row
        with np.load(folder / "flow.npz") as truth:
            flow = truth["flow_0_8"].astype(np.float32)
        x, y = found.source[of_pair].T
        error = np.linalg.norm(found.target[of_pair] - found.source[of_pair] - flow[y, x], axis=-1)
        right[name] = int((error < 1).sum())
    assert right["auto"] > right["dis"], right


