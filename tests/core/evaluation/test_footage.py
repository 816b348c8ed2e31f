"""Synthetic clips as files, read back by other readers."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from omnimotion_core.errors import ConfigError, RunError
from omnimotion_core.evaluation.footage import write_frames, write_movie
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.events import Cancelled, Reporter


def test_frames_are_written_losslessly_and_numbered(tmp_path: Path) -> None:
    scene = Scene.make(3, (64, 48))
    paths = write_frames(scene, tmp_path / "plate", stem="shot", first_frame=1001)
    assert [path.name for path in paths] == ["shot.1001.png", "shot.1002.png", "shot.1003.png"]
    assert sorted((tmp_path / "plate").iterdir()) == paths
    for t, path in enumerate(paths):
        assert np.array_equal(np.asarray(cv2.imread(str(path)))[..., ::-1], scene.render(t))


def test_frames_of_an_earlier_call_are_kept_when_asked(tmp_path: Path) -> None:
    scene = Scene.make(3, (64, 48))
    paths = write_frames(scene, tmp_path)
    paths[1].unlink()
    before = [paths[t].stat().st_mtime_ns for t in (0, 2)]
    write_frames(scene, tmp_path, keep_existing=True)
    assert [paths[t].stat().st_mtime_ns for t in (0, 2)] == before
    assert paths[1].exists()


@pytest.mark.parametrize(("name", "size", "mean_error"), [("shot.mp4", (96, 64), 5.0), ("odd.mov", (97, 65), 2.5)])
def test_a_movie_holds_the_frames_in_bt709(tmp_path: Path, name: str, size: tuple[int, int], mean_error: float) -> None:
    scene = Scene.make(5, size)
    write_movie(scene, tmp_path / name, fps=25)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate or 0) == 25.0
        assert (stream.codec_context.width, stream.codec_context.height) == size
        assert int(stream.codec_context.colorspace) == 1  # BT.709
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 5
    for t, frame in enumerate(frames):
        error = frame.astype(float) - scene.render(t)
        assert np.abs(error).mean() < mean_error  # half-resolution color costs some levels on fine texture
        assert np.abs(error.mean(axis=(0, 1))).max() < 2.5  # another matrix shifts saturated colors by more


def test_cancelling_leaves_no_half_movie(tmp_path: Path) -> None:
    scene = Scene.make(4, (64, 48))
    with pytest.raises(Cancelled):
        write_movie(scene, tmp_path / "shot.mp4", reporter=Reporter(cancelled=lambda: True))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    scene = Scene.make(2, (64, 48))
    with pytest.raises(ConfigError, match=r"shot\.gif"):
        write_movie(scene, tmp_path / "shot.gif")
    with pytest.raises(ConfigError, match="fps"):
        write_movie(scene, tmp_path / "shot.mp4", fps=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_frames(scene, tmp_path / "file")
