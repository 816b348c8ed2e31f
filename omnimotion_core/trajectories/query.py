"""Points at any sub-pixel of any frame → where they are in every frame.

Each point is lifted to the surface seen at its pixel, sent to the canonical volume once, and from there to every frame.
Points do not influence each other.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omnimotion_core.coordinates import inside, rescale_pixels
from omnimotion_core.errors import QueryError
from omnimotion_core.events import Reporter
from omnimotion_core.model.motion import Motion, PreparedMotion
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import segments_of

BYTES_PER_POINT = 1200  # that a point being mapped holds at once, measured
RESIDUAL_SCALE = 1.5  # pixels of a 256-pixel frame: where matches are missed by this much, confidence falls to a third
MIN_CONFIDENCE_OF_UNSUPPORTED = 0.2
UNSEEN_CONFIDENCE = 0.1  # of a point that is surely hidden, beside 1 of one that is seen: nothing vouches for its place
MAX_COLOR_DIFFERENCE = 12.0  # mean CIELAB units, as flow's matches: what looks different is another surface
LEAST_COLOR_DIFFERENCE = 3.0  # that is allowed where no matches support either end: it may have landed anywhere
FULL_TOLERANCE_SUPPORT = 0.5  # from here on the first of these two holds
SAME_DEPTH = 0.02  # what is seen where a point lands, no farther from it than this, is the point itself
RETURN_PX = (4.0, 16.0)  # pixels of a 256-pixel frame: the least and the most that a round trip may miss by,
RETURN_PX_PER_FRAME = 0.5  # and how it grows: over many frames what one surface holds drifts apart


@dataclass(frozen=True, eq=False)
class Landing:
    """Points mapped into frames, flat (P, ...)."""

    positions: Tensor  # (P, 2), plate pixels
    depth: Tensor  # (P,)
    visible: Tensor  # (P,) bool
    confidence: Tensor  # (P,), 0..1


def track_points(
    field: Motion, queries: np.ndarray, *, memory_mb: int = 512, reporter: Reporter | None = None
) -> Tracks:
    """Follow points through the whole clip.

    Args:
        queries: (N, 3) as (t, x, y): frame index, plate pixels.
        memory_mb: what may be held at once besides the result.
    Returns:
        Positions of all frames. A point is visible where it lies on the picture, its depth does not lie behind the
        surface seen there, and that surface looks as the point does in its own frame and goes back to it; at its own
        frame it is visible, and exactly where it was asked for. Beyond a hard cut it is not visible, has confidence 0
        and stays at its last position before the cut.
    Raises:
        QueryError: a point is not of this shape, or lies outside the clip's frames or picture.
    """
    queries = check_queries(field, queries)
    num_points, num_frames, size = len(queries), field.num_frames, field.shape.size
    positions = np.zeros((num_points, num_frames, 2), np.float32)
    visible = np.zeros((num_points, num_frames), bool)
    confidence = np.zeros((num_points, num_frames), np.float32)
    depth = np.zeros((num_points, num_frames), np.float32)
    segments = segments_of(num_frames, field.shape.cuts)
    chunk = max(int(memory_mb * 2**20 / BYTES_PER_POINT / num_frames), 1)
    prepared = field.prepare()
    for start in range(0, num_points, chunk):
        rows = slice(start, min(start + chunk, num_points))
        t = queries[rows, 0].astype(np.int64)
        source = Source.at(prepared, t, queries[rows, 1:])
        landed = source.land(np.arange(num_frames))
        shape = (rows.stop - rows.start, num_frames)
        positions[rows] = landed.positions.cpu().numpy().reshape(*shape, 2)
        depth[rows] = landed.depth.cpu().numpy().reshape(shape)
        visible[rows] = landed.visible.cpu().numpy().reshape(shape)
        confidence[rows] = landed.confidence.cpu().numpy().reshape(shape)
        if reporter is not None:
            reporter.progress("tracks", rows.stop, num_points)
    own = np.arange(num_points), queries[:, 0].astype(np.int64)
    positions[own], visible[own] = queries[:, 1:], True
    _hold_beyond_cuts(queries, segments, positions, visible, confidence, depth)
    return Tracks(
        queries=queries, positions=positions, visible=visible, confidence=confidence, depth=depth, size=size,
        first_frame=field.shape.first_frame, fps=field.shape.fps,
    )  # fmt: skip


def check_queries(field: Motion, queries: np.ndarray) -> np.ndarray:
    """The queries as (N, 3) float32; raises ``QueryError`` naming the first that cannot be answered."""
    queries = np.asarray(queries)
    if queries.ndim != 2 or queries.shape[1] != 3 or not np.issubdtype(queries.dtype, np.number):
        raise QueryError(f"the points are an array of shape {queries.shape}", "give (N, 3) numbers: t, x, y")
    queries = queries.astype(np.float32)
    t, (width, height) = queries[:, 0], field.shape.size
    bad = ~np.isfinite(queries).all(axis=1) | (t != np.floor(t)) | (t < 0) | (t >= field.num_frames)
    bad |= ~inside(queries[:, 1:], field.shape.size)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        point = ", ".join(f"{value:g}" for value in queries[row])
        raise QueryError(
            f"point {row} (t, x, y) = ({point}) is not in the clip",
            f"give whole t from 0 to {field.num_frames - 1}, x from 0 to {width - 1} and y from 0 to {height - 1}",
        )
    return queries


@dataclass(frozen=True, eq=False)
class Source:
    """Points of known frames, lifted to the canonical volume."""

    prepared: PreparedMotion
    frames: Tensor  # (P,) int64
    local: Tensor  # (P, 3)
    canonical: Tensor  # (P, 3)
    evidence: tuple[Tensor, Tensor]  # missed pixels and support where the points begin, (P,) each
    color: Tensor | None  # (P, 3), where the points begin

    @classmethod
    @torch.no_grad()
    def at(cls, prepared: PreparedMotion, frames: np.ndarray, plate_pixels: np.ndarray) -> "Source":
        """Points (P, 2) of ``frames`` (P,)."""
        device = prepared.device
        t = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
        pixels = torch.from_numpy(np.ascontiguousarray(plate_pixels, dtype=np.float32)).to(device)
        shape = prepared.shape
        local = prepared.lift(t, rescale_pixels(pixels, shape.size, shape.working_size))
        xy = local[:, :2]
        return cls(prepared, t, local, prepared.to_canonical(t, local), prepared.evidence_at(t, xy),
                   prepared.appearance_at(t, xy))

    @torch.no_grad()
    def land(self, targets: np.ndarray) -> Landing:
        """Where every point is in every frame of ``targets`` (J,), flat in the order (point, target)."""
        prepared, count = self.prepared, len(targets)
        to = torch.from_numpy(targets).to(self.frames.device).repeat(len(self.frames))
        local = prepared.from_canonical(to, self.canonical.repeat_interleave(count, dim=0))
        shape = prepared.shape
        positions = rescale_pixels(prepared.to_pixels(local), shape.working_size, shape.size)
        width, height = shape.size
        x, y = positions.unbind(-1)
        on_picture = (x >= -0.5) & (y >= -0.5) & (x <= width - 0.5) & (y <= height - 0.5)
        missed, support = self._evidence(to, local, count)
        answers = (prepared.shown(to, local), self._alike(to, local, count, support), self._returning(to, local, count))
        visible, seen = on_picture, on_picture.float()
        for passed, sure in answers:
            visible = visible & passed
            seen = torch.minimum(seen, torch.where(passed, sure, 1 - sure))  # how likely: half at a toss-up
        confidence = self._trust(missed, support) * (UNSEEN_CONFIDENCE + (1 - UNSEEN_CONFIDENCE) * seen)
        return Landing(positions, local[:, 2], visible, confidence)

    def _evidence(self, to: Tensor, local: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Missed pixels and support of each point's two ends, the worse of them: (P,) each."""
        missed_from, support_from = (value.repeat_interleave(count) for value in self.evidence)
        missed_to, support_to = self.prepared.evidence_at(to, local[:, :2])
        return torch.maximum(missed_from, missed_to), torch.minimum(support_from, support_to)

    def _alike(self, to: Tensor, local: Tensor, count: int, support: Tensor) -> tuple[Tensor, Tensor]:
        """Whether points look there as they did where they begin: (P,) bool; and how sure that is, 0.5..1.

        The less matches support a point, the more alike it has to look.
        """
        here = self.prepared.appearance_at(to, local[:, :2])
        if self.color is None or here is None:
            return torch.ones_like(to, dtype=torch.bool), torch.ones_like(local[:, 0])
        difference = (here - self.color.repeat_interleave(count, dim=0)).abs().mean(dim=-1)
        least = LEAST_COLOR_DIFFERENCE / MAX_COLOR_DIFFERENCE
        allowed = MAX_COLOR_DIFFERENCE * (support / FULL_TOLERANCE_SUPPORT).clamp(least, 1.0)
        unsure = torch.exp(-(difference - allowed).abs() / (0.5 * MAX_COLOR_DIFFERENCE))
        return difference <= allowed, 1 - 0.5 * unsure

    def _returning(self, to: Tensor, local: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Whether what is seen where points land goes back to where they began: (P,) bool; how sure that is, 0.5..1.

        Depth alone does not tell a surface that turns away, or one that passes close behind another: what comes into
        view there is at the same depth, but was elsewhere.
        """
        prepared = self.prepared
        returning, sure = torch.ones_like(to, dtype=torch.bool), torch.ones_like(local[:, 0])
        if not prepared.single_surface:
            return returning, sure
        seen = prepared.lift(to, prepared.to_pixels(local))
        apart = torch.nonzero((seen[:, 2] - local[:, 2]).abs() > SAME_DEPTH)[:, 0]
        rows, frames = apart // count, to[apart]
        start = self.frames[rows]
        returned = prepared.from_canonical(start, prepared.to_canonical(frames, seen[apart]))
        missed = (prepared.to_pixels(returned) - prepared.to_pixels(self.local[rows])).norm(dim=-1)
        missed = missed * (256 / max(prepared.shape.working_size))
        least, most = RETURN_PX
        allowed = (least + RETURN_PX_PER_FRAME * (frames - start).abs()).clamp(max=most)
        returning[apart] = missed <= allowed
        sure[apart] = 1 - 0.5 * torch.exp(-(missed - allowed).abs() / (0.5 * allowed))
        return returning, sure

    def _trust(self, missed: Tensor, support: Tensor) -> Tensor:
        """How well the field is supported at both ends, 0..1."""
        unit = RESIDUAL_SCALE * max(self.prepared.shape.working_size) / 256
        accuracy = torch.exp(-missed / unit)
        return accuracy * (MIN_CONFIDENCE_OF_UNSUPPORTED + (1 - MIN_CONFIDENCE_OF_UNSUPPORTED) * support)


def _hold_beyond_cuts(
    queries: np.ndarray, segments: list[range], positions: np.ndarray, visible: np.ndarray, confidence: np.ndarray,
    depth: np.ndarray,
) -> None:  # fmt: skip
    """Frames of other shots know nothing of a point."""
    if len(segments) == 1:
        return
    for segment in segments:
        rows = (queries[:, 0] >= segment.start) & (queries[:, 0] < segment.stop)
        for frames, last in ((slice(0, segment.start), segment.start), (slice(segment.stop, None), segment.stop - 1)):
            positions[rows, frames] = positions[rows, last][:, None]
            depth[rows, frames] = depth[rows, last][:, None]
            visible[rows, frames] = False
            confidence[rows, frames] = 0.0
