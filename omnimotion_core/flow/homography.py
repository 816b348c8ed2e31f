"""The global motion between two frames from matched SIFT features."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

MAX_FEATURES = 1500
RATIO = 0.75  # Lowe's test: the best match is this much nearer than the second best
MIN_INLIERS = 25
INLIER_PX = 2.0
LEAST_AREA_KEPT = 0.05  # of a unit's area; what leaves less folds or mirrors the picture
MOTIONS = 3  # that are looked for among the features of a pair
LEAST_SUPPORT = 12  # features that agree on each
SUPPORT_PX = 1.0
NEARLY_ALL = 0.95  # of those that agree on a motion: a simpler one that as many agree on is taken
WHOLE = 0.5  # of the features: what fewer agree on is a part of the picture, whose perspective they do not tell


@dataclass(frozen=True, eq=False)
class Features:
    """SIFT features of one picture."""

    positions: np.ndarray  # (K, 2) float32, pixels
    descriptors: np.ndarray  # (K, 128) float32


def find_features(luminance: np.ndarray, mask: np.ndarray | None = None) -> Features:
    """Features of a picture (h, w) uint8; ``mask`` (h, w) bool tells where they may lie."""
    allowed = None if mask is None else mask.astype(np.uint8)
    keypoints, descriptors = cv2.SIFT.create(nfeatures=MAX_FEATURES).detectAndCompute(luminance, allowed)
    if len(keypoints) == 0:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    return Features(np.array([point.pt for point in keypoints], np.float32), descriptors)


def find_homography(source: Features, target: Features) -> tuple[np.ndarray, int] | None:
    """The homography (3, 3) that sends the source's pixels to the target's, and how many matches agree with it.

    None where fewer than ``MIN_INLIERS`` agree, or where it folds or mirrors the picture.
    """
    if len(source.positions) < MIN_INLIERS or len(target.positions) < MIN_INLIERS:
        return None
    rows, columns = match_features(source.descriptors, target.descriptors)
    if len(rows) < MIN_INLIERS:
        return None
    p, q = source.positions[rows], target.positions[columns]
    matrix, agrees = cv2.findHomography(p, q, cv2.RANSAC, INLIER_PX)
    if matrix is None or int(agrees.sum()) < MIN_INLIERS or np.linalg.det(matrix[:2, :2]) < LEAST_AREA_KEPT:
        return None
    return matrix, int(agrees.sum())


def find_motions(source: Features, target: Features) -> list[np.ndarray]:
    """What large parts of the picture do: the motion that most matches agree on, that of most of the rest, and so on.

    Returns:
        (3, 3) each, from the source's pixels to the target's: a homography where half of the matches or more agree on
        it, else an affine map; a mere shift where nearly as many agree on that, since what else was fitted to a part
        of the picture leads astray beside it.
    """
    if min(len(source.positions), len(target.positions)) < LEAST_SUPPORT:
        return []
    rows, columns = match_features(source.descriptors, target.descriptors)
    p, q, count = source.positions[rows], target.positions[columns], len(rows)
    found: list[np.ndarray] = []
    while len(found) < MOTIONS and len(p) >= LEAST_SUPPORT:
        motion, agrees = cv2.findHomography(p, q, cv2.USAC_MAGSAC, SUPPORT_PX, maxIters=1000)
        if motion is not None and agrees.sum() < WHOLE * count:
            affine, agrees = cv2.estimateAffine2D(p, q, method=cv2.USAC_MAGSAC, ransacReprojThreshold=SUPPORT_PX)
            motion = None if affine is None else np.vstack([affine, [0, 0, 1]])
        if motion is None or agrees.sum() < LEAST_SUPPORT:
            break
        if np.linalg.det(motion[:2, :2]) >= LEAST_AREA_KEPT:
            found.append(_simplest(motion, p, q, agrees.ravel().astype(bool)))
        rest = ~agrees.ravel().astype(bool)
        p, q = p[rest], q[rest]
    return found


def _simplest(motion: np.ndarray, p: np.ndarray, q: np.ndarray, agrees: np.ndarray) -> np.ndarray:
    """The shift of the matches that agree on ``motion``, where nearly as many agree on it; else ``motion``."""
    shift = np.median(q[agrees] - p[agrees], axis=0)
    off = np.linalg.norm(q[agrees] - p[agrees] - shift, axis=-1)
    if (off <= SUPPORT_PX).mean() < NEARLY_ALL:
        return motion
    return np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]], motion.dtype)


def match_features(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which descriptors (K, 128) and (L, 128), L at least 2, match by Lowe's test: rows of both.

    Squared distances by a product of matrices, in a quarter of the time of comparing one by one. Descriptors hold whole
    numbers of 0 to 255, so that float32 has these sums exactly.
    """
    first, second = torch.from_numpy(source), torch.from_numpy(target)
    partial = torch.addmm(second.square().sum(dim=1), first, second.T, alpha=-2)  # but for the source's own length
    two, index = partial.topk(2, dim=1, largest=False)
    distances = two + first.square().sum(dim=1, keepdim=True)
    rows = (distances[:, 0] < RATIO**2 * distances[:, 1]).nonzero()[:, 0]
    return rows.numpy(), index[rows, 0].numpy()


def apply_homography(matrix: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``positions`` (..., 2) sent through ``matrix`` (3, 3), float32."""
    flat = np.ascontiguousarray(positions, dtype=np.float32).reshape(-1, 1, 2)
    if len(flat) == 0:
        return flat.reshape(positions.shape)
    return cv2.perspectiveTransform(flat, matrix).reshape(positions.shape)
