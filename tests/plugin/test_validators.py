"""Each validator finds a file that is wrong in just its way, and no other validator complains of it."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyblish.api
import pyblish.plugin
import pyblish.util
import pytest

from omnimotion_core.events import Event, Reporter, Warned
from omnimotion_core.export.exr import read_exr, write_exr
from omnimotion_core.export.motion_vectors import PRESETS
from omnimotion_core.publishing.instances import variant_of
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.runner import load_plugins, plugin_folder, publish
from omnimotion_core.publishing.sequences import find_sequences
from omnimotion_core.run import RunFolder
from omnimotion_core.trajectories.tracks import Tracks

from .conftest import (
    FIRST,
    FRAMES,
    HEIGHT,
    WIDTH,
    MakeRun,
    PublishBare,
    content,
    errors_of,
    make_tracks,
    warnings_of,
)  # fmt: skip

KEPT = ("te/", "framesPerSecond", "colorInteropID")


def vectors(run: RunFolder, frame: int) -> Path:
    return run.exr / "blender" / f"shot.blender.{frame}.exr"


def rewrite(
    path: Path, change: Callable[[dict[str, np.ndarray]], Any] = lambda channels: None, *, pixel_aspect: float = 2.0,
    finite: bool = True, **attributes: Any,
) -> None:  # fmt: skip
    """Write a file again with other content; ``te_run=…`` replaces the header's ``te/run``."""
    file = read_exr(path)
    channels = {name: values.copy() for name, values in file.channels.items()}
    change(channels)
    header = {name: value for name, value in file.attributes.items() if name.startswith(KEPT)}
    header["framesPerSecond"] = Fraction(24)
    header |= {name.replace("te_", "te/"): value for name, value in attributes.items()}
    if finite:
        write_exr(path, channels, header, pixel_aspect=pixel_aspect)
        return
    import OpenEXR  # what no writer of ours lets pass

    with OpenEXR.File({**header, "type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION,
                       "pixelAspectRatio": pixel_aspect}, channels) as out:  # fmt: skip
        out.write(str(path))




@pytest.fixture
def refused(publish_bare: PublishBare, tmp_path: Path) -> Callable[[RunFolder, str], str]:
    """What the one plug-in tells that refuses a run; nothing is published."""

    def refuse(run: RunFolder, plugin: str) -> str:
        context = publish_bare(run, publishDir=str(tmp_path / "out"))
        errors = errors_of(context)
        assert set(errors) == {plugin}, errors
        (error,) = (one["error"] for one in context.data["results"] if one["error"] is not None)
        if plugin.startswith("Validate"):
            assert isinstance(error, PublishValidationError)
            assert error.title
            assert error.description
            assert error.message == str(error)
        assert not (tmp_path / "out").exists()
        return errors[plugin]

    return refuse


Refused = Callable[[RunFolder, str], str]


def test_a_missing_frame(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    vectors(run, FIRST + 2).unlink()
    assert f"shot.blender: frames are missing ({FIRST + 2}); " in refused(run, "ValidateFrameRange")


def test_a_frame_too_many(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    rewrite(vectors(run, FIRST), te_frame=FIRST - 1)
    os.rename(vectors(run, FIRST), vectors(run, FIRST - 1))
    told = refused(run, "ValidateFrameRange")
    assert f"frames are missing ({FIRST}), frames are not in the clip ({FIRST - 1})" in told


def test_a_file_of_another_frame_than_its_name_says(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    rewrite(vectors(run, FIRST + 1), te_frame=FIRST + 2)
    assert f"of other frames than their names say ({FIRST + 1})" in refused(run, "ValidateFrameRange")


def test_a_truncated_file(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    path = vectors(run, FIRST + 1)
    path.write_bytes(path.read_bytes()[:900])
    assert path.name in refused(run, "ValidateReadable")


def test_a_missing_channel(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    rewrite(vectors(run, FIRST + 1), lambda channels: channels.pop("Vector.Z"))
    assert "has no channel 'Vector.Z'" in refused(run, "ValidateReadable")


def test_channels_that_only_some_frames_have(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    rewrite(vectors(run, FIRST + 1), lambda channels: channels.update(extra=channels["Vector.X"]))
    assert f"frames {FIRST + 1} have other channels" in refused(run, "ValidateReadable")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number(make_run: MakeRun, refused: Refused, value: float) -> None:
    run = make_run()

    def spoil(channels: dict[str, np.ndarray]) -> None:
        channels["confidence.Y"][3, 4] = value

    rewrite(vectors(run, FIRST + 1), spoil, finite=False)
    assert f"channel confidence.Y of frame {FIRST + 1}" in refused(run, "ValidateFinite")


def test_a_size_other_than_the_plate_s(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    for t in range(FRAMES):
        rewrite(vectors(run, FIRST + t), lambda channels: channels.update({k: v[:-1] for k, v in channels.items()}))
    assert f"is {WIDTH}x{HEIGHT - 1} with pixel aspect 2, the plate is {WIDTH}x{HEIGHT} with 2" in refused(
        run, "ValidateResolution"
    )


def test_another_pixel_aspect(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    rewrite(vectors(run, FIRST + 1), pixel_aspect=1.0)
    assert f"frame {FIRST + 1} is" in refused(run, "ValidateResolution")


def test_a_vector_longer_than_the_plate_s_diagonal(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()

    def spoil(channels: dict[str, np.ndarray]) -> None:
        channels["Vector.Z"][3, 4] = 60

    rewrite(vectors(run, FIRST + 1), spoil)
    told = refused(run, "ValidateVectorsBounded")
    assert f"a vector of frame {FIRST + 1} is 60 px long, the plate's diagonal is 58 px" in told


@pytest.mark.parametrize("channel", ["Vector.Z", "Vector.W"])
def test_a_direction_with_the_wrong_sign(make_run: MakeRun, refused: Refused, channel: str) -> None:
    run = make_run()
    rewrite(vectors(run, FIRST + 1), lambda channels: channels.update({channel: -channels[channel]}))
    assert f"from frame {FIRST + 1} to the next and back" in refused(run, "ValidateVectorsConsistent")


def test_a_frame_without_its_backward_vectors(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    zero = np.zeros((HEIGHT, WIDTH), np.float32)
    rewrite(vectors(run, FIRST + 2), lambda channels: channels.update({"Vector.X": zero, "Vector.Y": zero}))
    assert f"from frame {FIRST + 1} to the next and back, points miss their own place by 4.5 px" in refused(
        run, "ValidateVectorsConsistent"
    )


def test_files_that_hold_one_direction_alone_are_fine(
    make_run: MakeRun, publish_bare: PublishBare, tmp_path: Path
) -> None:
    run = make_run()
    zero = np.zeros((HEIGHT, WIDTH), np.float32)
    for t in range(FRAMES):
        rewrite(vectors(run, FIRST + t), lambda channels: channels.update({"Vector.X": zero, "Vector.Y": zero}))
    assert errors_of(publish_bare(run, publishDir=str(tmp_path / "out"))) == {}


@pytest.mark.parametrize("channel", ["visibility.Y", "confidence.Y"])
@pytest.mark.parametrize("value", [-0.25, 1.5])
def test_visibility_and_confidence_out_of_range(
    make_run: MakeRun, refused: Refused, channel: str, value: float
) -> None:
    run = make_run()

    def spoil(channels: dict[str, np.ndarray]) -> None:
        channels[channel][3, 4] = value

    rewrite(vectors(run, FIRST + 1), spoil)
    assert f"{channel[:-2]} of frame {FIRST + 1} reaches from" in refused(run, "ValidateVisibility")


@pytest.mark.parametrize(("name", "words"), [("te_clip_sha256", "of another clip"), ("te_run", "another fit")])
def test_a_file_of_another_clip_or_run(make_run: MakeRun, refused: Refused, name: str, words: str) -> None:
    run = make_run()
    attributes: dict[str, Any] = {name: "other"}
    rewrite(vectors(run, FIRST + 1), **attributes)
    told = refused(run, "ValidateOrigin")
    assert f"frames {FIRST + 1} were made of" in told
    assert words in told


def test_files_of_two_versions_of_the_program(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    rewrite(vectors(run, FIRST + 1), te_version="0.0.1")
    assert "several versions of omnimotion" in refused(run, "ValidateOrigin")


def test_files_of_another_version_than_the_tracks_are_told(
    make_run: MakeRun, publish_bare: PublishBare, tmp_path: Path
) -> None:
    run = make_run()
    run.manifest["packages"]["omnimotion"] = "0.0.1"
    run.write()
    context = publish_bare(run, publishDir=str(tmp_path / "out"))
    assert errors_of(context) == {}
    assert any("the tracks from 0.0.1" in line for line in warnings_of(context))


def test_working_frames_of_another_clip(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    record = run.frames / "frames.json"
    record.write_text(record.read_text().replace(run.clip["sha256"], "0" * 64))
    assert "the working frames are of another clip" in refused(run, "ValidateOrigin")


def test_footage_that_has_changed(make_run: MakeRun, refused: Refused, tmp_path: Path) -> None:
    run = make_run()
    (tmp_path / "footage" / f"shot.{FIRST + 1}.png").write_bytes(b"graded")
    assert "has changed since it was tracked" in refused(run, "ValidateFootage")


def test_a_link_out_of_the_run_folder(make_run: MakeRun, refused: Refused, tmp_path: Path) -> None:
    run = make_run()
    os.rename(vectors(run, FIRST + 1), tmp_path / "elsewhere.exr")
    vectors(run, FIRST + 1).symlink_to(tmp_path / "elsewhere.exr")
    assert "is a link or no file" in refused(run, "ValidateStaging")


def test_a_linked_folder_out_of_the_run_folder(make_run: MakeRun, refused: Refused, tmp_path: Path) -> None:
    run = make_run()
    os.rename(run.exr / "blender", tmp_path / "elsewhere")
    (run.exr / "blender").symlink_to(tmp_path / "elsewhere")
    assert "is outside of the run folder" in refused(run, "ValidateStaging")


def test_an_empty_preview(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    run.preview.write_bytes(b"")
    assert "preview.mp4 is empty (0 bytes)" in refused(run, "ValidateStaging")


@pytest.mark.parametrize("name", ["../tracks.npz", "/etc/hostname", "sub/file.exr"])
def test_a_representation_that_names_a_folder(make_run: MakeRun, host: None, tmp_path: Path, name: str) -> None:
    context = pyblish.api.Context()
    context.data.update(runFolder=str(make_run().path), publishDir=str(tmp_path / "out"))
    pyblish.util.collect(context)
    context[0].data["representations"][0]["files"] = [name]
    pyblish.util.publish(context, [one for one in pyblish.api.discover() if one.order >= 0.5])
    assert set(errors_of(context)) == {"ValidateStaging"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tracks: {"first_frame": FIRST + 1}, f"cover {FRAMES} frames from {FIRST + 1} on"),
        (lambda tracks: {"size": (WIDTH, HEIGHT + 1)}, f"of a plate of {WIDTH}x{HEIGHT + 1}"),
        (lambda tracks: {"confidence": tracks.confidence + 1}, "confidence is not in 0..1"),
        (lambda tracks: {"positions": tracks.positions * np.float32(np.nan)}, "has no position"),
    ],
)  # fmt: skip
def test_tracks_that_do_not_fit(
    make_run: MakeRun, refused: Refused, change: Callable[[Tracks], dict[str, Any]], words: str
) -> None:
    run, tracks = make_run(), make_tracks()
    Tracks(**{**vars(tracks), **change(tracks)}).save(run.tracks)
    assert words in refused(run, "ValidateTracks")


def test_damaged_markers(make_run: MakeRun, refused: Refused) -> None:
    run = make_run()
    run.markers.write_text("{")
    assert "cannot be read as markers" in refused(run, "ValidateTracks")


# --- what is fine


def test_footage_that_was_moved_is_one_warning_and_no_error(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from omnimotion_core import cli

    run = make_run()
    (tmp_path / "footage").rename(tmp_path / "archive")
    assert cli.main(["publish", str(run.path), "--out", str(tmp_path / "out")]) == cli.DONE
    warnings = [line for line in "".join(capfd.readouterr()).splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert f"shot.{FIRST}.png is not there any more" in warnings[0]


def test_pictures_that_are_no_vectors_are_published_as_images(
    make_run: MakeRun, publish_bare: PublishBare, tmp_path: Path
) -> None:
    run = make_run()
    for t in range(FRAMES):
        path = run.exr / "stmap" / f"shot.stmap.from_1003.{FIRST + t}.exr"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(vectors(run, FIRST + t).read_bytes())
        rewrite(path, lambda channels: channels.pop("Vector.W"), te_preset="stmap")
    context = publish_bare(run, publishDir=str(tmp_path / "out"))
    assert errors_of(context) == {}
    (stmap,) = (one for one in context if one.data["productName"] == "imageStmapFrom1003")
    assert "motionvector" not in stmap.data["families"]
    assert "imageStmapFrom1003/shot.stmap.from_1003.1004.exr" in content(Path(context.data["publishedVersion"]))


def test_folders_without_exr_files_are_told(make_run: MakeRun, publish_bare: PublishBare, tmp_path: Path) -> None:
    run = make_run()
    (run.exr / "flo").mkdir()
    (run.exr / "flo" / "shot.flo.1003_1004.flo").write_bytes(b"PIEH")
    context = publish_bare(run, publishDir=str(tmp_path / "out"))
    assert errors_of(context) == {}
    assert any("flo holds no EXR files and is not published" in line for line in warnings_of(context))


def test_frames_are_told_from_names_as_the_writers_write_them(tmp_path: Path) -> None:
    folder = tmp_path / "blender"
    folder.mkdir()
    numbers = (-1001, -5, 0, 7, 999, 123456)
    for name in (*(f"a.b.blender.{number:04d}.exr" for number in numbers), ".a.1001.exr", "a.12.exr", "a.1001.png"):
        (folder / name).write_bytes(b"")
    (tmp_path / ".nuke.replaced").mkdir()
    (tmp_path / ".nuke.replaced" / "a.nuke.1001.exr").write_bytes(b"")
    (sequence,) = find_sequences(tmp_path)
    assert (sequence.stem, tuple(sequence.files)) == ("a.b.blender", numbers)
    assert find_sequences(tmp_path / "absent") == []


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_s_files_pass(
    make_run: MakeRun, publish_bare: PublishBare, tmp_path: Path, preset: str
) -> None:
    run = make_run(presets=(preset,))
    context = publish_bare(run, publishDir=str(tmp_path / "out"))
    assert errors_of(context) == {}
    as_exr = any((run.exr / preset).glob("*.exr"))
    names = [one.data["productName"] for one in context]
    assert (f"motionvector{variant_of(preset)}" in names) == as_exr


# --- repair


def validator(name: str) -> Any:
    return next(one for one in load_plugins([plugin_folder()]) if one.__name__ == name)


def test_what_can_be_exported_again_offers_it(host: None) -> None:
    with_action = {one.__name__ for one in load_plugins([plugin_folder()]) if one.actions}
    assert with_action == {
        "ValidateReadable", "ValidateFrameRange", "ValidateFinite", "ValidateResolution", "ValidateVectorsBounded",
        "ValidateVectorsConsistent", "ValidateVisibility", "ValidateOrigin",
    }  # fmt: skip


def test_repair_exports_again_and_the_validator_then_passes(
    make_run: MakeRun, host: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    whole = {path.name: path.read_bytes() for path in (run.exr / "blender").iterdir()}
    rewrite(vectors(run, FIRST + 1), lambda channels: channels.pop("Vector.Z"))
    vectors(run, FIRST + 2).unlink()
    exported = []

    def export(folder: Path, kind: str) -> None:  # the export has tests of its own; a run without a field has none
        exported.append((folder, kind))
        assert not (run.exr / "blender").exists(), "export would keep the wrong files"
        (run.exr / "blender").mkdir()
        for name, data in whole.items():
            (run.exr / "blender" / name).write_bytes(data)

    monkeypatch.setattr("omnimotion_core.publishing.repair._export", export)
    context = pyblish.api.Context()
    context.data["runFolder"] = str(run.path)
    pyblish.util.collect(context)
    pyblish.util.validate(context)
    assert set(errors_of(context)) == {"ValidateReadable", "ValidateFrameRange"}
    plugin = next(one["plugin"] for one in context.data["results"] if one["plugin"].__name__ == "ValidateReadable")
    result = pyblish.plugin.process(plugin, context, None, plugin.actions[0].id)
    assert result["error"] is None
    assert exported == [(run.path, "vectors:blender")]
    context.data["results"] = []
    pyblish.util.validate(context)
    assert errors_of(context) == {}
    assert {path.name for path in run.exr.iterdir()} == {"blender"}


def test_a_repair_that_fails_leaves_the_files_as_they_were(make_run: MakeRun, host: None) -> None:
    run = make_run()
    vectors(run, FIRST + 2).unlink()
    before = {path.name: path.read_bytes() for path in (run.exr / "blender").iterdir()}
    context = pyblish.api.Context()
    context.data["runFolder"] = str(run.path)
    pyblish.util.collect(context)
    pyblish.util.validate(context)
    (plugin,) = (one["plugin"] for one in context.data["results"] if one["error"])
    result = pyblish.plugin.process(plugin, context, None, plugin.actions[0].id)  # this run has no fitted field
    assert "vectors:blender could not be exported again (" in str(result["error"])
    assert {path.name: path.read_bytes() for path in (run.exr / "blender").iterdir()} == before
    assert {path.name for path in run.exr.iterdir()} == {"blender"}


def test_the_runner_repairs_where_it_is_asked_to(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, exports = make_run(), []
    whole = {path.name: path.read_bytes() for path in (run.exr / "blender").iterdir()}
    rewrite(vectors(run, FIRST + 1), te_run="other")
    vectors(run, FIRST + 2).unlink()

    def export(folder: Path, kind: str) -> None:
        exports.append(kind)
        (run.exr / "blender").mkdir()
        for name, data in whole.items():
            (run.exr / "blender" / name).write_bytes(data)

    monkeypatch.setattr("omnimotion_core.publishing.repair._export", export)
    refused = publish(run.path, tmp_path / "out", reporter=Reporter())
    assert len(refused.errors) == 2
    assert exports == []
    mended = publish(run.path, tmp_path / "out", reporter=Reporter(), repair=True)
    assert (mended.errors, mended.version) == ((), tmp_path / "out" / "shot" / "v001")
    assert exports == ["vectors:blender"], "one export mends for both validators"


def test_a_repair_that_fails_is_told_and_nothing_is_published(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    vectors(run, FIRST + 2).unlink()
    events: list[Event] = []
    outcome = publish(run.path, tmp_path / "out", reporter=Reporter(events.append), repair=True)
    assert outcome.version is None
    told = [event.message for event in events if isinstance(event, Warned)]
    assert any("vectors:blender could not be exported again" in line for line in told)
    assert not (tmp_path / "out").exists()


def test_what_an_export_cannot_mend_is_not_tried(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    vectors(run, FIRST + 2).unlink()
    run.markers.write_text("{")
    monkeypatch.setattr("omnimotion_core.publishing.repair._export", lambda *_: pytest.fail("exported"))
    assert len(publish(run.path, tmp_path / "out", reporter=Reporter(), repair=True).errors) == 2
