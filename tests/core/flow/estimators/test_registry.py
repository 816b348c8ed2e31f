from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.errors import FlowError
from omnimotion_core.flow import estimators
from omnimotion_core.flow.estimators import check_estimator, create_estimator
from omnimotion_core.flow.estimators.dis import DisFlow
from omnimotion_core.video.clip import Clip


class ForeignFlow:
    """What a third party would write."""

    refines = False

    def pairs(self) -> None:
        return None

    def prepare(self, t: int, picture: np.ndarray) -> np.ndarray:
        return picture

    def flow(self, source: np.ndarray, target: np.ndarray, initial: np.ndarray | None) -> np.ndarray:
        return np.full((*source.shape[:2], 2), 3.0, np.float32)


class BrokenFlow:
    def __init__(self) -> None:
        raise ImportError("no module named 'cudnn9'")


def test_the_default_is_dis(shot: Clip) -> None:
    assert isinstance(create_estimator("dis", shot), DisFlow)


def test_an_entry_point_is_found_by_its_name(shot: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("foreign", f"{__name__}:ForeignFlow", "omnimotion.flow")]
    monkeypatch.setattr(EntryPoint, "load", lambda self: ForeignFlow)
    monkeypatch.setattr(estimators, "entry_points", lambda group: points if group == "omnimotion.flow" else [])
    assert isinstance(create_estimator("foreign", shot), ForeignFlow)


def test_an_entry_point_that_fails_is_told(shot: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("broken", "package:BrokenFlow", "omnimotion.flow")]
    monkeypatch.setattr(EntryPoint, "load", lambda self: BrokenFlow)
    monkeypatch.setattr(estimators, "entry_points", lambda group: points)
    with pytest.raises(FlowError, match=r"cudnn9.*repair or remove package:BrokenFlow"):
        create_estimator("broken", shot)


def test_an_unknown_name_lists_the_known_ones(shot: Clip) -> None:
    with pytest.raises(FlowError, match=r"'nope' is neither .*use one of auto, dis"):
        create_estimator("nope", shot)


def test_flow_made_elsewhere_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "flow_0001_0002.flo").write_bytes(b"one")
    before = check_estimator(str(tmp_path))
    assert before == check_estimator(str(tmp_path))
    (tmp_path / "flow_0002_0001.flo").write_bytes(b"two")
    assert check_estimator(str(tmp_path)) != before
    assert check_estimator(str(tmp_path / "flow_0001_0002.flo")) != ""


def test_a_name_is_checked_before_a_clip_is_at_hand() -> None:
    assert check_estimator("dis") == ""
    with pytest.raises(FlowError, match="'nope' is neither"):
        check_estimator("nope")
