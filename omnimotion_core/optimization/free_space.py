"""Points that the field puts where the picture shows that nothing is, and where they might be instead.

A point that is hidden is hidden by something: it lies behind the surface that is seen there. One that lies before it,
in free space, would be seen. So it is elsewhere, and the least that must be wrong is that it belongs to the nearest
place whose surface could hide or show it. Matches say nothing of such points, since they are not seen; without this
they go wherever the tables happen to send them, above all what has turned away from the camera.
"""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from torch import Tensor

from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FAR
from omnimotion_core.optimization.sampling import Batch
from omnimotion_core.video.clip import segments_of

SAMPLES = 100_000  # points that are looked at, each in one other frame
FREE = 0.2  # of depth: how far before the surface a point lies in free space for certain
STEP = 0.1  # of depth: surfaces up to this much farther than a point count as near enough to hide it
MIN_CELLS = 1.0  # nearer places are the same one, with an edge that is not known so precisely
WEIGHT = 0.3  # of a match's full weight


@torch.no_grad()
def find_contradictions(field: Field, generator: torch.Generator, known: Tensor | None = None) -> Batch:
    """Points of random pixels that lie in free space in a random other frame of their shot, with where they should be.

    Args:
        field: asked as it is.
        generator: draws the pixels and frames.
        known: (T, h, w) bool, the cells of the depth maps that tell something; all where it is not given.
    Returns:
        Matches (M, ...) in the order of their frames, from the pixel to the nearest place in the other frame whose
        depth lets the point be there; ``on_surface`` is 0, since it may well be hidden there.
    """
    (width, height), prepared = field.shape.working_size, field.prepare()
    frames_from, frames_to = _frames(field, generator)
    source = torch.rand(SAMPLES, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])
    frames_from, frames_to, source = (values.to(field.device) for values in (frames_from, frames_to, source))
    start = prepared.lift(frames_from, source)
    landed = prepared.from_canonical(frames_to, prepared.to_canonical(frames_from, start))
    free = (landed[:, 2] < prepared.depth_at(frames_to, landed[:, :2]) - FREE) & (landed[:, :2].abs() <= 1).all(dim=-1)
    pixels = prepared.to_pixels(landed)
    if known is not None:
        free &= _at(known, frames_from, source, field.depth_cell) & _at(known, frames_to, pixels, field.depth_cell)
    rows = torch.nonzero(free & (frames_from != frames_to))[:, 0]
    order = (frames_from[rows] * field.num_frames + frames_to[rows]).argsort(stable=True)
    rows = rows[order]
    places = _nearest_places(field, frames_to[rows], pixels[rows], landed[rows, 2])
    far = (places - pixels[rows]).norm(dim=-1) > MIN_CELLS * field.depth_cell  # not so where there is no such place
    rows, places = rows[far], places[far]
    return Batch(
        frames_from=frames_from[rows], frames_to=frames_to[rows], source=source[rows], target=places,
        weight=torch.full_like(places[:, 0], WEIGHT), on_surface=torch.zeros_like(places[:, 0]),
    )  # fmt: skip


def _frames(field: Field, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random frames, and for each another one between the same cuts: (N,) each."""
    starts, lengths = torch.zeros(field.num_frames), torch.zeros(field.num_frames)
    for segment in segments_of(field.num_frames, field.shape.cuts):
        starts[segment.start : segment.stop], lengths[segment.start : segment.stop] = segment.start, len(segment)
    frames = torch.randint(field.num_frames, (SAMPLES,), generator=generator)
    within = torch.rand(SAMPLES, generator=generator) * lengths[frames]
    return frames, (starts[frames] + within).long().clamp(max=field.num_frames - 1)


def _nearest_places(field: Field, frames: Tensor, pixels: Tensor, depth: Tensor) -> Tensor:
    """The nearest place to each of ``pixels`` (M, 2) at which ``frames`` show something as near as ``depth`` (M,).

    Returns:
        (M, 2) working pixels, the middle of a cell; not a number where there is no such place.
    """
    levels = round(FAR / STEP)
    level = (depth / STEP).floor().long().clamp(0, levels - 1)
    row, column = (index.cpu().numpy() for index in _cells(field.depth, pixels, field.depth_cell))
    key, maps = (frames * levels + level).cpu().numpy(), field.depth.numpy(force=True)
    found = np.full((len(key), 2), np.nan, np.float32)
    order = np.argsort(key, kind="stable")

    def find(members: np.ndarray) -> None:
        t, n = divmod(int(key[members[0]]), levels)
        too_far = maps[t] > (n + 1.5) * STEP
        if not too_far.all():
            _, nearest = cv2.distanceTransformWithLabels(
                too_far.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
            )
            places = np.zeros((int(nearest.max()) + 1, 2), np.float32)
            y, x = np.nonzero(~too_far)
            places[nearest[y, x]] = np.stack([x, y], axis=-1)
            found[members] = places[nearest[row[members], column[members]]]

    with ThreadPoolExecutor(field.threads) as pool:  # each level of a frame by itself
        list(pool.map(find, np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if len(order) else ()))
    return (torch.from_numpy(found).to(pixels.device) + 0.5) * field.depth_cell - 0.5


def _at(values: Tensor, frames: Tensor, pixels: Tensor, cell: int) -> Tensor:
    """What maps (T, h, w) hold at working pixels (M, 2) of ``frames`` (M,): (M,)."""
    row, column = _cells(values, pixels, cell)
    return values[frames, row, column]


def _cells(maps: Tensor, pixels: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of maps (T, h, w) at working pixels (M, 2): (M,) each."""
    _, height, width = maps.shape
    column, row = ((pixels + 0.5) / cell).long().unbind(-1)
    return row.clamp(0, height - 1), column.clamp(0, width - 1)
