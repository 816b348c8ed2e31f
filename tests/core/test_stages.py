from pathlib import Path

import pytest

from omnimotion_core.config import Config
from omnimotion_core.run import STAGES
from omnimotion_core.stages import stage_keys

CLIP = {"path": "/footage/shot.mov", "sha256": "ab" * 32}


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"video": {"long_side": 640}}, "prepare"),
        ({"video": {"frames": [2, 9]}}, "prepare"),
        ({"flow": {"samples_per_pair": 7}}, "flow"),
        ({"seed": 5}, "flow"),
        ({"model": {"num_layers": 4}}, "fit"),
        ({"fit": {"steps": 3}}, "fit"),
        ({"tracks": {"max_tracks": 3}}, "tracks"),
        ({"export": {"kinds": ["report"]}}, "export"),
        ({"export": {"references": [1003]}}, "export"),
        ({"tracks": {"memory_mb": 64}}, None),
        ({"tracks": {"preview": 9}}, None),
        ({"device": "cpu"}, None),
        ({"threads": 3}, None),
        ({"video": {"mask": "/elsewhere/the-same-mask.png"}}, None),
        ({"preset": "draft"}, None),
    ],
)
def test_a_setting_changes_the_keys_from_its_stage_on(change: dict[str, object], first: str | None) -> None:
    before, after = stage_keys(Config(), CLIP), stage_keys(Config().override(change), CLIP)
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == ([] if first is None else list(STAGES[STAGES.index(first) :]))


def test_the_content_of_clip_and_mask_changes_all_keys() -> None:
    before = stage_keys(Config(), CLIP)
    for other in ({**CLIP, "sha256": "cd" * 32}, {**CLIP, "mask_sha256": "ef" * 32}):
        after = stage_keys(Config(), other)
        assert all(before[stage] != after[stage] for stage in STAGES)


def test_the_content_of_a_map_of_channels_changes_the_export_s_key(tmp_path: Path) -> None:
    config = Config().override({"export": {"vectors_map": str(tmp_path / "map.json")}})
    keys = [stage_keys(config, CLIP)]
    for text in ("{}", "[]"):
        (tmp_path / "map.json").write_text(text, encoding="utf-8")
        keys.append(stage_keys(config, CLIP))
    assert len({key["export"] for key in keys}) == 3
    assert len({key["tracks"] for key in keys}) == 1
