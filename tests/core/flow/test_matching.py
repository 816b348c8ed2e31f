import cv2
import numpy as np
import pytest

from omnimotion_core.config import FlowConfig
from omnimotion_core.evaluation.hard_scenes import make_hard_scene
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow import matching
from omnimotion_core.flow.candidates import Direction
from omnimotion_core.flow.consistency import resize_flow
from omnimotion_core.flow.estimators.dis import GUIDED_LONGEST_SIDE, DisFlow
from omnimotion_core.flow.inverse_search import inverse_search
from omnimotion_core.flow.matching import (
    Both,
    Composed,
    FrameBank,
    Guess,
    PairMatcher,
    compose_guesses,
    dense_flow_at_plate_size,
    estimate,
    matching_size,
    memo_size,
)
from omnimotion_core.flow.pairs import Pair
from omnimotion_core.video.clip import Clip
from tests.core.conftest import MakeClip


def bank_of(clip: Clip, long_side: int = 128) -> FrameBank:
    size = matching_size(clip.working_size, long_side)
    return FrameBank(clip, DisFlow(), size, capacity=20, needs_features=True)


def match(
    matcher: PairMatcher, pair: Pair, guesses: tuple[Guess, Guess] | None = None, *, by_homography: bool = False,
    smooth: bool = False,
) -> tuple[Direction, Direction]:  # fmt: skip
    composed = None if guesses is None else compose_guesses(*guesses)
    (direct,) = estimate(matcher.bank, [pair], [matcher.start(composed)])
    return matcher.match(
        pair, direct=direct, composed=None if composed is None else Composed(composed, composed),
        by_homography=by_homography, smooth=smooth,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("working", "expected"), [((256, 256), (512, 512)), ((320, 192), (512, 307)), ((854, 480), (854, 480))]
)
def test_small_frames_are_enlarged_for_matching_and_none_is_shrunk(
    working: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert matching_size(working, 512) == expected


def test_first_guesses_are_kept_small() -> None:
    assert memo_size((854, 480)) == (432, 243)
    assert memo_size((256, 256)) == (256, 256)


def test_flow_of_a_pair_is_near_the_truth_where_it_is_trusted(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())
    forward, backward = match(matcher, Pair(3, 4), by_homography=True)
    for direction, (i, j) in ((forward, (3, 4)), (backward, (4, 3))):
        exact, visible = scene.flow(i, j)
        trusted = (direction.cycle < 1) & (direction.appearance < 12) & visible
        miss = np.linalg.norm(direction.flow - exact, axis=-1)[trusted]
        assert trusted.mean() > 0.7
        assert np.median(miss) < 0.25
        assert (miss > 2).mean() < 0.03


def test_guesses_help_over_a_distance(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())

    halves = (matcher.guess(match(matcher, Pair(2, 5))), matcher.guess(match(matcher, Pair(5, 8))))
    exact, visible = scene.flow(2, 8)

    def share_right(guesses: tuple[Guess, Guess] | None) -> float:
        flow = match(matcher, Pair(2, 8), guesses)[0].flow
        return float((np.linalg.norm(flow - exact, axis=-1)[visible] < 1).mean())

    assert share_right(halves) > share_right(None)


def striped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A pattern that nearly repeats every 16 pixels, (h, w, 3) uint8."""
    value = 128 + 70 * np.sin(x * 2 * np.pi / 16) + 12 * np.sin(x * 0.13 + y * 0.09) + 10 * np.sin(y * 0.31)
    return np.repeat(value[..., None], 3, axis=-1).astype(np.uint8)


def test_long_motion_stays_on_the_period_that_short_steps_followed(make_clip: MakeClip) -> None:
    y, x = np.mgrid[:96, :160].astype(np.float32)
    clip = make_clip([striped(x - 5 * t, y) for t in range(5)])  # over 4 frames by 20 pixels, and 4 look alike
    matcher = PairMatcher(bank_of(clip, 160), FlowConfig())

    def share_right(flow: np.ndarray, pixels: float) -> float:
        return float((np.linalg.norm(flow - [pixels, 0], axis=-1)[16:-16, 40:-40] < 0.5).mean())

    short = [matcher.guess(match(matcher, Pair(t, t + 1))) for t in range(4)]
    halves = [matcher.guess(match(matcher, Pair(t, t + 2), (short[t], short[t + 1]))) for t in (0, 2)]
    assert share_right(match(matcher, Pair(0, 4))[0].flow, 20) < 0.5
    assert share_right(match(matcher, Pair(0, 4), (halves[0], halves[1]))[0].flow, 20) > 0.95


@pytest.fixture
def nothing_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow is left as it was followed."""
    monkeypatch.setattr(matching, "find_lost", lambda *_: None)


@pytest.mark.usefixtures("nothing_lost")
def test_composed_flow_tells_how_far_it_moved_when_followed(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot), FlowConfig())
    exact, visible = scene.flow(2, 4)
    rough = exact.copy()
    rough[48:] += np.random.default_rng(6).normal(0, 1.0, (48, 128, 2))
    composed = rough, scene.flow(4, 2)[0]
    there, back = matcher.match(
        Pair(2, 4), direct=None, composed=Composed(composed, composed), by_homography=False
    )  # fmt: skip
    assert np.median(there.moved[56:]) > 2 * np.median(there.moved[:40])
    assert np.median(np.linalg.norm(there.flow - exact, axis=-1)[48:][visible[48:]]) < 0.5 * 1.2
    assert back.moved.shape == (96, 128)


def test_long_motion_goes_by_way_of_the_frame_that_proves_best_at_each_pixel(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot), FlowConfig())
    exact, visible = scene.flow(2, 8)
    back = scene.flow(8, 2)[0]
    lost_left, lost_right = exact.copy(), exact.copy()
    lost_left[:, :64] += 9
    lost_right[:, 64:] -= 9
    found = matcher.composed(Pair(2, 8), [(lost_left, back), (lost_right, back)])
    assert found is not None
    assert (np.linalg.norm(found.flow[0] - exact, axis=-1)[visible] < 1).mean() > 0.97
    np.testing.assert_array_equal(found.plain[0], found.flow[0])  # the first way has failed where it is not taken
    assert matcher.composed(Pair(2, 8), []) is None
    only = matcher.composed(Pair(2, 8), [(lost_left, back)])
    assert only is not None
    assert only.flow is only.plain
    np.testing.assert_array_equal(only.flow[0], lost_left)


def test_ways_are_compared_where_they_are_kept_and_told_in_working_pixels(
    shot: Clip, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "MEMO_LONG_SIDE", 64)  # half of the shot's
    matcher = PairMatcher(bank_of(shot), FlowConfig())
    exact, back = (resize_flow(scene.flow(*frames)[0], (64, 48)) for frames in ((2, 8), (8, 2)))
    visible = scene.flow(2, 8)[1][::2, ::2]
    off = exact + np.array([1.4, 0], np.float32)  # 2.8 working pixels, which is lost
    found = matcher.composed(Pair(2, 8), [(off, back), (exact, back)])
    assert found is not None
    assert found.flow[0].shape == (48, 64, 2)
    for flow in (found.flow[0], found.plain[0]):
        assert (np.abs(flow - exact).max(axis=-1)[visible] < 0.1).mean() > 0.95


@pytest.mark.usefixtures("nothing_lost")  # it would mend much before the field can
def test_flow_by_a_field_mends_what_failed_and_spoils_nothing_else(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())
    exact, visible = scene.flow(2, 8)
    back = scene.flow(8, 2)[0]
    lost, astray = exact.copy(), exact.copy()
    lost[:, :64] += 40
    astray[:, 64:] += 40

    def share_right(guided: Both | None) -> float:
        composed = Composed((lost, back), (lost, back))
        there, _ = matcher.match(Pair(2, 8), direct=None, composed=composed, by_homography=False, guided=guided)
        return float((np.linalg.norm(there.flow - exact, axis=-1)[visible] < 1).mean())

    alone = share_right(None)
    assert share_right((exact, back)) > alone + 0.3
    assert share_right((astray, back)) > alone + 0.3  # where it is wrong it fails to come back
    assert share_right((lost, back)) < alone + 0.02


@pytest.mark.usefixtures("nothing_lost")
def test_drift_is_told_of_the_first_way_and_not_of_the_one_that_was_chosen(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())
    exact, back = scene.flow(2, 8)[0], scene.flow(8, 2)[0]
    drift = np.array([0.4, 0], np.float32)
    composed = matcher.composed(Pair(2, 8), [(exact + drift, back - drift), (exact, back)])
    assert composed is not None
    inner = np.s_[16:-16, 16:-16]
    assert (np.abs(composed.flow[0] - exact).max(axis=-1)[inner] < 0.1).mean() > 0.6
    there, _ = matcher.match(Pair(2, 8), direct=None, composed=composed, by_homography=False)
    trusted = (there.cycle < 1) & (there.appearance < 12)
    assert np.median(there.moved[trusted]) > 0.3


def test_where_something_was_lost_what_settles_on_a_better_match_is_found_by_itself(
    shot: Clip, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())
    (exact, visible), back = scene.flow(2, 8), scene.flow(8, 2)[0]
    drift = np.array([0.3, 0.2], np.float32)
    drifted = exact + drift, back - drift
    composed = Composed(drifted, drifted)

    def followed() -> Direction:
        return matcher.match(Pair(2, 8), direct=None, composed=composed, by_homography=False)[0]

    monkeypatch.setattr(matching, "find_lost", lambda there, back, _: (there.flow, back.flow))
    settled = followed()
    monkeypatch.setattr(matching, "find_lost", lambda *_: None)
    before = followed()
    taken = (settled.flow != before.flow).any(axis=-1)
    assert 0.2 < taken.mean() < 0.95
    assert not settled.moved[taken].any()
    np.testing.assert_array_equal(settled.moved[~taken], before.moved[~taken])
    assert (settled.cost[taken] <= before.cost[taken]).all()
    misses = [np.linalg.norm(one.flow - exact, axis=-1)[visible & taken] for one in (before, settled)]
    assert np.mean(np.minimum(misses[1], 1)) < np.mean(np.minimum(misses[0], 1))


@pytest.mark.usefixtures("nothing_lost")
def test_what_was_found_elsewhere_tells_nothing_of_the_drift_around_it(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())
    exact, back = scene.flow(2, 4)[0], scene.flow(4, 2)[0]
    patched = exact.copy()
    patched[40:43, 60:63] += 30

    def moved(flow: np.ndarray) -> np.ndarray:
        composed = Composed((exact, back), (flow, back))
        return matcher.match(Pair(2, 4), direct=None, composed=composed, by_homography=False)[0].moved

    more = moved(patched) - moved(exact)
    assert 0.02 < more[38:45, 58:65].mean() < 0.5 * 9 / 81 + 0.01
    assert np.abs(more[:30]).max() == 0


def turned(degrees: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture, the same turned about its middle, and the exact flow from the first to the second."""
    first = Scene.make(2, (160, 160), seed=5).render(0)
    turn = cv2.getRotationMatrix2D((79.5, 79.5), degrees, 1.0)
    second = cv2.warpAffine(first, turn, (160, 160), borderMode=cv2.BORDER_REFLECT)
    y, x = np.mgrid[:160, :160]
    here = np.stack([x, y], -1)
    return first, second, (here @ turn[:, :2].T + turn[:, 2] - here).astype(np.float32)


def test_what_has_turned_is_followed_to_a_fraction_of_a_pixel(make_clip: MakeClip) -> None:
    first, second, exact = turned(35)
    clip = make_clip([first, second])
    back = turned(-35)[2]
    drift = np.array([0.4, -0.3], np.float32)
    composed = exact + drift, back - drift

    def misses(dis: DisFlow) -> tuple[float, float]:
        bank = FrameBank(clip, dis, matching_size(clip.working_size, 320), capacity=4, needs_features=False)
        there, _ = PairMatcher(bank, FlowConfig()).match(
            Pair(0, 1), direct=None, composed=Composed(composed, composed), by_homography=False
        )
        inside = np.linalg.norm(there.flow - exact, axis=-1)[40:120, 40:120]
        return float(np.median(inside)), float(np.median(there.moved[40:120, 40:120]))

    miss, moved = misses(DisFlow())
    assert miss < 0.15
    assert abs(moved - np.hypot(*drift)) < 0.1
    assert misses(DisFlow(full_size=False))[0] > 2 * miss


def bare_wall(t: int) -> np.ndarray:
    """A head with texture that moves by (5, 1) pixels a frame before a bare wall with a dark board, in grain."""
    y, x = np.mgrid[:120, :180].astype(np.float32)
    picture = np.full((120, 180, 3), (112, 106, 100), np.float32)
    picture[:, :25] = (40, 60, 90)
    picture[10:40, 140:165] = (190, 190, 180)
    rough = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(160, 240, 3)), (0, 0), 2.0)
    left, top = 60 + 5 * t, 60 + t
    face = 120 + 40 * np.roll(rough / rough.std(), (t, 5 * t), axis=(0, 1))[:120, :180]
    head = np.clip(24 * (1 - np.hypot((x - left) / 24, (y - top) / 34)) / 1.5 + 0.5, 0, 1)[..., None]
    grain = np.random.default_rng(100 + t).normal(0, 1.0, picture.shape)
    return (picture * (1 - head) + face * head + grain).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("gap", [1, 2])
def test_a_bare_wall_stands_still_beside_a_head_that_moves(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, gap: int
) -> None:
    clip = make_clip([bare_wall(t) for t in range(3)])
    matcher = PairMatcher(bank_of(clip, 256), FlowConfig())
    x, y = np.meshgrid(np.arange(180), np.arange(120))

    def around_head(t: int, grown: int) -> np.ndarray:
        return np.asarray(np.hypot((x - 60 - 5 * t) / (24 + grown), (y - 60 - t) / (34 + grown)) < 1)

    beside = around_head(gap, 12) & ~around_head(gap, 3) & ~around_head(0, 3)

    def share_still() -> float:
        steps = [match(matcher, Pair(t, t + 1), smooth=True) for t in range(gap)]
        guesses = [matcher.guess(step) for step in steps]
        there, _ = steps[0] if gap == 1 else match(matcher, Pair(0, 2), (guesses[0], guesses[1]))
        return float((np.abs(there.flow).max(axis=-1)[beside] < 0.5).mean())

    still = share_still()
    monkeypatch.setattr(matching, "move_plain_regions", lambda *_: None)
    assert share_still() < 0.75
    assert still > 0.95


def test_a_wall_does_not_go_with_the_head_that_has_most_of_its_edges(make_clip: MakeClip) -> None:
    """One way the edges say so, the head's motion beside them: only the wall's faint shading speaks against it."""
    head = make_hard_scene("head")
    clip = make_clip([head.render(11), head.render(12)])
    bank = FrameBank(clip, DisFlow(), matching_size(clip.working_size, 512), capacity=2, needs_features=True)
    for direction, t in zip(match(PairMatcher(bank, FlowConfig()), Pair(0, 1), smooth=True), (11, 12), strict=True):
        assert (np.abs(direction.flow).max(axis=-1)[head.mask(t, "wall")] < 0.5).mean() > 0.85


def test_what_a_screen_does_from_frame_to_frame_holds_over_more(make_clip: MakeClip) -> None:
    """The outline of who is before it, who moves as no one motion does, is all that there is to tell of it."""
    scene = make_hard_scene("screen")
    clip = make_clip([scene.render(t) for t in (4, 8)])
    bank = FrameBank(clip, DisFlow(), matching_size(clip.working_size, 512), capacity=2, needs_features=True)
    matcher = PairMatcher(bank, FlowConfig())
    rng = np.random.default_rng(0)

    def drawn_along(exact: np.ndarray, screen: np.ndarray) -> np.ndarray:
        noise = cv2.GaussianBlur(rng.normal(0, 1, exact.shape).astype(np.float32), (0, 0), 12.0)
        return exact + np.where(screen[..., None], 2 * noise / noise.std(), 0).astype(np.float32)

    exact = scene.flow(4, 8)[0], scene.flow(8, 4)[0]
    screens = scene.mask(4, "screen"), scene.mask(8, "screen")
    source, target = bank.frame(0), bank.frame(1)
    found = matcher._judge(source, target, (drawn_along(exact[0], screens[0]), drawn_along(exact[1], screens[1])))

    def share_still(composed: Composed | None) -> float:
        there, _ = matcher._without_drag(source, target, found, composed)
        return float((np.abs(there.flow).max(axis=-1)[screens[0]] < 0.5).mean())

    assert share_still(None) < 0.5
    assert share_still(Composed(exact, exact)) > 0.9


def test_composed_flow_is_handed_on_to_where_plain_regions_are_moved(
    shot: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def without_drag(_: PairMatcher, *given: object) -> object:
        seen.append(given[-1])
        return given[-2]

    monkeypatch.setattr(PairMatcher, "_without_drag", without_drag)
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())
    steps = [matcher.guess(match(matcher, Pair(t, t + 1), smooth=True)) for t in (0, 1)]
    match(matcher, Pair(0, 2), (steps[0], steps[1]))
    assert seen[:2] == [None, None]
    assert isinstance(seen[2], Composed)


def flying_ball(t: int) -> np.ndarray:
    """A ball of 12 pixels' radius that flies by (38, 10) pixels a frame over ground that stands still."""
    ground = Scene.make(2, (180, 120), seed=2).render(0)
    ball = Scene.make(2, (64, 64), seed=3).render(0)[20:44, 20:44]
    y, x = np.mgrid[:24, :24] - 11.5
    left, top = 20 + 38 * t, 30 + 10 * t
    window = ground[top : top + 24, left : left + 24]
    window[np.hypot(x, y) < 12] = ball[np.hypot(x, y) < 12]
    return ground


@pytest.mark.parametrize("gap", [1, 2])
def test_a_small_ball_that_flies_far_is_found(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, gap: int
) -> None:
    clip = make_clip([flying_ball(t) for t in range(3)])
    matcher = PairMatcher(bank_of(clip, 256), FlowConfig())
    y, x = np.mgrid[:120, :180]
    ball, far = (np.hypot(x - 31.5, y - 41.5) < radius for radius in (10, 18))
    nothing = np.zeros((120, 180, 2), np.float32)  # as if both steps had lost it

    def shares() -> tuple[float, float]:
        lost = matcher.guess((Direction(nothing, *[nothing[..., 0]] * 3),) * 2)
        there, _ = match(matcher, Pair(0, gap), None if gap == 1 else (lost, lost), smooth=gap == 1)
        found = np.abs(there.flow - gap * np.array([38, 10])).max(axis=-1) < 1
        return float(found[ball].mean()), float((np.abs(there.flow).max(axis=-1)[~far] < 1).mean())

    on_ball, on_ground = shares()
    monkeypatch.setattr(matching, "find_lost", lambda *_: None)
    assert shares()[0] < 0.5
    assert on_ball > 0.9
    assert on_ground > 0.9


@pytest.mark.parametrize(("full_size", "gaps"), [(True, [1, 2]), (False, [1])])
def test_coarse_flow_is_searched_for_what_is_lost_between_neighbors_alone(
    shot: Clip, monkeypatch: pytest.MonkeyPatch, full_size: bool, gaps: list[int]
) -> None:
    size = matching_size(shot.working_size, 128)
    bank = FrameBank(shot, DisFlow(full_size=full_size), size, capacity=4, needs_features=False)
    matcher = PairMatcher(bank, FlowConfig())
    asked: list[int] = []
    steps = [match(matcher, Pair(t, t + 1)) for t in (2, 3)]
    guesses = matcher.guess(steps[0]), matcher.guess(steps[1])
    monkeypatch.setattr(matching, "find_lost", lambda *_: asked.append(1))
    match(matcher, Pair(2, 3), smooth=True)
    monkeypatch.setattr(matching, "find_lost", lambda *_: asked.append(2))
    match(matcher, Pair(2, 4), guesses)
    assert asked == gaps


def test_neighbors_are_made_smooth_along_surfaces_where_it_is_asked_for(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())
    exact, visible = scene.flow(4, 5)
    direct = estimate(matcher.bank, [Pair(4, 5)], [None])[0]

    def share_wrong(smooth: bool) -> float:
        there, _ = matcher.match(Pair(4, 5), direct=direct, by_homography=False, smooth=smooth)
        return float((np.linalg.norm(there.flow - exact, axis=-1)[visible] > 0.5).mean())

    assert share_wrong(True) < 0.7 * share_wrong(False)


def test_what_goes_on_as_before_replaces_flow_that_failed(shot: Clip, scene: Scene) -> None:
    matcher = PairMatcher(bank_of(shot), FlowConfig())
    lost = scene.flow(4, 5)[0] + 20, scene.flow(5, 4)[0] + 20
    guess = scene.flow(3, 4)[0], scene.flow(6, 5)[0]
    exact, visible = scene.flow(4, 5)

    def error(continued: list[Both]) -> float:
        there, _ = matcher.match(Pair(4, 5), direct=lost, continued=continued, by_homography=False)
        return float(np.median(np.linalg.norm(there.flow - exact, axis=-1)[visible]))

    assert error([]) > 10
    assert error([guess]) < 1


def test_a_turned_picture_is_matched_by_way_of_its_homography(make_clip: MakeClip) -> None:
    first, second, exact = turned(35)
    matcher = PairMatcher(bank_of(make_clip([first, second])), FlowConfig())

    def share_right(by_homography: bool) -> float:
        flow = match(matcher, Pair(0, 1), by_homography=by_homography)[0].flow
        return float((np.linalg.norm(flow - exact, axis=-1)[40:120, 40:120] < 1).mean())

    assert share_right(True) > 0.9
    assert share_right(False) < 0.5


def test_homographies_are_looked_for_where_much_has_failed(
    make_clip: MakeClip, shot: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def aligned(_: PairMatcher, *frames: object) -> list[Both]:
        asked.extend(frames)
        return []

    monkeypatch.setattr(PairMatcher, "_aligned", aligned)
    match(PairMatcher(bank_of(shot, 256), FlowConfig()), Pair(3, 4), by_homography=True)
    assert not asked
    rng = np.random.default_rng(2)
    unlike = [rng.integers(0, 256, (96, 96, 3)).astype(np.uint8) for _ in range(2)]
    match(PairMatcher(bank_of(make_clip(unlike)), FlowConfig()), Pair(0, 1), by_homography=True)
    assert asked


def test_flow_around_a_guess_is_settled_where_it_was_left_rough(scene: Scene, shot: Clip) -> None:
    exact, visible = scene.flow(2, 5)
    guess = exact + 2, scene.flow(5, 2)[0] - 2
    matcher = PairMatcher(bank_of(shot, 256), FlowConfig())
    bank = matcher.bank
    started = matcher.start(guess)
    assert started is not None
    rough = inverse_search(bank.frame(2).prepared, bank.frame(5).prepared, started[0])
    rough = cv2.resize(rough, shot.working_size, interpolation=cv2.INTER_AREA) * (shot.working_size[0] / rough.shape[1])

    def miss(flow: np.ndarray) -> float:
        return float(np.percentile(np.linalg.norm(flow - exact, axis=-1)[visible], 75))

    found = matcher.around(Pair(2, 5), guess)[0]
    assert found.shape == exact.shape
    assert miss(found) < 0.9 * miss(rough)
    assert miss(found) < 0.2
    half = PairMatcher(FrameBank(shot, DisFlow(full_size=False), bank.matching_size, capacity=8, needs_features=False),
                       FlowConfig())  # fmt: skip
    assert half.around(Pair(2, 5), guess)[0].shape[:2] == bank.matching_size[::-1]


def test_in_large_pictures_the_search_around_a_guess_is_settled_to_half_size(make_clip: MakeClip) -> None:
    """Settling what is found at full size would take longer there."""
    picture = Scene.make(2, (704, 64), seed=4).render(0)
    clip = make_clip([picture, np.roll(picture, 3, axis=1)])
    matcher = PairMatcher(bank_of(clip), FlowConfig())
    assert max(matcher.bank.matching_size) > GUIDED_LONGEST_SIDE
    guess = (np.full((64, 704, 2), [3, 0], np.float32), np.full((64, 704, 2), [-3, 0], np.float32))
    expected = estimate(matcher.bank, [Pair(0, 1)], [guess])[0]
    for found, there in zip(matcher.around(Pair(0, 1), guess), expected, strict=True):
        np.testing.assert_array_equal(found, there)


def test_flow_by_way_of_a_homography_is_settled_too(make_clip: MakeClip) -> None:
    picture = Scene.make(2, (128, 96), seed=4).render(0)
    clip = make_clip([picture, np.roll(picture, 5, axis=1)])
    matcher = PairMatcher(bank_of(clip, 256), FlowConfig())
    (found,) = matcher._aligned(matcher.bank.frame(0), matcher.bank.frame(1))
    assert [flow.shape[:2] for flow in found] == [(96, 128)] * 2
    assert np.percentile(np.linalg.norm(found[0] - [5, 0], axis=-1)[8:-8, 8:-16], 90) < 0.2


def test_frames_beyond_the_bank_are_made_again_alike(shot: Clip) -> None:
    small = FrameBank(shot, DisFlow(), shot.working_size, capacity=1, needs_features=True)
    before = small.frame(0)
    small.frame(1)
    again = small.frame(0)
    assert again is not before
    np.testing.assert_array_equal(again.lab, before.lab)
    assert again.features is before.features


def test_plain_flow_is_given_in_plate_pixels(make_clip: MakeClip, scene: Scene) -> None:
    pictures = [scene.render(t) for t in range(2)]
    clip = make_clip(pictures, size=(256, 192))
    flow = dense_flow_at_plate_size(bank_of(clip), 0, 1)
    exact, visible = scene.flow(0, 1)
    assert flow.shape == (192, 256, 2)
    assert np.median(np.abs(flow[::2, ::2] - 2 * exact)[visible]) < 0.5
