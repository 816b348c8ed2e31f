import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omnimotion_core.config import Config
from omnimotion_core.errors import RunError
from omnimotion_core.export.report import spaced_worst_frames, write_report
from omnimotion_core.trajectories.quality import Quality
from omnimotion_core.video.clip import Clip

from .conftest import MakeClip, MakeTracks

MANIFEST: dict[str, Any] = {
    "version": 1, "config": Config().to_dict(), "device": {"type": "cpu", "name": "x86_64", "threads": 2},
    "stages": {"prepare": {"state": "done", "seconds": 3.5}, "fit": {"state": "done", "seconds": 75.0},
               "export": {"state": "started"}},
    "packages": {"omnimotion": "0.1.0", "numpy": "2.4.6"},
}  # fmt: skip
VOID = {"meta", "img", "br", "line", "polyline", "circle", "rect"}


class Page(HTMLParser):
    """Checks that elements nest, and collects text, pictures and addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def quality_of(num_frames: int) -> Quality:
    t = np.arange(num_frames)
    return Quality(
        residual_px=0.3 + 0.01 * t, cycle_error_px=np.full(num_frames, 1e-4), coverage=np.full(num_frames, 0.8),
        confidence=np.linspace(0.9, 0.4, num_frames), visible=np.full(num_frames, 0.7),
    )  # fmt: skip


def write(path: Path, clip: Clip, make_tracks: MakeTracks, **changes: Any) -> str:
    content: dict[str, Any] = {
        "tracks": make_tracks(40, clip.num_frames), "quality": quality_of(clip.num_frames), "manifest": MANIFEST,
        "warnings": [],
    }  # fmt: skip
    write_report(path, clip=clip, **(content | changes))
    return path.read_text(encoding="utf-8")


def test_the_page_tells_what_was_tracked_and_how_well(
    tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks
) -> None:
    html = write(tmp_path / "r.html", make_clip(num_frames=24, cuts=(12,)), make_tracks, warnings=["a cut was found"])
    text = Page(html).text
    for fact in ("shot", "24 frames (1001–1024)", "96 × 64 px", "24 frames/s", "preset standard", "on cpu, x86_64",
                 "Track Everything 0.1.0", "a cut was found", "0.415 px", "1 min 18 s", "fit.steps", "1 min 15 s",
                 "2.4.6", "1013"):  # fmt: skip
        assert fact in text, fact


def test_the_page_needs_nothing_from_elsewhere_and_runs_no_script(
    tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks
) -> None:
    html = write(tmp_path / "r.html", make_clip(num_frames=24), make_tracks)
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in html
    assert "url(" not in html
    assert page.tags.count("svg") == 7
    assert len(page.addresses) == 7  # the trails and six worst frames
    for address in page.addresses:
        kind, _, data = address.partition(",")
        assert kind == "data:image/jpeg;base64"
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.std() > 5


def test_hostile_names_and_warnings_stay_text(tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks) -> None:
    evil = "<script>alert(1)</script>\"'&"
    clip = make_clip(name=evil, path=evil + "\udcff")
    manifest = MANIFEST | {"config": {"preset": evil, evil: evil}, "device": {"type": evil, evil: evil},
                           "packages": {"omnimotion": evil}, "stages": {evil: {"seconds": 1.0}}}  # fmt: skip
    html = write(tmp_path / "r.html", clip, make_tracks, manifest=manifest, warnings=[evil])
    page = Page(html)
    assert "script" not in page.tags
    assert evil in page.text


def test_figures_that_are_not_finite_break_nothing(
    tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks
) -> None:
    clip = make_clip()
    nothing = np.full(6, np.nan)
    quality = Quality(residual_px=nothing, cycle_error_px=np.full(6, np.inf), coverage=nothing, confidence=nothing,
                      visible=nothing)  # fmt: skip
    manifest = MANIFEST | {"stages": {"fit": {"seconds": float("nan")}, "flow": {"seconds": None}, "x": 3}}
    tracks = make_tracks(40, 6)
    tracks.confidence[:] = np.nan
    html = write(tmp_path / "r.html", clip, make_tracks, tracks=tracks, quality=quality, manifest=manifest)
    text = Page(html).text
    assert "no finite value" in text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_no_tracks_and_an_empty_manifest_still_make_a_page(
    tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks
) -> None:
    clip = replace(make_clip(num_frames=2), fps=0.0)
    tracks = make_tracks(3, 2).select(np.zeros(0, int))
    text = Page(write(tmp_path / "r.html", clip, make_tracks, tracks=tracks, manifest={})).text
    assert "frame rate unknown" in text


def test_worst_frames_are_the_worst_and_apart() -> None:
    num_frames = 48
    confidence = np.full(num_frames, 0.9)
    confidence[[20, 21, 22, 40]] = [0.2, 0.1, 0.3, 0.5]
    quality = replace(quality_of(num_frames), confidence=confidence)
    worst = spaced_worst_frames(quality, 3)
    assert worst[:2] == [21, 40]
    assert len(worst) == 3
    assert np.diff(sorted(worst)).min() >= 4


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, make_clip: MakeClip, make_tracks: MakeTracks
) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(RunError, match="cannot be written"):
        write(tmp_path / "file" / "r.html", make_clip(), make_tracks)
    assert (tmp_path / "file").read_text() == "old"
