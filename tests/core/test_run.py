"""The run folder: what it accepts, what it refuses, and what a killed writer leaves behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from omnimotion_core.config import Config, VideoConfig
from omnimotion_core.errors import RunError
from omnimotion_core.run import RUN_VERSION, STAGES, RunFolder

CLIP = {"path": "/footage/shot.mov", "sha256": "ab" * 32, "is_sequence": False, "name": "shot"}
HOLD = """
import sys, time
from omnimotion_core.run import RunFolder
run = RunFolder(sys.argv[1])
with run.lock():
    print("held", flush=True)
    time.sleep(60)
"""


def started(path: Path, clip: dict[str, Any] = CLIP, config: Config | None = None) -> RunFolder:
    run = RunFolder(path)
    run.create()
    run.start(clip, config or Config(), {"torch": "2"})
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def finish(run: RunFolder, stage: str, key: str) -> None:
    run.begin(stage, key)
    for path in run.outputs(stage):
        if path.suffix:
            path.write_text(stage)
        else:
            path.mkdir()
            (path / "part").write_text(stage)
    run.finish(stage, run.outputs(stage), seconds=1.0)


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    config = Config.from_preset("draft").override({"video": {"frames": [3, 9]}, "seed": 4})
    run = started(tmp_path / "shot", {**CLIP, "name": "caf\u00e9 \udcff"}, config)
    again = RunFolder.open(tmp_path / "shot")
    assert again.manifest == json.loads(json.dumps(run.manifest))
    assert again.config == config
    assert again.clip["name"] == "caf\u00e9 \udcff"
    assert again.manifest["version"] == RUN_VERSION
    assert (tmp_path / "shot" / "run.json").read_bytes().isascii()


def test_the_folder_may_be_new_empty_or_a_run_folder(tmp_path: Path) -> None:
    started(tmp_path / "a" / "b" / "new")
    (tmp_path / "empty").mkdir()
    started(tmp_path / "empty")
    started(tmp_path / "empty")


def test_a_file_or_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    (folder / "holiday.jpg").write_text("mine")
    for path, words in ((file, "is a file"), (folder, "holiday.jpg"), (file / "below", "cannot be written")):
        with pytest.raises(RunError, match=words):
            RunFolder(path).create()
    assert contents(tmp_path) == {"file": b"mine", "folder/holiday.jpg": b"mine"}


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):  # the superuser may write anywhere but where there is nothing to write to
        closed = Path("/proc/self")
        if not closed.is_dir():
            pytest.skip("no folder here that this user may not write to")
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder(closed / "run").create()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ('{"version": 1, "clip": {"path"', "is not JSON"),
        ("\xff\xfe", "is not JSON"),
        ("[]", "has no version"),
        ('{"version": "1"}', "has no version"),
        ('{"version": 1, "clip": {}}', "'config' is missing"),
        ('{"version": 1, "clip": {}, "config": {}, "stages": {}, "device": {}, "packages": {}}', "clip has no 'path'"),
        (
            '{"version": 1, "clip": {"path": "a", "sha256": "b"}, "config": {}, "stages": {"fit": 1}, "device": {}, '
            '"packages": {}}',
            "no table",
        ),
        (f'{{"version": {RUN_VERSION + 1}}}', "update omnimotion"),
    ],
)
def test_a_damaged_or_newer_manifest_is_told_and_left_as_it_is(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=words):
        RunFolder.open(tmp_path)
    run = RunFolder(tmp_path)
    run.create()
    with pytest.raises(RunError, match=words):
        run.start(CLIP, Config(), {})
    assert (tmp_path / "run.json").read_bytes() == text.encode("latin-1")


def test_a_setting_that_is_not_known_any_more_is_a_damaged_manifest(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.manifest["config"]["fit"]["magic"] = 1
    with pytest.raises(RunError, match=r"fit\.magic is not a setting"):
        _ = run.config


def test_what_is_no_run_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(RunError, match="is no run folder"):
            RunFolder.open(path)


def test_another_clip_is_refused_before_anything_changes(tmp_path: Path) -> None:
    finish(started(tmp_path), "prepare", "k")
    before = contents(tmp_path)
    for other, words in (
        ({**CLIP, "path": "/footage/other.mov", "sha256": "cd" * 32}, "another clip, /footage/shot.mov"),
        ({**CLIP, "sha256": "cd" * 32}, "an older state of this clip"),
    ):
        run = RunFolder(tmp_path)
        run.create()
        with pytest.raises(RunError, match=words):
            run.start(other, Config(), {})
    assert contents(tmp_path) == before


def test_the_same_clip_at_another_place_is_the_same_clip(tmp_path: Path) -> None:
    finish(started(tmp_path), "prepare", "k")
    run = started(tmp_path, {**CLIP, "path": "/moved/shot.mov"})
    assert run.clip["path"] == "/moved/shot.mov"
    assert run.stage_is_done("prepare", "k")


def test_other_frames_of_a_sequence_are_the_same_clip_though_their_hash_differs(tmp_path: Path) -> None:
    sequence = {**CLIP, "is_sequence": True}
    started(tmp_path, sequence)
    started(tmp_path, {**sequence, "sha256": "cd" * 32}, Config(video=VideoConfig(frames=(1, 9))))
    with pytest.raises(RunError, match="older state"):
        started(tmp_path, {**sequence, "sha256": "ef" * 32}, Config(video=VideoConfig(frames=(1, 9))))


def test_a_stage_is_done_with_its_key_and_while_its_files_are_there(tmp_path: Path) -> None:
    run = started(tmp_path)
    assert not run.stage_is_done("fit", "k")
    run.begin("fit", "k")
    assert not run.stage_is_done("fit", "k")
    finish(run, "fit", "k")
    run = RunFolder.open(tmp_path)
    assert run.stage_is_done("fit", "k")
    assert not run.stage_is_done("fit", "other")
    run.require("fit")
    run.model.unlink()
    assert not run.stage_is_done("fit", "k")
    with pytest.raises(RunError, match=r"omnimotion flow .* first"):
        run.require("flow")


def test_another_key_removes_what_the_stage_and_all_after_it_made_and_nothing_before(tmp_path: Path) -> None:
    run = started(tmp_path)
    for stage in STAGES:
        finish(run, stage, "k")
    run.begin("fit", "other")
    left = [stage for stage in STAGES if any(path.exists() for path in run.outputs(stage))]
    assert left == ["prepare", "flow"]
    assert [stage for stage in STAGES if run.stage_is_done(stage, "k")] == ["prepare", "flow"]


def test_the_same_key_goes_on_from_what_the_stage_left_and_removes_what_comes_after(tmp_path: Path) -> None:
    run = started(tmp_path)
    for stage in STAGES:
        finish(run, stage, "k")
    run.begin("fit", "k")
    assert (run.checkpoint / "part").exists()
    assert not run.tracks.exists()
    assert not run.stage_is_done("tracks", "k")


def test_files_of_an_unknown_origin_are_not_gone_on_from(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.checkpoint.mkdir()
    (run.checkpoint / "state").write_text("of an earlier job whose manifest was lost")
    run.begin("fit", "k")
    assert not run.checkpoint.exists()


def test_warnings_are_kept_once_in_the_order_of_stages_until_the_stage_is_done_anew(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.begin("flow", "k")
    run.warn("flow", "few matches")
    run.warn("flow", "few matches")
    run.begin("prepare", "k")
    assert run.warnings == []
    run.warn("prepare", "a hard cut")
    run.begin("flow", "k")
    run.warn("flow", "dark")
    run = RunFolder.open(tmp_path)
    assert run.warnings == ["a hard cut", "dark"]
    run.begin("flow", "k")
    assert run.warnings == ["a hard cut", "dark"]
    run.begin("flow", "other")
    assert run.warnings == ["a hard cut"]


def test_discarding_takes_back_the_folders_that_were_made_and_no_others(tmp_path: Path) -> None:
    run = started(tmp_path / "a" / "b")
    with run.lock():
        finish(run, "prepare", "k")
        run.discard()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    run = started(tmp_path / "mine")
    run.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# --- the lock


@contextmanager
def holder(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the run folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    run = started(tmp_path)
    with holder(tmp_path) as process:
        with pytest.raises(RunError, match=f"process {process.pid} on {socket.gethostname()}"), run.lock():
            pass
        with pytest.raises(RunError, match=f"process {process.pid}"), run.lock():
            pass  # a refused attempt must not have spoilt the lock
        RunFolder.open(tmp_path)  # reading needs no lock


def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    run = started(tmp_path)
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.wait()
        with run.lock():
            pass


def test_the_lock_is_refused_within_one_process_too_and_is_free_after_an_error(tmp_path: Path) -> None:
    run = started(tmp_path)
    with run.lock(), pytest.raises(RunError, match=f"process {os.getpid()}"), RunFolder(tmp_path).lock():
        pass
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with run.lock():
        pass


def test_locking_clears_the_files_that_a_killed_writer_left(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.frames.mkdir()
    exr = run.exr / "blender"
    exr.mkdir(parents=True)
    leftovers = [tmp_path / ".run.1.part.json", run.frames / ".000001.1.part.png", exr / ".a.1.part.exr",
                 run.rounds / "1" / ".model.1.part.json",
                 run.rounds / "2" / "correspondences" / ".000000.1.part.npz"]  # fmt: skip
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    (run.frames / "000000.png").write_text("whole")
    with run.lock():
        assert not any(path.exists() for path in leftovers)
    assert (run.frames / "000000.png").exists()


def test_parts_run_beside_each_other_but_not_beside_the_whole(tmp_path: Path) -> None:
    run, calls = started(tmp_path), []

    def part(name: str) -> Any:
        return RunFolder(tmp_path).lock_part(name, lambda: calls.append(name))

    with part("flow-1-of-2"), part("flow-2-of-2"):
        with pytest.raises(RunError, match="in use"), part("flow-2-of-2"):
            pass
        with pytest.raises(RunError, match="in use"), run.lock():
            pass
    with run.lock():
        pass
    assert calls == ["flow-1-of-2", "flow-2-of-2", "flow-2-of-2"]


def test_a_part_waits_for_a_part_that_is_at_the_manifest(tmp_path: Path) -> None:
    run, entered, leave = started(tmp_path), threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        entered.set()
        leave.wait(20)
        order.append("first")

    def first() -> None:
        with RunFolder(tmp_path).lock_part("flow-1-of-2", slow):
            pass

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(20)
    threading.Timer(0.2, leave.set).start()
    with run.lock_part("flow-2-of-2", lambda: order.append("second")):
        pass
    thread.join()
    assert order == ["first", "second"]


def test_the_manifest_is_never_seen_half_written(tmp_path: Path) -> None:
    run, stop = started(tmp_path), threading.Event()
    run.manifest["clip"]["padding"] = "x" * 200_000

    def write() -> None:
        while not stop.is_set():
            run.write()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(200):
            assert json.loads((tmp_path / "run.json").read_bytes())["version"] == RUN_VERSION
    finally:
        stop.set()
        thread.join()
