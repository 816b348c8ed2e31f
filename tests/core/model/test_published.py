"""The published code's checkpoints: the same numbers, there and back, and nothing run or guessed."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnimotion_core.config import ModelConfig, VolumetricConfig
from omnimotion_core.coordinates import normalized_to_pixel, pixel_to_normalized
from omnimotion_core.errors import RunError
from omnimotion_core.model import rendering
from omnimotion_core.model.motion import FAR, FieldShape
from omnimotion_core.model.published import PARTS, read_published, write_published
from omnimotion_core.model.volumetric import VolumetricField

KINDS = ("plain", "affine")


def shape(num_frames: int = 24, size: tuple[int, int] = (64, 48)) -> FieldShape:
    return FieldShape(size=size, working_size=size, num_frames=num_frames)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.no_grad()
def test_every_output_is_the_published_codes(golden: Path, kind: str) -> None:
    field = read_published(golden / f"official_layout_{kind}.pth").build(shape())
    with np.load(golden / f"official_layout_{kind}.npz") as data:
        truth = {name: torch.from_numpy(np.asarray(data[name])) for name in data.files}
    assert int(truth["num_frames"]) == field.num_frames
    assert tuple(truth["size_wh"].tolist()) == field.shape.size
    here, there = truth["frames_from"], truth["frames_to"]

    def same(ours: torch.Tensor, name: str) -> None:
        torch.testing.assert_close(ours, truth[name], rtol=0, atol=1e-4, msg=lambda text: f"{name}: {text}")

    xy = pixel_to_normalized(truth["pixels"], field.shape.working_size)
    local = rendering.cast_rays(xy, rendering.even_depths(32, FAR))
    same(local, "local")
    same(field.latents(field.times[:, None])[here], "latent_from")
    canonical = field.to_canonical(here, local)
    same(canonical, "canonical")
    landed = field.from_canonical(there, canonical)
    same(landed, "local_to")
    color, density = field.canonical(canonical)
    same(color, "color")
    same(density, "density")
    weights = rendering.composite_weights(density)
    same(weights, "weights")
    same(rendering.composite(color, weights), "rendered_rgb")
    soft = rendering.composite(landed[..., :2], weights)
    same(normalized_to_pixel(soft, field.shape.working_size), "target_soft")
    flat, pixels = here[:, None].expand(3, 10).flatten(), truth["pixels"].flatten(0, 1)
    prepared = field.prepare()  # the road that queries take
    lifted = prepared.lift(flat, pixels)
    target = prepared.from_canonical(there[:, None].expand(3, 10).flatten(), prepared.to_canonical(flat, lifted))
    same(prepared.to_pixels(target).view(3, 10, 2), "target_argmax")


def test_reading_and_writing_give_the_file_back(golden: Path, kind: str, tmp_path: Path) -> None:
    path = golden / f"official_layout_{kind}.pth"
    write_published(read_published(path).build(shape()), tmp_path / "again.pth")
    theirs = torch.load(path, weights_only=True)
    ours = torch.load(tmp_path / "again.pth", weights_only=True)
    assert ours["num_imgs"] == theirs["num_imgs"]
    for part in PARTS:
        assert ours[part].keys() == theirs[part].keys()
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name


NETWORKS = VolumetricConfig(
    axes=(2, 0, 1, 1), num_frequencies=3, latent_size=4, latent_hidden=6, coupling_hidden=5, color_hidden=7,
    affine_layers=2,
)  # fmt: skip


def small(path: Path, **changes: Any) -> Path:
    """A checkpoint of small networks, its contents changed."""
    field = VolumetricField(shape(3), ModelConfig(kind="volumetric", volumetric=NETWORKS), seed=1)
    write_published(field, path)
    torch.save({**torch.load(path, weights_only=True), **changes}, path)
    return path


def test_networks_of_any_size_and_a_distributed_runs_names_are_read(tmp_path: Path) -> None:
    path = small(tmp_path / "a.pth", optimizer={"state": {}})
    content = torch.load(path, weights_only=True)
    content["deform_mlp"] = {f"module.{name}": value for name, value in content["deform_mlp"].items()}
    torch.save(content, path)
    read = read_published(path)
    assert {**vars(read.networks), "imported": ""} == vars(NETWORKS)
    assert len(read.networks.imported) == 64
    first = VolumetricField(shape(3), ModelConfig(kind="volumetric", volumetric=NETWORKS), seed=1)
    for name, value in read.build(shape(3)).state_dict().items():
        assert torch.equal(value, first.state_dict()[name])


def test_a_clip_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"was fitted to 3 frames, the clip has 7; choose the frames"):
        read_published(small(tmp_path / "a.pth")).build(shape(7))


class Code:
    """Makes a folder when it is unpickled by whoever trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"feature_mlp": Code(trap)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Code(trap)))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(RunError, match="holds code"):
            read_published(tmp_path / name)
    assert not trap.exists()


def test_what_is_no_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    path = small(tmp_path / "a.pth")
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)
    deform, color = content["deform_mlp"], content["color_mlp"]
    lost = {name: value for name, value in color.items() if name != "linear.1.bias"}
    cases: list[tuple[Any, str]] = [
        (whole[: len(whole) // 2], "damaged"), (b"", "damaged"), (b"not a checkpoint at all", "damaged"),
        ([1, 2], "lacks one of"), ({"model": {}}, "lacks one of"), ({**content, "num_imgs": "24"}, "number of frames"),
        ({**content, "num_imgs": 1}, "number of frames"),
        ({**content, "color_mlp": lost}, r"color_mlp\.linear\.1\.bias is missing"),
        ({**content, "color_mlp": {**color, "linear.0.bias": torch.zeros(9)}}, r"linear\.0\.bias is \(9,\)"),
        ({**content, "color_mlp": {**color, "linear.0.bias": "text"}}, "a str"),
        ({**content, "deform_mlp": {**deform, "extra.weight": torch.zeros(1)}}, "it has deform_mlp.extra.weight"),
        ({**content, "deform_mlp": {**deform, "layers1.0.mask": torch.ones(3)}}, r"moves the axes \[\]"),
        ({**content, "deform_mlp": {}}, "does not fit"),
        ({**content, "color_mlp": {**color, "output_linear.bias": torch.full((4,), torch.nan)}}, "no numbers"),
    ]  # fmt: skip
    for bad, words in cases:
        if isinstance(bad, bytes):
            path.write_bytes(bad)
        else:
            torch.save(bad, path)
        with pytest.raises(RunError, match=words) as caught:
            read_published(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(RunError, match="cannot be read"):
        read_published(tmp_path / "absent.pth")
