"""The whole way: from a bare host, by our runner and by the command line."""

import hashlib
import json
from pathlib import Path

import pyblish.api
import pytest

from omnimotion_core import cli
from omnimotion_core.events import Reporter
from omnimotion_core.publishing import runner

from .conftest import FIRST, FRAMES, MakeRun, PublishBare, content, errors_of


def test_a_bare_host_and_our_runner_publish_the_same(
    make_run: MakeRun, publish_bare: PublishBare, tmp_path: Path
) -> None:
    run = make_run()
    context = publish_bare(run, publishDir=str(tmp_path / "bare"), comment="first")
    assert errors_of(context) == {}
    outcome = runner.publish(run.path, tmp_path / "ours", reporter=Reporter(), comment="first")
    assert outcome.errors == ()
    bare, ours = Path(context.data["publishedVersion"]), outcome.version
    assert (bare, ours) == (tmp_path / "bare" / "shot" / "v001", tmp_path / "ours" / "shot" / "v001")
    assert ours is not None
    assert content(bare) == content(ours)


def test_a_version_holds_the_products_and_tells_of_every_file(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    version = runner.publish(run.path, tmp_path / "out", reporter=Reporter(), comment="hello").version
    assert version is not None
    names = {path.name for path in version.iterdir()}
    products = ["motionvectorBlender", "reviewMain", "trackpointsMain"]
    assert names == {*products, *(f"{name}_metadata.json" for name in products), "publish.json"}
    told = json.loads((version / "publish.json").read_text())
    assert (told["format"], told["publish_version"], told["comment"]) == ("omnimotion.publish", 1, "hello")
    assert told["clip"]["sha256"] == run.clip["sha256"]
    files = {name: facts for product in told["products"] for name, facts in product["files"].items()}
    there = {path.relative_to(version).as_posix() for path in version.glob("*/*")}
    assert set(files) == there
    for name, facts in files.items():
        data = (version / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    for path in (run.exr / "blender").iterdir():
        assert (version / "motionvectorBlender" / path.name).read_bytes() == path.read_bytes()
    assert (version / "trackpointsMain" / "shot.nuke.nk").is_file()
    assert list((tmp_path / "out" / "shot").glob(".staging*")) == []


def test_products_have_the_shape_that_ayon_reads(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    version = runner.publish(run.path, tmp_path / "out", reporter=Reporter()).version
    assert version is not None
    vectors = json.loads((version / "motionvectorBlender_metadata.json").read_text())
    assert {"user", "comment", "job", "instances", "version", "folderPath"} <= set(vectors)
    (instance,) = vectors["instances"]
    assert instance["family"] == "image"
    assert "motionvector" in instance["families"]
    assert (instance["frameStart"], instance["frameEnd"], instance["fps"]) == (FIRST, FIRST + FRAMES - 1, 24.0)
    assert (instance["frameStartHandle"], instance["frameEndHandle"]) == (FIRST, FIRST + FRAMES - 1)
    assert instance["pixelAspect"] == 2.0
    (exr,) = instance["representations"]
    assert (exr["name"], exr["ext"], exr["stagingDir"]) == ("exr", "exr", str(version / "motionvectorBlender"))
    assert exr["files"] == [f"shot.blender.{FIRST + t}.exr" for t in range(FRAMES)]
    tracks = json.loads((version / "trackpointsMain_metadata.json").read_text())["instances"][0]
    assert tracks["family"] == "trackpoints"
    assert {one["name"] for one in tracks["representations"]} >= {"npz", "markers", "nuke", "3de", "usd"}
    assert all(isinstance(one["files"], str) for one in tracks["representations"])  # one file is text, no list
    review = json.loads((version / "reviewMain_metadata.json").read_text())["instances"][0]
    assert [one["tags"] for one in review["representations"]] == [["review"], []]


def test_a_host_that_integrates_by_itself_gets_staged_files(make_run: MakeRun, publish_bare: PublishBare) -> None:
    context = publish_bare(make_run())
    assert errors_of(context) == {}
    assert "publishedVersion" not in context.data
    for instance in context:
        for one in instance.data["representations"]:
            names = [one["files"]] if isinstance(one["files"], str) else one["files"]
            assert all((Path(one["stagingDir"]) / name).is_file() for name in names)
            assert all(Path(name).name == name for name in names)


def test_a_host_s_own_staging_folder_is_taken(make_run: MakeRun, host: None, tmp_path: Path) -> None:
    context = pyblish.api.Context()
    context.data["runFolder"] = str(make_run().path)
    pyblish.util.collect(context)
    for instance in context:
        instance.data["stagingDir"] = str(tmp_path / "staging" / instance.name)
    pyblish.util.publish(context, [one for one in pyblish.api.discover() if one.order >= 0.5])
    assert errors_of(context) == {}
    assert {path.name for path in (tmp_path / "staging").iterdir()} == {instance.name for instance in context}
    assert (tmp_path / "staging" / "trackpointsMain" / "shot.nuke.nk").is_file()


def test_a_second_try_in_the_same_context_counts(make_run: MakeRun, host: None, tmp_path: Path) -> None:
    run = make_run()
    whole = run.markers.read_bytes()
    run.markers.write_text("{")
    context = pyblish.api.Context()
    context.data.update(runFolder=str(run.path), publishDir=str(tmp_path / "out"))
    pyblish.util.publish(context)
    assert set(errors_of(context)) == {"ValidateTracks"}
    run.markers.write_bytes(whole)
    pyblish.util.publish(context, [one for one in pyblish.api.discover() if one.order >= 0.5])
    assert (tmp_path / "out" / "shot" / "v001" / "publish.json").is_file()


def test_the_run_is_named_by_a_variable_where_the_context_names_none(
    make_run: MakeRun, host: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIMOTION_RUN", str(make_run().path))
    monkeypatch.setenv("OMNIMOTION_PUBLISH_DIR", str(tmp_path / "out"))
    context = pyblish.util.publish()
    assert errors_of(context) == {}
    assert (tmp_path / "out" / "shot" / "v001" / "publish.json").is_file()


def test_a_bare_host_without_a_run_folder_gets_one_error(host: None) -> None:
    context = pyblish.util.publish()
    assert set(errors_of(context)) == {"CollectRun", "IntegrateVersion"}
    assert "no run folder is named" in errors_of(context)["CollectRun"]


def test_what_is_switched_off_is_not_published(make_run: MakeRun, host: None, tmp_path: Path) -> None:
    context = pyblish.api.Context()
    context.data.update(runFolder=str(make_run().path), publishDir=str(tmp_path / "out"))
    pyblish.util.collect(context)
    for instance in context:
        instance.data["publish"] = instance.data["productName"] == "trackpointsMain"
    plugins = [one for one in pyblish.api.discover() if one.order >= 0.5]
    pyblish.util.publish(context, plugins)
    version = tmp_path / "out" / "shot" / "v001"
    assert {path.name for path in version.iterdir() if path.is_dir()} == {"trackpointsMain"}


# --- the command


def test_the_command_publishes_and_tells_where(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    assert cli.main(["publish", str(run.path), "--out", str(tmp_path / "out")]) == cli.DONE
    assert f"publish: {tmp_path / 'out' / 'shot' / 'v001'}" in "".join(capfd.readouterr())


def test_errors_are_a_line_each_and_exit_one(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    (run.exr / "blender" / "shot.blender.1005.exr").unlink()
    run.tracks.write_bytes(b"")
    capfd.readouterr()
    assert cli.main(["publish", str(run.path), "--out", str(tmp_path / "out")]) == 1
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("omnimotion: ")]
    assert len(lines) == 4
    assert any("Frame range, motionvectorBlender: shot.blender: frames are missing (1005); delete " in line
               for line in lines)  # fmt: skip
    assert any("Tracks, trackpointsMain: " in line for line in lines)
    assert "3 of" in lines[-1]
    assert "steps failed" in lines[-1]
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").exists()


def test_events_tell_the_errors_and_end_with_one(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    (run.exr / "blender" / "shot.blender.1005.exr").unlink()
    monkeypatch.setattr("omnimotion_core.terminal.CancelOnStdin.cancelled", lambda self: False)
    assert cli.main(["publish", str(run.path), "--out", str(tmp_path / "out"), "--events"]) == 1
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["started", "stage", "warning", "error"]
    assert "frames are missing (1005)" in events[2]["message"]


@pytest.mark.parametrize("folder", ["absent", "empty"])
def test_what_is_no_run_folder_is_told_before_anything_is_written(
    folder: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.main(["publish", str(tmp_path / folder), "--out", str(tmp_path / "out")]) == cli.MENDABLE
    assert "is no run folder" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_told(make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    run.forget("tracks")
    assert cli.main(["publish", str(run.path), "--out", str(tmp_path / "out")]) == cli.MENDABLE
    assert "stage 'tracks'" in capfd.readouterr().err
