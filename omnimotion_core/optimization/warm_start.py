"""Where the fit starts: the camera's motion as one affine map a frame, and depth from what does not follow it.

The affine motion M_ij of each pair of frames is read robustly from its matches. The maps A_t of all frames then follow
from A_i = A_j M_ij for every pair (i, j), in the reweighted least-squares sense, a problem a segment.
"""

import cv2
import numpy as np
import torch

from omnimotion_core.config import ModelConfig
from omnimotion_core.coordinates import pixel_to_normalized
from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.optimization.initial_depth import PairMotions, initial_depth
from omnimotion_core.video.clip import segments_of

MAX_GAP = 8  # frames; the motion of farther pairs is less often one affine map
MIN_MATCHES = 50
MATCHES_PER_PAIR = 1000
INLIER_PX = 3.0
ROUNDS = 10
RESIDUAL_SCALE = 0.02  # normalized units at which a pair's motion loses half its say
NEIGHBOR_TIE = 1e-3  # holds frames without any matched pair to their neighbors


def warm_started_field(
    shape: FieldShape, config: ModelConfig, correspondences: Correspondences, pictures: np.ndarray, seed: int,
    threads: int = 1,
) -> Field:  # fmt: skip
    """A field whose affine maps follow the camera and whose depth maps put what moves otherwise in front.

    Args:
        pictures: all frames at the size of the depth maps, (T, 3, h, w) colors 0..1.
    """
    motions = pair_motions(correspondences, seed)
    matrices = solve_frame_maps(shape, motions)
    corners = np.array([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]], np.float64).T
    covered = matrices @ corners  # (T, 2, 4)
    low, high = covered.min(axis=(0, 2)), covered.max(axis=(0, 2))
    field = Field(
        shape, config,
        canonical_extent=torch.tensor((high - low) / 2 * 1.05, dtype=torch.float32),
        canonical_center=torch.tensor((high + low) / 2, dtype=torch.float32),
        seed=seed,
    )  # fmt: skip
    with torch.no_grad():
        field.affine.matrix.copy_(torch.tensor(matrices.reshape(-1, 6), dtype=torch.float32))
        known = motions_by_maps(shape, matrices, correspondences.pairs) | motions
        depth = initial_depth(shape, config, correspondences, known, pictures, threads)
        field.depth.copy_(torch.from_numpy(depth))
    return field


def pair_motions(correspondences: Correspondences, seed: int) -> PairMotions:
    """The dominant affine motion of each near pair (i, j).

    Returns:
        A matrix (2, 3) in working pixels and the share of the pair's matches that follows it.
    """
    motions = {}
    for row, (i, j) in enumerate(correspondences.pairs):
        members = correspondences.rows_of(row)
        if abs(int(j) - int(i)) > MAX_GAP or len(members) < MIN_MATCHES:
            continue
        if len(members) > MATCHES_PER_PAIR:
            rng = np.random.default_rng([seed, int(i), int(j)])
            members = np.sort(rng.choice(members, MATCHES_PER_PAIR, replace=False))
        source = correspondences.source[members].astype(np.float32)
        matrix, follows = cv2.estimateAffine2D(
            source, correspondences.target[members], method=cv2.RANSAC, ransacReprojThreshold=INLIER_PX
        )
        if matrix is not None and np.isfinite(matrix).all() and np.linalg.det(matrix[:, :2]) > 0.05:
            motions[int(i), int(j)] = (matrix, float(follows.mean()))
    return motions


def motions_by_maps(shape: FieldShape, maps: np.ndarray, pairs: np.ndarray) -> PairMotions:
    """The motion of each of ``pairs`` (P, 2) by the maps (T, 2, 3) of all frames, as ``pair_motions`` gives it.

    No matches are asked, so that nothing is known of how many follow it: their share is told as 0.
    """
    to_normalized = _homogeneous(_normalization(shape))
    to_maps = np.stack([_homogeneous(each) for each in maps]) @ to_normalized
    from_maps = np.linalg.inv(to_maps)
    return {(int(i), int(j)): ((from_maps[j] @ to_maps[i])[:2], 0.0) for i, j in pairs}


def solve_frame_maps(shape: FieldShape, motions: PairMotions) -> np.ndarray:
    """The maps A_t (T, 2, 3) of normalized x and y to canonical ones that agree best with the pairs' motions.

    The middle frame of each segment is its reference, where the map is the identity.
    """
    to_normalized = _homogeneous(_normalization(shape))
    to_pixels = np.linalg.inv(to_normalized)
    maps = np.tile(np.eye(2, 3), (shape.num_frames, 1, 1))
    for segment in segments_of(shape.num_frames, shape.cuts):
        pairs = [(i, j) for i, j in motions if i in segment and j in segment]
        matrices = np.array([to_normalized @ _homogeneous(motions[pair][0]) @ to_pixels for pair in pairs])
        shares = np.array([motions[pair][1] for pair in pairs])
        local = [(i - segment.start, j - segment.start) for i, j in pairs]
        maps[segment.start : segment.stop] = _solve_segment(len(segment), local, matrices, shares)
    return maps


def _solve_segment(length: int, pairs: list[tuple[int, int]], matrices: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A_t (length, 2, 3) such that every A_j M_ij A_i^-1 is as near to the identity as can be.

    Starts from chained neighbors. A step A_t <- exp(d_t) A_t changes the logarithm of A_j M_ij A_i^-1 by d_j - d_i to
    first order, so each round solves one Laplacian system for all six components. (Least squares on A_i - A_j M_ij
    itself would be simpler and wrong: contradicting pairs are then best served by maps that shrink to nothing.)
    """
    reference = length // 2
    maps = _chained(length, dict(zip(pairs, matrices, strict=True)), reference)
    if not pairs:
        return maps[:, :2]
    index = np.array(pairs)
    free = np.setdiff1d(np.arange(length), [reference])
    for _ in range(ROUNDS):
        misses = maps[index[:, 1]] @ matrices @ np.linalg.inv(maps[index[:, 0]]) - np.eye(3)
        misses = misses - misses @ misses / 2  # the logarithm's first two terms
        weights = shares / (1 + (np.linalg.norm(misses, axis=(1, 2)) / RESIDUAL_SCALE) ** 2)
        laplacian = np.zeros((length, length))
        right = np.zeros((length, 9))
        for (i, j), miss, weight in zip(pairs, misses, weights, strict=True):
            _tie(laplacian, i, j, weight)
            right[i] += weight * miss.ravel()
            right[j] -= weight * miss.ravel()
        for t in range(length - 1):
            _tie(laplacian, t, t + 1, NEIGHBOR_TIE)
        steps = np.zeros((length, 9))
        steps[free] = np.linalg.solve(laplacian[np.ix_(free, free)], right[free])
        generators = steps.reshape(length, 3, 3)
        maps = (np.eye(3) + generators + generators @ generators / 2) @ maps
    return maps[:, :2]


def _tie(laplacian: np.ndarray, i: int, j: int, weight: float) -> None:
    laplacian[[i, j], [i, j]] += weight
    laplacian[[i, j], [j, i]] -= weight


def _chained(length: int, motions: dict[tuple[int, int], np.ndarray], reference: int) -> np.ndarray:
    """A_t (length, 3, 3) chained from neighbor to neighbor outwards from the reference; a missing motion is none."""
    maps = np.tile(np.eye(3), (length, 1, 1))
    for t in range(reference + 1, length):
        maps[t] = maps[t - 1] @ motions.get((t, t - 1), np.eye(3))
    for t in range(reference - 1, -1, -1):
        maps[t] = maps[t + 1] @ motions.get((t, t + 1), np.eye(3))
    return maps


def _normalization(shape: FieldShape) -> np.ndarray:
    """The affine map (2, 3) of working pixels to normalized coordinates."""
    origin, x, y = pixel_to_normalized(np.array([[0, 0], [1, 0], [0, 1]], np.float64), shape.working_size)
    return np.stack([x - origin, y - origin, origin], axis=1)


def _homogeneous(matrix: np.ndarray) -> np.ndarray:
    return np.vstack([matrix, [0, 0, 1]])
