"""Jobs: what is done again after a change, what is kept, and that a stopped one ends as an undisturbed one."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from omnimotion_core import cli, pipeline
from omnimotion_core.api import Run, make_config
from omnimotion_core.config import Config
from omnimotion_core.coordinates import marker_to_pixel
from omnimotion_core.errors import ClipError, ConfigError, QueryError, RunError
from omnimotion_core.events import Artifact, Cancelled, Event, Progress, Reporter, Stage, Warned
from omnimotion_core.export.exr import read_exr
from omnimotion_core.export.markers import MarkerFile, read_markers
from omnimotion_core.products import is_sequence, known_kinds, product_path, write_product
from omnimotion_core.results import Results
from omnimotion_core.run import STAGES, RunFolder
from omnimotion_core.trajectories.quality import measure_quality
from omnimotion_core.trajectories.seeds import preview_queries


@pytest.fixture(scope="module")
def config(tiny_settings: Path) -> Config:
    return make_config(None, json.loads(tiny_settings.read_text()))


@pytest.fixture(scope="module")
def finished(tiny_clip: Path, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests read and leave as it is."""
    out = tmp_path_factory.mktemp("finished") / "run"
    pipeline.track(tiny_clip, out, config, reporter=Reporter())
    return out


def listen() -> tuple[list[Event], Reporter]:
    events: list[Event] = []
    return events, Reporter(events.append)


def stages_done(events: list[Event]) -> list[str]:
    return [event.stage for event in events if isinstance(event, Stage)]


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


def assert_same_tracks(first: Path, second: Path) -> None:
    ours, theirs = arrays(first / "tracks.npz"), arrays(second / "tracks.npz")
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.dtype == theirs[name].dtype
        assert values.tobytes() == theirs[name].tobytes(), name


def times(folder: Path) -> dict[Path, int]:
    """When each result was written; the manifest is written by every job."""
    results = (path for path in folder.rglob("[!.]*") if path.is_file() and path.name != "run.json")
    return {path: path.stat().st_mtime_ns for path in results}


# --- a whole job


def test_a_job_writes_what_the_run_folder_promises(finished: Path, tiny_clip: Path) -> None:
    run = RunFolder.open(finished)
    assert [entry["state"] for entry in run.manifest["stages"].values()] == ["done"] * len(STAGES)
    for entry in run.manifest["stages"].values():
        assert entry["seconds"] >= 0
        assert entry["peak_memory_mb"] > 10
    assert run.clip["frames"] == 10
    assert run.clip["size"] == [96, 72]
    assert (run.clip["first_frame"], run.clip["clip_first_frame"]) == (1001, 1001)
    assert Path(run.clip["path"]).parent == tiny_clip
    assert run.manifest["device"]["type"] == "cpu"
    assert run.manifest["device"]["threads"] == 1
    assert run.manifest["packages"]["numpy"] == np.__version__
    assert sorted(path.name for path in (run.exr / "blender").iterdir()) == [
        f"shot.blender.{frame}.exr" for frame in range(1001, 1011)
    ]
    for path in (run.model, run.model_json, run.tracks, run.markers, run.preview, run.report):
        assert path.stat().st_size > 0
    assert not [path for path in finished.rglob(".*") if ".part" in path.name]


def test_the_same_job_again_does_nothing_and_still_tells_what_there_is(
    finished: Path, tiny_clip: Path, config: Config
) -> None:
    before = times(finished)
    events, reporter = listen()
    pipeline.track(tiny_clip, finished, config, reporter=reporter)
    assert stages_done(events) == []
    told = {event.kind for event in events if isinstance(event, Artifact)}
    assert told == {"tracks", "markers", *config.export.kinds}
    assert times(finished) == before


def test_stages_one_by_one_give_the_same_tracks_bit_for_bit(
    finished: Path, tiny_clip: Path, config: Config, tmp_path: Path
) -> None:
    pipeline.track(tiny_clip, tmp_path, config, reporter=Reporter(), stages=["prepare"])
    for number in (2, 1):  # the parts of flow in any order
        pipeline.run_stage(tmp_path, "flow", reporter=Reporter(), chunk=(number, 2))
    assert RunFolder.open(tmp_path).manifest["stages"]["flow"]["state"] == "started"
    for stage in ("flow", "fit", "tracks"):
        pipeline.run_stage(tmp_path, stage, reporter=Reporter())
    assert_same_tracks(finished, tmp_path)


def test_parts_of_an_export_in_any_order_give_the_same_files(
    finished: Path, config: Config, tmp_path: Path
) -> None:
    import shutil

    out = tmp_path / "run"
    shutil.copytree(finished, out)
    vectors = out / "exr" / "blender"
    RunFolder.open(out).forget("export")
    for number, files in ((3, 4), (1, 7), (2, 10)):
        pipeline.run_stage(out, "export", reporter=Reporter(), chunk=(number, 3))
        assert len(list(vectors.iterdir())) == files
        assert not (out / "report.html").exists()  # single files are left to the stage as a whole
    assert RunFolder.open(out).manifest["stages"]["export"]["state"] == "started"
    before = times(vectors)
    events, reporter = listen()
    pipeline.run_stage(out, "export", reporter=reporter)
    assert stages_done(events) == ["export"]
    assert times(vectors) == before
    assert (out / "report.html").exists()
    for path in vectors.iterdir():
        assert path.read_bytes() == (finished / "exr" / "blender" / path.name).read_bytes()
    for chunk in (None, (2, 3)):
        events, reporter = listen()
        pipeline.run_stage(out, "export", reporter=reporter, chunk=chunk)
        assert stages_done(events) == []
    assert pipeline.missing_stages(RunFolder.open(out).clip["path"], out, config) == ()


def test_parts_of_named_kinds_are_sequences_frames(finished: Path, tmp_path: Path) -> None:
    run = RunFolder.open(finished)
    events, reporter = listen()
    for number in (1, 2):
        pipeline.export(run, ["vectors:blender"], out=tmp_path, reporter=reporter, chunk=(number, 2))
        assert len(list((tmp_path / "vectors-blender").iterdir())) == 5 * number
    assert not any(isinstance(event, Artifact) for event in events)  # a part is not all of it
    for kinds, chunk, words in ((["vectors:blender", "preview"], (1, 2), "preview has no parts"),
                                (["vectors:blender"], (3, 2), "chunk is 3/2")):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            pipeline.export(run, kinds, out=tmp_path, reporter=Reporter(), chunk=chunk)
    with pytest.raises(ConfigError, match="chunk is 0/2"):
        pipeline.run_stage(finished, "export", reporter=Reporter(), chunk=(0, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vectors-blender"]


@pytest.mark.parametrize(("num_frames", "count"), [(10, 3), (1, 1), (2, 5), (100, 7), (48, 48)])
def test_parts_are_all_frames_once_and_even(num_frames: int, count: int) -> None:
    parts = [pipeline.chunk_frames(num_frames, (k, count)) for k in range(1, count + 1)]
    assert [t for part in parts for t in part] == list(range(num_frames))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_missing_stages_are_those_that_a_job_would_do(
    finished: Path, tiny_clip: Path, config: Config, tmp_path: Path
) -> None:
    assert pipeline.missing_stages(tiny_clip, tmp_path / "absent", config) == STAGES
    assert pipeline.missing_stages(tiny_clip, finished, config) == ()
    for change, missing in (({"fit": {"steps": 3}}, STAGES[2:]), ({"export": {"kinds": ["report"]}}, STAGES[4:]),
                            ({"video": {"frames": [1001, 1004]}}, STAGES)):  # fmt: skip
        assert pipeline.missing_stages(tiny_clip, finished, config.override(change)) == missing


def stop_when(condition: Callable[[Event], bool]) -> Reporter:
    """A reporter that cancels from the first event on for which ``condition`` holds."""
    hit: list[bool] = []

    def emit(event: Event) -> None:
        if condition(event):
            hit.append(True)

    return Reporter(emit, lambda: bool(hit))


def test_a_job_that_is_cancelled_in_every_stage_ends_as_an_undisturbed_one(
    finished: Path, tiny_clip: Path, config: Config, tmp_path: Path
) -> None:
    for stage in STAGES:
        for share in (0.0, 0.5):

            def reached(event: Event, stage: str = stage, share: float = share) -> bool:
                return isinstance(event, Progress) and event.stage == stage and event.done >= share * event.total

            with pytest.raises(Cancelled):
                pipeline.track(tiny_clip, tmp_path, config, reporter=stop_when(reached))
    pipeline.track(tiny_clip, tmp_path, config, reporter=Reporter())
    assert_same_tracks(finished, tmp_path)


def test_a_changed_setting_redoes_its_stage_and_what_follows_as_a_new_run_would(
    tiny_clip: Path, config: Config, tmp_path: Path
) -> None:
    other = config.override({"fit": {"steps": 12}, "export": {"kinds": ["report"]}})
    first = config.override({"export": {"kinds": ["preview"]}})
    pipeline.track(tiny_clip, tmp_path / "old", first, reporter=Reporter())
    events, reporter = listen()
    pipeline.track(tiny_clip, tmp_path / "old", other, reporter=reporter)
    assert stages_done(events) == ["fit", "tracks", "export"]
    run = RunFolder.open(tmp_path / "old")
    assert run.config == other
    assert not run.preview.exists()  # it showed the old tracks
    pipeline.track(tiny_clip, tmp_path / "new", other, reporter=Reporter())
    assert_same_tracks(tmp_path / "old", tmp_path / "new")


def test_a_finished_fit_outlives_damage_to_what_the_flow_stage_made(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    block = next((out / "correspondences").glob("*.npz"))
    block.write_bytes(block.read_bytes()[:1000])
    model = (out / "model.safetensors").read_bytes()
    events, reporter = listen()
    pipeline.run_stage(out, "fit", reporter=reporter)
    assert stages_done(events) == []
    assert (out / "model.safetensors").read_bytes() == model


def test_a_second_round_is_fitted_to_matches_of_its_own(
    finished: Path, tiny_clip: Path, config: Config, tmp_path: Path
) -> None:
    twice = config.override({"fit": {"rounds": 2}})
    shutil.copytree(finished, tmp_path / "run")
    events, reporter = listen()
    pipeline.track(tiny_clip, tmp_path / "run", twice, reporter=reporter)
    assert stages_done(events) == ["fit", "tracks", "export"]
    results = Results(RunFolder.open(tmp_path / "run"))
    assert results.fitted_to is not results.correspondences
    assert not np.array_equal(results.fitted_to.target, results.correspondences.target)
    asked = measure_quality(results.field, results.fitted_to, results.tracks)
    np.testing.assert_array_equal(results.quality.residual_px, asked.residual_px)
    block = next((tmp_path / "run" / "rounds" / "2" / "correspondences").glob("*.npz"))
    block.write_bytes(block.read_bytes()[:1000])
    with pytest.raises(RunError, match="damaged; run the fit stage again"):
        _ = Results(RunFolder.open(tmp_path / "run")).fitted_to
    pipeline.run_stage(tmp_path / "run", "fit", reporter=Reporter())
    pipeline.run_stage(tmp_path / "run", "tracks", reporter=Reporter())
    pipeline.track(tiny_clip, tmp_path / "anew", twice, reporter=Reporter())
    assert_same_tracks(tmp_path / "run", tmp_path / "anew")
    pipeline.track(tiny_clip, tmp_path / "run", config, reporter=Reporter())
    assert_same_tracks(tmp_path / "run", finished)
    assert not (tmp_path / "run" / "rounds").exists()


def test_what_was_deleted_is_made_again(finished: Path, tiny_clip: Path, config: Config, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pipeline.track(tiny_clip, out, config, reporter=Reporter())
    (out / "tracks.npz").unlink()
    events, reporter = listen()
    pipeline.track(tiny_clip, out, config, reporter=reporter)
    assert stages_done(events) == ["tracks", "export"]
    assert_same_tracks(finished, out)


def test_a_stage_asked_for_by_name_mends_what_cannot_be_read(
    tiny_clip: Path, config: Config, tmp_path: Path
) -> None:
    pipeline.track(tiny_clip, tmp_path, config, reporter=Reporter(), stages=["prepare"])
    frame = tmp_path / "frames" / "000004.png"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:100])
    with pytest.raises(RunError, match="damaged"):
        pipeline.run_stage(tmp_path, "flow", reporter=Reporter())
    pipeline.run_stage(tmp_path, "prepare", reporter=Reporter())
    assert frame.read_bytes() == whole
    pipeline.run_stage(tmp_path, "flow", reporter=Reporter())
    events, reporter = listen()
    pipeline.run_stage(tmp_path, "flow", reporter=reporter)
    assert stages_done(events) == []


def test_a_hard_cut_is_told_kept_and_not_tracked_across(config: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shots = [cv2.GaussianBlur(rng.integers(0, 255, (96, 128, 3), np.uint8), (5, 5), 0) for _ in range(2)]
    clip = tmp_path / "clip"
    clip.mkdir()
    for t in range(8):
        picture = shots[0][t : t + 64, t : t + 96] if t < 4 else 255 - shots[1][t : t + 64, t : t + 96] // 4
        cv2.imwrite(str(clip / f"a{t:03d}.png"), picture)
    events, reporter = listen()
    folder = pipeline.track(clip, tmp_path / "run", config, reporter=reporter)
    told = [event.message for event in events if isinstance(event, Warned)]
    assert any("cut" in text for text in told)
    assert RunFolder.open(folder.path).warnings == told
    assert folder.clip["cuts"] == [4]
    assert told[0] in folder.report.read_text(encoding="utf-8")
    tracks = Run.open(folder.path).tracks
    before = tracks.queries[:, 0] < 4
    assert before.any()
    assert not before.all()
    assert not tracks.visible[before, 4:].any()
    assert not tracks.visible[~before, :4].any()
    assert tracks.visible[before, :4].mean() > 0.5


def test_a_mask_limits_the_tracks_and_its_content_counts_not_its_place(
    tiny_clip: Path, config: Config, tmp_path: Path
) -> None:
    matte = np.zeros((72, 96), np.uint8)
    matte[:, :48] = 255
    cv2.imwrite(str(tmp_path / "matte.png"), matte)
    out = tmp_path / "run"
    masked = make_config(None, config.to_dict(), mask=tmp_path / "matte.png")
    masked = masked.override({"export": {"kinds": []}})
    pipeline.track(tiny_clip, out, masked, reporter=Reporter())
    assert (Run.open(out).tracks.queries[:, 1] <= 48).all()
    (tmp_path / "matte.png").rename(tmp_path / "renamed.png")
    renamed = masked.override({"video": {"mask": str(tmp_path / "renamed.png")}})
    events, reporter = listen()
    pipeline.track(tiny_clip, out, renamed, reporter=reporter)
    assert stages_done(events) == []
    cv2.imwrite(str(tmp_path / "renamed.png"), 255 - matte)
    pipeline.track(tiny_clip, out, renamed, reporter=reporter)
    assert stages_done(events) == list(STAGES)
    assert (Run.open(out).tracks.queries[:, 1] >= 47).all()


def test_nothing_is_begun_where_an_export_is_unknown(tiny_clip: Path, config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'vectors:maya' is nothing that can be exported; use vectors:blender"):
        pipeline.track(tiny_clip, tmp_path / "run", config.override({"export": {"kinds": ["vectors:maya"]}}),
                       reporter=Reporter())  # fmt: skip
    assert not (tmp_path / "run").exists()


# --- the Python face


def test_exports_go_to_the_run_or_to_a_folder_for_each_kind(finished: Path, tmp_path: Path) -> None:
    run = Run.open(finished)
    paths = run.export("vectors:blender", "preview", "report", out=tmp_path)
    assert paths["vectors:blender"] == tmp_path / "vectors-blender"
    assert paths["preview"] == tmp_path / "preview" / "preview.mp4"
    assert paths["report"] == tmp_path / "report" / "report.html"
    ours = sorted((finished / "exr" / "blender").iterdir())
    theirs = sorted(paths["vectors:blender"].iterdir())
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert paths["preview"].stat().st_size > 0
    assert "<html" in paths["report"].read_text(encoding="utf-8")
    assert product_path("preview", RunFolder.open(finished)) == finished / "preview.mp4"


def test_sequences_can_be_written_in_parts(finished: Path, tmp_path: Path) -> None:
    results = Results(RunFolder.open(finished))
    kinds = [kind for kind in known_kinds() if is_sequence(kind)]
    single = {kind for kind in known_kinds() if kind.startswith("tracks:")} | {"preview", "report"}
    assert set(known_kinds()) - set(kinds) == single
    for kind in kinds:
        for frames in ([0, 5], [2]):
            events, reporter = listen()
            write_product(kind, results, tmp_path / kind, reporter, frames=frames)
            assert not any(isinstance(event, Artifact) for event in events)  # a part of it is not the whole
        stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / kind).iterdir()}
        numbers = {path.stem.rpartition(".")[2].split("_")[0] for path in stamps}
        assert numbers == {"1001", "1003", "1006"}, kind
        write_product(kind, results, tmp_path / kind, Reporter())
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, kind
        assert len(list((tmp_path / kind).iterdir())) > len(stamps)


def test_export_settings_reach_the_files(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"channels": {"a.R": "forward.x"}}', encoding="utf-8")
    argv = ["export", finished, "--to", "stmap", "vectors:custom", "vectors:nuke", "--reference", 1004, 1002, "--map",
            tmp_path / "map.json", "--compression", "ZIPS", "--multipart", "--out", tmp_path / "out"]
    assert cli.main([str(argument) for argument in argv]) == cli.DONE
    names = sorted(path.name for path in (tmp_path / "out" / "stmap").glob("*1005.exr"))
    assert names == [f"shot.stmap.{way}_{n}.1005.exr" for way in ("from", "to") for n in (1002, 1004)]
    nuke = read_exr(tmp_path / "out" / "vectors-nuke" / "shot.nuke.1005.exr")
    assert (nuke.compression, nuke.num_parts) == ("ZIPS", 5)
    assert set(read_exr(tmp_path / "out" / "vectors-custom" / "shot.custom.1005.exr").channels) == {"a.R"}
    by_python = Run.open(finished).export("stmap", out=tmp_path / "again", settings={"references": [1004, 1002],
                                          "compression": "ZIPS", "multipart": True})["stmap"]
    assert {path.name: path.read_bytes() for path in by_python.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "out" / "stmap").iterdir()
    }
    with pytest.raises(ConfigError, match="reference frame 1011 is not in the clip; give frames from 1001 to 1010"):
        Run.open(finished).export("stmap", out=tmp_path / "no", settings={"references": [1011]})


def test_a_painted_spot_goes_where_a_query_says(finished: Path, tmp_path: Path) -> None:
    run = Run.open(finished)
    places = np.array([(x, y) for y in range(20, 56, 6) for x in range(24, 76, 6)])
    everywhere = run.query(np.column_stack([np.full(len(places), 4), places]))
    surest = places[everywhere.confidence.sum(axis=1).argmax()]
    tracks = run.query(np.array([[4, *surest]]))
    paint = np.zeros((72, 96, 4), np.uint8)
    cv2.circle(paint, surest.tolist(), 4, (0, 0, 255, 255), -1)
    assert cv2.imwrite(str(tmp_path / "paint.png"), paint)
    assert cli.main(["propagate", str(finished), "--frame", "1005", "--image", str(tmp_path / "paint.png"), "--out",
                     str(tmp_path / "out")]) == cli.DONE
    checked = 0
    for t in range(10):
        picture = cv2.imread(str(tmp_path / "out" / f"shot.propagated.{1001 + t}.png"), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        if tracks.visible[0, t]:
            alpha = picture[..., 3].astype(float)
            y, x = np.mgrid[:72, :96]
            spot = np.array([(alpha * x).sum(), (alpha * y).sum()]) / alpha.sum()
            np.testing.assert_allclose(spot, tracks.positions[0, t], atol=1.0)
            checked += 1
    assert checked >= 5
    by_python = run.propagate({1005: tmp_path / "paint.png"}, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in by_python.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()
    }


def test_footage_that_is_gone_or_changed_is_told_by_what_needs_it(
    finished: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    run, plates = tmp_path / "run", tmp_path / "shot"
    shutil.copytree(finished, run)
    shutil.copytree(tiny_clip, plates)
    manifest = json.loads((run / "run.json").read_text())
    manifest["clip"]["path"] = str(plates / Path(manifest["clip"]["path"]).name)
    (run / "run.json").write_text(json.dumps(manifest))
    assert Run.open(run).export("stabilized", out=tmp_path / "out")
    (plates / "shot.1004.png").write_bytes((plates / "shot.1005.png").read_bytes())
    with pytest.raises(RunError, match="has changed since it was tracked; put the old file back"):
        Run.open(run).export("stabilized", out=tmp_path / "no")
    plates.rename(tmp_path / "moved")
    with pytest.raises(ClipError, match="does not exist"):
        Run.open(run).export("stabilized", out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert Run.open(run).export("stmap", "vectors:nuke", out=tmp_path / "out")  # these need the field alone


def test_a_query_answers_as_the_tracks_file_does(finished: Path) -> None:
    run = Run.open(finished)
    tracks = run.tracks
    some = np.array([3, 0, 7])
    again = run.query(tracks.queries[some])
    np.testing.assert_allclose(again.positions, tracks.positions[some], atol=1e-3)
    np.testing.assert_array_equal(again.visible, tracks.visible[some])
    assert (again.size, again.first_frame, again.fps) == ((96, 72), 1001, tracks.fps)
    assert run.clip.num_frames == again.num_frames == 10


def test_flow_and_query_agree(finished: Path) -> None:
    run = Run.open(finished)
    field = run.flow(2, 6)
    assert field.vectors.shape == (72, 96, 2)
    assert field.visible.shape == field.confidence.shape == (72, 96)
    at = np.array([[2, 40, 30], [2, 10, 60], [2, 90, 5]], np.float32)
    moved = run.query(at).positions[:, 6]
    x, y = at[:, 1].astype(int), at[:, 2].astype(int)
    np.testing.assert_allclose(moved, at[:, 1:] + field.vectors[y, x], atol=1e-3)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "shape"), ([[1, 2]], "shape"), ([["a", 1, 2]], "not an array of numbers"),
        ([[0, float("nan"), 2]], "point 0"), ([[99, 1, 1]], "99"), ([[-1, 1, 1]], "-1"), ([[0, 500, 1]], "500"),
    ],
)  # fmt: skip
def test_points_that_are_not_in_the_clip_are_told(finished: Path, points: list[list[float]], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        Run.open(finished).query(points)


def test_frames_that_are_not_in_the_clip_are_told(finished: Path) -> None:
    for i, j in ((0, 10), (-1, 3)):
        with pytest.raises(QueryError, match="give frames from 0 to 9"):
            Run.open(finished).flow(i, j)


def test_a_run_folder_that_was_moved_still_answers(finished: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(finished, moved)
    np.testing.assert_array_equal(Run.open(moved).flow(0, 3).vectors, Run.open(finished).flow(0, 3).vectors)


# --- preview


def previewing(config: Config, count: int = 30) -> Config:
    return dataclasses.replace(config, tracks=dataclasses.replace(config.tracks, preview=count))


def test_tracks_are_shown_while_they_improve_and_nothing_else_changes(
    tiny_clip: Path, config: Config, finished: Path, tmp_path: Path
) -> None:
    shown: list[MarkerFile] = []

    def emit(event: Event) -> None:
        if isinstance(event, Artifact) and event.kind == "preview_markers":
            shown.append(read_markers(Path(event.path)))

    out = tmp_path / "run"
    pipeline.track(tiny_clip, out, previewing(config), reporter=Reporter(emit))
    assert len(shown) == -(-config.fit.steps // config.fit.checkpoint_every)
    assert not (out / "preview.json").exists()
    assert_same_tracks(out, finished)
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    events, reporter = listen()
    pipeline.track(tiny_clip, out, config, reporter=reporter)
    assert stages_done(events) == []
    # each is nearer to where the points are in the end
    results = Results(RunFolder.open(out))
    queries = preview_queries(results.clip, 30)
    assert 20 <= len(queries) <= 30
    final = results.query(queries, Reporter())
    errors = []
    for preview in shown:
        assert preview.clip_frames == (1, 10)
        apart = []
        for track in preview.tracks:
            row, seen = int(track.name.removeprefix("te")), ~track.mute
            assert track.keyed_frame == int(queries[row, 0]) + 1
            pixels = marker_to_pixel(track.co[seen], preview.size)
            apart.append(np.abs(pixels - final.positions[row, track.frames[seen] - 1]).mean())
        errors.append(np.mean(apart))
    assert len(errors) >= 2
    assert errors[-1] < 0.5 * errors[0], errors


def test_a_cancelled_fit_leaves_no_preview_and_goes_on_to_the_same_end(
    tiny_clip: Path, config: Config, finished: Path, tmp_path: Path
) -> None:
    events, _ = listen()

    def shown() -> bool:
        return sum(isinstance(event, Artifact) and event.kind == "preview_markers" for event in events) >= 2

    out = tmp_path / "run"
    with pytest.raises(Cancelled):
        pipeline.track(tiny_clip, out, previewing(config), reporter=Reporter(events.append, shown))
    assert (out / "checkpoint").is_dir()
    assert not (out / "preview.json").exists()
    pipeline.track(tiny_clip, out, config, reporter=Reporter())
    assert_same_tracks(out, finished)
