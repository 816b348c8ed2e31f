"""The synthetic clip that the tests of evaluation share."""

import pytest

from omnimotion_core.evaluation.synthetic import Scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A small, wide clip in which points vanish, come back and leave the picture."""
    return Scene.make(32, (144, 112), seed=3)
