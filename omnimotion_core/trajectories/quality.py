"""How well the field fits what flow found, frame by frame: where a supervisor should look."""

from dataclasses import dataclass

import numpy as np
import torch

from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.motion import EVIDENCE_CELL_PX, Motion
from omnimotion_core.trajectories.tracks import Tracks
from omnimotion_core.video.clip import segments_of

MATCHES_PER_FRAME = 2000
CYCLE_POINTS = 256  # a frame


@dataclass(frozen=True, eq=False, kw_only=True)
class Quality:
    """Figures of a fitted run, one value a frame."""

    residual_px: np.ndarray  # (T,) median miss of the matches that begin in the frame, plate pixels; 0 without any
    cycle_error_px: np.ndarray  # (T,) largest miss of points sent through two other frames and back, plate pixels
    coverage: np.ndarray  # (T,) share of the frame near which a trusted match begins, 0..1
    confidence: np.ndarray  # (T,) mean confidence of the tracks visible in the frame, 0..1
    visible: np.ndarray  # (T,) share of all tracks that are visible in the frame, 0..1

    @property
    def worst_frames(self) -> np.ndarray:
        """All frames, the least trustworthy first: by confidence times coverage."""
        return np.argsort(self.confidence * self.coverage, kind="stable")


def measure_quality(field: Motion, correspondences: Correspondences, tracks: Tracks, *, seed: int = 0) -> Quality:
    """The figures of ``Quality`` for a fitted field."""
    residual, coverage = _residual_and_coverage(field, correspondences, seed)
    seen = tracks.visible.sum(axis=0)
    confidence = (tracks.confidence * tracks.visible).sum(axis=0) / np.maximum(seen, 1)
    return Quality(
        residual_px=residual,
        cycle_error_px=cycle_errors(field, seed=seed),
        coverage=coverage,
        confidence=confidence,
        visible=seen / max(len(tracks), 1),
    )


@torch.no_grad()
def cycle_errors(field: Motion, *, seed: int = 0) -> np.ndarray:
    """The largest distance by which points of each frame miss themselves after two other frames, (T,) plate pixels.

    The two frames are chosen at random within the shot; the points keep their depth on the way, as the maps are between
    volumes, and so should miss by rounding alone.
    """
    prepared, shape = field.prepare(), field.shape
    rng = np.random.default_rng(seed)
    device = field.device
    to_plate = max(shape.size[0] / shape.working_size[0], shape.size[1] / shape.working_size[1])
    worst = np.zeros(shape.num_frames)
    for segment in segments_of(shape.num_frames, shape.cuts):
        for t in segment:
            drawn = rng.random((CYCLE_POINTS, 2)) * (np.array(shape.working_size) - 1)
            pixels = torch.from_numpy(drawn).float().to(device)
            frames = [torch.full((CYCLE_POINTS,), int(f), device=device) for f in (t, *rng.choice(segment, 2), t)]
            start = points = prepared.lift(frames[0], pixels)
            for here, there in zip(frames, frames[1:], strict=False):
                points = prepared.from_canonical(there, prepared.to_canonical(here, points))
            miss = (prepared.to_pixels(points) - prepared.to_pixels(start)).norm(dim=-1)
            worst[t] = float(miss.max()) * to_plate
    return worst


@torch.no_grad()
def _residual_and_coverage(field: Motion, correspondences: Correspondences, seed: int) -> tuple[np.ndarray, np.ndarray]:
    prepared, shape = field.prepare(), field.shape
    device = field.device
    to_plate = max(shape.size) / max(shape.working_size)
    rng = np.random.default_rng(seed)
    columns, rows = (-(-side // EVIDENCE_CELL_PX) for side in shape.working_size)
    residual, coverage = np.zeros(shape.num_frames), np.zeros(shape.num_frames)
    for t in range(shape.num_frames):
        begun = np.flatnonzero(correspondences.pairs[:, 0] == t).tolist()
        members = np.sort(np.concatenate([np.zeros(0, np.int64), *map(correspondences.rows_of, begun)]))
        if len(members) == 0:
            continue
        column, row = (correspondences.source[members] // EVIDENCE_CELL_PX).T.astype(np.int64)
        coverage[t] = len(np.unique(row * columns + column)) / (rows * columns)
        chosen = rng.choice(members, min(len(members), MATCHES_PER_FRAME), replace=False)
        pair = torch.from_numpy(correspondences.pairs[correspondences.pair[chosen]]).long().to(device)
        source = torch.from_numpy(correspondences.source[chosen]).float().to(device)
        canonical = prepared.to_canonical(pair[:, 0], prepared.lift(pair[:, 0], source))
        landed = prepared.from_canonical(pair[:, 1], canonical)
        miss = (prepared.to_pixels(landed) - torch.from_numpy(correspondences.target[chosen]).to(device)).norm(dim=-1)
        residual[t] = float(miss.median()) * to_plate
    return residual, coverage
