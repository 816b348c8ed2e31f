"""The page that tells a supervisor what was tracked, how well, and where to look: one self-contained HTML file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.export.colors import confidence_color, position_color
from omnimotion_core.export.drawing import draw_tracks, drawable, fit_canvas
from omnimotion_core.export.page import duration, embedded_image, figures_list, html_page, percent
from omnimotion_core.export.plots import bars, curve, histogram, number
from omnimotion_core.export.selection import choose_tracks, first_seen
from omnimotion_core.files import write_text
from omnimotion_core.trajectories.quality import Quality
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip

CYCLE_LIMIT_PX = 0.01  # what the project promises of a fitted field
_NUM_WORST = 6
_TRAIL_FRAMES = 24
_TRAIL_TRACKS, _CONFIDENCE_TRACKS = 400, 800


def write_report(
    path: Path,
    *,
    clip: Clip,
    tracks: Tracks,
    quality: Quality,
    manifest: Mapping[str, Any],
    warnings: Sequence[str],
) -> None:
    """Write the page, as a whole or not at all.

    Args:
        manifest: what ``run.json`` holds; parts that are missing are left out of the page.
        warnings: what the stages warned of, shown near the top.
    Raises:
        RunError: the page cannot be written, or a working frame is missing.
    """
    sections = [
        _heading(clip, manifest),
        _warnings(warnings),
        _figures(clip, tracks, quality, manifest),
        _trails(clip, tracks),
        _plots(clip, tracks, quality),
        _worst(clip, tracks, quality),
        _details(clip, manifest),
    ]
    write_text(path, html_page(clip.name, sections))


def spaced_worst_frames(quality: Quality, count: int) -> list[int]:
    """The least trustworthy frames, none within a twelfth of the clip of a worse one: bad frames come in rows."""
    num_frames = len(quality.confidence)
    spacing = max(1, num_frames // 12)
    chosen: list[int] = []
    for t in quality.worst_frames.tolist():
        if len(chosen) < count and all(abs(t - other) >= spacing for other in chosen):
            chosen.append(t)
    return chosen


def _heading(clip: Clip, manifest: Mapping[str, Any]) -> str:
    width, height = clip.size
    last = clip.first_frame + clip.num_frames - 1
    facts = [f"{clip.num_frames} frames ({clip.first_frame}–{last})", f"{width} × {height} px"]
    if clip.pixel_aspect != 1.0:
        facts.append(f"pixel aspect {number(clip.pixel_aspect, 4)}")
    facts.append(f"{number(clip.fps, 5)} frames/s" if clip.fps > 0 else "frame rate unknown")
    config = manifest.get("config")
    if isinstance(config, Mapping) and "preset" in config:
        facts.append(f"preset {config['preset']}")
    if device := _device(manifest.get("device")):
        facts.append(f"on {device}")
    packages = manifest.get("packages")
    if isinstance(packages, Mapping) and "omnimotion" in packages:
        facts.append(f"Track Everything {packages['omnimotion']}")
    return f'<h1>{escape(clip.name)}</h1>\n<p class="lead">{escape(" · ".join(facts))}</p>'


def _device(device: object) -> str:
    if isinstance(device, Mapping):
        return ", ".join(str(device[key]) for key in ("type", "name") if device.get(key))
    return ""


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<h2>Warnings</h2>\n<ul class="warnings">{items}</ul>'


def _figures(clip: Clip, tracks: Tracks, quality: Quality, manifest: Mapping[str, Any]) -> str:
    lengths = tracks.visible.sum(axis=1)
    seconds = sum(value for _, value in _seconds(manifest))
    figures = [
        (f"{len(tracks):,}", "tracks"),
        (number(_median(lengths)), f"median track length, of {clip.num_frames} frames"),
        (percent(_mean(quality.visible)), "tracks visible, mean over frames"),
        (percent(_mean(quality.confidence)), "confidence where visible, mean"),
        (percent(_mean(quality.coverage)), "frame area near a trusted match, mean"),
        (f"{number(_mean(quality.residual_px))} px", "residual to the flow matches, mean of frame medians"),
        (f"{number(_largest(quality.cycle_error_px), 2)} px", "largest cycle error"),
        (duration(seconds), "computing time"),
    ]
    return figures_list(figures)


def _trails(clip: Clip, tracks: Tracks) -> str:
    t = clip.num_frames // 2
    shown = tracks.select(choose_tracks(tracks, _TRAIL_TRACKS))
    canvas = fit_canvas(clip, min_height=360, max_side=960)
    picture = draw_tracks(canvas, clip.rgb8(t), shown, t, colors=position_color(first_seen(shown), tracks.size),
                          drawn=drawable(clip, shown), trail=_TRAIL_FRAMES)
    frame = clip.first_frame + t
    return (
        f'<h2>Motion</h2>\n<figure class="wide">{embedded_image(picture, f"Trails over frame {frame}")}'
        f"<figcaption>Frame {frame}: {len(shown)} of {len(tracks):,} tracks with the trail of their last "
        f"{_TRAIL_FRAMES} frames, colored by where they begin. Dots are seen, rings are hidden.</figcaption></figure>"
    )


def _plots(clip: Clip, tracks: Tracks, quality: Quality) -> str:
    shared: dict[str, Any] = {"first_frame": clip.first_frame, "cuts": clip.cuts}
    plots = [
        ("Residual", "Median distance of the field from the flow matches.",
         curve(quality.residual_px, label="Residual", unit="pixels", **shared)),
        ("Cycle error", f"Largest miss after two other frames and back; dashed: the promised {CYCLE_LIMIT_PX} px.",
         curve(quality.cycle_error_px, label="Cycle error", unit="pixels", log=True, limit=CYCLE_LIMIT_PX, **shared)),
        ("Coverage", "Share of the frame near which a trusted match begins.",
         curve(100 * quality.coverage, label="Coverage", unit="percent", ceiling=100.0, **shared)),
        ("Confidence", "Mean over the tracks visible in the frame.",
         curve(100 * quality.confidence, label="Confidence", unit="percent", ceiling=100.0, **shared)),
        ("Visible tracks", "Share of all tracks that are visible in the frame.",
         curve(100 * quality.visible, label="Visible tracks", unit="percent", ceiling=100.0, **shared)),
        ("Track lengths", "In how many frames a track is visible.",
         histogram(tracks.visible.sum(axis=1), label="Track lengths", unit="frames visible",
                   maximum=float(clip.num_frames), bins=min(24, clip.num_frames))),
    ]  # fmt: skip
    figures = "".join(
        f'<figure><h3>{escape(title)}</h3>{svg}<figcaption>{escape(caption)}</figcaption></figure>'
        for title, caption, svg in plots
    )
    note = '<p class="note">Upright dashed lines mark hard cuts.</p>' if clip.cuts else ""
    return f'<h2>Over the shot</h2>\n{note}<div class="grid">{figures}</div>'


def _worst(clip: Clip, tracks: Tracks, quality: Quality) -> str:
    shown = tracks.select(choose_tracks(tracks, _CONFIDENCE_TRACKS))
    drawn = drawable(clip, shown)
    canvas = fit_canvas(clip, min_height=240, max_side=480)
    cards = []
    for t in spaced_worst_frames(quality, _NUM_WORST):
        picture = draw_tracks(canvas, clip.rgb8(t), shown, t, colors=confidence_color(shown.confidence[:, t]),
                              drawn=drawn, trail=0, radius=3.4)
        frame = clip.first_frame + t
        facts = (f"confidence {percent(quality.confidence[t])}, coverage {percent(quality.coverage[t])}, "
                 f"residual {number(float(quality.residual_px[t]))} px")
        cards.append(f"<figure><h3>Frame {frame}</h3>{embedded_image(picture, f'Tracks in frame {frame}')}"
                     f"<figcaption>{escape(facts)}</figcaption></figure>")
    stops = ", ".join(_css_color(level) for level in np.linspace(0, 1, 5))
    return (
        '<h2>Where to look</h2>\n<p class="note">The frames with the least confidence times coverage, spaced apart. '
        f'Tracks by confidence: 0 <span class="ramp" style="background: linear-gradient(90deg, {stops})"></span> 100%. '
        f'Dots are seen, rings are hidden.</p>\n<div class="grid">{"".join(cards)}</div>'
    )


def _details(clip: Clip, manifest: Mapping[str, Any]) -> str:
    timings = [(stage, value, duration(value)) for stage, value in _seconds(manifest)]
    parts = ["<h2>How it was made</h2>"]
    if timings:
        parts.append(f'<div class="grid"><div class="card"><h3>Time by stage</h3>{bars(timings, label="Time by stage")}'
                     "</div></div>")
    source = {
        "path": clip.path, "sha256": clip.sha256, "plate": f"{clip.size[0]} × {clip.size[1]} px",
        "working frames": f"{clip.working_size[0]} × {clip.working_size[1]} px",
        "cuts before frames": ", ".join(str(clip.first_frame + t) for t in clip.cuts) or "none",
        "matte": "yes" if clip.has_mask else "no",
    }  # fmt: skip
    tables = {"Footage": source, "Settings": manifest.get("config"), "Device": manifest.get("device"),
              "Versions": manifest.get("packages")}  # fmt: skip
    for title, content in tables.items():
        rows = list(_flat(content)) if isinstance(content, Mapping) else []
        if rows:
            lines = (f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in rows)
            table = f'<div class="scroll"><table>{"".join(lines)}</table></div>'
            parts.append(f"<details><summary>{title}</summary>{table}</details>")
    return "\n".join(parts)


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _seconds(manifest: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The stages that are done and their times."""
    stages = manifest.get("stages")
    if not isinstance(stages, Mapping):
        return []
    return [
        (str(name), float(entry["seconds"]))
        for name, entry in stages.items()
        if isinstance(entry, Mapping)
        and isinstance(entry.get("seconds"), (int, float))
        and math.isfinite(entry["seconds"])
    ]


def _css_color(level: float) -> str:
    return f"rgb({', '.join(str(round(255 * float(value))) for value in confidence_color(np.asarray(level)))})"


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _largest(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else math.nan
