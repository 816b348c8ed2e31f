"""The graph: stages in their order, parts beside each other, and arguments that make the very same settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnimotion_core import cli
from omnimotion_core.api import make_config
from omnimotion_core.batch.graph import settings_arguments, steps_of
from omnimotion_core.batch.jobs import Job
from omnimotion_core.config import Config


def job(flow_chunks: int = 1, export_chunks: int = 1, **settings: Any) -> Job:
    return Job(name="a", clip="/a.mov", run=Path("/runs/a"), config=make_config(None, settings),
               flow_chunks=flow_chunks, export_chunks=export_chunks)  # fmt: skip


def test_a_clip_is_a_chain_of_stages() -> None:
    steps = steps_of(job())
    assert [step.name for step in steps] == ["prepare", "flow", "fit", "tracks", "export"]
    assert [step.arguments() for step in steps[1:]] == [[step.stage, "/runs/a"] for step in steps[1:]]


def test_parts_come_before_the_stage_that_ends_them() -> None:
    steps = steps_of(job(2, 3))
    assert [(step.name, step.parts) for step in steps] == [
        ("prepare", 0), ("flow-parts", 2), ("flow", 0), ("fit", 0), ("tracks", 0), ("export-parts", 3), ("export", 0)
    ]  # fmt: skip
    assert steps[1].arguments("2/2") == ["flow", "/runs/a", "--chunk", "2/2"]
    only_files = steps_of(job(1, 3, export={"kinds": ["report"]}))
    assert [step.name for step in only_files] == ["prepare", "flow", "fit", "tracks", "export"]


@pytest.mark.parametrize(
    ("device", "estimator", "stages"),
    [("cuda", "dis", {"fit", "tracks", "export"}), ("cuda", "raft", {"flow", "fit", "tracks", "export"}),
     ("cuda", "/flow/made/elsewhere", {"fit", "tracks", "export"}), ("auto", "raft", set()), ("cpu", "dis", set())],
)  # fmt: skip
def test_a_gpu_is_asked_for_where_the_device_says_so(device: str, estimator: str, stages: set[str]) -> None:
    steps = steps_of(job(2, 2, device=device, flow={"estimator": estimator}))
    assert {step.stage for step in steps if step.needs_gpu} == stages


HOSTILE = 'a"b\\"c\\\\ {{Param.X}} }} \' $(id) `id` \n\u202e\U0001f600 %n'


def test_arguments_make_the_same_settings_and_hold_no_braces_in_a_row() -> None:
    config = make_config("draft", {
        "seed": 7, "device": "cpu", "video": {"mask": f"/{HOSTILE}", "frames": [3, 9]},
        "fit": {"volumetric": {"pairs": 3}}, "model": {"knots": [[4.0, 4]]}, "export": {"kinds": []},
    })  # fmt: skip
    arguments = settings_arguments(config)
    assert all("{{" not in text and "}}" not in text and text.isascii() and text.isprintable() for text in arguments)
    options = cli.build_parser().parse_args(["track", "a.mov", "--out", "r", *arguments])
    from omnimotion_core.commands import _config

    assert _config(options) == config
    assert json.loads(arguments[-1])["video"]["mask"] == f"/{HOSTILE}"


@pytest.mark.parametrize("preset", ["draft", "standard", "paper"])
def test_a_preset_without_changes_needs_its_name_alone(preset: str) -> None:
    assert settings_arguments(Config.from_preset(preset)) == ["--preset", preset]
