"""The command line: exit codes, one line for what can be mended, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import omnimotion_core
from omnimotion_core import cli
from omnimotion_core.events import Reporter
from omnimotion_core.run import RunFolder

COMMANDS = ("track", "prepare", "flow", "fit", "tracks", "import", "query", "export", "propagate", "evaluate", "batch",
            "farm", "publish", "demo", "bench", "weights", "addon", "doctor")


def write_frames(folder: Path, pictures: list[np.ndarray], first: int = 1) -> str:
    folder.mkdir()
    for number, picture in enumerate(pictures, first):
        assert cv2.imwrite(str(folder / f"a.{number:04d}.png"), picture)
    return str(folder / "a.####.png")


def moving(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8), (5, 5), 0)
    return [noise[t : t + size[1], 2 * t : 2 * t + size[0]].copy() for t in range(count)]


def write_movie(path: Path, pictures: list[np.ndarray]) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path.read_bytes()


def refused(capfd: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that a command which can be mended leaves on stderr."""
    capfd.readouterr()
    code = cli.main([str(argument) for argument in argv])
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("omnimotion: ")]
    assert code == cli.MENDABLE, err
    assert len(lines) == 1, err
    assert err.endswith(lines[0] + "\n")
    assert "; " in lines[0]
    assert "Traceback" not in err
    assert out == ""
    return lines[0]


# --- arguments


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_tells_the_arguments_and_loads_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from omnimotion_core.cli import main\n"
        f"try: main({[*command.split(), '--help']!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'cv2', 'av', 'rich', 'OpenEXR', 'psutil'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: omnimotion {command}".rstrip())


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"omnimotion {omnimotion_core.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("", "COMMAND"),
        ("paint", "paint"),
        ("track", "CLIP"),
        ("track a.mov", "--out"),
        ("track a.mov --out r --speed 3", "--speed"),
        ("track a.mov --out r --frames 7", "--frames: '7' is not A-B"),
        ("track a.mov --out r --frames 9-3", "9-3"),
        ("track a.mov --out r --seed x", "--seed"),
        ("track a.mov --out r --preset best", "choose one of draft, standard"),
        ("track a.mov --out r --device tpu", "choose one of auto, cpu, cuda, mps"),
        ("track a.mov --out r --threads -1", "threads is -1"),
        ("track a.mov --out r --config absent.json", "absent.json cannot be read"),
        ("flow r --chunk 3", "--chunk: '3' is not K/N"),
        ("evaluate r --truth t --query last", "--query"),
        ("evaluate r --truth t --tracks a.npz", "--tracks: 'a.npz' is not NAME=FILE"),
        ("evaluate r --truth t --tracks a=1.npz a=2.npz", "--tracks names a twice"),
        ("prepare r --seed 3", "add --clip CLIP"),
        ("propagate r --out d", "give each picture with its frame: --frame N --image FILE"),
        ("propagate r --out d --frame 1 --frame 2 --image a.png", "--frame is given 2 times and --image 1 times"),
        ("propagate r --out d --frame 1 --image a.png --frame 1 --image b.png", "frame 1 is given twice"),
        ("propagate r --out d --frame one --image a.png", "--frame"),
        ("export r --to stmap --reference x", "--reference"),
        ("track a.mov --out r --config {]", "{] is not JSON"),
        ('track a.mov --out r --config {"fit":{"step":3}}', "fit.step is not a setting"),
        ("export r --out d", "name the kinds"),
        ("export r --chunk 3", "--chunk: '3' is not K/N"),
        ("batch", "JOBS.toml|FOLDER"),
        ("farm slurm j.toml", "--out"),
        ("bench --threads -1", "threads is -1"),
        ("bench --json .", "give a file to write"),
    ],
)
def test_arguments_that_cannot_be_used_are_told(
    argv: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refused(capfd, *argv.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "no table of settings"),
        ('{"fit": {"step": 3}}', "fit.step is not a setting"),
        ('{"fit": {"steps": "many"}}', "give a value of type int"),
        ('{"fit": {"steps": 0}}', "fit.steps is 0"),
        ('{"video": 3}', "give a table of settings"),
        ('{"preset": "best"}', "choose one of draft, standard"),
        ('{"export": {"kinds": ["vectors:maya"]}}', "'vectors:maya' is nothing that can be exported"),
        ('{"export": {"kinds": ["vectors:custom"]}}', "add --map FILE"),
        ('{"export": {"kinds": ["vectors:custom"], "vectors_map": "absent.json"}}', "absent.json cannot be read"),
        ('{"export": {"compression": "DWAA"}}', "'DWAA' may damage data"),
        ('{"export": {"max_displace": 0}}', "export.max_displace is 0"),
    ],
)
def test_settings_that_cannot_be_used_are_told(
    text: str, words: str, tmp_path: Path, tiny_clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(text)
    assert words in refused(capfd, "track", tiny_clip, "--out", tmp_path / "run", "--config", settings)
    assert not (tmp_path / "run").exists()


def test_the_preset_of_a_settings_file_counts_unless_another_is_named(tmp_path: Path) -> None:
    from omnimotion_core.api import make_config

    assert make_config(None, {"preset": "draft"}).fit.steps == make_config("draft").fit.steps
    assert make_config("standard", {"preset": "draft"}) == make_config("standard")
    assert make_config(None, {"preset": "draft", "fit": {"steps": 7}, "seed": 3}, seed=4).fit.steps == 7
    assert make_config(None, {"seed": 3}, seed=4).seed == 4
    assert make_config(None, {"seed": 3}).seed == 3


def test_paths_among_the_settings_hold_in_other_working_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnimotion_core.api import make_config

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").mkdir()
    (tmp_path / "dis").mkdir()
    assert make_config(mask="m.png").video.mask == str(tmp_path / "m.png")
    assert make_config(None, {"export": {"vectors_map": "m.json"}}).export.vectors_map == str(tmp_path / "m.json")
    assert make_config(flow="made/elsewhere").flow.estimator == str(tmp_path / "made" / "elsewhere")
    assert make_config(flow="bare").flow.estimator == str(tmp_path / "bare")
    assert make_config(flow="dis").flow.estimator == "dis"


def test_a_device_that_is_absent_is_not_replaced(
    tmp_path: Path, tiny_clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    line = refused(capfd, "track", tiny_clip, "--out", tmp_path / "run", "--device", absent)
    assert f"no device '{absent}'" in line
    assert not (tmp_path / "run").exists()


# --- footage


def bad_clips(folder: Path) -> dict[str, tuple[str, str]]:
    """Clips by name, each with words of what is wrong with it."""
    (folder / "text.mov").write_text("no movie at all\n" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "emptyfolder").mkdir()
    whole = write_movie(folder / "whole.mp4", moving(20))
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    write_movie(folder / "one.mp4", moving(1))
    gap = write_frames(folder / "gap", moving(6))
    (folder / "gap" / "a.0003.png").unlink()
    mixed = write_frames(folder / "mixed", [*moving(3), *moving(3, (48, 48))])
    torn = write_frames(folder / "torn", moving(4))
    (folder / "torn" / "a.0003.png").write_bytes((folder / "torn" / "a.0003.png").read_bytes()[:200])
    zero = write_frames(folder / "zero", moving(4))
    for path in (folder / "zero").iterdir():
        path.rename(path.with_suffix(".exr"))
    (folder / "zero" / "a.0002.exr").write_bytes(b"")
    return {
        "absent": (str(folder / "absent.mov"), "does not exist"),
        "folder": (str(folder / "emptyfolder"), "holds no image sequence"),
        "text": (str(folder / "text.mov"), "is not a movie"),
        "empty": (str(folder / "empty.mp4"), "0 bytes"),
        "truncated": (str(folder / "truncated.mp4"), "truncated.mp4"),
        "one frame": (str(folder / "one.mp4"), "holds 1 frame"),
        "gap": (gap, "has no frame 3"),
        "mixed": (mixed, "48x48"),
        "torn": (torn, "a.0003.png"),
        "zero exr": (zero.replace(".png", ".exr"), "0 bytes"),
        "static": (write_frames(folder / "static", moving(1) * 5), "same still picture"),
        "black": (write_frames(folder / "black", [np.zeros((48, 64, 3), np.uint8)] * 5), "black"),
        "url": ("https://example.org/shot.mov", "is a URL"),
        "frames": (str(folder / "whole.mp4"), "20 frames"),
    }


def test_footage_that_cannot_be_tracked_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, (clip, words) in bad_clips(clips).items():
        more = ["--frames", "1-99"] if name == "frames" else []
        line = refused(capfd, "track", clip, "--out", tmp_path / "runs" / "shot", *more)
        assert words in line, name
        assert not (tmp_path / "runs").exists(), name


def test_footage_that_went_bad_keeps_what_the_run_folder_held(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = write_frames(tmp_path / "clip", moving(5))
    run = tmp_path / "run"
    assert cli.main(["prepare", str(run), "--clip", clip]) == cli.DONE
    before = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (tmp_path / "clip" / "a.0003.png").write_bytes(b"")
    assert "0 bytes" in refused(capfd, "track", clip, "--out", run)
    cv2.imwrite(str(tmp_path / "clip" / "a.0003.png"), moving(5)[0])
    assert "an older state of this clip" in refused(capfd, "track", clip, "--out", run)
    assert {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_hostile_name_is_one_line_and_a_safe_name_in_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "-rf $(id)\n; ünï \u202e"
    assert "does not exist" in refused(capfd, "track", "--out", tmp_path / "run", "--", tmp_path / f"{name}.mov")
    write_movie(tmp_path / "plain.mp4", moving(5))
    (tmp_path / "plain.mp4").rename(tmp_path / f"{name}.mp4")
    assert cli.main(["prepare", str(tmp_path / name), "--clip", str(tmp_path / f"{name}.mp4")]) == cli.DONE
    safe = RunFolder.open(tmp_path / name).clip["name"]
    assert safe.isascii()
    assert safe.replace("-", "").replace("_", "").isalnum()


# --- the run folder


@pytest.mark.parametrize("command", ["flow", "fit", "tracks", "query", "export", "propagate", "evaluate"])
def test_what_needs_a_run_folder_says_so(command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    more: dict[str, list[object]] = {
        "query": ["--points", "p.csv", "--out", tmp_path / "t.npz"], "export": ["--to", "preview"],
        "evaluate": ["--truth", "t.npz"],
        "propagate": ["--frame", "1", "--image", "a.png", "--out", tmp_path / "out"],
    }  # fmt: skip
    assert "is no run folder" in refused(capfd, command, tmp_path / "absent", *more.get(command, []))
    assert list(tmp_path.iterdir()) == []


def test_a_stage_before_its_turn_names_the_one_that_is_missing(
    tmp_path: Path, tiny_clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli.main(["prepare", str(run), "--clip", str(tiny_clip)]) == cli.DONE
    assert "run `omnimotion flow" in refused(capfd, "fit", run)
    assert "run `omnimotion flow" in refused(capfd, "tracks", run)
    assert "run `omnimotion tracks" in refused(capfd, "export", run, "--to", "preview")
    assert "give K/N with K from 1 to N" in refused(capfd, "flow", run, "--chunk", "3/2")
    assert "run `omnimotion fit" in refused(capfd, "query", run, "--points", points(tmp_path, "0,1,1"),
                                            "--out", tmp_path / "t.npz")  # fmt: skip


def test_another_clip_and_other_folders_are_refused(
    tmp_path: Path, tiny_clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    assert cli.main(["prepare", str(run), "--clip", str(tiny_clip)]) == cli.DONE
    clip = write_frames(other, moving(5))
    assert "another clip" in refused(capfd, "track", clip, "--out", run)
    assert "is no run folder but holds" in refused(capfd, "track", tiny_clip, "--out", other)
    assert "is a file" in refused(capfd, "track", tiny_clip, "--out", other / "a.0001.png")
    assert "cannot be written" in refused(capfd, "track", tiny_clip, "--out", other / "a.0001.png" / "run")


def test_a_folder_in_use_is_refused_with_its_holder_and_left_alone(
    tmp_path: Path, tiny_clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    with run.lock():
        line = refused(capfd, "track", tiny_clip, "--out", tmp_path / "run")
    assert f"process {os.getpid()}" in line
    assert not run.manifest_path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk as Linux does")
def test_a_full_disk_is_told_and_a_new_run_leaves_nothing(tmp_path: Path, tiny_clip: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
mount -t tmpfs -o size=64k none {disk} || exit 77
{sys.executable} -m omnimotion_core track {tiny_clip} --out {disk}/run
code=$?
find {disk} -mindepth 1
exit $code
"""
    command = ["unshare", "--map-root-user", "--mount", "bash", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("no unshare command")
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip("no small disk can be mounted here")
    assert done.returncode == cli.MENDABLE, done.stderr
    assert "no space is left" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


# --- points and truth


def points(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_text(text)
    return path


# --- ends of a job


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (MemoryError(), cli.MENDABLE, "the memory is not enough"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), cli.MENDABLE, "memory"),
        (OSError(28, "No space left on device", "/full/x"), cli.MENDABLE, "no space is left for /full/x"),
        (OSError(30, "Read-only file system", "/closed/x"), cli.MENDABLE, "/closed/x cannot be written"),
        (KeyboardInterrupt(), cli.CANCELLED, "cancelled; the same command goes on from here"),
        (ZeroDivisionError("our fault"), cli.BUG, "ZeroDivisionError: our fault"),
    ],
)
def test_each_end_has_its_exit_code(
    raised: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from omnimotion_core import commands

    def fail(options: object, reporter: Reporter) -> None:
        raise raised

    monkeypatch.setattr(commands, "track", fail)
    assert cli.main(["track", "a.mov", "--out", "r"]) == code
    err = capfd.readouterr().err
    assert words in err
    assert ("Traceback" in err) == (code == cli.BUG)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_the_job_to_stop_and_a_second_one_interrupts_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from omnimotion_core import commands

    seen = []

    def polite(options: object, reporter: Reporter) -> None:
        signal.raise_signal(number)
        seen.append("still here")
        reporter.progress("fit", 1, 2)

    def deaf(options: object, reporter: Reporter) -> None:
        signal.raise_signal(number)
        signal.raise_signal(number)

    before = signal.getsignal(number)
    for job in (polite, deaf):
        monkeypatch.setattr(commands, "track", job)
        assert cli.main(["track", "a.mov", "--out", "r"]) == cli.CANCELLED
        assert "cancelled; the same command goes on" in capfd.readouterr().err
    assert seen == ["still here"]
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is no EPIPE on Windows")
def test_who_stops_reading_gets_no_traceback() -> None:
    with subprocess.Popen([sys.executable, "-m", "omnimotion_core", "weights", "list"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == cli.CANCELLED
        assert process.stderr is not None
        told = process.stderr.read()
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


def test_the_doctor_prints_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == cli.DONE
    assert json.loads(capfd.readouterr().out)["version"] == omnimotion_core.__version__


def test_the_public_names_are_there() -> None:
    for name in omnimotion_core.__all__:
        assert getattr(omnimotion_core, name) is not None
        assert name in dir(omnimotion_core)
    with pytest.raises(AttributeError, match="no attribute 'trakc'"):
        _ = omnimotion_core.trakc
