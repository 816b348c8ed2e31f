"""Clips as the flow stage gets them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from omnimotion_core.config import VideoConfig
from omnimotion_core.events import Reporter
from omnimotion_core.video.clip import Clip
from omnimotion_core.video.prepare import prepare
from omnimotion_core.video.source import identify

DecodeClip = Callable[[str, tuple[int, int]], Clip]


@pytest.fixture
def decode_clip(tmp_path: Path) -> DecodeClip:
    """Decodes the frames (first, last) of a sequence."""

    def make(source: str, frames: tuple[int, int]) -> Clip:
        config = VideoConfig(frames=frames)
        return prepare(identify(source, config), tmp_path / "frames", config, Reporter())

    return make
