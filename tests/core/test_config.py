import dataclasses
import json
from typing import Any

import pytest

from omnimotion_core.config import PRESETS, Config, FitConfig, FlowConfig, digest
from omnimotion_core.errors import ConfigError


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_survive_json(preset: str) -> None:
    config = Config.from_preset(preset)
    assert config.preset == preset
    assert Config().override(json.loads(json.dumps(config.to_dict()))) == config


def test_draft_makes_the_most_of_its_few_steps() -> None:
    draft, standard = Config.from_preset("draft").fit, Config.from_preset("standard").fit
    assert draft.warmup_steps <= draft.steps / 20
    assert draft.lr_tables > standard.lr_tables
    assert draft.free_space_after < 1


def test_draft_is_cheaper_than_standard() -> None:
    draft, standard = Config.from_preset("draft"), Config.from_preset("standard")
    assert draft.fit.steps < standard.fit.steps
    assert len(draft.flow.gaps) < len(standard.flow.gaps)
    assert draft.video.long_side < standard.video.long_side
    assert standard.flow.full_size
    assert not draft.flow.full_size


def test_an_override_changes_what_it_names_and_nothing_else() -> None:
    changed = Config().override({"seed": 3, "fit": {"steps": 7}, "video": {"frames": [1001, 1010]}})
    assert (changed.seed, changed.fit.steps, changed.video.frames) == (3, 7, (1001, 1010))
    assert dataclasses.replace(changed, seed=0, fit=FitConfig(), video=Config().video) == Config()
    assert changed.override({"video": {"frames": None}}).video.frames is None
    assert Config().override({"fit": {"lr_depth": 1}}).fit.lr_depth == 1.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sead": 1}, "sead is not a setting; use one of"),
        ({"fit": {"stepz": 1}}, "fit.stepz is not a setting"),
        ({"fit": 3}, "fit is 3; give a table"),
        ({"fit": {"steps": "many"}}, "fit.steps is 'many'; give a value of type int"),
        ({"fit": {"steps": True}}, "fit.steps is True"),
        ({"fit": {"steps": 1.5}}, "fit.steps is 1.5"),
        ({"fit": {"steps": 0}}, "fit.steps is 0; set it to 1 or more"),
        ({"fit": {"rounds": 0}}, "fit.rounds is 0; set it to 1 or more"),
        ({"fit": {"rounds": 2}, "model": {"kind": "volumetric"}}, "fit.rounds is 2 where model.kind is volumetric"),
        ({"fit": {"rounds": 3}, "flow": {"estimator": "raft"}}, "fit.rounds is 3 where flow is not searched for"),
        ({"fit": {"rounds": 2}, "flow": {"exhaustive": {"enabled": True}}}, "fit.rounds is 2 where flow is not"),
        ({"fit": {"robust_after": 1.2}}, "fit.robust_after is 1.2"),
        ({"fit": {"free_space_after": -0.1}}, "fit.free_space_after is -0.1; set it between 0 and 1"),
        ({"fit": {"level_starts": []}}, "fit.level_starts is (); give rising shares that begin with 0"),
        ({"fit": {"level_starts": [0.1, 0.2]}}, "fit.level_starts is (0.1, 0.2)"),
        ({"fit": {"level_starts": [0, 0.5, 0.4]}}, "fit.level_starts is (0.0, 0.5, 0.4)"),
        ({"fit": {"level_starts": [0, 1]}}, "fit.level_starts is (0.0, 1.0)"),
        ({"fit": {"depth_searches": [1.0]}}, "fit.depth_searches is (1.0,); give shares from 0 to below 1, or none"),
        ({"fit": {"lr_depth": -1}}, "fit.lr_depth is -1.0; set it above 0"),
        ({"preset": "fast"}, "preset is 'fast'; choose one of"),
        ({"device": "tpu"}, "device is 'tpu'; choose one of"),
        ({"threads": -1}, "threads is -1"),
        ({"video": {"frames": [5, 5]}}, "video.frames is 5-5"),
        ({"video": {"frames": [1, 2, 3]}}, "video.frames is"),
        ({"video": {"allow_gaps": 1}}, "video.allow_gaps is 1; give a value of type bool"),
        ({"flow": {"gaps": [2, 4]}}, "flow.gaps is"),
        ({"flow": {"gaps": [1, 4, 3]}}, "flow.gaps is"),
        ({"flow": {"estimator": ""}}, "flow.estimator is ''"),
        ({"model": {"kind": "magic"}}, "model.kind is 'magic'"),
        ({"model": {"num_layers": 2}}, "model.num_layers is 2"),
        ({"tracks": {"max_tracks": 0}}, "tracks.max_tracks is 0"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_remedy(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Config().override(changes)
    assert str(raised.value).startswith(said)


def test_a_digest_follows_values_and_not_objects() -> None:
    assert digest(FlowConfig()) == digest(FlowConfig())
    assert digest(FlowConfig()) != digest(FlowConfig(samples_per_pair=4999))
    assert digest("a", 1) != digest("a", 2)
    assert digest(FlowConfig(), "x") == digest(dataclasses.asdict(FlowConfig()), "x")
