import numpy as np
import pytest
import torch

from omnimotion_core.config import ModelConfig
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import EVIDENCE_CELL_PX, FieldShape
from omnimotion_core.optimization.evidence import best_margin, keep_colors
from omnimotion_core.video.clip import Clip


def test_the_margin_parts_visible_from_hidden() -> None:
    generator = torch.Generator().manual_seed(0)
    visible = torch.randn(2000, generator=generator) * 0.03
    hidden = torch.randn(2000, generator=generator) * 0.1 + 0.6
    margin = float(best_margin(visible, hidden))
    assert 0.08 < margin < 0.4


def test_more_of_one_kind_does_not_move_the_margin() -> None:
    visible, hidden = torch.linspace(-0.1, 0.3, 100), torch.linspace(0.2, 0.9, 100)
    assert best_margin(visible, hidden) == best_margin(visible.repeat(50), hidden)


def test_the_maps_tell_where_matches_are_missed_and_missing(field: Field, matches: Correspondences) -> None:
    assert (field.residual_map >= 0).all()
    assert (field.support_map >= 0).all()
    assert (field.support_map <= 1).all()
    count = np.zeros(field.support_map.shape)
    x, y = (matches.source // EVIDENCE_CELL_PX).T
    np.add.at(count, (matches.pairs[matches.pair, 0], y, x), matches.weight / 255)
    support = field.support_map.numpy()
    assert support[count == 0].max(initial=0) == 0
    order = np.argsort(count, axis=None)
    assert support.flat[order[-20:]].min() > 0.9
    assert (np.diff(support.flat[order]) >= -1e-3).all()


def _evened(clip: Clip, matches: Correspondences) -> np.ndarray:
    """The colors that a field keeps, (T, 3, h, w)."""
    field = Field(FieldShape.of(clip), ModelConfig())
    keep_colors(field, clip, matches)
    return field.color_map.float().numpy()


def test_a_change_of_exposure_is_taken_out_of_the_colors(
    scene_clip: Clip, exact: Correspondences, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_shot, original = _evened(scene_clip, exact), Clip.rgb8
    darker = [1.0, 1.0, 0.8, 0.8, 0.6, 0.6]
    monkeypatch.setattr(Clip, "rgb8", lambda clip, t: (original(clip, t) * darker[t]).astype(np.uint8))
    dimmed = _evened(scene_clip, exact)
    assert np.abs(as_shot[5]).max() > 20
    for t in range(scene_clip.num_frames):  # 0.6 of the light is 17 units of lightness
        assert np.abs(np.median(dimmed[t] - as_shot[t], axis=(1, 2))).max() < 3


def test_light_that_changes_in_a_part_of_the_picture_is_taken_out_of_the_colors(
    scene_clip: Clip, exact: Correspondences, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_shot, original = _evened(scene_clip, exact), Clip.rgb8
    width = scene_clip.working_size[0]
    shade = np.clip((np.arange(width) - 0.55 * width) / (0.2 * width), 0, 1)[:, None]  # over the right third

    def in_shade(clip: Clip, t: int) -> np.ndarray:
        return (original(clip, t) * (1 - 0.1 * t * shade)).astype(np.uint8)

    monkeypatch.setattr(Clip, "rgb8", in_shade)
    shaded = _evened(scene_clip, exact)
    right = slice(round(0.85 * as_shot.shape[-1]), None)
    change = [np.median((shaded[t] - as_shot[t])[0, :, right]) for t in (0, scene_clip.num_frames - 1)]
    assert abs(change[1] - change[0]) < 10  # half of the light is more than 20 units of lightness
