"""A checkpoint of the published code becomes a run folder that answers everything, and is written back as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from omnimotion_core import cli
from omnimotion_core.api import Run
from omnimotion_core.config import ModelConfig, VolumetricConfig
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.model.published import PARTS, write_published
from omnimotion_core.model.volumetric import VolumetricField
from omnimotion_core.run import RunFolder
from omnimotion_core.trajectories.tracks import Tracks

NETWORKS = VolumetricConfig(latent_size=6, latent_hidden=8, coupling_hidden=8, color_hidden=8, affine_layers=2)


def checkpoint(path: Path, num_frames: int = 10) -> Path:
    shape = FieldShape(size=(96, 72), working_size=(96, 72), num_frames=num_frames)
    write_published(VolumetricField(shape, ModelConfig(kind="volumetric", volumetric=NETWORKS), seed=4), path)
    return path


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def imported(tiny_clip: Path, tiny_settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder; beside it the checkpoint ``a.pth``."""
    folder = tmp_path_factory.mktemp("imported")
    path = checkpoint(folder / "a.pth")
    assert run("import", path, "--clip", tiny_clip, "--out", folder / "run", "--config", tiny_settings) == cli.DONE
    return folder / "run"


def test_it_answers_what_a_fitted_one_answers(imported: Path, tmp_path: Path) -> None:
    opened = Run.open(imported)
    assert opened.config.model.kind == "volumetric"
    queries = np.array([[0, 10, 20], [7, 50.5, 33.25]], np.float32)
    tracks = opened.query(queries)
    moved = opened.flow(0, 5)
    np.testing.assert_allclose(moved.vectors[20, 10], tracks.positions[0, 5] - queries[0, 1:], atol=1e-3)
    assert opened.quality.residual_px.shape == (10,)
    np.savez(tmp_path / "points.npz", queries=queries)
    assert run("query", imported, "--points", tmp_path / "points.npz", "--out", tmp_path / "t.npz") == cli.DONE
    np.testing.assert_allclose(Tracks.load(tmp_path / "t.npz").positions, tracks.positions, atol=1e-4)
    assert run("export", imported, "--to", "preview", "report") == cli.DONE
    folder = RunFolder.open(imported)
    assert folder.preview.stat().st_size > 0
    assert folder.report.stat().st_size > 0
    assert len(Tracks.load(folder.tracks)) > 20


def test_it_is_written_back_as_it_was(imported: Path, tmp_path: Path) -> None:
    assert run("export", imported, "--to", "checkpoint", "--out", tmp_path) == cli.DONE
    ours = torch.load(tmp_path / "checkpoint" / "omnimotion.pth", weights_only=True)
    theirs = torch.load(imported.parent / "a.pth", weights_only=True)
    assert ours["num_imgs"] == 10
    for part in PARTS:
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][name], value) for name, value in theirs[part].items())


def test_the_same_import_again_does_nothing_and_another_one_replaces_the_field(
    imported: Path, tiny_clip: Path, tiny_settings: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(imported, tmp_path / "run")
    model = tmp_path / "run" / "model.safetensors"
    before = model.stat().st_mtime_ns
    again = ("--clip", tiny_clip, "--out", tmp_path / "run", "--config", tiny_settings)
    assert run("import", imported.parent / "a.pth", *again) == cli.DONE
    assert model.stat().st_mtime_ns == before
    other = torch.load(imported.parent / "a.pth", weights_only=True)
    other["color_mlp"]["output_linear.bias"] += 1
    torch.save(other, tmp_path / "b.pth")
    assert run("import", tmp_path / "b.pth", *again) == cli.DONE
    assert model.stat().st_mtime_ns != before


def test_a_field_that_was_lost_is_not_fitted_in_its_place(
    imported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(imported, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    assert run("fit", tmp_path / "run") == cli.MENDABLE
    assert "came from a checkpoint; run `omnimotion import CHECKPOINT" in capfd.readouterr().err


@pytest.mark.parametrize("bad", ["frames", "truncated", "other"])
def test_a_checkpoint_that_does_not_fit_leaves_nothing_behind(
    bad: str, tiny_clip: Path, tiny_settings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path / "a.pth", num_frames=7 if bad == "frames" else 10)
    if bad == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    if bad == "other":
        torch.save({"state_dict": {}}, path)
    assert run("import", path, "--clip", tiny_clip, "--out", tmp_path / "run", "--config", tiny_settings) == 2
    words = {"frames": "fitted to 7 frames, the clip has 10", "truncated": "damaged", "other": "no checkpoint of"}
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("omnimotion: ")]
    assert len(lines) == 1
    assert words[bad] in lines[0]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.pth"]


def test_the_paper_preset_is_fitted_like_any_other(
    tiny_clip: Path, tiny_settings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads(tiny_settings.read_text())
    settings["model"] = {"volumetric": {"num_samples": 4, "latent_size": 6, "latent_hidden": 8, "coupling_hidden": 8,
                                        "color_hidden": 8}}  # fmt: skip
    settings["fit"] = {"steps": 8, "checkpoint_every": 4, "volumetric": {"pairs": 2, "points": 16, "smooth_points": 4}}
    settings["export"] = {"kinds": ["checkpoint"]}
    (tmp_path / "paper.json").write_text(json.dumps(settings))
    out = tmp_path / "run"
    assert run("track", tiny_clip, "--out", out, "--preset", "paper", "--config", tmp_path / "paper.json") == cli.DONE
    assert RunFolder.open(out).config.preset == "paper"
    assert torch.load(out / "omnimotion.pth", weights_only=True)["num_imgs"] == 10
    assert Run.open(out).query([[2, 30, 30]]).positions.shape == (1, 10, 2)


def test_a_tabulated_field_is_no_checkpoint(
    tiny_clip: Path, tiny_settings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads(tiny_settings.read_text())
    settings["fit"]["steps"], settings["export"] = 2, {"kinds": []}
    (tmp_path / "quick.json").write_text(json.dumps(settings))
    assert run("track", tiny_clip, "--out", tmp_path / "run", "--config", tmp_path / "quick.json") == cli.DONE
    assert run("export", tmp_path / "run", "--to", "checkpoint") == cli.MENDABLE
    assert "the paper's networks cannot hold; track the clip with --preset paper" in capfd.readouterr().err
