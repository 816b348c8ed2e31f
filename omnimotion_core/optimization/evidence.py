"""What the matches say of the fitted field: where it can be trusted, and from which depth on a point is hidden."""

import cv2
import numpy as np
import torch
from torch import Tensor

from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import EVIDENCE_CELL_PX, Motion
from omnimotion_core.optimization.lighting import light_changes
from omnimotion_core.optimization.sampling import MatchSampler, random_order
from omnimotion_core.video.clip import Clip

MAX_MATCHES = 1_000_000  # looked at; more change nothing
CHUNK = 65_536
RESIDUAL_CLIP_PX = 20.0
FULL_SUPPORT = 0.25  # of the mean number of matches a cell: from about here on a cell counts as well supported
MARGINS = torch.linspace(0.2, 0.8, 31)  # of depth; matched points lie nearer to the surface than unmatched ones do
MIN_HIDDEN = 200
COLOR_BLUR_PX = 2.0  # of a frame of 256: what a position may be wrong by, and still show the color of its surface


@torch.no_grad()
def weigh_evidence(field: Field, correspondences: Correspondences, seed: int) -> None:
    """Fill the field's evidence maps and choose its occlusion margin.

    The margin is the one at which points that are matched count as visible and points that nothing comes back from
    count as hidden, as often as possible with both kinds weighed alike.
    """
    prepared = field.prepare()
    behind = [
        landed[:, 2] - prepared.depth_at(frames, landed[:, :2])
        for frames, landed in map_evidence(field, correspondences, seed)
    ]
    hidden = _hidden_depths(field, correspondences)
    if len(hidden) >= MIN_HIDDEN:
        field.occlusion_margin.copy_(best_margin(torch.cat(behind), hidden))


@torch.no_grad()
def map_evidence(
    field: Motion, correspondences: Correspondences, seed: int, max_matches: int = MAX_MATCHES
) -> list[tuple[Tensor, Tensor]]:
    """Fill a field's evidence maps: by how much it misses the matches around each place, and how many there are.

    Args:
        max_matches: looked at.
    Returns:
        Those matches as they land, in chunks: frames (P,) and local points (P, 3).
    """
    device = field.device
    sampler = MatchSampler(correspondences, device)
    generator = torch.Generator().manual_seed(seed)
    chosen = random_order(len(sampler), generator)[:max_matches].clone().to(device)
    prepared = field.prepare()
    total = torch.zeros_like(field.residual_map).flatten()
    count = torch.zeros_like(total)
    landings = []
    for index in chosen.split(CHUNK):
        batch = sampler.take(index)
        landed = prepared.from_canonical(
            batch.frames_to, prepared.to_canonical(batch.frames_from, prepared.lift(batch.frames_from, batch.source))
        )
        residual = (prepared.to_pixels(landed) - batch.target).norm(dim=-1).clamp(max=RESIDUAL_CLIP_PX)
        landings.append((batch.frames_to, landed))
        cells = _cells(field, batch.frames_from, batch.source)
        total.index_add_(0, cells, residual * batch.weight)
        count.index_add_(0, cells, batch.weight)
    mean = total.sum() / count.sum()
    shape = field.residual_map.shape
    field.residual_map.copy_(((total + mean) / (count + 1.0)).view(shape))
    field.support_map.copy_((1 - torch.exp(-count / (FULL_SUPPORT * count.mean()))).view(shape))
    return landings


def keep_colors(field: Field, clip: Clip, correspondences: Correspondences) -> None:
    """Fill the field's color maps, by which points that land on another surface are told.

    Changes of exposure are read as the median difference of color over the matches between neighbors and taken out, and
    so are changes of the light on parts of the picture (``lighting``).
    """
    height, width = field.color_map.shape[2:]
    sigma = COLOR_BLUR_PX * max(clip.working_size) / 256
    pictures = []
    for t in range(clip.num_frames):
        lab = cv2.cvtColor(clip.rgb8(t).astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
        lab = cv2.GaussianBlur(lab, (0, 0), sigma)
        padded = cv2.copyMakeBorder(
            lab, 0, height * field.depth_cell - lab.shape[0], 0, width * field.depth_cell - lab.shape[1],
            cv2.BORDER_REPLICATE,
        )  # fmt: skip
        pictures.append(cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA))
    colors = np.stack(pictures)  # (T, h, w, 3)
    colors -= _exposures(colors, field.depth_cell, correspondences)[:, None, None]
    colors -= light_changes(colors, field.depth_cell, correspondences)
    field.color_map.copy_(torch.from_numpy(colors).permute(0, 3, 1, 2))


def _exposures(colors: np.ndarray, cell: int, correspondences: Correspondences) -> np.ndarray:
    """How much brighter and differently tinted each frame is than the first one, (T, 3) CIELAB units."""
    steps = np.zeros((len(colors), 3), np.float32)
    limit = np.array(colors.shape[2:0:-1]) - 1
    neighbors = np.flatnonzero(correspondences.pairs[:, 1] == correspondences.pairs[:, 0] + 1)
    for row in neighbors.tolist():
        i, j = correspondences.pairs[row]
        members = correspondences.rows_of(row)
        (x_from, y_from), (x_to, y_to) = (
            np.clip(ends[members] / cell, 0, limit).astype(int).T
            for ends in (correspondences.source, correspondences.target)
        )
        if len(members) > 0:
            steps[j] = np.median(colors[j, y_to, x_to] - colors[i, y_from, x_from], axis=0)
    exposures: np.ndarray = np.cumsum(steps, axis=0)
    return exposures


def best_margin(visible: Tensor, hidden: Tensor) -> Tensor:
    """The margin that parts two sets of depth differences best, of those in ``MARGINS``."""
    margins = MARGINS.to(visible.device)
    scores = torch.stack([(visible <= m).float().mean() + (hidden > m).float().mean() for m in margins])
    return margins[scores.argmax()]


def _hidden_depths(field: Field, correspondences: Correspondences) -> Tensor:
    """How far behind the depth map the points seen to be hidden land, of those that land in the frame."""
    device = field.device
    frames = torch.from_numpy(correspondences.pairs[correspondences.hidden_pair]).long().to(device)
    source = torch.from_numpy(correspondences.hidden_source).float().to(device)
    prepared = field.prepare()
    found = [torch.zeros(0, device=device)]
    for index in torch.arange(len(frames), device=device).split(CHUNK):
        from_, to = frames[index, 0], frames[index, 1]
        landed = prepared.from_canonical(to, prepared.to_canonical(from_, prepared.lift(from_, source[index])))
        behind = landed[:, 2] - prepared.depth_at(to, landed[:, :2])
        found.append(behind[(landed[:, :2].abs() <= 1).all(dim=-1)])
    return torch.cat(found)


def _cells(field: Motion, frames: Tensor, pixels: Tensor) -> Tensor:
    _, height, width = field.residual_map.shape
    column = (pixels[:, 0] / EVIDENCE_CELL_PX).long().clamp(0, width - 1)
    row = (pixels[:, 1] / EVIDENCE_CELL_PX).long().clamp(0, height - 1)
    return (frames * height + row) * width + column
