"""Small run folders whose motion is known, and pyblish as a host has it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyblish.api
import pyblish.logic
import pyblish.util
import pytest

from omnimotion_core import __version__
from omnimotion_core.config import Config
from omnimotion_core.events import Reporter
from omnimotion_core.export.markers import write_markers
from omnimotion_core.export.motion_vectors import write_motion_vectors
from omnimotion_core.publishing.runner import plugin_folder
from omnimotion_core.run import RunFolder
from omnimotion_core.trajectories.dense import DenseFlow
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.cache import save_clip
from omnimotion_core.video.clip import Clip

WIDTH, HEIGHT, FRAMES, FIRST = 48, 32, 5, 1003  # the clip begins at 1001
STEP = np.array([4.0, 2.0], np.float32)  # to the right and down, from each frame to the next
MakeRun = Callable[..., RunFolder]
PublishBare = Callable[..., Any]


def moving(source: int, target: int) -> DenseFlow:
    shape = (HEIGHT, WIDTH)
    return DenseFlow(
        source=source, target=target, vectors=np.broadcast_to(STEP * (target - source), (*shape, 2)).copy(),
        visible=np.ones(shape, bool), confidence=np.full(shape, 0.75, np.float32), depth=np.ones(shape, np.float32),
    )  # fmt: skip


def make_tracks(num: int = 12) -> Tracks:
    start = np.random.default_rng(0).uniform((0, 0), (WIDTH - 20, HEIGHT - 12), (num, 1, 2))
    positions = (start + STEP * np.arange(FRAMES)[None, :, None]).astype(np.float32)
    return Tracks(
        queries=np.column_stack([np.zeros(num), positions[:, 0]]).astype(np.float32), positions=positions,
        visible=np.ones((num, FRAMES), bool), confidence=np.full((num, FRAMES), 0.5, np.float32),
        depth=np.ones((num, FRAMES), np.float32), size=(WIDTH, HEIGHT), first_frame=FIRST, fps=24.0,
    )  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a finished run folder; ``name`` is the clip's, ``presets`` those of its motion vectors."""

    def make(name: str = "shot", presets: tuple[str, ...] = ("blender",), folder: str = "run") -> RunFolder:
        footage = tmp_path / "footage"
        footage.mkdir(exist_ok=True)
        files = [footage / f"shot.{FIRST + t}.png" for t in range(FRAMES)]
        for file in files:
            file.write_bytes(file.name.encode())  # publishing reads footage for its hash alone
        sha256 = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        run = RunFolder(tmp_path / folder)
        run.create()
        run.frames.mkdir()
        clip = Clip(
            folder=run.frames, name=name, path=str(footage / "shot.1001.png"), sha256=sha256, size=(WIDTH, HEIGHT),
            working_size=(WIDTH, HEIGHT), num_frames=FRAMES, first_frame=FIRST, clip_first_frame=1001, fps=24.0,
            pixel_aspect=2.0, is_sequence=True,
        )  # fmt: skip
        save_clip(clip, [{"number": FIRST + t, "source": file.name} for t, file in enumerate(files)])
        facts = {
            "name": name, "path": clip.path, "sha256": sha256, "is_sequence": True, "size": [WIDTH, HEIGHT],
            "working_size": [WIDTH, HEIGHT], "frames": FRAMES, "first_frame": FIRST, "clip_first_frame": 1001,
            "fps": 24.0, "pixel_aspect": 2.0, "cuts": [], "has_mask": False,
        }  # fmt: skip
        run.start(facts, Config(), {"omnimotion": __version__})
        for stage in ("prepare", "flow", "fit", "tracks", "export"):
            run.manifest["stages"][stage] = {"state": "done", "key": f"key of {stage}", "warnings": [], "wrote": []}
        run.write()
        tracks = make_tracks()
        tracks.save(run.tracks)
        write_markers(tracks, run.markers, clip_offset=FIRST - 1001, max_markers=10)
        for preset in presets:
            write_motion_vectors(moving, clip, run.exr / preset, preset, reporter=Reporter(), tool_version=__version__,
                                 run_digest="key of fit")
        run.preview.write_bytes(b"a movie")
        run.report.write_text("<html></html>")
        return run

    return make


@pytest.fixture
def host() -> Iterator[None]:
    """Pyblish as a studio's host has it: our folder is registered, and nothing stays so."""
    pyblish.api.register_host("blender")
    pyblish.api.register_plugin_path(str(plugin_folder()))
    yield
    pyblish.api.deregister_plugin_path(str(plugin_folder()))
    pyblish.api.deregister_host("blender")


@pytest.fixture
def publish_bare(host: None) -> PublishBare:
    """``pyblish.util.publish()`` with nothing but the context's data; gives the context."""

    def publish(run: RunFolder, **data: Any) -> Any:
        context = pyblish.api.Context()
        context.data.update(runFolder=str(run.path), **data)
        return pyblish.util.publish(context)

    return publish


def errors_of(context: Any) -> dict[str, str]:
    """Plug-in → what it told, of all results with an error."""
    return {one["plugin"].__name__: str(one["error"]) for one in context.data["results"] if one["error"] is not None}


def warnings_of(context: Any) -> list[str]:
    """What the plug-ins warned of."""
    records = [record for one in context.data["results"] for record in one["records"]]
    return [record.getMessage() for record in records if record.levelname == "WARNING"]


def content(version: Path) -> dict[str, Any]:
    """All files of a version by name; JSON without what differs from publish to publish."""
    found: dict[str, Any] = {}
    for path in sorted(version.rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(version).as_posix()
        if name == "publish.json" or name.endswith("_metadata.json"):
            found[name] = json.loads(path.read_text().replace(str(version), "VERSION"))
            found[name].pop("date", None)
        else:
            found[name] = path.read_bytes()
    return found
