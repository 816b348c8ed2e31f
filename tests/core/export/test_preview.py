import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from omnimotion_core.errors import ExportError, RunError
from omnimotion_core.events import Cancelled, Event, Progress, Reporter
from omnimotion_core.export.preview import write_preview

from .conftest import MakeClip, MakeTracks


def boxes(path: Path) -> list[str]:
    """The kinds of an MP4 file's outermost boxes, in order."""
    data, offset, kinds = path.read_bytes(), 0, []
    while offset < len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        kinds.append(kind.decode())
        offset += size
    return kinds


def test_the_movie_has_every_frame_and_plays_in_a_browser(
    tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks
) -> None:
    clip = make_clip((97, 65), 7, fps=23.976, pixel_aspect=1.5)
    events: list[Event] = []
    write_preview(clip, make_tracks(30, 7, (97, 65)), tmp_path / "p.mp4", reporter=Reporter(events.append))
    with av.open(str(tmp_path / "p.mp4")) as movie:
        (stream,) = movie.streams.video
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.width, context.height) == (1074, 480)  # 97 * 1.5 / 65 * 480 = 1074.5
        assert stream.sample_aspect_ratio in (None, 1)
        assert stream.average_rate == Fraction(24000, 1001)
        assert (context.colorspace, context.color_range) == (1, 1)  # BT.709, video levels
        times = [Fraction((frame.pts or 0) * (frame.time_base or 0)) for frame in movie.decode(stream)]
    assert times == [Fraction(1001 * t, 24000) for t in range(7)]
    kinds = boxes(tmp_path / "p.mp4")
    assert kinds.index("moov") < kinds.index("mdat")
    assert events == [Progress(stage="export", done=done, total=7) for done in range(1, 8)]


def test_the_plate_s_colors_are_kept(tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks) -> None:
    clip = make_clip((64, 64), 2)
    nothing = make_tracks(4, 2, (64, 64)).select(np.zeros(0, int))
    write_preview(clip, nothing, tmp_path / "p.mp4", reporter=Reporter())
    with av.open(str(tmp_path / "p.mp4")) as movie:
        picture = next(movie.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    expected = clip.rgb8(0).reshape(-1, 3).mean(axis=0) * 0.82  # as drawing darkens the plate
    np.testing.assert_allclose(picture.reshape(-1, 3).mean(axis=0), expected, atol=2.5)


@pytest.mark.parametrize("fps", [0.0, float("nan"), 1e6])
def test_a_clip_without_a_usable_rate_plays_at_24(
    tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks, fps: float
) -> None:
    write_preview(make_clip(num_frames=2, fps=fps), make_tracks(5, 2), tmp_path / "p.mp4", reporter=Reporter())
    with av.open(str(tmp_path / "p.mp4")) as movie:
        assert movie.streams.video[0].average_rate == 24


def test_the_same_tracks_give_the_same_file(tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_preview(make_clip(), make_tracks(), tmp_path / name, reporter=Reporter(), max_tracks=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_cancelling_leaves_the_old_movie_and_nothing_else(
    tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "p.mp4").write_bytes(b"old")
    with pytest.raises(Cancelled):
        write_preview(make_clip(), make_tracks(), out / "p.mp4", reporter=Reporter(cancelled=lambda: True))
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [("p.mp4", b"old")]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from omnimotion_core.errors import OmniMotionError
from omnimotion_core.events import Reporter
from omnimotion_core.export.preview import write_preview
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
clip = Clip(folder=Path(sys.argv[1]), name="a", path="a", sha256="", size=(96, 64), working_size=(96, 64), num_frames=6,
            first_frame=1, clip_first_frame=1, fps=24.0)
tracks = Tracks(queries=np.zeros((0, 3)), positions=np.zeros((0, 6, 2)), visible=np.zeros((0, 6), bool),
                confidence=np.zeros((0, 6)), depth=np.zeros((0, 6)), size=(96, 64), first_frame=1, fps=24.0)
try:
    write_preview(clip, tracks, Path(sys.argv[2]), reporter=Reporter())
except OmniMotionError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limits")
def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, make_clip: MakeClip, root: Path) -> None:
    clip, path = make_clip(), tmp_path / "out" / "p.mp4"
    command = [sys.executable, "-c", FULL_DISK, str(clip.folder), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=root)
    assert "cannot be written" in done.stdout, done
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_is_told(tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((ExportError, RunError), match="cannot be written"):
        write_preview(make_clip(), make_tracks(), tmp_path / "file" / "p.mp4", reporter=Reporter())
