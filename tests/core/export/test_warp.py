import numpy as np
import pytest

from omnimotion_core.export.warp import blend_weights, positions, read_bilinear
from omnimotion_core.trajectories.dense import DenseFlow

from .motions import rotating


def slowly(picture: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Bilinear interpolation by its definition, in double precision, one pixel after another."""
    height, width, channels = picture.shape
    out = np.zeros((*at.shape[:2], channels))
    for row in range(at.shape[0]):
        for column in range(at.shape[1]):
            x, y = np.clip(at[row, column].astype(np.float64), 0, (width - 1, height - 1))
            for j in range(height):
                for i in range(width):
                    weight = max(0.0, 1 - abs(x - i)) * max(0.0, 1 - abs(y - j))
                    if weight:
                        out[row, column] += weight * picture[j, i]
    return out


@pytest.mark.parametrize("shape", [(6, 9), (1, 9), (6, 1), (1, 1), (2, 2)])
def test_reading_between_pixels_is_the_slow_loop_s(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(0, 1, (*shape, 3)).astype(np.float32)
    at = rng.uniform(-2, 11, (7, 5, 2)).astype(np.float32)
    at[0, 0], at[0, 1], at[0, 2] = (0, 0), (shape[1] - 1, shape[0] - 1), (shape[1] - 0.5, -0.5)
    np.testing.assert_allclose(read_bilinear(picture, at), slowly(picture, at), atol=1e-5)


def test_the_identity_changes_nothing_however_large_the_picture() -> None:
    picture = np.random.default_rng(0).random((300, 41, 4)).astype(np.float32)  # more rows than are read at once
    flow = rotating(0, (41, 300))(0, 1)
    np.testing.assert_array_equal(read_bilinear(picture, positions(flow)), picture)


def seen(target: int, visible: list[bool], confidence: list[float]) -> DenseFlow:
    """A flow from frame 3 of a picture of one row."""
    row = np.zeros((1, len(visible), 2), np.float32)
    return DenseFlow(source=3, target=target, vectors=row, visible=np.array([visible]), depth=row[..., 0],
                     confidence=np.array([confidence], np.float32))


def test_references_count_where_seen_by_confidence_and_nearness() -> None:
    near, far = seen(2, [True, True, False, False, True], [0.6, 0.6, 1, 1, 0]), \
        seen(6, [True, False, True, False, False], [0.6, 1, 0.3, 1, 0])
    weights = blend_weights([near, far])
    np.testing.assert_allclose(weights[0], [[0.75, 1, 0, 0, 1]])  # 1 frame away against 3
    np.testing.assert_allclose(weights[1], [[0.25, 0, 1, 0, 0]])


def test_at_a_reference_frame_it_alone_counts() -> None:
    here, other = seen(3, [True, True], [0.01, 0.01]), seen(4, [True, True], [1, 1])
    np.testing.assert_array_equal(blend_weights([other, here]), [[[0, 0]], [[1, 1]]])
