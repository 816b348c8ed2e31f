"""All shots of a batch on one self-contained page: how each went, what it looks like, and which to look at first."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from omnimotion_core.errors import OmniMotionError
from omnimotion_core.export.colors import confidence_color, position_color
from omnimotion_core.export.drawing import draw_tracks, drawable, fit_canvas
from omnimotion_core.export.page import duration, embedded_image, figures_list, html_page, percent
from omnimotion_core.export.selection import choose_tracks, first_seen, usable
from omnimotion_core.files import write_text
from omnimotion_core.run import RunFolder
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.cache import load_clip

_SIDE = 384  # pixels of a picture's longer side
_TRACKS, _TRAIL_FRAMES = 120, 16
_ORDER = ("failed", "cancelled", "waiting", "running", "done")


@dataclass(frozen=True, kw_only=True)
class _Shot:
    """What is shown of a run."""

    picture: str = ""  # HTML
    num_tracks: int = 0
    confidence: float = float("nan")  # mean where visible
    worst_frame: int | None = None  # the source's number


def write_contact_sheet(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page, as a whole or not at all.

    Args:
        report: what ``report.json`` holds.
    Raises:
        RunError: the page cannot be written.
    """
    shots = [(entry, _look_at(Path(entry["run"]), entry["state"])) for entry in report["clips"]]
    # failed ones first, then by confidence, the least first: in the order in which they want looking at
    shots.sort(key=lambda shot: (_ORDER.index(shot[0]["state"]), np.nan_to_num(shot[1].confidence, nan=-1.0)))
    cards = "".join(_card(entry, shot, path.parent) for entry, shot in shots)
    counts: Mapping[str, int] = report["counts"]
    figures = [(str(len(shots)), "shots"),
               *((str(counts[state]), state) for state in reversed(_ORDER) if counts[state]),
               (str(sum(entry.get("frames") or 0 for entry, _ in shots)), "frames"),
               (duration(report["seconds"]), "this batch took")]  # fmt: skip
    began = datetime.fromisoformat(report["began"]).strftime("%Y-%m-%d %H:%M %Z")
    lead = f"{report['jobs']} · {began} · on {report['host']}"
    page = html_page(Path(report["jobs"]).name, [
        f'<h1>{escape(Path(report["jobs"]).name)}</h1>\n<p class="lead">{escape(lead)}</p>', figures_list(figures),
        '<h2>Shots</h2>\n<p class="note">Those that failed first, then by the mean confidence of what is seen. Each '
        "picture is a shot's middle frame with the trails of some of its tracks, colored by where they begin.</p>",
        f'<div class="shots">{cards}</div>',
    ])  # fmt: skip
    write_text(path, page)


def _look_at(folder: Path, state: str) -> _Shot:
    """The picture and the figures of a run; of none that is not whole."""
    if state != "done":
        return _Shot()
    try:
        run = RunFolder.open(folder)
        clip, tracks = load_clip(run.frames), Tracks.load(run.tracks)
        t = clip.num_frames // 2
        shown = tracks.select(choose_tracks(tracks, _TRACKS))
        canvas = fit_canvas(clip, min_height=1, max_side=_SIDE)
        picture = draw_tracks(canvas, clip.rgb8(t), shown, t, colors=position_color(first_seen(shown), tracks.size),
                              drawn=drawable(clip, shown), trail=_TRAIL_FRAMES)
    except OmniMotionError:
        return _Shot()
    seen = usable(tracks)
    counts = seen.sum(axis=0)
    sums = np.where(seen, tracks.confidence, 0.0).sum(axis=0, dtype=np.float64)
    sure = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)  # by frame; nothing seen: worst
    return _Shot(
        picture=embedded_image(picture, f"{clip.name}, frame {clip.first_frame + t}"), num_tracks=len(tracks),
        confidence=float(sums.sum() / counts.sum()) if counts.any() else 0.0,
        worst_frame=clip.first_frame + int(sure.argmin()),
    )  # fmt: skip


def _card(entry: Mapping[str, Any], shot: _Shot, folder: Path) -> str:
    state, name = entry["state"], escape(entry["name"])
    picture = shot.picture or f"<span>{escape(state)}</span>"
    parts = [f'<div class="picture">{picture}</div>']
    if shot.picture:
        color = ", ".join(str(round(255 * float(value))) for value in confidence_color(np.asarray(shot.confidence)))
        parts.append(f'<div class="meter"><div style="width: {100 * shot.confidence:.0f}%; background: rgb({color})">'
                     "</div></div>")  # fmt: skip
    facts = _facts(entry, shot)
    parts.append(f"<figcaption>{escape(' · '.join(facts))}</figcaption>")
    if entry["problem"]:
        text = f"{entry['problem']}; {entry['remedy']}"
        parts.append(f'<figcaption class="problem">{escape(text)}</figcaption>')
    if entry["warnings"]:
        items = "".join(f"<li>{escape(text)}</li>" for text in entry["warnings"])
        count = len(entry["warnings"])
        parts.append(f"<details><summary>{count} warning{'s' * (count > 1)}</summary><ul>{items}</ul></details>")
    if links := _links(entry, folder):
        parts.append(f"<figcaption>{links}</figcaption>")
    return f'<figure class="{escape(state)}"><h3>{name}</h3>{"".join(parts)}</figure>'


def _facts(entry: Mapping[str, Any], shot: _Shot) -> list[str]:
    facts = []
    if entry.get("frames"):
        first = entry["first_frame"]
        facts.append(f"{entry['frames']} frames ({first}–{first + entry['frames'] - 1})")
    if entry.get("size"):
        facts.append(f"{entry['size'][0]} × {entry['size'][1]} px")
    if shot.picture:
        facts += [f"{shot.num_tracks:,} tracks", f"confidence {percent(shot.confidence)}, least at frame "
                  f"{shot.worst_frame}"]  # fmt: skip
    if entry["did"]:
        facts.append(duration(entry["seconds"]))
    elif entry["state"] == "done":
        facts.append("done before")
    return facts or [entry["clip"]]


def _links(entry: Mapping[str, Any], folder: Path) -> str:
    """To the shot's own files, relative so that the folder may be moved."""
    targets = {"report": entry.get("products", {}).get("report"), "preview": entry.get("products", {}).get("preview"),
               "run folder": entry["run"] if entry.get("stages") else None, "log": entry["log"]}  # fmt: skip
    links: Sequence[str] = [f'<a href="{escape(_address(target, folder))}">{text}</a>'
                            for text, target in targets.items() if target]  # fmt: skip
    return " · ".join(links)


def _address(target: str, folder: Path) -> str:
    try:
        relative = os.path.relpath(target, folder)
    except ValueError:  # on another drive of Windows
        return Path(target).as_uri()
    return quote(relative.replace(os.sep, "/").encode("utf-8", "surrogateescape"))
