"""Small things that move far before a ground that stands still, their motion given by formula."""

import cv2
import numpy as np
import pytest
import torch

from omnimotion_core.flow import lost
from omnimotion_core.flow.consistency import appearance_error, cycle_error
from omnimotion_core.flow.lost import _each_other, _Taken, find_lost, nearest
from omnimotion_core.flow.view import View

WIDTH, HEIGHT = 160, 120
CENTRE, RADIUS = np.array([40.0, 50.0]), 13.0
TURN = 0.15  # radians
STEP = np.array([37.0, 14.0])
COST = 0.15  # pixels that a CIELAB unit weighs as much as


def texture(seed: int, mean: tuple[float, float, float]) -> np.ndarray:
    rough = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH, 3)), (0, 0), 1.5)
    return (np.array(mean) + rough / rough.std() * 8.0).astype(np.float32)


def ball_motion() -> np.ndarray:
    """(3, 3): the ball turns about its centre and flies by STEP."""
    c, s = np.cos(TURN), np.sin(TURN)
    matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    matrix[:2, 2] = CENTRE + STEP - matrix[:2, :2] @ CENTRE
    return matrix


def in_ball(t: int, within: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray(np.hypot(x - CENTRE[0] - t * STEP[0], y - CENTRE[1] - t * STEP[1]) < RADIUS - within)


def pictures(lighter: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    ground, ball = texture(1, (50, -10, 20)), texture(2, (60, 30, 20))
    first = np.where(in_ball(0)[..., None], ball, ground)
    flown = cv2.warpPerspective(ball, ball_motion(), (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
    second = np.where(in_ball(1)[..., None], flown, ground) + np.array([lighter, 0, 0], np.float32)
    first, second = (cv2.GaussianBlur(each.astype(np.float32), (0, 0), 0.7) for each in (first, second))
    return first, second


def standing(first: np.ndarray, second: np.ndarray) -> tuple[View, View, tuple[np.ndarray, np.ndarray]]:
    """Flow that takes all for ground, both ways, and what it costs."""
    still = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    there, back = appearance_error(first, second, still, everywhere), appearance_error(second, first, still, everywhere)
    return View(first, second, still, there), View(second, first, still, back), (COST * there, COST * back)


def off_by(flow: np.ndarray, motion: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1)
    ends = (pixels @ motion.T)[..., :2]
    return np.asarray(np.linalg.norm(pixels[..., :2] + flow - ends, axis=-1))


@pytest.mark.parametrize("lighter", [0.0, 40.0])
@pytest.mark.parametrize("most", [3000, 500])
def test_a_ball_that_flies_far_is_found_and_the_ground_is_left_alone(
    lighter: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "MOST_COMPARED", most)
    there, back, costs = standing(*pictures(lighter))
    found = find_lost(there, back, costs)
    assert found is not None
    for t, flow, motion in ((0, found[0], ball_motion()), (1, found[1], np.linalg.inv(ball_motion()))):
        off = off_by(flow, motion)[in_ball(t, within=1.5)]
        assert (off < 1).mean() > 0.95
        far = ~in_ball(0, within=-6) & ~in_ball(1, within=-6)
        assert not flow[far].any()
    seen = cycle_error(*found)[in_ball(0, within=3)]
    assert np.quantile(seen, 0.9) < 1


def test_where_nothing_is_lost_nothing_is_looked_for() -> None:
    ground = texture(1, (50, -10, 20))
    there, back, costs = standing(ground, ground)
    assert find_lost(there, back, costs) is None


def test_what_has_gone_is_not_made_to_fit_what_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ground is seen where the ball has been, and other ground where it would be now."""
    ground, gone, come = (texture(seed, (50, -10, 20)) for seed in (1, 2, 3))
    first = np.where(in_ball(0)[..., None], gone, ground)
    second = np.where(in_ball(1)[..., None], come, ground)
    there, back, costs = standing(first, second)
    found = find_lost(there, back, costs)
    assert found is None or np.asarray(found[0].any(axis=-1))[in_ball(0)].mean() < 0.05

    def votes() -> int:
        return len(_each_other(first, second, in_ball(0), in_ball(1))[0])

    distinct = votes()
    monkeypatch.setattr(lost, "DISTINCT", 9.0)
    assert distinct < 0.5 * votes()


def test_a_motion_replaces_only_what_is_lost_and_no_better_one() -> None:
    there, _, costs = standing(*pictures())
    ball = in_ball(0, within=2)
    left = np.arange(WIDTH) < CENTRE[0]
    taken = _Taken(there, (costs[0] >= 1) & left)
    support = np.argwhere(ball)[:, ::-1]
    taken.take(ball_motion(), support)
    right = off_by(taken.flow, ball_motion())[ball & left] < 1
    assert right.mean() > 0.9
    assert not taken.flow[:, ~left].any()
    before = taken.flow.copy()
    astray = ball_motion()
    astray[:2, 2] += 1.5  # still much better than standing
    taken.take(astray, support)
    assert (taken.flow == before).all(axis=-1)[ball].mean() > 0.95


def test_two_things_in_one_place_get_a_motion_each() -> None:
    """Halves of the ball fly apart."""
    ground, ball = texture(1, (50, -10, 20)), texture(2, (60, 30, 20))
    left = in_ball(0) & (np.arange(WIDTH) < CENTRE[0])
    right = in_ball(0) & ~left
    first, second = np.where(in_ball(0)[..., None], ball, ground), ground.copy()
    steps = {"left": (30, 5), "right": (60, 40)}
    for half, step in zip((left, right), steps.values(), strict=True):
        y, x = np.nonzero(half)
        second[y + step[1], x + step[0]] = ball[y, x]
    there, back, costs = standing(first, second)
    found = find_lost(there, back, costs)
    assert found is not None
    for half, step in zip((left, right), steps.values(), strict=True):
        inner = cv2.erode(half.astype(np.uint8), np.ones((5, 5))) > 0
        assert (np.abs(found[0][inner] - step).max(axis=-1) < 1).mean() > 0.95


@pytest.mark.parametrize(("rows", "columns"), [(700, 300), (1, 900), (300, 700)])
def test_the_nearest_are_those_that_a_slow_loop_finds(rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(rows, 6)).astype(np.float32), rng.normal(size=(columns, 6)).astype(np.float32)
    there, back = nearest(torch.from_numpy(first), torch.from_numpy(second))
    assert there.tolist() == [int(((second - row) ** 2).sum(axis=1).argmin()) for row in first]
    assert back.tolist() == [int(((first - row) ** 2).sum(axis=1).argmin()) for row in second]
