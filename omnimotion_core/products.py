"""What a run can be exported as: each kind's place and writer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnimotion_core import __version__
from omnimotion_core.config import ExportConfig
from omnimotion_core.errors import ConfigError, ExportError
from omnimotion_core.events import Reporter
from omnimotion_core.files import safe_name
from omnimotion_core.results import Results
from omnimotion_core.run import RunFolder

if TYPE_CHECKING:
    from omnimotion_core.export.sequences import Origin

ONLY_VOLUMETRIC = ("checkpoint",)  # what only a run of the paper's model can be exported as
WITH_A_MAP = ("vectors:custom",)  # what needs a file of the user's
Frames = Sequence[int] | None  # indices t of the frames to write; None: all
Writer = Callable[[Results, Path, Reporter], None]
SequenceWriter = Callable[[Results, Path, Reporter, Frames], None]
_VECTORS = "vectors:"
_TRACKS = "tracks:"


def known_kinds() -> tuple[str, ...]:
    """All kinds that ``export --to`` takes of every run without further ado."""
    from omnimotion_core.export.track_text import TRACK_FORMATS
    from omnimotion_core.export.vector_presets import PRESETS

    tracks = [f"{_TRACKS}{program}" for program in TRACK_FORMATS]
    return (*(f"{_VECTORS}{preset}" for preset in PRESETS), *_SEQUENCES, *tracks, *_WRITERS)


def is_sequence(kind: str) -> bool:
    """Whether a kind is a folder of files for each frame, of which a part can be written."""
    return kind.startswith(_VECTORS) or kind in _SEQUENCES


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ``ConfigError`` where a kind is unknown."""
    known = (*known_kinds(), *WITH_A_MAP, *ONLY_VOLUMETRIC)
    for kind in kinds:
        if kind not in known:
            raise ConfigError(f"{kind!r} is nothing that can be exported", f"use {', '.join(known)}")


def check_settings(kinds: Sequence[str], settings: ExportConfig) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        ConfigError: a kind is unknown.
        ExportError: the map of ``vectors:custom`` or the compression cannot be used.
    """
    check_kinds(kinds)
    if any(map(is_sequence, kinds)):
        from omnimotion_core.export.exr import check_compression
        from omnimotion_core.export.vector_map import find_preset

        check_compression(settings.compression)
        for kind in kinds:
            if kind.startswith(_VECTORS):
                find_preset(kind.removeprefix(_VECTORS), settings)


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
    if kind in _SEQUENCES:
        return run.exr / kind if out is None else out / kind
    if kind.startswith(_TRACKS):
        from omnimotion_core.export.track_text import track_file_name

        folder = run.track_texts if out is None else out / kind.replace(":", "-")
        return folder / track_file_name(safe_name(run.clip["name"]), kind.removeprefix(_TRACKS))
    path = {"preview": run.preview, "report": run.report, "checkpoint": run.published}[kind]
    return path if out is None else out / kind / path.name


def write_product(
    kind: str, results: Results, path: Path, reporter: Reporter, frames: Frames = None
) -> None:
    """Write ``kind`` of a run to ``path`` and tell that it is there.

    Args:
        frames: of a sequence, indices t of those to write; all when not given. What is no sequence is written whole.
    Raises:
        ConfigError: a reference frame is not in the clip.
        ExportError: it cannot be written.
        Cancelled: the user asked to stop.
    """
    if is_sequence(kind):
        from omnimotion_core.export.exr import compressing_with

        with compressing_with(results.threads):
            if kind.startswith(_VECTORS):
                _write_vectors(results, path, kind.removeprefix(_VECTORS), reporter, frames)
            else:
                _SEQUENCES[kind](results, path, reporter, frames)
    elif kind.startswith(_TRACKS):
        _write_tracks(results, path, kind.removeprefix(_TRACKS))
    elif kind in ONLY_VOLUMETRIC:
        _write_checkpoint(results, path)
    else:
        _WRITERS[kind](results, path, reporter)
    if frames is None:  # a part of a sequence is not all of it
        reporter.artifact(kind, path)


def write_painted(
    images: Mapping[int, Path], results: Results, folder: Path, reporter: Reporter, frames: Frames = None
) -> None:
    """Carry pictures, given by the source's frame numbers, to every frame, into ``folder``; tells that it is there.

    Raises:
        OmniMotionError: a picture or a frame cannot be used, or a file cannot be written.
        Cancelled: the user asked to stop.
    """
    from omnimotion_core.export.exr import compressing_with
    from omnimotion_core.export.propagation import KIND, read_painted, write_propagated

    painted = read_painted(images, results.clip)
    with compressing_with(results.threads):
        write_propagated(results.flow, results.clip, painted, folder, reporter=reporter, origin=_origin(results),
                         frames=frames, settings=results.config.export)
    reporter.artifact(KIND, folder)


def _write_vectors(results: Results, folder: Path, preset: str, reporter: Reporter, frames: Frames) -> None:
    from omnimotion_core.export.motion_vectors import write_motion_vectors

    origin = _origin(results)
    write_motion_vectors(
        results.flow, results.clip, folder, preset, reporter=reporter, tool_version=origin.tool_version,
        run_digest=origin.run_digest, frames=frames, settings=results.config.export,
    )  # fmt: skip


def _write_depth(results: Results, folder: Path, reporter: Reporter, frames: Frames) -> None:
    from omnimotion_core.export.depth import write_depth

    write_depth(results.depth, results.clip, folder, reporter=reporter, origin=_origin(results), frames=frames,
                settings=results.config.export)


def _write_stmaps(results: Results, folder: Path, reporter: Reporter, frames: Frames) -> None:
    from omnimotion_core.export.stmap import write_stmaps

    write_stmaps(results.flow, results.clip, folder, reporter=reporter, origin=_origin(results), frames=frames,
                 settings=results.config.export)


def _write_stabilized(results: Results, folder: Path, reporter: Reporter, frames: Frames) -> None:
    from omnimotion_core.export.stabilized import write_stabilized

    write_stabilized(results.flow, results.clip, results.footage(), folder, reporter=reporter, origin=_origin(results),
                     frames=frames, settings=results.config.export)


def _origin(results: Results) -> "Origin":
    from omnimotion_core.export.sequences import Origin

    return Origin(tool_version=__version__, run_digest=results.run.manifest["stages"]["fit"]["key"])


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


_SEQUENCES: dict[str, SequenceWriter] = {
    "depth": _write_depth, "stmap": _write_stmaps, "stabilized": _write_stabilized,
}  # fmt: skip
_WRITERS: dict[str, Writer] = {"preview": _write_preview, "report": _write_report}
