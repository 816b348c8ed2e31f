import cv2
import numpy as np
import pytest

from omnimotion_core.evaluation.hard_scenes import make_hard_scene
from omnimotion_core.flow import inverse_search as inverse_search_module
from omnimotion_core.flow.consistency import compose, sample, targets
from omnimotion_core.flow.inverse_search import ALIKE_PX, PATCH, STRIDE, inverse_search, settled_search
from omnimotion_core.flow.settling import settle


def noise_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blurred noise over all gray levels, float32, with room around for shifts."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return 128 + 40 * blurred / blurred.std()


def shifted(shift: tuple[float, float], height: int = 90, width: int = 131) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures (h, w) uint8 of which the second shows what is ``shift`` away in the first."""
    whole = noise_picture(height + 40, width + 40)
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    moved = cv2.warpAffine(whole, matrix, (width + 40, height + 40), flags=cv2.INTER_CUBIC)
    pictures = [np.clip(np.rint(each[20:-20, 20:-20]), 0, 255).astype(np.uint8) for each in (whole, moved)]
    return pictures[0], pictures[1]


def misses(flow: np.ndarray, exact: tuple[float, float], border: int = 12) -> np.ndarray:
    inside = np.linalg.norm(flow - np.asarray(exact, np.float32), axis=-1)
    return inside[border : len(inside) - border, border : inside.shape[1] - border]


@pytest.mark.parametrize("shift", [(0.6, -0.3), (-3.4, 2.2), (7.0, 5.0), (0.0, 0.0)])
def test_a_shift_is_found_without_a_guess(shift: tuple[float, float]) -> None:
    source, target = shifted(shift)
    flow = inverse_search(source, target)
    assert flow.shape == (*source.shape, 2)
    assert flow.dtype == np.float32
    assert np.percentile(misses(flow, shift), 95) < 0.25


def test_a_guess_leads_where_no_search_from_nothing_does() -> None:
    shift = (19.0, -17.0)
    source, target = shifted(shift, 120, 120)
    noise = np.random.default_rng(1).normal(0, 0.7, (*source.shape, 2)).astype(np.float32)
    guess = cv2.GaussianBlur(noise, (0, 0), 4.0) * 8 + np.array(shift, np.float32)
    assert np.median(misses(guess, shift, 30)) > 0.4
    assert np.median(misses(inverse_search(source, target, guess), shift, 30)) < 0.15
    assert np.median(misses(inverse_search(source, target), shift, 30)) > 1


def test_what_is_nearly_right_stays_where_nothing_tells_better() -> None:
    plain = np.full((64, 80), 90, np.uint8)
    grain = np.random.default_rng(2).normal(0, 1, (2, 64, 80))
    source, target = (np.rint(plain + each).astype(np.uint8) for each in grain)
    guess = np.broadcast_to(np.array([5.5, -2.25], np.float32), (64, 80, 2))
    assert np.percentile(misses(inverse_search(source, target, guess), (5.5, -2.25), 0), 95) < 0.5


def test_a_change_of_light_is_no_motion() -> None:
    source, target = shifted((1.5, 1.0))
    lighter = np.clip(target.astype(int) + 25, 0, 255).astype(np.uint8)
    assert np.percentile(misses(inverse_search(source, lighter), (1.5, 1.0)), 90) < 0.3


def test_a_thing_before_a_ground_keeps_its_own_motion() -> None:
    ground, thing = noise_picture(120, 140, 3), noise_picture(120, 140, 4)
    pictures, here = [], np.zeros((120, 140), bool)
    for t in range(2):
        picture = np.roll(ground, 2 * t, axis=1)
        left = 50 - 5 * t
        picture[40:80, left : left + 40] = thing[:40, :40]
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    here[40:80, 50:90] = True
    flow = inverse_search(*pictures)
    within = cv2.erode(here.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    beside = cv2.dilate(here.astype(np.uint8), np.ones((25, 25), np.uint8)) == 0
    assert (np.linalg.norm(flow - [-5, 0], axis=-1)[within] < 0.5).mean() > 0.95
    assert (np.linalg.norm(flow - [2, 0], axis=-1)[beside][400:] < 0.5).mean() > 0.9


@pytest.mark.parametrize("size", [(PATCH, PATCH), (PATCH, 33), (50, 9), (101, 67), (65, 64)])
def test_pictures_of_any_size_are_searched_to_their_borders(size: tuple[int, int]) -> None:
    picture = noise_picture(*size).clip(0, 255).astype(np.uint8)
    flow = inverse_search(picture, picture)
    assert flow.shape == (*size, 2)
    assert np.abs(flow).max() < 0.1


def test_a_guess_that_is_no_number_or_far_outside_does_no_harm() -> None:
    source, target = shifted((1.0, 0.5))
    guess = np.zeros((*source.shape, 2), np.float32)
    guess[:30] = np.nan
    guess[30:50] = np.inf
    guess[50:60] = -1e9
    guess[60:70] = 5e5
    flow = inverse_search(source, target, guess)
    assert np.isfinite(flow).all()
    assert np.median(misses(flow, (1.0, 0.5))) < 0.3


def test_of_what_is_left_it_finds_nearly_as_much_as_opencv_in_four_times_as_many_steps() -> None:
    """In the scene's second picture, laid over the first by flow that is off by up to a few pixels."""
    scene = make_hard_scene("crossing", 1)
    source, target = (cv2.cvtColor(scene.render(t), cv2.COLOR_RGB2GRAY) for t in (4, 6))
    exact, visible = scene.flow(4, 6)
    noise = np.random.default_rng(0).normal(0, 1, exact.shape).astype(np.float32)
    guess = cv2.GaussianBlur(exact, (0, 0), 3.0) + 10 * cv2.GaussianBlur(noise, (0, 0), 5.0)
    laid_over = sample(target, targets(guess))
    other = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    other.setFinestScale(0)
    other.setPatchStride(STRIDE)
    other.setVariationalRefinementIterations(0)

    def right(left: np.ndarray) -> float:
        return float((np.linalg.norm(compose(left, guess) - exact, axis=-1)[visible] < 0.5).mean())

    nothing = np.zeros_like(guess)
    ours, theirs = right(inverse_search(source, laid_over)), right(other.calc(source, laid_over, nothing.copy()))
    assert right(nothing) < 0.3
    assert ours > theirs - 0.03


def test_a_guess_of_something_thin_is_not_lost_at_coarser_sizes() -> None:
    ground, bar = noise_picture(100, 160, 5), noise_picture(100, 160, 6)
    pictures = []
    for t in range(2):
        picture = ground.copy()
        picture[:, 60 + 24 * t : 70 + 24 * t] = bar[:, :10]
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    guess = np.zeros((100, 160, 2), np.float32)
    guess[:, 60:70, 0] = 24
    flow = inverse_search(pictures[0], pictures[1], guess)
    assert (np.linalg.norm(flow - [24, 0], axis=-1)[10:-10, 62:68] < 0.5).mean() > 0.7


def miss_of_patch(source: np.ndarray, target: np.ndarray, corner: tuple[int, int], motion: np.ndarray) -> float:
    """How much the difference of a patch and of what is ``motion`` from it varies; slow."""
    y, x = np.mgrid[:PATCH, :PATCH].astype(np.float32) + np.array(corner, np.float32)[:, None, None]
    there = cv2.remap(target, x + motion[0], y + motion[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    difference = there - source[corner[0] : corner[0] + PATCH, corner[1] : corner[1] + PATCH]
    return float(np.square(difference - difference.mean()).sum())


def test_no_patch_ends_worse_than_it_began_also_where_nothing_fits() -> None:
    source, target = noise_picture(48, 60, 7), noise_picture(48, 60, 8)
    rng = np.random.default_rng(9)
    start, given = (rng.normal(0, 3, (48, 60, 2)).astype(np.float32) for _ in range(2))
    slopes = [cv2.Scharr(source, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1))]
    border = inverse_search_module._BORDER
    around = cv2.copyMakeBorder(target, border, border, border, border, cv2.BORDER_REPLICATE)
    found = np.empty((11, 14, 2), np.float32)
    inverse_search_module._search(source, *slopes, around, start, given, found)
    better = 0
    for row in range(11):
        for column in range(14):
            corner = min(row * STRIDE, 48 - PATCH), min(column * STRIDE, 60 - PATCH)
            middle = corner[0] + PATCH // 2, corner[1] + PATCH // 2
            begun = miss_of_patch(source, target, corner, start[middle])
            ended = miss_of_patch(source, target, corner, found[row, column])
            # not tried: what leads nearly to where another guess led
            assert ended <= 1.02 * begun or np.linalg.norm(found[row, column] - start[middle]) < ALIKE_PX
            better += ended < 0.9 * begun
    assert better > 0.8 * 11 * 14


def test_a_patch_takes_its_neighbor_s_motion_where_that_suits_it() -> None:
    """A far guess is right for one column of patches alone; from there it must spread both ways."""
    source, target = shifted((13.0, 0.0), 40, 120)
    guess = np.zeros((*source.shape, 2), np.float32)
    middle = slice(60 - STRIDE, 60 + PATCH + STRIDE)
    guess[:, middle] = [13, 0]
    assert ALIKE_PX < 13
    wide = np.linalg.norm(inverse_search(source, target, guess) - [13, 0], axis=-1)[8:-8, 24:-24]
    assert (wide < 0.5).mean() > 0.9


def test_it_is_the_same_each_time() -> None:
    source, target = shifted((2.0, 1.0))
    np.testing.assert_array_equal(inverse_search(source, target), inverse_search(source, target))


@pytest.mark.parametrize(("name", "t"), [("crossing", 4), ("dusk", 10), ("turning", 12), ("drape", 8)])
def test_settled_at_every_size_it_finds_as_much_as_opencv_around_a_guess(name: str, t: int) -> None:
    """In pictures that are enlarged, as small ones are before flow is looked for."""
    scene = make_hard_scene(name, 1)
    exact, visible = scene.flow(t, t + 2)
    source, target = (
        cv2.resize(cv2.cvtColor(scene.render(when), cv2.COLOR_RGB2GRAY), None, fx=2, fy=2,
                   interpolation=cv2.INTER_CUBIC) for when in (t, t + 2)
    )  # fmt: skip
    noise = np.random.default_rng(0).normal(0, 1, exact.shape).astype(np.float32)
    rough = cv2.GaussianBlur(exact, (0, 0), 3.0) + 10 * cv2.GaussianBlur(noise, (0, 0), 5.0)
    guess = np.asarray(2 * cv2.resize(rough, source.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    other = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    other.setFinestScale(0)
    other.setPatchStride(STRIDE)

    def right(flow: np.ndarray) -> np.ndarray:
        small = cv2.resize(flow, exact.shape[1::-1], interpolation=cv2.INTER_AREA) / 2
        miss = np.linalg.norm(small - exact, axis=-1)[visible]
        return np.array([(miss < bound).mean() for bound in (0.25, 0.5, 1)])

    ours, theirs = right(settled_search(source, target, guess)), right(other.calc(source, target, guess.copy()))
    assert (ours > theirs - 0.03).all()
    assert (ours > right(guess) + 0.05).all()
    assert ours[0] > right(inverse_search(source, target, guess))[0] + 0.02


def test_a_guess_leads_the_settled_search_too() -> None:
    shift = (19.0, -17.0)
    source, target = shifted(shift, 120, 120)
    noise = np.random.default_rng(1).normal(0, 0.7, (*source.shape, 2)).astype(np.float32)
    guess = cv2.GaussianBlur(noise, (0, 0), 4.0) * 8 + np.array(shift, np.float32)
    before = guess.copy()
    assert np.median(misses(settled_search(source, target, guess), shift, 30)) < 0.05
    assert np.median(misses(settled_search(source, target, np.zeros_like(guess)), shift, 30)) > 1
    np.testing.assert_array_equal(guess, before)


@pytest.mark.parametrize("longest_side", [1000, 40])
@pytest.mark.parametrize("size", [(2, 3), (5, 40), (PATCH, PATCH), (50, 9), (101, 67)])
def test_pictures_of_any_size_are_settled(size: tuple[int, int], longest_side: int) -> None:
    picture = noise_picture(*size).clip(0, 255).astype(np.uint8)
    for guess in (0.0, np.nan):
        flow = settled_search(picture, picture, np.full((*size, 2), guess, np.float32), longest_side=longest_side)
        assert flow.shape == (*size, 2)
        assert np.abs(flow).max() < 0.1


@pytest.mark.parametrize(("longest_side", "finest"), [(131, (90, 131)), (130, (45, 65)), (64, (22, 32)), (1, (22, 32))])
def test_no_size_is_searched_that_is_longer_than_asked_for(
    monkeypatch: pytest.MonkeyPatch, longest_side: int, finest: tuple[int, int]
) -> None:
    source, target = shifted((1.5, 1.0))
    sizes: list[tuple[int, ...]] = []

    def noted(smaller: np.ndarray, other: np.ndarray, found: np.ndarray) -> np.ndarray:
        sizes.append(smaller.shape)
        return settle(smaller, other, found)

    monkeypatch.setattr(inverse_search_module, "settle", noted)
    flow = settled_search(source, target, np.zeros((*source.shape, 2), np.float32), longest_side=longest_side)
    assert sizes[-1] == finest
    assert flow.shape == (*source.shape, 2)
    assert np.median(misses(flow, (1.5, 1.0))) < 0.3
