"""The Python face: track a clip, then ask where things go."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from omnimotion_core import pipeline
from omnimotion_core.config import Config
from omnimotion_core.events import Reporter
from omnimotion_core.flow.estimators import BUILT_IN
from omnimotion_core.results import Results
from omnimotion_core.run import RunFolder
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip

if TYPE_CHECKING:  # these load torch, which takes seconds, and the command line uses `make_config` before it is needed
    from omnimotion_core.trajectories.dense import DenseFlow
    from omnimotion_core.trajectories.quality import Quality


def track(
    clip: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    frames: tuple[int, int] | None = None,
    flow: str | Path | None = None,
    weights: str | Path | None = None,
    mask: str | Path | None = None,
    seed: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    allow_gaps: bool | None = None,
    reporter: Reporter | None = None,
) -> "Run":
    """Track a whole clip into a run folder; what the folder already holds of the same job is kept.

    Args:
        clip: a movie, or an image sequence such as ``shot.####.exr``.
        out: the run folder.
        preset: ``draft``, ``standard`` (the default) or ``paper``.
        settings: changes to the preset, nested as in ``Config.to_dict()``.
        frames: first and last frame, inclusive: file numbers of a sequence, counted from 1 in a movie.
        flow: an estimator's name, or a folder of flow made elsewhere.
        weights: the file of a learned estimator.
        mask: an image or a sequence; white is tracked.
        seed: of everything random.
        device: auto, cpu, cuda or mps.
        threads: 0 for as many as this process may use.
        allow_gaps: a missing file of a sequence repeats the one before it.
        reporter: hears the progress and may cancel the job.
    Raises:
        OmniMotionError: something that can be mended; its text tells what and how.
        Cancelled: the reporter asked to stop; the same call goes on.
    """
    config = make_config(
        preset, settings, frames=frames, flow=flow, weights=weights, mask=mask, seed=seed, device=device,
        threads=threads, allow_gaps=allow_gaps,
    )  # fmt: skip
    return Run(pipeline.track(clip, out, config, reporter=reporter or Reporter()))


def make_config(
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    frames: tuple[int, int] | None = None,
    flow: str | Path | None = None,
    weights: str | Path | None = None,
    mask: str | Path | None = None,
    seed: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    allow_gaps: bool | None = None,
) -> Config:
    """A preset with ``settings`` applied and then every named option that is not None; paths become absolute.

    Raises:
        ConfigError: a setting is unknown or cannot be used.
    """
    changes = dict(settings or {})
    base = changes.pop("preset", "standard")
    config = Config.from_preset(preset or base).override(changes)
    estimator = str(flow) if flow is not None else config.flow.estimator
    channels = config.export.vectors_map
    matte = str(mask) if mask is not None else config.video.mask
    file = str(weights) if weights is not None else config.flow.weights
    video = {"mask": None if matte is None else os.path.abspath(matte), "frames": frames, "allow_gaps": allow_gaps}
    named = {
        "seed": seed, "device": device, "threads": threads, "video": _given(video),
        "flow": {"estimator": os.path.abspath(estimator) if _is_path(estimator) else estimator,
                 "weights": None if file is None else os.path.abspath(file)},
        "export": _given({"vectors_map": None if channels is None else os.path.abspath(channels)}),
    }  # fmt: skip
    return config.override(_given(named))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _is_path(estimator: str) -> bool:
    """Whether a flow setting is a path, which has to hold in other working directories too, and no name."""
    return os.path.basename(estimator) != estimator or (estimator not in BUILT_IN and os.path.exists(estimator))


class Run:
    """A tracked clip; everything is read when it is first asked for.

    Args:
        folder: the run folder, its manifest read.
        device: auto, cpu, cuda or mps; the run's own setting when not given.
    """

    def __init__(self, folder: RunFolder, device: str | None = None) -> None:
        self._folder, self._results = folder, Results(folder, device)

    @classmethod
    def open(cls, path: str | Path, device: str | None = None) -> Self:
        """A run folder that exists.

        Raises:
            RunError: it is none, is damaged, or was written by a newer version.
        """
        return cls(RunFolder.open(path), device)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def config(self) -> Config:
        """The settings that it was made with."""
        return self._results.config

    @property
    def warnings(self) -> list[str]:
        """What the stages warned of."""
        return self._folder.warnings

    @property
    def clip(self) -> Clip:
        """The working frames and the clip's facts; ``RunError`` before it is prepared."""
        return self._results.clip

    @property
    def tracks(self) -> Tracks:
        """The tracks of ``tracks.npz``; ``RunError`` before they are made."""
        return self._results.tracks

    @property
    def quality(self) -> "Quality":
        """How well the field fits, frame by frame."""
        return self._results.quality

    def query(self, points: Any, *, reporter: Reporter | None = None) -> Tracks:
        """Where points are in every frame.

        Args:
            points: (N, 3) as (t, x, y): frame counted from 0, pixels of the plate with (0, 0) the centre of the
                top-left one.
            reporter: hears the progress and may cancel.
        Raises:
            QueryError: a point is outside the clip's frames or picture.
        """
        return self._results.query(points, reporter)

    def flow(self, source: int, target: int) -> "DenseFlow":
        """Where every pixel of frame ``source`` is in frame ``target``, any two frames, at plate resolution.

        Raises:
            QueryError: the clip has no such frame.
        """
        return self._results.flow(source, target)

    def export(
        self, *kinds: str, out: str | Path | None = None, settings: Mapping[str, Any] | None = None,
        reporter: Reporter | None = None,
    ) -> dict[str, Path]:  # fmt: skip
        """Write products such as ``vectors:blender``, ``preview`` and ``report``.

        Args:
            kinds: what to write.
            out: a folder that gets a folder for each kind; the run folder's own places when not given.
            settings: changes to the run's ``export`` settings, such as ``{"references": [1024]}``.
            reporter: hears the progress and may cancel.
        Returns:
            Each kind's file, or folder of a sequence.
        Raises:
            ConfigError: a kind is unknown.
            ExportError: a file cannot be written.
        """
        results = self._results if settings is None else self._results.changed({"export": settings})
        return pipeline.export(self._folder, kinds, out=out, reporter=reporter or Reporter(), results=results)

    def propagate(
        self, images: Mapping[int, str | Path], out: str | Path, *, reporter: Reporter | None = None
    ) -> Path:
        """Carry a matte or paint to every frame.

        Args:
            images: the source's frame number → the picture that was made on that frame, of the plate's size.
            out: the folder that gets a picture for each frame.
            reporter: hears the progress and may cancel.
        Raises:
            OmniMotionError: a picture or a frame cannot be used, or a file cannot be written.
        """
        return pipeline.propagate(self._folder, images, out, reporter=reporter or Reporter(), results=self._results)
