"""A publish is handed on whole or not at all, whatever happens, and no version is ever changed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyblish.api
import pyblish.util
import pytest

from omnimotion_core import cli
from omnimotion_core.errors import PublishError
from omnimotion_core.events import Reporter
from omnimotion_core.publishing import runner
from omnimotion_core.publishing.staging import Staging, remove_abandoned
from omnimotion_core.publishing.versions import next_version
from omnimotion_core.run import RunFolder

from .conftest import MakeRun, content, errors_of


def publish(run: RunFolder, out: Path) -> runner.Outcome:
    return runner.publish(run.path, out, reporter=Reporter())


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".lock")} if folder.exists() else set()


def test_versions_follow_each_other_and_the_old_ones_stay(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run(), tmp_path / "out"
    assert publish(run, out).version == out / "shot" / "v001"
    before = content(out / "shot" / "v001")
    times = {path: path.stat().st_mtime_ns for path in (out / "shot" / "v001").rglob("*")}
    run.preview.write_bytes(b"another movie")
    assert publish(run, out).version == out / "shot" / "v002"
    assert content(out / "shot" / "v001") == before
    assert {path: path.stat().st_mtime_ns for path in (out / "shot" / "v001").rglob("*")} == times
    assert (out / "shot" / "v002" / "reviewMain" / "shot.preview.mp4").read_bytes() == b"another movie"
    assert visible(out / "shot") == {"v001", "v002"}


def test_a_published_file_is_no_link_to_the_run(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    version = publish(run, tmp_path / "out").version
    assert version is not None
    for path in run.path.rglob("*"):
        if path.is_file():
            path.write_bytes(b"spoilt")
    assert (version / "reviewMain" / "shot.preview.mp4").read_bytes() == b"a movie"
    assert (version / "motionvectorBlender" / "shot.blender.1003.exr").stat().st_nlink == 1


@pytest.mark.parametrize("name", ["v003", "v0007", "v120"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_whatever_has_a_version_s_name_counts(tmp_path: Path, name: str, is_folder: bool) -> None:
    (tmp_path / name).mkdir() if is_folder else (tmp_path / name).write_text("")
    (tmp_path / "v1.txt").write_text("")
    (tmp_path / "review").mkdir()
    assert next_version(tmp_path) == int(name[1:]) + 1


def test_an_empty_folder_of_somebody_else_s_is_not_replaced(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "out" / "shot" / "v001").mkdir(parents=True)
    assert publish(make_run(), tmp_path / "out").version == tmp_path / "out" / "shot" / "v002"
    assert list((tmp_path / "out" / "shot" / "v001").iterdir()) == []


def test_two_publishes_at_once_become_two_versions(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(), make_run(folder="second")]
    command = [sys.executable, "-m", "omnimotion_core", "publish"]
    children = [
        subprocess.Popen([*command, str(run.path), "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
        for run in runs
    ]
    told = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    assert visible(tmp_path / "out" / "shot") == {"v001", "v002"}
    numbers = [json.loads((tmp_path / "out" / "shot" / name / "publish.json").read_text())["publish_version"]
               for name in ("v001", "v002")]  # fmt: skip
    assert numbers == [1, 2]


# --- failures


def test_a_run_that_is_tracked_again_meanwhile_is_not_published(make_run: MakeRun, host: None, tmp_path: Path) -> None:
    run = make_run()
    context = pyblish.api.Context()
    context.data.update(runFolder=str(run.path), publishDir=str(tmp_path / "out"))
    plugins = pyblish.api.discover()
    pyblish.util.publish(context, [plugin for plugin in plugins if plugin.order < 2.5])
    assert list((tmp_path / "out" / "shot").glob(".staging-*/*"))
    run.manifest["stages"]["fit"]["key"] = "another"
    run.write()
    pyblish.util.publish(context, [plugin for plugin in plugins if plugin.order >= 2.5])
    assert "was tracked again while it was published" in errors_of(context)["IntegrateVersion"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "said"), [(28, "no space is left"), (13, "may write to"), (5, "choose another")])
def test_a_failed_rename_takes_everything_back(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    run, out = make_run(), tmp_path / "out"
    publish(run, out)
    before = content(out / "shot" / "v001")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("omnimotion_core.publishing.versions.os.rename", fail)
    outcome = publish(run, out)
    assert outcome.version is None
    (line,) = outcome.errors
    assert said in line
    assert visible(out / "shot") == {"v001"}
    assert content(out / "shot" / "v001") == before


def test_a_disk_that_is_full_while_files_are_copied_leaves_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    """A limit on the size of files makes the kernel refuse the write in the middle of a file."""
    run = make_run()
    (run.path / "report.html").write_bytes(b"x" * 2_000_000)
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from omnimotion_core import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
sys.exit(cli.main(["publish", {str(run.path)!r}, "--out", {str(tmp_path / "out")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("omnimotion: ")]
    assert len(lines) == 2
    assert "Copy preview, reviewMain: " in lines[0]
    assert "cannot be written (File too large)" in lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_read_only_target_is_one_line(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run, out = make_run(), tmp_path / "out"
    out.mkdir()
    out.chmod(0o500)
    if os.access(out, os.W_OK):  # root may write everywhere

        def refuse(self: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
    capfd.readouterr()
    assert cli.main(["publish", str(run.path), "--out", str(out)]) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("omnimotion: ")]
    assert len(lines) == 2
    assert "choose a folder that you may write to" in lines[0]
    out.chmod(0o700)
    assert visible(out) == set()


def test_a_target_that_is_a_file_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    outcome = publish(make_run(), tmp_path / "out")
    assert len(outcome.errors) == 1
    assert "cannot be written" in outcome.errors[0]
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_every_user_of_a_shared_folder_may_take_its_locks(make_run: MakeRun, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        publish(make_run(), tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "shot" / ".lock").stat().st_mode & 0o777 == 0o666
    assert (tmp_path / "out" / "shot" / "v001").stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_what_a_killed_publish_left_goes_with_the_next_one(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run(), tmp_path / "out"
    code = f"""
import sys, time
from omnimotion_core import cli
from omnimotion_core.publishing import versions
versions.os.rename = lambda *_: time.sleep(60)
cli.main(["publish", {str(run.path)!r}, "--out", {str(out)!r}])
"""
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    staged: list[Path] = []
    while not staged and time.monotonic() < deadline and child.poll() is None:
        staged = list(out.glob("shot/.staging-*/publish.json"))
        time.sleep(0.02)
    assert staged, "the publish was never staged"
    remove_abandoned(out / "shot")
    assert staged[0].exists(), "a publish that lives keeps its staging"
    child.send_signal(signal.SIGKILL)
    child.wait()
    name = staged[0].parent.name
    assert visible(out / "shot") == {name, f"{name}.lock"}, "no version, no half of one"
    assert publish(run, out).version == out / "shot" / "v001"
    assert visible(out / "shot") == {"v001"}


def test_a_discarded_staging_takes_the_folders_with_it_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    staging = Staging.begin(tmp_path / "there" / "a" / "shot")
    assert staging.folder is not None
    staging.discard()
    staging.discard()
    assert list((tmp_path / "there").iterdir()) == []


def test_what_is_added_to_a_representation_behind_our_back_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    staging = Staging.begin(tmp_path / "out")
    assert staging.folder is not None
    (staging.folder / "a").mkdir()
    (staging.folder / "a" / "link").symlink_to("/etc/hostname")
    from omnimotion_core.publishing.versions import integrate

    one = {"name": "x", "ext": "x", "files": "link", "stagingDir": str(staging.folder / "a")}
    with pytest.raises(PublishError, match="'link' is no file of"):
        integrate(staging, {}, [{"productName": "a", "representations": [one]}])
    assert not (tmp_path / "out").exists()


# --- names


@pytest.mark.parametrize("name", ["sh-ot", "a.b", "CON-1234abcd", "clip-rm-x-1234abcd", "x" * 90])
def test_safe_clip_names_keep_their_form(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    version = publish(make_run(name=name), tmp_path / "out").version
    assert version == tmp_path / "out" / name / "v001"
    assert (version / "trackpointsMain" / f"{name}.nuke.nk").is_file()
    assert (version / "motionvectorBlender_metadata.json").is_file()


@pytest.mark.parametrize("name", ["../up", "a/b", "/etc", "..", "-rf", "a\nb", "clip;rm $(x)", "nul", ""])
def test_a_manifest_with_a_hostile_name_is_refused(
    make_run: MakeRun, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    run.clip["name"] = name
    run.write()
    assert cli.main(["publish", str(run.path), "--out", str(tmp_path / "out")]) == cli.MENDABLE
    assert len([line for line in capfd.readouterr().err.splitlines() if line.startswith("omnimotion: ")]) == 1
    assert not (tmp_path / "out").exists()


def test_comments_and_paths_of_any_kind_are_kept_as_they_are(make_run: MakeRun, tmp_path: Path) -> None:
    comment = '"}\n{\x1b[31m; rm -rf / \u2028 é'
    out = tmp_path / "it's; $(out) é"
    version = runner.publish(make_run(folder="ru n'; é").path, out, reporter=Reporter(), comment=comment).version
    assert version == out / "shot" / "v001"
    assert json.loads((version / "publish.json").read_text())["comment"] == comment
