"""The global motion between two frames from matched SIFT features."""

from dataclasses import dataclass

import cv2
import numpy as np

MAX_FEATURES = 1500
RATIO = 0.75  # Lowe's test: the best match is this much nearer than the second best
MIN_INLIERS = 25
INLIER_PX = 2.0


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
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(source.descriptors, target.descriptors, k=2)
    good = [two[0] for two in matches if len(two) == 2 and two[0].distance < RATIO * two[1].distance]
    if len(good) < MIN_INLIERS:
        return None
    p = source.positions[[match.queryIdx for match in good]]
    q = target.positions[[match.trainIdx for match in good]]
    matrix, agrees = cv2.findHomography(p, q, cv2.RANSAC, INLIER_PX)
    if matrix is None or int(agrees.sum()) < MIN_INLIERS or np.linalg.det(matrix[:2, :2]) < 0.05:
        return None
    return matrix, int(agrees.sum())


def apply_homography(matrix: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``positions`` (..., 2) sent through ``matrix`` (3, 3), float32."""
    flat = np.ascontiguousarray(positions, dtype=np.float32).reshape(-1, 1, 2)
    return cv2.perspectiveTransform(flat, matrix).reshape(positions.shape)
