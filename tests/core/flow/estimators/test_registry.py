from importlib.metadata import EntryPoint

import numpy as np
import pytest

from omnimotion_core.errors import FlowError
from omnimotion_core.flow import estimators
from omnimotion_core.flow.estimators import create_estimator
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
