from collections.abc import Callable

import numpy as np
import pytest

from omnimotion_core.flow.channels import all_set, largest, length, mean_magnitude, scale


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (largest, lambda values: np.abs(values).max(axis=-1)),
        (mean_magnitude, lambda values: np.abs(values).mean(axis=-1)),
        (lambda values: all_set(values > -1), lambda values: (values > -1).all(axis=-1)),
    ],
)
def test_channels_are_joined_as_numpy_joins_them(
    channels: int, found: Callable[[np.ndarray], np.ndarray], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    values = np.random.default_rng(0).normal(size=(5, 7, channels)).astype(np.float32)
    assert found(values).dtype == expected(values).dtype
    assert np.array_equal(found(values), expected(values))


def test_length_is_that_of_the_vector() -> None:
    assert length(np.array([[3, 4], [0, -2]], np.float32)).tolist() == [5, 2]


def test_vectors_are_scaled_in_place() -> None:
    flow = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    expected = flow * np.array([2.0, 0.75], np.float32)
    scale(flow, 2.0, 0.75)
    np.testing.assert_array_equal(flow, expected)
