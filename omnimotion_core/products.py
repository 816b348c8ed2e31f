"""What a run can be exported as: each kind's place and writer."""

from collections.abc import Callable, Sequence
from pathlib import Path

from omnimotion_core import __version__
from omnimotion_core.errors import ConfigError, ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.files import safe_name
from omnimotion_core.results import Results
from omnimotion_core.run import RunFolder

ONLY_VOLUMETRIC = ("checkpoint",)  # what only a run of the paper's model can be exported as
Writer = Callable[[Results, Path, Reporter], None]
_VECTORS = "vectors:"
_TRACKS = "tracks:"


def known_kinds() -> tuple[str, ...]:
    """All kinds that ``export --to`` takes of every run."""
    from omnimotion_core.export.motion_vectors import PRESETS
    from omnimotion_core.export.track_text import TRACK_FORMATS

    tracks = [f"{_TRACKS}{program}" for program in TRACK_FORMATS]
    return (*(f"{_VECTORS}{preset}" for preset in PRESETS), *tracks, *_WRITERS)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ``ConfigError`` where a kind is unknown."""
    known = (*known_kinds(), *ONLY_VOLUMETRIC)
    for kind in kinds:
        if kind not in known:
            raise ConfigError(f"{kind!r} is nothing that can be exported", f"use {', '.join(known)}")


def product_path(kind: str, run: RunFolder, out: Path | None = None) -> Path:
    """Where ``kind`` is written: a file, or for a sequence its folder.

    Args:
        kind: one that ``check_kinds`` takes.
        run: its own places are taken where ``out`` is not given.
        out: a folder that gets a folder for each kind; the colon of a kind becomes a dash there, since Windows allows
            no colon in a name.
    """
    if kind.startswith(_VECTORS):
        return run.exr / kind.removeprefix(_VECTORS) if out is None else out / kind.replace(":", "-")
    if kind.startswith(_TRACKS):
        from omnimotion_core.export.track_text import track_file_name

        folder = run.track_texts if out is None else out / kind.replace(":", "-")
        return folder / track_file_name(safe_name(run.clip["name"]), kind.removeprefix(_TRACKS))
    path = {"preview": run.preview, "report": run.report, "checkpoint": run.published}[kind]
    return path if out is None else out / kind / path.name


def write_product(kind: str, results: Results, path: Path, reporter: Reporter) -> None:
    """Write ``kind`` of a run to ``path`` and tell that it is there.

    Raises:
        ExportError: it cannot be written.
        Cancelled: the user asked to stop.
    """
    if kind.startswith(_VECTORS):
        _write_vectors(results, path, kind.removeprefix(_VECTORS), reporter)
    elif kind.startswith(_TRACKS):
        _write_tracks(results, path, kind.removeprefix(_TRACKS))
    elif kind in ONLY_VOLUMETRIC:
        _write_checkpoint(results, path)
    else:
        _WRITERS[kind](results, path, reporter)
    reporter.artifact(kind, path)


def _write_vectors(results: Results, folder: Path, preset: str, reporter: Reporter) -> None:
    from omnimotion_core.export.motion_vectors import write_motion_vectors

    write_motion_vectors(
        results.flow, results.clip, folder, preset, reporter=reporter, tool_version=__version__,
        run_digest=results.run.manifest["stages"]["fit"]["key"],
    )  # fmt: skip


def _write_tracks(results: Results, path: Path, program: str) -> None:
    from omnimotion_core.export.track_text import write_track_text

    clip = results.clip
    write_track_text(
        results.tracks, path, program, max_tracks=results.config.tracks.max_markers,
        clip_offset=clip.first_frame - clip.clip_first_frame, pixel_aspect=clip.pixel_aspect,
    )  # fmt: skip


def _write_preview(results: Results, path: Path, reporter: Reporter) -> None:
    from omnimotion_core.export.preview import write_preview

    write_preview(results.clip, results.tracks, path, reporter=reporter)


def _write_report(results: Results, path: Path, reporter: Reporter) -> None:
    from omnimotion_core.export.report import write_report

    write_report(
        path, clip=results.clip, tracks=results.tracks, quality=results.quality, manifest=results.run.manifest,
        warnings=results.run.warnings,
    )  # fmt: skip


def _write_checkpoint(results: Results, path: Path) -> None:
    from omnimotion_core.model.published import write_published
    from omnimotion_core.model.volumetric import VolumetricField

    field = results.field
    if not isinstance(field, VolumetricField):
        raise ExportError(f"{results.run.path} holds a field that the paper's networks cannot hold",
                          "track the clip with --preset paper for a checkpoint of OmniMotion")
    write_published(field, path)


_WRITERS: dict[str, Writer] = {"preview": _write_preview, "report": _write_report}
