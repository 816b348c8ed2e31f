"""Clips and tracks whose truth the tests know."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from omnimotion_core.coordinates import inside
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip

MakeClip = Callable[..., Clip]
MakeTracks = Callable[..., Tracks]


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Makes a clip of smooth noise; ``plate`` (w, h), ``num_frames`` and any field of ``Clip`` can be given."""

    def make(plate: tuple[int, int] = (96, 64), num_frames: int = 6, **facts: object) -> Clip:
        folder = tmp_path / "frames"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(7)
        for t in range(num_frames):
            noise = cv2.GaussianBlur(rng.random((plate[1], plate[0], 3)).astype(np.float32), (0, 0), 3)
            cv2.imwrite(str(folder / f"{t:06d}.png"), (noise * 65535).astype(np.uint16))
        values: dict[str, object] = {
            "folder": folder, "name": "shot", "path": "/footage/shot.####.png", "sha256": "ab" * 32, "size": plate,
            "working_size": plate, "num_frames": num_frames, "first_frame": 1001, "clip_first_frame": 1001,
            "fps": 24.0, "is_sequence": True,
        }  # fmt: skip
        return Clip(**(values | facts))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_tracks() -> MakeTracks:
    """Makes tracks that drift over the frame, some off it, each hidden at random times."""

    def make(num: int = 40, num_frames: int = 6, size: tuple[int, int] = (96, 64), seed: int = 0) -> Tracks:
        rng = np.random.default_rng(seed)
        start = rng.uniform((0, 0), size, (num, 1, 2))
        drift = rng.uniform(-2.0, 2.0, (num, 1, 2))
        positions = (start + drift * np.arange(num_frames)[None, :, None]).astype(np.float32)
        visible = inside(positions, size) & (rng.random((num, num_frames)) < 0.7)
        times = rng.integers(0, num_frames, num)
        queries = np.column_stack([times, positions[np.arange(num), times]]).astype(np.float32)
        return Tracks(
            queries=queries, positions=positions, visible=visible,
            confidence=rng.random((num, num_frames)).astype(np.float32),
            depth=np.ones((num, num_frames), np.float32), size=size, first_frame=1001, fps=24.0,
        )  # fmt: skip

    return make
