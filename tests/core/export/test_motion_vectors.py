import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813 - its own documentation calls it so
import pytest

from omnimotion_core.config import ExportConfig
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Cancelled, Event, Progress, Reporter
from omnimotion_core.export.exr import read_exr
from omnimotion_core.export.flo import write_flo
from omnimotion_core.export.motion_vectors import PRESETS, frame_motion, read_motion_vectors, write_motion_vectors
from omnimotion_core.export.png import write_png
from omnimotion_core.trajectories.dense import DenseFlow
from omnimotion_core.video.clip import Clip

from .conftest import MakeClip
from .motions import read_with_oiio

ROOT = Path(__file__).resolve().parents[3]
Flow = Callable[[int, int], DenseFlow]


def drifting(dx: float, dy: float, size: tuple[int, int] = (96, 64)) -> Flow:
    """Everything moves by (dx, dy) pixels a frame, y down; the left half is hidden in every later frame."""

    def flow(source: int, target: int) -> DenseFlow:
        shape = (size[1], size[0])
        visible = np.ones(shape, bool)
        visible[:, : size[0] // 2] = target < source
        return DenseFlow(
            source=source, target=target, visible=visible,
            vectors=np.full((*shape, 2), (dx, dy), np.float32) * np.float32(target - source),
            confidence=np.full(shape, 0.75 if target > source else 0.5, np.float32), depth=np.ones(shape, np.float32),
        )  # fmt: skip

    return flow


def noisy(size: tuple[int, int] = (96, 64)) -> Flow:
    """Other vectors, visibility and confidence at every pixel and for every pair of frames."""

    def flow(source: int, target: int) -> DenseFlow:
        rng = np.random.default_rng([source, target])
        shape = (size[1], size[0])
        return DenseFlow(
            source=source, target=target, vectors=rng.normal(0, 9, (*shape, 2)).astype(np.float32),
            visible=rng.random(shape) < 0.5, confidence=rng.random(shape).astype(np.float32),
            depth=np.ones(shape, np.float32),
        )  # fmt: skip

    return flow


def write(flow: Flow, clip: Clip, folder: Path, **options: object) -> list[Path]:
    settings: dict[str, object] = {
        "preset": "blender", "reporter": Reporter(), "tool_version": "1.2.3", "run_digest": "d1",
    }  # fmt: skip
    return write_motion_vectors(flow, clip, folder, **(settings | options))  # type: ignore[arg-type]


def test_right_and_down_by_4_and_2_pixels_as_blender_s_own_vector_pass_has_it(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    paths = write(drifting(4.0, 2.0), make_clip(), tmp_path / "out")
    file = oiio.ImageInput.open(str(paths[2]))
    pixels, spec = file.read_image(oiio.FLOAT), file.spec()
    assert not file.seek_subimage(1, 0), "one part only: Blender 4.2 cannot read more"
    file.close()
    assert pixels is not None
    values = {name: pixels[10, 20, index] for index, name in enumerate(spec.channelnames)}
    assert values == {  # y up: previous - current, current - next
        "Vector.X": -4.0, "Vector.Y": 2.0, "Vector.Z": -4.0, "Vector.W": 2.0,
        "visibility.Y": 0.0, "confidence.Y": 0.5,
    }  # fmt: skip
    assert pixels[10, 60, spec.channelnames.index("visibility.Y")] == 1.0


def test_no_group_has_two_channels_since_old_blenders_read_rubbish_from_it(make_clip: MakeClip) -> None:
    groups = [name.rpartition(".")[0] for name in PRESETS["blender"].to_channels(frame_motion(noisy(), make_clip(), 2))]
    assert {group: groups.count(group) for group in groups} == {"Vector": 4, "visibility": 1, "confidence": 1}


def test_files_are_named_by_the_source_s_frame_numbers(tmp_path: Path, make_clip: MakeClip) -> None:
    paths = write(noisy(), make_clip(num_frames=2, first_frame=7), tmp_path / "out")
    assert [path.name for path in paths] == ["shot.blender.0007.exr", "shot.blender.0008.exr"]
    assert all(path.is_file() for path in paths)
    paths = write(noisy(), make_clip(num_frames=2, first_frame=99999), tmp_path / "out")
    assert [path.name for path in paths] == ["shot.blender.99999.exr", "shot.blender.100000.exr"]


def test_ends_and_cuts_have_no_vectors_across(tmp_path: Path, make_clip: MakeClip) -> None:
    asked: list[tuple[int, int]] = []

    def flow(source: int, target: int) -> DenseFlow:
        asked.append((source, target))
        return noisy()(source, target)

    clip = make_clip(cuts=(2, 3))  # shots 0-1, 2, 3-5
    motions = [read_motion_vectors(path) for path in write(flow, clip, tmp_path / "out")]
    assert sorted(asked) == [(0, 1), (1, 0), (3, 4), (4, 3), (4, 5), (5, 4)]
    assert [motion.has_next for motion in motions] == [True, False, False, True, True, False]
    assert [motion.has_previous for motion in motions] == [False, True, False, False, True, True]
    for motion in motions:
        assert bool(motion.forward.any()) == motion.has_next
        assert bool(motion.backward.any()) == motion.has_previous
    assert not motions[2].visibility.any()
    assert not motions[2].confidence.any()
    np.testing.assert_array_equal(motions[1].visibility, noisy()(1, 0).visible)  # the only neighbor decides


def test_files_give_the_canonical_motion_back_to_the_bit(tmp_path: Path, make_clip: MakeClip) -> None:
    clip = make_clip()
    path = write(noisy(), clip, tmp_path / "out")[3]
    back, flow = read_motion_vectors(path), noisy()
    np.testing.assert_array_equal(back.forward, flow(3, 4).vectors)
    np.testing.assert_array_equal(back.backward, flow(3, 2).vectors)
    np.testing.assert_array_equal(back.visibility, flow(3, 4).visible & flow(3, 2).visible)
    np.testing.assert_array_equal(back.confidence, np.minimum(flow(3, 4).confidence, flow(3, 2).confidence))


def test_the_header_says_where_the_vectors_come_from(tmp_path: Path, make_clip: MakeClip) -> None:
    path = write(noisy(), make_clip(fps=23.976, pixel_aspect=2.0), tmp_path / "out")[1]
    header = read_exr(path).attributes
    expected = {
        "te/version": "1.2.3", "te/run": "d1", "te/preset": "blender", "te/clip_sha256": "ab" * 32, "te/frame": 1002,
        "te/source_range": "1001-1006", "te/units": "pixels", "te/y_axis": "up", "te/neighbors": "next,previous",
        "te/direction": "XY previous-current, ZW current-next", "framesPerSecond": Fraction(24000, 1001),
        "pixelAspectRatio": 2.0, "colorInteropID": "data",
    }  # fmt: skip
    assert {name: header.get(name) for name in expected} == expected


def test_an_unknown_frame_rate_is_left_out(tmp_path: Path, make_clip: MakeClip) -> None:
    path = write(noisy(), make_clip(fps=0.0), tmp_path / "out")[0]
    assert "framesPerSecond" not in read_exr(path).attributes


def test_whole_files_of_the_same_run_are_kept_and_others_written_again(tmp_path: Path, make_clip: MakeClip) -> None:
    clip, folder = make_clip(), tmp_path / "out"
    paths = write(noisy(), clip, folder)
    contents = [path.read_bytes() for path in paths]
    paths[1].unlink()
    paths[2].write_bytes(contents[2][: len(contents[2]) // 2])
    paths[4].write_bytes(contents[3])  # another frame's
    stamps = [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]
    asked: set[int] = set()

    def flow(source: int, target: int) -> DenseFlow:
        asked.add(source)
        return noisy()(source, target)

    write(flow, clip, folder)
    assert asked == {1, 2, 4}
    assert [path.read_bytes() for path in paths] == contents
    assert [path.stat().st_mtime_ns for index, path in enumerate(paths) if index not in asked] == [
        stamp for index, stamp in enumerate(stamps) if index not in asked
    ]
    asked.clear()
    write(flow, clip, folder, run_digest="d2")
    assert asked == set(range(6))


def test_cancelling_keeps_whole_files_only_and_tells_how_far_it_was(tmp_path: Path, make_clip: MakeClip) -> None:
    events: list[Event] = []
    reporter = Reporter(events.append, lambda: len(events) >= 2)
    with pytest.raises(Cancelled):
        write(noisy(), make_clip(), tmp_path / "out", reporter=reporter)
    assert events == [Progress(stage="export", done=done, total=6) for done in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"shot.blender.100{n}.exr" for n in (1, 2)]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_part_of_the_frames_is_what_the_whole_has(tmp_path: Path, make_clip: MakeClip, preset: str) -> None:
    clip, events = make_clip(), list[Event]()
    whole = write(noisy(), clip, tmp_path / "whole", preset=preset)
    for chunk in ([5, 0], [1, 2], [4, 3]):
        write(noisy(), clip, tmp_path / "parts", preset=preset, frames=chunk, reporter=Reporter(events.append))
    assert {path.name: path.read_bytes() for path in (tmp_path / "parts").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }
    assert {path.name for path in whole} <= {path.name for path in (tmp_path / "parts").iterdir()}
    assert [event for event in events if isinstance(event, Progress)] == [
        Progress(stage="export", done=done, total=2) for done in (1, 2, 1, 2, 1, 2)
    ]
    assert write(noisy(), clip, tmp_path / "none", preset=preset, frames=[]) == []
    with pytest.raises(ExportError, match="frame 6 is not in the clip; give frames from 0 to 5"):
        write(noisy(), clip, tmp_path / "none", preset=preset, frames=[3, 6])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_whole_files_are_kept_whatever_the_preset(tmp_path: Path, make_clip: MakeClip, preset: str) -> None:
    clip, asked = make_clip(), set()

    def flow(source: int, target: int) -> DenseFlow:
        asked.add(source)
        return noisy()(source, target)

    paths = write(flow, clip, tmp_path, preset=preset)
    contents = {path: path.read_bytes() for path in paths}
    asked.clear()
    write(flow, clip, tmp_path, preset=preset)
    assert asked == set()
    paths[-1].write_bytes(contents[paths[-1]][:-30])
    write(flow, clip, tmp_path, preset=preset)
    assert asked == {5}
    assert {path: path.read_bytes() for path in paths} == contents
    asked.clear()
    write(flow, make_clip(sha256="cd" * 32), tmp_path, preset=preset, frames=[2])
    assert asked == {2}


@pytest.mark.parametrize(
    ("preset", "settings"),
    [("nuke", ExportConfig(compression="PIZ")), ("nuke", ExportConfig(multipart=True)),
     ("rsmb", ExportConfig(max_displace=100.1)), ("rsmb-16", ExportConfig(max_displace=100.1)),
     ("nuke-smartvector", ExportConfig(flip_v=True))],
)  # fmt: skip
def test_another_layout_has_the_files_written_again_once(
    tmp_path: Path, make_clip: MakeClip, preset: str, settings: ExportConfig
) -> None:
    path = write(noisy(), make_clip(), tmp_path, preset=preset, frames=[2])[0]
    before = path.read_bytes()
    write(noisy(), make_clip(), tmp_path, preset=preset, frames=[2], settings=settings)
    assert path.read_bytes() != before
    stamp = path.stat().st_mtime_ns
    write(noisy(), make_clip(), tmp_path, preset=preset, frames=[2], settings=settings)
    assert path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("compression", ["DWAA", "B44", "zip"])
def test_compressions_that_harm_data_are_refused_before_anything_is_made(
    tmp_path: Path, make_clip: MakeClip, compression: str
) -> None:
    with pytest.raises(ExportError, match="may damage data or is unknown"):
        write(noisy(), make_clip(), tmp_path / "out", settings=ExportConfig(compression=compression))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_shot_of_one_frame_has_no_motion_and_nothing_seen(
    tmp_path: Path, make_clip: MakeClip, preset: str
) -> None:
    paths = write(noisy(), make_clip(cuts=(2, 3)), tmp_path, preset=preset, frames=[2])
    if preset == "flo":
        assert paths == []  # there is no pair of frames
        return
    for path in paths:
        if PRESETS[preset].container == "exr":
            motion = read_motion_vectors(path)
            assert not motion.forward.any()
            assert not motion.backward.any()
            assert not motion.visibility.any()
            np.testing.assert_array_equal(read_exr(path).attributes["te/neighbors"], "")
        else:
            channels, _ = read_with_oiio(path, "uint16")
            assert not channels["A"].any()
        if PRESETS[preset].with_depth:
            np.testing.assert_array_equal(read_exr(path).channels["depth.Z"], 1.0)  # depth needs no neighbor


def full_disk(path: Path) -> str:
    """What a writer tells when no file may grow beyond 5000 bytes, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60,
                          check=True, cwd=ROOT)  # fmt: skip
    return done.stdout


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from omnimotion_core.errors import ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.export.flo import write_flo
from omnimotion_core.export.png import write_png
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
rng, folder = np.random.default_rng(0), Path(sys.argv[1])
for write in (lambda: write_png(folder / "a.png", rng.integers(0, 65535, (80, 80, 4)).astype(np.uint16), {}),
              lambda: write_flo(folder / "a.flo", rng.random((80, 80, 2)).astype(np.float32), {})):
    try:
        write()
    except ExportError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limits")
def test_a_disk_that_is_full_in_mid_write_leaves_the_old_files_and_nothing_else(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((4, 4, 4), np.uint16), {})
    write_flo(tmp_path / "a.flo", np.zeros((4, 4, 2), np.float32), {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    told = full_disk(tmp_path)
    assert told.count("cannot be written") == 2, told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("preset", PRESETS)
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, make_clip: MakeClip, preset: str) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ExportError, match="cannot be written"):
        write(noisy(), make_clip(), tmp_path / "file" / "out", preset=preset)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "x"


def test_flow_that_is_not_finite_or_of_another_size_is_refused(tmp_path: Path, make_clip: MakeClip) -> None:
    def broken(source: int, target: int) -> DenseFlow:
        dense = noisy()(source, target)
        dense.vectors[0, 0, 0] = np.nan
        return dense

    for preset in PRESETS:
        with pytest.raises(ExportError, match="not finite"):
            write(broken, make_clip(), tmp_path / "out", preset=preset)
    assert not list((tmp_path / "out").glob("*"))
    with pytest.raises(ExportError, match="plate's resolution"):
        write(noisy((48, 32)), make_clip(), tmp_path / "out")


def test_an_unknown_preset_is_told(tmp_path: Path, make_clip: MakeClip) -> None:
    with pytest.raises(ExportError, match="use one of blender"):
        write_motion_vectors(noisy(), make_clip(), tmp_path, "nuk", reporter=Reporter(), tool_version="", run_digest="")


def test_an_exr_of_another_program_is_not_taken_for_ours(tmp_path: Path) -> None:
    file = oiio.ImageOutput.create(str(tmp_path / "a.exr"))
    file.open(str(tmp_path / "a.exr"), oiio.ImageSpec(4, 4, 3, oiio.FLOAT))
    file.write_image(np.zeros((4, 4, 3), np.float32))
    file.close()
    with pytest.raises(ExportError, match="te/preset"):
        read_motion_vectors(tmp_path / "a.exr")
