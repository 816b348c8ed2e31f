"""Jobs files and folders: what they mean, and one clear line for each thing that is wrong in one."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from omnimotion_core.batch.jobs import read_jobs
from omnimotion_core.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "jobs.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_jobs_file_says_what_to_do_with_each_clip(tmp_path: Path) -> None:
    path = write(tmp_path, """
        out = "work/runs"
        retries = 3
        preset = "draft"
        export = ["report"]
        export_chunks = 4
        [settings]
        fit = {steps = 7, batch = 99}
        [[clip]]
        path = "plates/sh010.####.exr"
        frames = "1001-1048"
        mask = "mattes/m.####.png"
        [[clip]]
        path = "/elsewhere/sh020.mov"
        name = "fg"
        out = "other"
        preset = "standard"
        frames = [1, 9]
        export_chunks = 1
        settings.fit.steps = 8
    """)  # fmt: skip
    batch = read_jobs(path)
    first, second = batch.jobs
    assert (batch.out, batch.retries) == (tmp_path / "work" / "runs", 3)
    assert (first.name, first.clip) == ("sh010", str(tmp_path / "plates" / "sh010.####.exr"))
    assert first.run == tmp_path / "work" / "runs" / "sh010"
    assert first.config.video.frames == (1001, 1048)
    assert first.config.video.mask == str(tmp_path / "mattes" / "m.####.png")
    assert (first.config.preset, first.config.flow.long_side) == ("draft", 256)
    assert (first.config.fit.steps, first.config.fit.batch) == (7, 99)
    assert (first.flow_chunks, first.export_chunks) == (1, 4)
    assert (second.name, second.clip, second.run) == ("fg", "/elsewhere/sh020.mov", tmp_path / "other")
    assert (second.config.preset, second.config.video.frames, second.export_chunks) == ("standard", (1, 9), 1)
    assert (second.config.fit.steps, second.config.fit.batch) == (8, 99)
    assert first.config.export.kinds == second.config.export.kinds == ("report",)


def test_what_the_command_line_says_counts_for_every_clip(tmp_path: Path) -> None:
    path = write(tmp_path, '[[clip]]\npath = "a.mov"\npreset = "draft"\nsettings.fit.steps = 3\nflow_chunks = 2\n')
    changes: dict[str, Any] = {"preset": "standard", "settings": {"fit": {"steps": 5}}, "export": ["report"]}
    batch = read_jobs(path, out=tmp_path / "there", changes={**changes, "flow_chunks": 3})
    (job,) = batch.jobs
    assert (job.config.preset, job.config.fit.steps, job.config.export.kinds) == ("standard", 5, ("report",))
    assert (job.flow_chunks, job.run) == (3, tmp_path / "there" / "a")


def test_a_folder_of_clips_has_a_job_for_each_movie_and_sequence(tmp_path: Path, write_clip: Any) -> None:
    plates = tmp_path / "plates"
    write_clip(plates / "sh010")
    write_clip(plates / "two" / "left").rename(plates / "two" / "deeper")  # not directly below: not seen
    for number in (1, 2):
        for name in ("bg", "fg"):
            (plates / "two" / f"{name}_{number:04d}.png").write_bytes(b"x")
        (plates / f"loose{number}.jpg").write_bytes(b"x")
    (plates / "single.png").write_bytes(b"x")
    (plates / "notes.txt").write_text("")
    for name in ("shot.mov", "SHOT.mp4", "take 2;rm.mkv", ".hidden.mov"):
        (plates / name).write_bytes(b"x")
    (plates / "a-run").mkdir()
    (plates / "a-run" / "run.json").write_text("{}")
    batch = read_jobs(plates)
    found = {job.name: Path(job.clip).relative_to(plates).as_posix() for job in batch.jobs}
    hostile = next(name for name in found if name.startswith("take-2-rm-"))
    assert found == {
        "sh010": "sh010/sh010.####.png", "two-bg": "two/bg_####.png", "two-fg": "two/fg_####.png",
        "loose": "loose#.jpg", "shot.mov": "shot.mov", "SHOT.mp4": "SHOT.mp4", hostile: "take 2;rm.mkv",
    }  # fmt: skip
    assert batch.out == tmp_path / "plates-runs"
    assert all(job.run == batch.out / job.name for job in batch.jobs)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("plates/sh010.####.exr", "sh010"), ("sh010_v2.%04d.png", "sh010_v2"), ("a/sh.$F4.exr", "sh"),
        ("sh010.1001.exr", "sh010"), ("plates/sh030", "sh030"), ("sh040.1.mov", "sh040.1"), ("a/####.png", "a"),
        ("plates/v1.2", "v1.2"),
    ],
)  # fmt: skip
def test_a_clip_is_named_by_its_path(path: str, name: str, tmp_path: Path) -> None:
    (job,) = read_jobs(write(tmp_path, f"[[clip]]\npath = '{path}'\n")).jobs
    assert job.name == name


CLIP = '[[clip]]\npath = "a.mov"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no clip"),
        ("[[clip]]\npath = a.mov\n", "line 2"),
        ("[[clip]]\n", "clip 1 has no path"),
        ("clip = [3]\n", "clip 1 is 3"),
        ("clip = 'a.mov'\n", 'clip is "a.mov"; give a list'),
        ("speed = 3\n" + CLIP, "'speed' is no key; use out"),
        (CLIP + "speed = 3\n", "clip 1 (a.mov): 'speed' is no key"),
        (CLIP + CLIP.replace("a.", "b.") + "seed = 'x'\n", 'clip 2 (b.mov): seed is "x"; give a whole number'),
        (CLIP + "seed = true\n", "seed is true; give a whole number"),
        (CLIP + "frames = '7'\n", "frames is '7'"),
        (CLIP + "frames = [9, 3]\n", "clip 1 (a.mov): video.frames is 9-3"),
        (CLIP + "preset = 'best'\n", "clip 1 (a.mov): preset is 'best'; choose one of draft"),
        (CLIP + "settings.fit.step = 3\n", "clip 1 (a.mov): fit.step is not a setting"),
        (CLIP + "settings = 3\n", "settings is 3; give a table"),
        (CLIP + "export = ['vectors:maya']\n", "clip 1 (a.mov): 'vectors:maya' is nothing that can be exported"),
        (CLIP + "flow = 'magic'\n", "clip 1 (a.mov): "),
        (CLIP + "flow_chunks = 0\n", "flow_chunks is 0"),
        (CLIP + "export_chunks = 5000\n", "export_chunks is 5000"),
        ("retries = -1\n" + CLIP, "retries is -1"),
        (CLIP + "name = '../../etc'\n", "name is '../../etc'"),
        (CLIP + "name = 'con'\n", "name is 'con'"),
        (CLIP + CLIP, "clip 1 (a) and clip 2 (a) would both be written"),
        (CLIP + CLIP.replace("a.", "sub/A."), "would both be written"),
        (CLIP + CLIP.replace("a.", "b.") + "out = 'runs/a'\n", "clip 1 (a) and clip 2 (b) would both be written"),
        (CLIP + CLIP + "out = 'elsewhere'\n", "clip 1 (a) and clip 2 (a) have the same name"),
        (CLIP + "name = 'logs'\n", "the batch's logs and clip 1 (logs)"),
        (CLIP + "out = 'runs'\n", "the batch's runs and clip 1 (a)"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_jobs_file_is_told_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        read_jobs(path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


def test_places_that_meet_by_a_link_are_seen(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    text = CLIP + "out = 'real/a'\n" + CLIP.replace("a.", "b.") + "out = 'link/a'\n"
    with pytest.raises(ConfigError, match="would both be written"):
        read_jobs(write(tmp_path, text))


def test_what_is_no_jobs_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, words in (("absent.toml", "cannot be read"), ("empty", "holds no movie"), ("binary.toml", "is no TOML"),
                        ("null\0", "cannot be read")):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            read_jobs(tmp_path / name)


def test_jobs_are_plain_values(tmp_path: Path) -> None:
    (job,) = read_jobs(write(tmp_path, CLIP)).jobs
    assert hash(job) == hash(dataclasses.replace(job))
