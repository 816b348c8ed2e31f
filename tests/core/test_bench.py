"""The benchmark: that it measures, and that its file and its table tell the same. No time is judged."""

import json
from pathlib import Path

import numpy as np
import pytest

from omnimotion_core import cli
from omnimotion_core.bench.cost import slope
from omnimotion_core.bench.measure import QUICK
from omnimotion_core.bench.table import COLUMNS, GROWN, format_value


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    sizes = np.array([12.0, 24.0, 48.0, 100.0])
    assert slope(sizes.tolist(), (3.0 * sizes**power).tolist()) == pytest.approx(power, abs=1e-9)


def test_clips_go_from_small_to_large_and_none_is_measured_twice() -> None:
    assert QUICK.clips == [(4, 48), (4, 64), (8, 48)]


def test_the_quick_benchmark_tells_the_same_in_its_file_and_in_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = tmp_path / "bench.json"
    assert cli.main(["bench", "--quick", "--device", "cpu", "--threads", "1", "--json", str(path)]) == cli.DONE
    told, text = json.loads(path.read_bytes()), capfd.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    clips = {(row[0], row[1]): row for row in lines if len(row) == len(COLUMNS) and row[0].isdigit()}
    assert len(clips) == len(told["clips"]) == len(QUICK.clips)
    for clip in told["clips"]:
        assert set(clip) == set(COLUMNS)
        assert all(value > 0 for value in clip.values())
        assert clips[str(clip["num_frames"]), str(clip["side"])] == [format_value(name, clip[name]) for name in COLUMNS]
        assert clip["pair_s"] == pytest.approx(clip["flow_s"] / clip["num_pairs"])
        assert clip["fit_s"] == pytest.approx(clip["start_s"] + clip["step_ms"] * told["model"]["steps"] / 1e3)
        arithmetic = told["model"]["flop_per_match"] / clip["match_us"] / 1e3  # GFLOP/s
        assert clip["flop_share"] == pytest.approx(arithmetic / told["machine"]["gflops"])
    for over, names in (("frames", GROWN), ("pixels", GROWN), ("points", ["query_s"])):
        row = next(line[2:] for line in lines if line[:2] == ["over", over])
        assert row == [f"{told['growth'][over][name]:.2f}" for name in names]
    by_frames = {clip["num_frames"]: clip["num_pairs"] for clip in told["clips"]}
    assert by_frames == {4: 3 + 2 + 1, 8: 7 + 6 + 5 + 4 + 2}  # at distances 1, 2, 3, 4 and 6
    assert list(map(int, told["questions"])) == list(QUICK.points)
    for seconds in (*told["questions"].values(), told["plate_s"]):
        assert seconds > 0
        assert f" {format_value('', seconds)} s" in text
    assert list(scratch.glob("omnimotion-*")) == []  # torch keeps a folder of its own there


def test_a_device_that_is_absent_is_told_before_anything_is_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    path = tmp_path / "bench.json"
    assert cli.main(["bench", "--device", absent, "--json", str(path)]) == cli.MENDABLE
    assert f"no device '{absent}'" in capfd.readouterr().err
    assert not path.exists()
