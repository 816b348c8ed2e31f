"""What is lost in both pictures of a pair is searched for among itself: small things that moved far.

A search from coarse to fine does not see a ball that moves by more than its own size: where pictures are small the ball
is gone, and its pixels go with the ground behind it. In the one picture they then land on ground, in the other nothing
comes from where the ball is now: both places are lost, they are few, and so each can be compared with all of the other.
Pixels that choose each other by their surroundings vote for affine motions, piece by piece of what is lost; a motion
that enough agree on is taken where it makes both ends look alike. Of what is hidden, or has turned away, the nearest is
as near as anything: so a pixel counts only where its match is nearer to it than what is known of the other picture.

Source: that patches of one picture are compared with those of all of the other, and that each must choose the other, is
as in Bailer et al. 2015, "Flow Fields: dense correspondence fields for highly accurate large displacement optical
flow"; that voting is by affine motions, as in Lowe 2004, "Distinctive image features from scale-invariant keypoints".
"""

from collections.abc import Iterator

import cv2
import numpy as np
import torch

from omnimotion_core.compilation import compiled
from omnimotion_core.coordinates import pixel_grid
from omnimotion_core.flow.homography import LEAST_AREA_KEPT, apply_homography
from omnimotion_core.flow.view import View

LOST_COST = 1.0  # pixels; flow that costs as much may have lost its surface
REACH_PX = 3  # of the surroundings that are compared, every second pixel of them each way
MOST_COMPARED = 3000  # pixels of each picture; of more lost ones a grid is taken
EACH_OTHER_PX = 1.5  # how far from itself a pixel may be that is chosen back
DISTINCT = 0.8  # of how far a pixel is from what is known: what is hardly nearer to its match has been made to fit
LINKED_PX = 5  # what is lost within this distance may be one thing
MOTIONS = 3  # that are looked for in each piece of what is lost
LEAST_SUPPORT = 16  # pixels that agree on a motion
SUPPORT_PX = 1.5
AROUND_PX = 5  # how far from those that agree a motion is tried
MUCH_BETTER = 0.75  # of the difference of color that was there: where a motion leaves as little, it is taken
JUDGED_PX = 5  # side of the square over which differences of color are told
_PIECE = 128  # pixels that are compared at once
_LANES = 32  # distances that are looked at together


def find_lost(
    there: View, back: View, costs: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The flow of a pair of frames with what was lost in both.

    Args:
        there, back: both directions of the pair.
        costs: (h, w) float32 in pixels: how badly the flow of either proves.
    Returns:
        Flow there and back, (h, w, 2) float32 each; None where nothing is found.
    """
    lost = [_grown(cost >= LOST_COST, 1) for cost in costs]
    starts, ends, stride = _each_other(there.exposed, back.source, *lost)
    motions = list(_motions(starts, ends, lost[0], SUPPORT_PX + stride - 1))
    if not motions:
        return None
    forward, backward = _Taken(there, lost[0]), _Taken(back, lost[1])
    for motion, p, q in motions:
        forward.take(motion, p)
        backward.take(np.linalg.inv(motion), q)
    return forward.flow, backward.flow


class _Taken:
    """The flow of a view, replaced where a motion makes what is lost look much more alike."""

    def __init__(self, view: View, lost: np.ndarray) -> None:
        self.view, self.lost = view, lost
        self.flow = view.flow.copy()
        self._left = cv2.blur(view.appearance, (JUDGED_PX, JUDGED_PX))  # differences of color, so far

    def take(self, motion: np.ndarray, support: np.ndarray) -> None:
        """Take ``motion`` (3, 3) around the pixels ``support`` (N, 2) that agree on it, where it is much better."""
        corner = np.maximum(support.min(axis=0) - AROUND_PX - JUDGED_PX // 2, 0)
        across, down = support.max(axis=0) + AROUND_PX + JUDGED_PX // 2 + 1
        window = slice(corner[1], down), slice(corner[0], across)
        left_before, lost = self._left[window], self.lost[window]
        near = np.zeros_like(lost)
        x, y = (support - corner).T
        near[y, x] = True
        height, width = near.shape
        pixels = (pixel_grid((width, height)) + corner).astype(np.int64).reshape(-1, 2)
        difference, stays = self.view.differences(pixels, motion)
        left = cv2.blur(difference.reshape(height, width), (JUDGED_PX, JUDGED_PX))
        take = _grown(near, AROUND_PX) & lost & stays.reshape(height, width) & (left < MUCH_BETTER * left_before)
        moved = pixels.reshape(height, width, 2)[take].astype(np.float32)
        self.flow[window][take] = apply_homography(motion, moved) - moved
        left_before[take] = left[take]


def _each_other(
    source: np.ndarray, target: np.ndarray, lost: np.ndarray, lost_there: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Lost pixels, (N, 2) each, that choose each other by their surroundings; and the stride of the grid they are on.

    Pictures are alike in exposure.
    """
    stride = 1
    while max(lost[::stride, ::stride].sum(), lost_there[::stride, ::stride].sum()) > MOST_COMPARED:
        stride += 1
    starts, ends = (np.argwhere(each[::stride, ::stride])[:, ::-1] * stride for each in (lost, lost_there))
    if min(len(starts), len(ends)) < LEAST_SUPPORT:
        return starts[:0], ends[:0], stride
    first, second = _surroundings(source, starts), _surroundings(target, ends)
    chosen, back = nearest(first, second)
    mutual = np.flatnonzero(np.abs(starts[back[chosen]] - starts).max(axis=-1) <= EACH_OTHER_PX + stride - 1)
    known = np.argwhere(~lost_there)[:, ::-1]
    known = known[np.linspace(0, len(known) - 1, min(len(known), len(ends))).astype(int)]
    mutual = mutual[_stands_out(first[mutual], second[chosen[mutual]], _surroundings(target, known))]
    return starts[mutual], ends[chosen[mutual]], stride


def nearest(first: torch.Tensor, second: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The nearest row of ``second`` (L, C) to each of ``first`` (K, C), (K,), and the other way round, (L,).

    Piece by piece, so that distances are looked through while they are in the cache.
    """
    squares, turned = second.square().sum(dim=1), second.T.contiguous()
    lengths = first.square().sum(dim=1).numpy()
    there, back = np.zeros(len(first), np.int32), np.zeros(len(second), np.int32)
    least = np.full(len(second), np.inf, np.float32)
    for start in range(0, len(first), _PIECE):
        piece = first[start : start + _PIECE]
        apart = torch.addmm(squares, piece, turned, alpha=-2)  # but for the first's own length
        _take_nearest(apart.numpy(), lengths, start, there, back, least)
    return there, back


@compiled
def _take_nearest(apart, lengths, start, there, back, least):  # type: ignore[no-untyped-def]  # numba infers
    """Note the nearest of each row of ``apart`` in ``there``, and in ``back`` and ``least`` where a row is nearer."""
    width = apart.shape[1]
    whole = width - width % _LANES
    lanes = np.empty(_LANES, np.float32)
    for i in range(apart.shape[0]):
        row, length, number = apart[i], lengths[start + i], np.int32(start + i)
        lanes[:] = np.inf
        for j in range(0, whole, _LANES):
            for lane in range(_LANES):
                lanes[lane] = row[j + lane] if row[j + lane] < lanes[lane] else lanes[lane]
        nearest = lanes.min()
        for j in range(whole, width):
            nearest = min(nearest, row[j])
        for j in range(width):
            if row[j] == nearest:
                there[start + i] = j
                break
        for j in range(width):
            nearer = row[j] + length < least[j]
            least[j] = row[j] + length if nearer else least[j]
            back[j] = number if nearer else back[j]


def _stands_out(first: torch.Tensor, second: torch.Tensor, known: torch.Tensor) -> np.ndarray:
    """Which rows of ``first`` (K, C) are ``DISTINCT`` times nearer to theirs of ``second`` than to any of ``known``."""
    if not len(first) or not len(known):
        return np.ones(len(first), bool)
    squares, turned = known.square().sum(dim=1), known.T.contiguous()
    nearest_known = [
        torch.addmm(squares, piece, turned, alpha=-2).amin(dim=1) + piece.square().sum(dim=1)
        for piece in first.split(_PIECE)
    ]
    return np.asarray((first - second).square().sum(dim=1) < DISTINCT**2 * torch.cat(nearest_known))


def _surroundings(lab: np.ndarray, pixels: np.ndarray) -> torch.Tensor:
    """The colors around ``pixels`` (N, 2), (N, C)."""
    padded = np.pad(lab, ((REACH_PX, REACH_PX), (REACH_PX, REACH_PX), (0, 0)), mode="edge")
    x, y = pixels.T
    steps = range(0, 2 * REACH_PX + 1, 2)
    colors = [padded[y + down, x + across] for down in steps for across in steps]
    return torch.from_numpy(np.concatenate(colors, axis=1))


def _motions(
    starts: np.ndarray, ends: np.ndarray, lost: np.ndarray, tolerance_px: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The affine motions (3, 3) that matches agree on, piece by piece, with the two ends of those that do."""
    if len(starts) < LEAST_SUPPORT:
        return
    pieces = cv2.connectedComponents(_grown(lost, LINKED_PX // 2).astype(np.uint8))[1]
    labels = pieces[starts[:, 1], starts[:, 0]]
    for label in np.unique(labels):
        p, q = starts[labels == label], ends[labels == label]
        for _ in range(MOTIONS):
            if len(p) < LEAST_SUPPORT:
                break
            affine, agrees = cv2.estimateAffine2D(
                p.astype(np.float32), q.astype(np.float32), method=cv2.USAC_MAGSAC,
                ransacReprojThreshold=tolerance_px, maxIters=500,
            )  # fmt: skip
            if affine is None or agrees.sum() < LEAST_SUPPORT:
                break
            kept = agrees.ravel().astype(bool)
            if LEAST_AREA_KEPT <= np.linalg.det(affine[:, :2]) <= 1 / LEAST_AREA_KEPT:
                yield np.vstack([affine, [0, 0, 1]]), p[kept], q[kept]
            p, q = p[~kept], q[~kept]


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    """``mask`` (h, w) bool and what is within ``by`` pixels, counted along both axes."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)) > 0
