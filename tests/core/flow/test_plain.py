"""Plain regions beside things that move, their motion given by formula."""

import cv2
import numpy as np
import pytest

from omnimotion_core.flow.consistency import appearance_error, cycle_error
from omnimotion_core.flow.plain import _admits, move_plain_regions
from omnimotion_core.flow.regions import _large_regions, _slope, find_regions, smooth_change
from omnimotion_core.flow.view import View

WIDTH, HEIGHT, EDGE = 200, 140, 20  # EDGE: of the ground that is beside the picture
HEAD = np.array([85.0, 75.0]), np.array([30.0, 40.0])  # centre and half axes
HEAD_STEP = np.array([6, 1])
REACH_PX = 9.0  # over which the wall is drawn along
Pictures = tuple[np.ndarray, np.ndarray]


def texture(size: tuple[int, int], amount: float, seed: int) -> np.ndarray:
    """(h, w, 3) random CIELAB texture with a standard deviation of ``amount``."""
    rough = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(size[1], size[0], 3)), (0, 0), 1.5)
    return (rough / rough.std() * amount).astype(np.float32)


def wall(amount: float = 0.05) -> np.ndarray:
    """Ground larger than the picture: bare, but for a dark board at the left and a window."""
    size = WIDTH + 2 * EDGE, HEIGHT + 2 * EDGE
    ground = np.full((size[1], size[0], 3), (45, 2, 4), np.float32) + texture(size, amount, 1)
    ground[:, : EDGE + 25] += (-25, 5, -20)
    ground[EDGE + 15 : EDGE + 60, EDGE + 150 : EDGE + 180] += (35, 0, 10)
    return ground


def shaded(amount: float = 1.0) -> np.ndarray:
    """The same under light that changes by some units of lightness over the picture."""
    ground = wall(0.0)
    y, x = np.mgrid[: ground.shape[0], : ground.shape[1]]
    ground[..., 0] += amount * (3 * np.sin(x / 23) + 2 * np.cos(y / 19))
    return ground


def in_head(shift: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    (across, down), (half_width, half_height) = HEAD[0] + shift, HEAD[1]
    return ((x - across) / half_width) ** 2 + ((y - down) / half_height) ** 2 < 1


def pictures(ground: np.ndarray, step: np.ndarray, *, lighter: float = 0.0, noise: float = 0.3) -> Pictures:
    """Two frames, slightly blurred CIELAB: the ground moves by ``step``, a head with texture before it by its own."""
    face = np.array([60, 15, 15], np.float32) + texture((WIDTH, HEIGHT), 8.0, 2)
    frames = []
    for t in range(2):
        x, y = EDGE - t * step
        frame = ground[y : y + HEIGHT, x : x + WIDTH].copy()
        head = in_head(t * HEAD_STEP)
        frame[head] = np.roll(face, t * HEAD_STEP[::-1], axis=(0, 1))[head]
        frame += np.random.default_rng(10 + t).normal(0, noise, frame.shape).astype(np.float32)
        frame[..., 0] += t * lighter
        frames.append(cv2.GaussianBlur(frame, (0, 0), 1.0))
    return frames[0], frames[1]


def exact_flow(step: np.ndarray, direction: int) -> np.ndarray:
    """Exact flow from the first frame (``direction`` 1) or from the second (-1)."""
    head = in_head(HEAD_STEP if direction < 0 else 0 * HEAD_STEP)
    return (direction * np.where(head[..., None], HEAD_STEP, step)).astype(np.float32)


def drawn_along(step: np.ndarray, direction: int) -> np.ndarray:
    """The same, the ground drawn along by the head: the more, the nearer to it."""
    head = in_head(HEAD_STEP if direction < 0 else 0 * HEAD_STEP)
    away = cv2.distanceTransform((~head).astype(np.uint8), cv2.DIST_L2, 5)
    share = np.exp(-away / REACH_PX)[..., None]
    return (direction * (share * HEAD_STEP + (1 - share) * step)).astype(np.float32)


def views(frames: Pictures, forward: np.ndarray, backward: np.ndarray) -> tuple[View, View]:
    def view(source: np.ndarray, target: np.ndarray, flow: np.ndarray) -> View:
        appearance = appearance_error(source, target, flow, np.ones(flow.shape[:2], bool))
        return View(source, target, flow, appearance)

    return view(*frames, forward), view(*frames[::-1], backward)


def moved_by(
    there: View, back: View, motions: list[np.ndarray], composed: Pictures | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    return move_plain_regions(there, back, (find_regions(there.source), find_regions(back.source)), motions, composed)


def shifting(step: np.ndarray) -> np.ndarray:
    return np.array([[1, 0, step[0]], [0, 1, step[1]], [0, 0, 1]], np.float64)


def near_head() -> np.ndarray:
    """The ground around the head of the first frame, but for what the head covers in the second and its soft edge."""
    covered = in_head(0 * HEAD_STEP) | in_head(HEAD_STEP)
    far, close = (cv2.dilate(covered.astype(np.uint8), np.ones((side, side), np.uint8)) for side in (21, 9))
    return (far > 0) & (close == 0)


def share_right(flow: np.ndarray, exact: np.ndarray, where: np.ndarray) -> float:
    return float((np.linalg.norm(flow - exact, axis=-1)[where] < 0.5).mean())


def assert_kept(moved: tuple[np.ndarray, np.ndarray] | None, there: View, back: View) -> None:
    for flow, view in zip(moved or (there.flow, back.flow), (there, back), strict=True):
        np.testing.assert_allclose(flow, view.flow, atol=1e-3)


@pytest.mark.parametrize("lighter", [0.0, 6.0])
@pytest.mark.parametrize("step", [np.array([0, 0]), np.array([-2, 1])])
def test_a_bare_wall_is_not_drawn_along_by_what_passes(step: np.ndarray, lighter: float) -> None:
    there, back = views(pictures(wall(), step, lighter=lighter), drawn_along(step, 1), drawn_along(step, -1))
    moved = moved_by(there, back, [shifting(HEAD_STEP), shifting(step)])
    assert moved is not None
    exact, ground = exact_flow(step, 1), near_head()
    assert share_right(there.flow, exact, ground) < 0.3
    assert share_right(moved[0], exact, ground) > 0.97
    head = cv2.erode(in_head(0 * HEAD_STEP).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    np.testing.assert_array_equal(moved[0][head], there.flow[head])
    assert np.median(cycle_error(*moved)[ground]) < 0.01
    leaving = np.isinf(cycle_error(exact, exact))
    np.testing.assert_array_equal(moved[0][leaving], there.flow[leaving])


def test_what_gets_covered_no_longer_comes_back() -> None:
    still = np.array([0, 0])
    there, back = views(pictures(wall(), still), drawn_along(still, 1), drawn_along(still, -1))
    moved = moved_by(there, back, [])
    assert moved is not None
    covered = in_head(HEAD_STEP) & ~cv2.dilate(in_head(0 * HEAD_STEP).astype(np.uint8), np.ones((5, 5))).astype(bool)
    before, after = cycle_error(there.flow, back.flow)[covered], cycle_error(*moved)[covered]
    assert np.median(before) < 2.0
    assert np.median(after) > 2.5


def test_pictures_without_noise_have_plain_walls_too() -> None:
    still = np.array([0, 0])
    there, back = views(pictures(wall(0.0), still, noise=0.0), drawn_along(still, 1), drawn_along(still, -1))
    moved = moved_by(there, back, [])
    assert moved is not None
    assert share_right(moved[0], exact_flow(still, 1), near_head()) > 0.97


@pytest.mark.parametrize(("amount", "admitted"), [(0.04, True), (1.0, False)])
def test_what_a_codec_may_have_held_still_does_not_speak_against_a_motion(amount: float, admitted: bool) -> None:
    step = np.array([-2, 1])
    held = cv2.GaussianBlur(texture((WIDTH, HEIGHT), amount, 7), (0, 0), 1.0)
    frames = pictures(wall(0.0), step, noise=0.0)
    there, _ = views((frames[0] + held, frames[1] + held), 0 * exact_flow(step, 1), 0 * exact_flow(step, -1))
    largest = max(find_regions(there.source).large, key=lambda region: len(region.inside))
    assert _admits(largest, there, shifting(step), None) == admitted


def test_a_plain_thing_keeps_the_motion_of_its_outline_though_the_ground_has_another() -> None:
    """Its inside would look the same by the ground's motion, which is the only one that is known of the picture."""
    step, own = np.array([-2, 1]), np.array([3, 0])
    ground = wall(8.0)
    frames = []
    for t in range(2):
        x, y = EDGE - t * step
        frame = ground[y : y + HEIGHT, x : x + WIDTH].copy()
        left, top = 60 + t * own[0], 50 + t * own[1]
        frame[top : top + 50, left : left + 90] = (80, 0, 3)
        frame += np.random.default_rng(20 + t).normal(0, 0.3, frame.shape).astype(np.float32)
        frames.append(cv2.GaussianBlur(frame, (0, 0), 1.0))

    def exact(direction: int) -> np.ndarray:
        flow = np.broadcast_to(direction * step, (HEIGHT, WIDTH, 2)).astype(np.float32)
        left = 60 + own[0] * (direction < 0)
        flow[50:100, left : left + 90] = direction * own
        return flow

    def uneven(direction: int) -> np.ndarray:
        """Right at the thing's edges, off by more than half a pixel in the half of its inside that is the upper."""
        flow = exact(direction)
        flow[58:74, 70:140, 1] += 0.7
        return flow

    there, back = views((frames[0], frames[1]), uneven(1), uneven(-1))
    moved = moved_by(there, back, [shifting(step)])
    assert moved is not None
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[54:96, 64:146] = True
    assert share_right(there.flow, exact(1), inside) < 0.8
    assert share_right(moved[0], exact(1), inside) > 0.97


def waves(step: np.ndarray, amount: float) -> np.ndarray:
    """(h, w, 3) a bare wall with a dark board, moved by ``step``, which may be a part of a pixel; faint waves on it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = x - step[0], y - step[1]
    light = 60 + amount * sum(np.sin(x * a + y * b) for a, b in ((0.9, 0.3), (-0.4, 0.8), (0.7, -0.7)))
    board = 1 / (1 + np.exp(4 * np.clip(x - 40, -15, 15))) + 1 / (1 + np.exp(4 * np.clip(150 - y - 0.5 * x, -15, 15)))
    return np.stack([light - 30 * board, 0 * x, 5 * board], axis=-1).astype(np.float32)


def seen(frames: Pictures, noise: float = 0.5) -> Pictures:
    first, second = (
        frame + cv2.GaussianBlur(np.random.default_rng(40 + t).normal(0, noise, frame.shape), (0, 0), 1.0)
        for t, frame in enumerate(frames)
    )
    return first.astype(np.float32), second.astype(np.float32)


def even(step: np.ndarray) -> np.ndarray:
    return np.broadcast_to(step, (HEIGHT, WIDTH, 2)).astype(np.float32).copy()


def test_a_wall_s_faint_texture_tells_its_motion_though_all_edges_have_another() -> None:
    """And though the two are nearer to each other than what flow may disagree by."""
    step, bars = np.array([-0.4, 0.5]), np.array([0.3, 0.0])
    frames = []
    for t in range(2):
        frame = waves(t * step + [400, -400], 0.8)  # without the board
        x = np.arange(WIDTH) - t * bars[0]
        for left in (10, 70, 130, 190):
            frame[:, :, 0] -= 40 / (1 + np.exp(3 * np.clip(abs(x - left) - 4, -9, 9)))
        frames.append(frame)
    there, back = views(seen((frames[0], frames[1])), even(step), even(-step))
    assert_kept(moved_by(there, back, [shifting(bars)]), there, back)


def test_of_two_motions_that_its_inside_admits_a_region_takes_what_its_edges_tell() -> None:
    step = np.array([0.3, -0.25])
    there, back = views(
        seen((waves(0 * step, 0.0), waves(step, 0.0))), even(0.5 * step), even(-0.5 * step)
    )
    moved = moved_by(there, back, [shifting(step)])
    assert moved is not None
    np.testing.assert_allclose(moved[0][60:80, 80:110], even(step)[60:80, 80:110], atol=0.05)


def test_torn_flow_between_bars_does_not_take_their_motion() -> None:
    """All edges around the wall are the bars', which nothing but their own flow tells of."""
    bars, across = np.array([3.0, 0.0]), np.arange(WIDTH)
    frames, flows = [], []
    for t in range(2):
        near = np.min([abs(across - t * bars[0] - left) for left in (10, 70, 130, 190)], axis=0)
        frame = waves(np.array([400, -400]), 0.0)  # without the board
        frame[:, :, 0] -= 40 / (1 + np.exp(3 * np.clip(near - 4, -9, 9)))
        frames.append(frame)
        torn = np.stack([5.0 * (across // 10 % 5) - 7, 5.0 * (across // 10 % 3) - 8], axis=-1)
        flows.append(np.broadcast_to(np.where(near[:, None] < 9, (1 - 2 * t) * bars, torn), (HEIGHT, WIDTH, 2)))
    there, back = views(seen((frames[0], frames[1])), *(flow.astype(np.float32) for flow in flows))
    moved = moved_by(there, back, [])
    kept = there.flow if moved is None else moved[0]
    np.testing.assert_array_equal(kept[:, 84:116], there.flow[:, 84:116])


def test_what_one_direction_moves_goes_back_the_same_way() -> None:
    """The way back's own flow is torn, so that it alone would stay as it is."""
    still = np.array([0, 0])
    wrong = even(still)
    wrong[..., 1] = 1.5 * (np.arange(WIDTH) // 12 % 3 - 1.0) + 0.75
    there, back = views(pictures(wall(), still), drawn_along(still, 1), wrong)
    moved = moved_by(there, back, [])
    assert moved is not None
    np.testing.assert_array_equal(moved[1][120:135, 40:140], 0)
    np.testing.assert_array_equal(moved[1][near_head()], 0)


def test_stretches_of_an_outline_count_by_their_length_and_not_by_their_texture() -> None:
    """A bare square between one sharp edge and a rough field."""
    picture = np.full((80, 120, 3), (50, 0, 0), np.float32)
    picture[:, :40] = (30, 0, 0)
    picture[:, 77:] += texture((43, 80), 15.0, 6)
    slope = _slope(picture)
    bare = np.zeros((80, 120), bool)
    bare[:, 43:77] = True
    (region,) = _large_regions(bare & (slope < 0.1), bare, slope)
    left = region.outline[:, 0] < 60
    assert (~left).sum() > 2.5 * left.sum()
    assert region.share[~left].sum() < 1.7 * region.share[left].sum()


def test_pictures_without_noise_are_taken_to_have_a_little() -> None:
    nothing = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    there, _ = views((wall(0)[:HEIGHT, :WIDTH],) * 2, nothing, nothing)
    assert 0 < there.noise < 0.2


def test_noise_of_a_large_picture_is_that_of_places_all_over_it() -> None:
    apart = np.abs(np.random.default_rng(3).normal(0, 1, (600, 900))).astype(np.float32)
    apart[:, ::2] += 1  # every second column, so that a part of the picture would tell otherwise
    lab = np.zeros((600, 900, 3), np.float32)
    view = View(lab, lab, np.zeros((600, 900, 2), np.float32), apart)
    assert view.noise == pytest.approx(np.median(apart), rel=0.03)


def test_a_region_most_of_whose_flow_is_otherwise_keeps_it_unless_its_shading_tells() -> None:
    still = np.array([0, 0])
    elsewhere = np.full((HEIGHT, WIDTH, 2), (1.5, 0), np.float32)
    there, back = views(pictures(wall(0.0), still), elsewhere, -elsewhere)
    assert_kept(moved_by(there, back, []), there, back)
    there, back = views(pictures(shaded(), still), elsewhere, -elsewhere)
    moved = moved_by(there, back, [])
    assert moved is not None
    assert share_right(moved[0], exact_flow(still, 1), near_head()) > 0.9


@pytest.mark.parametrize("amount", [1.0, 0.3])
@pytest.mark.parametrize("lighter", [0.0, 6.0])
def test_shading_tells_whose_the_edges_are(lighter: float, amount: float) -> None:
    """The wall ends nowhere in the picture but at the head, whose edges all go with the head."""
    step = np.array([1, 1])
    ground = shaded(amount)
    ground[:, : EDGE + 30] = ground[:, EDGE + 30 :][:, : EDGE + 30]
    ground[EDGE + 15 : EDGE + 60, EDGE + 150 : EDGE + 180] -= (35, 0, 10)
    there, back = views(pictures(ground, step, lighter=lighter), drawn_along(step, 1), drawn_along(step, -1))
    moved = moved_by(there, back, [shifting(HEAD_STEP), shifting(step)])
    assert moved is not None
    assert share_right(moved[0], exact_flow(step, 1), near_head()) > 0.9
    assert share_right(moved[1], exact_flow(step, -1), near_head()) > 0.9


@pytest.mark.parametrize("step", [np.array([0, 0]), np.array([-4, 1])])
def test_a_lens_that_darkens_the_corners_does_not_hold_a_wall(step: np.ndarray) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    falloff = 40 * (((x - WIDTH / 2) / WIDTH) ** 2 + ((y - HEIGHT / 2) / HEIGHT) ** 2)
    first, second = pictures(shaded(0.5), step)
    for frame in (first, second):
        frame[..., 0] -= falloff
    there, back = views((first, second), drawn_along(step, 1), drawn_along(step, -1))
    moved = moved_by(there, back, [shifting(HEAD_STEP), shifting(step)])
    assert moved is not None
    assert share_right(moved[0], exact_flow(step, 1), near_head()) > 0.9
    assert share_right(moved[1], exact_flow(step, -1), near_head()) > 0.9


@pytest.mark.parametrize("contrast", [1.0, 1.6])
def test_how_much_edges_miss_counts_unless_a_motion_explains_the_shading(contrast: float) -> None:
    """All edges are the head's; the shading goes another way, and in one case something else has happened to it."""
    still, step = np.array([0, 0]), np.array([-4, 0])
    bare, light = np.full_like(wall(), (45, 2, 4)), shaded(1.0) - shaded(0.0)
    second = pictures(bare + contrast * np.roll(light, step[0], axis=1), still)[1]
    there, back = views((pictures(bare + light, still)[0], second), drawn_along(step, 1), drawn_along(step, -1))
    moved = moved_by(there, back, [shifting(HEAD_STEP), shifting(step)])
    if contrast == 1:
        assert moved is not None
        assert share_right(moved[0], exact_flow(step, 1), near_head()) > 0.9
    else:
        assert_kept(moved, there, back)


def test_edges_that_no_motion_explains_are_nobody_s() -> None:
    """The head's motion, which all edges have, is not among those that are asked."""
    still, step = np.array([0, 0]), np.array([4, -6])
    bare, light = np.full_like(wall(), (45, 2, 4)), shaded(0.3) - shaded(0.0)
    second = pictures(bare + np.roll(light, step[::-1], axis=(0, 1)), still)[1]
    forward = np.full((HEIGHT, WIDTH, 2), step, np.float32)
    assert moved_by(*views((pictures(bare + light, still)[0], second), forward, -forward), [shifting(step)]) is None


def before_a_backing(flow: np.ndarray) -> tuple[View, View]:
    """A head before a wall that stands still, has no edges of its own and no shading; the wall's ``flow``."""
    still = np.array([0, 0])
    frames = pictures(np.full_like(wall(), (45, 2, 4)), still)
    forward, backward = (np.where(in_head(shift)[..., None], exact_flow(still, way), way * flow)
                         for shift, way in ((0 * HEAD_STEP, 1), (HEAD_STEP, -1)))  # fmt: skip
    return views(frames, forward.astype(np.float32), backward.astype(np.float32))


def torn() -> np.ndarray:
    """Flow that is right in two fifths of the picture."""
    stripes = np.array([0, 2, 0, -2, 3])[np.arange(WIDTH) // 12 % 5]
    return np.broadcast_to(np.stack([stripes, -stripes], axis=-1), (HEIGHT, WIDTH, 2))


def test_where_edges_tell_nothing_what_shorter_distances_have_told_holds() -> None:
    """The head's motion, which is none that the picture is asked for, is all that edges tell."""
    still = np.array([0, 0])
    told = exact_flow(still, 1), exact_flow(still, -1)
    there, back = before_a_backing(torn())
    assert_kept(moved_by(there, back, []), there, back)
    moved = moved_by(there, back, [], told)
    assert moved is not None
    for flow, exact in zip(moved, told, strict=True):
        assert share_right(flow, exact, near_head()) > 0.97
    dragged = drawn_along(still, 1) + 1, drawn_along(still, -1) - 1
    assert_kept(moved_by(there, back, [], dragged), there, back)


def test_what_shorter_distances_have_told_yields_to_flow_that_agrees_on_another_motion() -> None:
    """Each of them may have been off by less than flow may disagree by."""
    still = np.array([0, 0])
    there, back = before_a_backing(even(np.array([2.0, 1.0])))
    assert_kept(moved_by(there, back, [], (exact_flow(still, 1), exact_flow(still, -1))), there, back)


def test_a_smooth_change_is_told_though_a_third_has_been_covered() -> None:
    y, x = np.mgrid[:40, :60]
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    exact = np.stack([3 + 0.1 * pixels[:, 0], pixels[:, 1] ** 2 / 400, -pixels.prod(axis=1) / 600], axis=1)
    changes = (exact + np.random.default_rng(0).normal(0, 0.05, exact.shape)).astype(np.float32)
    changes[pixels[:, 0] < 20] += (20, -5, 9)
    np.testing.assert_allclose(smooth_change(pixels, changes), exact, atol=0.1)
    assert not smooth_change(pixels, changes, pixels[:, 1] < 4).any()  # of so few nothing is told


@pytest.mark.parametrize("amount", [8.0, 0.0])
def test_a_picture_full_of_texture_or_without_any_edge_has_no_plain_regions(amount: float) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), (50, 0, 0), np.float32) + texture((WIDTH, HEIGHT), 1.0, 4) * amount
    nothing = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    there, back = views((picture, picture), nothing, nothing)
    assert moved_by(there, back, [shifting(np.array([1, 1]))]) is None


def test_a_motion_that_leaves_the_picture_is_none() -> None:
    still = np.array([0, 0])
    there, back = views(pictures(wall(), still), drawn_along(still, 1), drawn_along(still, -1))
    away = np.array([[1, 0, 1e6], [0, 1, -1e6], [0, 0, 1]])
    horizon = np.array([[1, 0, 0], [0, 1, 0], [-1 / 100, 0, 1]])  # pixels of column 100 go to infinity
    expected, moved = moved_by(there, back, []), moved_by(there, back, [away, horizon])
    assert expected is not None
    assert moved is not None
    np.testing.assert_array_equal(moved[0], expected[0])
