import numpy as np
import pytest

from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.optimization import lighting
from omnimotion_core.optimization.lighting import light_changes

TIMES, SIDE, CELL, THING = 16, 64, 2, 20  # frames; cells; working pixels a cell; cells of the thing's side
TOP, LEFT, STEP = 22, 2, 2  # cells: where the thing starts, and how far it goes in a frame


def _shot(light: np.ndarray) -> tuple[np.ndarray, Correspondences]:
    """A textured square crossing a textured ground, both lit by ``light`` (T, side, side) of lightness, each its own.

    The ground's light never changes: what changes is that of the square, as of a car that drives out of a shadow.
    """
    rng = np.random.default_rng(0)
    ground, thing = rng.normal(0, 12, (SIDE, SIDE, 3)), rng.normal(0, 12, (THING, THING, 3))
    colors = np.tile(ground, (TIMES, 1, 1, 1))
    surface = np.zeros((TIMES, SIDE, SIDE), bool)
    for t in range(TIMES):
        place = (slice(TOP, TOP + THING), slice(LEFT + STEP * t, LEFT + STEP * t + THING))
        colors[t][place] = thing
        colors[t][place][..., 0] += light[t][place]
        surface[t][place] = True
    pairs: list[tuple[int, int]] = []
    parts: list[tuple[int, np.ndarray, np.ndarray]] = []
    for i in range(TIMES):
        for j in (i - 4, i - 2, i - 1, i + 1, i + 2, i + 4):
            if not 0 <= j < TIMES:
                continue
            y, x = np.mgrid[:SIDE, :SIDE]
            moved = np.where(surface[i], x + STEP * (j - i), x)
            same = (surface[j][y, moved.clip(0, SIDE - 1)] == surface[i]) & (moved < SIDE)
            source, target = np.stack([x, y], -1)[same] * CELL, np.stack([moved, y], -1)[same] * CELL
            parts.append((len(pairs), source, target))
            pairs.append((i, j))
    matches = Correspondences(
        pairs=np.array(pairs, np.int32),
        pair=np.concatenate([np.full(len(source), row, np.int32) for row, source, _ in parts]),
        source=np.concatenate([source for _, source, _ in parts]).astype(np.int16),
        target=np.concatenate([target for _, _, target in parts]).astype(np.float32),
        weight=np.full(sum(len(source) for _, source, _ in parts), 255, np.uint8),
        hidden_pair=np.zeros(0, np.int32), hidden_source=np.zeros((0, 2), np.int16),
    )  # fmt: skip
    return colors.astype(np.float32), matches


def _on_thing(colors: np.ndarray, t: int) -> np.ndarray:
    """The colors of the square's inner cells in frame ``t``."""
    left = LEFT + STEP * t
    return colors[t, TOP + 4 : TOP + THING - 4, left + 4 : left + THING - 4]


@pytest.fixture(scope="module")
def out_of_the_shadow() -> tuple[np.ndarray, np.ndarray]:
    """Colors of a square that is 24 units brighter at the right of the picture, and the change that is found."""
    ramp = 24 * np.clip((np.arange(SIDE) - 16) / 30, 0, 1)
    colors, matches = _shot(np.tile(ramp, (TIMES, SIDE, 1)))
    return colors, light_changes(colors, CELL, matches)


def test_what_comes_out_of_the_shadow_keeps_its_color(out_of_the_shadow: tuple[np.ndarray, np.ndarray]) -> None:
    colors, light = out_of_the_shadow
    as_shot = _on_thing(colors, TIMES - 1) - _on_thing(colors, 0)
    evened = _on_thing(colors - light, TIMES - 1) - _on_thing(colors - light, 0)
    assert as_shot[..., 0].mean() > 20
    assert np.abs(evened).mean(axis=-1).max() < 0.5 * np.abs(as_shot).mean(axis=-1).min()


def test_what_it_passes_keeps_its_color_too(out_of_the_shadow: tuple[np.ndarray, np.ndarray]) -> None:
    _, light = out_of_the_shadow
    assert np.abs(light[:, : TOP - 6]).max() < 3
    assert np.abs(light[:, TOP + THING + 6 :]).max() < 3


def test_texture_is_no_light() -> None:
    colors, matches = _shot(np.zeros((TIMES, SIDE, SIDE)))
    assert np.abs(light_changes(colors, CELL, matches)).max() < 0.1


def test_some_wrong_matches_are_no_light() -> None:
    colors, matches = _shot(np.zeros((TIMES, SIDE, SIDE)))
    rng = np.random.default_rng(1)
    wrong = rng.random(len(matches)) < 0.1
    target = matches.target.copy()
    target[wrong] = rng.uniform(0, SIDE * CELL - 1, (wrong.sum(), 2))
    spoilt = Correspondences(**{**{name: getattr(matches, name) for name in (
        "pairs", "pair", "source", "weight", "hidden_pair", "hidden_source")}, "target": target})  # fmt: skip
    assert np.abs(light_changes(colors, CELL, spoilt)).mean() < 0.6  # 2.0 where all matches count alike


def test_the_solver_agrees_with_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lighting, "ITERATIONS", 400)
    rng = np.random.default_rng(2)
    shape = times, height, width = 3, 4, 5
    count, number = 60, times * height * width
    start, end = rng.integers(0, number, (2, count)).astype(np.int32)
    change, weight = rng.normal(0, 5, (count, 3)).astype(np.float32), rng.random(count).astype(np.float32)
    matrix, asked = np.eye(number) * lighting.SMALLNESS, np.zeros((number, 3))
    beside = [(t, y, x, dy, dx) for t in range(times) for y in range(height) for x in range(width)
              for dy, dx in ((0, 1), (1, 0)) if y + dy < height and x + dx < width]  # fmt: skip
    ties = [((t * height + y) * width + x, (t * height + y + dy) * width + x + dx, lighting.SMOOTHNESS)
            for t, y, x, dy, dx in beside]  # fmt: skip
    for a, b, strength in [*zip(start, end, weight, strict=True), *ties]:
        matrix[[a, b], [a, b]] += strength if a != b else 0
        matrix[[a, b], [b, a]] -= strength if a != b else 0
    for a, b, difference, strength in zip(start, end, change, weight, strict=True):
        asked[b] += strength * difference
        asked[a] -= strength * difference
    np.testing.assert_allclose(
        lighting._solve(start, end, change, weight, shape), np.linalg.solve(matrix, asked), atol=1e-3
    )


def test_without_any_match_there_is_no_change() -> None:
    colors, matches = _shot(np.zeros((TIMES, SIDE, SIDE)))
    none = Correspondences(
        pairs=matches.pairs, pair=matches.pair[:0], source=matches.source[:0], target=matches.target[:0],
        weight=matches.weight[:0], hidden_pair=matches.hidden_pair, hidden_source=matches.hidden_source,
    )  # fmt: skip
    assert not light_changes(colors, CELL, none).any()
