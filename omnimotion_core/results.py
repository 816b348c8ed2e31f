"""What a run folder holds, read when it is first asked for."""

import copy
import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omnimotion_core.devices import choose_device, choose_threads, computing, machine
from omnimotion_core.errors import RunError
from omnimotion_core.events import Reporter
from omnimotion_core.points import as_queries
from omnimotion_core.run import RunFolder
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import Clip

if TYPE_CHECKING:
    import numpy as np
    import torch

    from omnimotion_core.flow.correspondences import Correspondences
    from omnimotion_core.model.motion import Motion, PreparedMotion
    from omnimotion_core.trajectories.dense import DenseFlow
    from omnimotion_core.trajectories.quality import Quality
    from omnimotion_core.video.source import Source


class Results:
    """Reads a run folder and answers questions about its clip; writes nothing.

    Args:
        run: the folder, its manifest read.
        device: auto, cpu, cuda or mps; the run's own setting when not given.
        threads: 0 for as many as this process may use; the run's own setting when not given.
    """

    def __init__(self, run: RunFolder, device: str | None = None, threads: int | None = None) -> None:
        self.run, self.config = run, run.config.override(machine(device, threads))
        self.threads = choose_threads(self.config.threads)

    def changed(self, changes: Mapping[str, Any]) -> "Results":
        """These results under other settings, nested as in ``Config.to_dict()``; what they read already is kept."""
        other = copy.copy(self)
        other.config = self.config.override(changes)
        return other

    @cached_property
    def device(self) -> "torch.device":
        """Where the field is evaluated."""
        return choose_device(self.config.device)

    @cached_property
    def clip(self) -> Clip:
        """The working frames."""
        from omnimotion_core.video.cache import load_clip

        self.run.require("prepare")
        return load_clip(self.run.frames)

    def footage(self) -> "Source":
        """The footage that the clip was made of, where it is still what it was.

        Raises:
            ClipError: it is gone.
            RunError: it has changed.
        """
        from omnimotion_core.video.source import identify

        facts = self.run.clip
        source = identify(facts["path"], dataclasses.replace(self.config.video, mask=None))
        if source.sha256 != facts["sha256"]:
            raise RunError(f"{facts['path']} has changed since it was tracked",
                           "put the old file back, or track the clip again")
        return source

    @cached_property
    def correspondences(self) -> "Correspondences":
        """What flow found."""
        from omnimotion_core.flow.stage import load_correspondences

        self.run.require("flow")
        return load_correspondences(self.run.correspondences, self.clip, self.config.flow)

    @cached_property
    def fitted_to(self) -> "Correspondences":
        """The matches that the field was fitted to: of the last round of flow."""
        from omnimotion_core.flow.stage import load_correspondences
        from omnimotion_core.optimization.rounds import matches_folder

        if self.config.fit.rounds == 1:
            return self.correspondences
        self.run.require("fit")
        folder = matches_folder(self.run.rounds, self.config.fit.rounds)
        try:
            return load_correspondences(folder, self.clip, self.config.flow)
        except RunError as error:
            raise RunError(error.problem, "run the fit stage again") from error

    @cached_property
    def field(self) -> "Motion":
        """The fitted field."""
        from omnimotion_core.model.field import Field
        from omnimotion_core.model.storage import load_field

        self.run.require("fit")
        field = load_field(self.run.model, self.run.model_json, self.device)
        if isinstance(field, Field):
            field.threads = self.threads
        return field

    @cached_property
    def _prepared(self) -> "PreparedMotion":
        """Made once: an export asks for the flow of hundreds of frame pairs."""
        return self.field.prepare()

    @cached_property
    def tracks(self) -> Tracks:
        """The tracks of ``tracks.npz``."""
        self.run.require("tracks")
        return Tracks.load(self.run.tracks)

    @cached_property
    def quality(self) -> "Quality":
        """How well the field fits, frame by frame."""
        from omnimotion_core.trajectories.quality import measure_quality

        with computing(self.device):
            return measure_quality(self.field, self.fitted_to, self.tracks)

    def prepare_to_answer(self) -> None:
        """Read now what the first question would have to wait for."""
        self.clip  # noqa: B018
        with computing(self.device):
            self.field.prepare()

    def query(self, points: Any, reporter: Reporter | None = None) -> Tracks:
        """Where points are in every frame.

        Args:
            points: (N, 3) as (t, x, y): frame index, pixels of the plate.
            reporter: hears the progress.
        Raises:
            QueryError: the points have another shape, are not numbers, or lie outside the clip.
        """
        from omnimotion_core.trajectories.query import track_points

        queries = as_queries(points)
        with computing(self.device):
            return track_points(self.field, queries, memory_mb=self.config.tracks.memory_mb, reporter=reporter)

    def flow(self, source: int, target: int) -> "DenseFlow":
        """The motion of every pixel of the plate from frame ``source`` to frame ``target``, counted from 0.

        Raises:
            QueryError: the clip has no such frame.
        """
        from omnimotion_core.trajectories.dense import dense_flow

        with computing(self.device):
            return dense_flow(self._prepared, source, target, memory_mb=self.config.tracks.memory_mb)

    def depth(self, frame: int) -> "np.ndarray":
        """Depth of every pixel of the plate in a frame counted from 0, (H, W) float32: smaller is nearer.

        Raises:
            QueryError: the clip has no such frame.
        """
        from omnimotion_core.trajectories.dense import dense_depth

        with computing(self.device):
            return dense_depth(self._prepared, frame, memory_mb=self.config.tracks.memory_mb)
