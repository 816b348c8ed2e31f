"""The cosine of features between matches, against the mixtures themselves."""

import numpy as np

from omnimotion_core.flow import appearance
from omnimotion_core.flow.appearance import ColorAppearance, FeatureAppearance, FeatureMap, similarity

RNG = np.random.default_rng(0)
LABS = (np.zeros((32, 48, 3), np.float32), np.zeros((32, 48, 3), np.float32))
ALL = np.ones((32, 48), bool)


def mixture(vectors: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width, _ = vectors.shape
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    u, v = x - left, y - top
    upper = vectors[top, left] * (1 - u) + vectors[top, right] * u
    lower = vectors[bottom, left] * (1 - u) + vectors[bottom, right] * u
    return np.asarray(upper * (1 - v) + lower * v)


def test_similarity_is_the_cosine_of_bilinear_mixtures() -> None:
    source, target = (RNG.normal(size=size).astype(np.float32) for size in ((4, 6, 7), (4, 6, 7)))
    start, end = (RNG.uniform(-2, 8, (200, 2)).astype(np.float32) for _ in range(2))
    start[:3] = np.array([[0, 0], [5, 3], [2.5, 3]])
    end[:3] = np.array([[5, 3], [0, 0], [5, 0.25]])
    found = similarity(FeatureMap(source), FeatureMap(target), start, end)
    for k in range(200):
        a, b = mixture(source, *start[k]), mixture(target, *end[k])
        np.testing.assert_allclose(found[k], a @ b / np.linalg.norm(a) / np.linalg.norm(b), atol=1e-5)


def test_a_moved_picture_agrees_with_itself_and_with_nothing_else() -> None:
    maps = [RNG.normal(size=(2, 3, 32)).astype(np.float32)]
    maps.append(np.roll(maps[0], 1, axis=1))  # moved by 16 pixels to the right, around the border
    made: list[int] = []

    def features(t: int) -> np.ndarray:
        made.append(t)
        return maps[t]

    judge = FeatureAppearance(features, (48, 32), 0.5)
    flow = np.zeros((32, 48, 2), np.float32)
    flow[..., 0] = 16
    agreeing = judge.agree(0, 1, flow, LABS, ALL)
    assert agreeing[:, :24].all()  # up to the middle of the last patch but one
    centers = [7, 8, 23, 24, 39, 40]  # of patches; between them both ends are mixtures that share a vector
    assert not judge.agree(0, 1, 0 * flow, LABS, ALL)[7:9, centers].any()
    assert made == [0, 1]


def test_only_some_maps_are_kept() -> None:
    made: list[int] = []

    def features(t: int) -> np.ndarray:
        made.append(t)
        return np.ones((2, 3, 4), np.float32)

    judge = FeatureAppearance(features, (48, 32), 0.5)
    for t in range(appearance.KEPT_MAPS + 4):
        assert judge.agree(t, t + 1, np.zeros((32, 48, 2), np.float32), LABS, ALL).all()
    assert made == list(range(appearance.KEPT_MAPS + 5))  # each once
    assert len(judge._maps) == appearance.KEPT_MAPS


def test_colors_agree_within_their_bound() -> None:
    other = LABS[1].copy()
    other[4, 5] = 30.0
    agreeing = ColorAppearance(12.0).agree(0, 1, np.zeros((32, 48, 2), np.float32), (LABS[0], other), ALL)
    assert not agreeing[4, 5]
    assert agreeing.sum() == agreeing.size - 1
