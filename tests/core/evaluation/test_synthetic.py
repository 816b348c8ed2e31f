"""The synthetic clip: its pictures, flow and visibility agree with each other and with brute force."""

import cv2
import numpy as np
import pytest

from omnimotion_core.coordinates import inside, pixel_grid
from omnimotion_core.errors import ConfigError
from omnimotion_core.evaluation.synthetic import Scene

PAIRS = [(0, 1), (0, 8), (25, 3), (12, 31)]


def interior(labels: np.ndarray, radius: int = 2) -> np.ndarray:
    """Pixels all of whose neighbors carry the same label: antialiasing mixes nothing there."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    as_bytes = labels.astype(np.uint8)
    return np.asarray(cv2.erode(as_bytes, kernel) == cv2.dilate(as_bytes, kernel))


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_warping_frame_j_by_the_exact_flow_gives_frame_i(scene: Scene, i: int, j: int) -> None:
    vectors, visible = scene.flow(i, j)
    there = (pixel_grid(scene.size) + vectors).astype(np.float32)
    warped = cv2.remap(scene.render(j), there[..., 0], there[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    target = interior(scene.owner(j)).astype(np.uint8)
    off_edges = cv2.remap(target, there[..., 0], there[..., 1], cv2.INTER_NEAREST) > 0
    sure = visible & interior(scene.owner(i)) & off_edges
    error = np.abs(warped.astype(float) - scene.render(i)).mean(axis=-1)
    unmoved = np.abs(scene.render(j).astype(float) - scene.render(i)).mean(axis=-1)
    assert sure.mean() > 0.4
    assert error[sure].mean() < 2.0  # gray levels
    assert np.quantile(error[sure], 0.99) < 10.0
    assert unmoved[sure].mean() > 5.0  # so that the check can fail


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_there_and_back_returns_to_the_same_pixel(scene: Scene, i: int, j: int) -> None:
    pixels = pixel_grid(scene.size).astype(np.float64)
    vectors, visible = scene.flow(i, j)
    there = pixels + vectors.astype(np.float64)
    owner = scene.owner(i)
    assert np.array_equal(scene.owner_at(there, j)[visible & interior(owner, 1)], owner[visible & interior(owner, 1)])
    for index, surface in enumerate(scene.surfaces):
        own = visible & (owner == index)
        back = surface.to_frame(surface.to_surface(there[own], j), i)
        assert np.abs(back - pixels[own]).max(initial=0) < 1e-3


def test_visibility_agrees_with_walking_the_layers_point_by_point(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    hidden_by_others = 0
    for i, j in PAIRS:
        vectors, visible = scene.flow(i, j)
        for x, y in rng.integers(0, scene.size, (70, 2)):
            pixel = np.array([float(x), float(y)])
            # The last surface that covers the pixel is the one in front: the order is from back to front.
            front = [k for k, one in enumerate(scene.surfaces) if one.covers(one.to_surface(pixel, i))][-1]
            there = scene.surfaces[front].to_frame(scene.surfaces[front].to_surface(pixel, i), j)
            nearer = [k for k, one in enumerate(scene.surfaces) if k > front and one.covers(one.to_surface(there, j))]
            assert scene.owner(i)[y, x] == front
            assert vectors[y, x] == pytest.approx(there - pixel, abs=1e-4)
            assert visible[y, x] == (not nearer and bool(inside(there, scene.size)))
            hidden_by_others += bool(nearer)
    assert hidden_by_others > 10


def test_every_surface_maps_back_exactly_and_moves_as_it_should(scene: Scene) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.uniform(0, scene.size, (500, 2))
    for surface in scene.surfaces:
        for t in (0, 7.25, 31):
            points = surface.to_surface(pixels, t)
            assert np.allclose(surface.to_frame(points, t), pixels, atol=1e-9)
    cloth, wheel = (scene.surfaces[scene.names.index(name)] for name in ("cloth", "wheel"))
    square = rng.uniform(-0.1, 0.1, (40, 2))

    def lengths(points: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.norm(points[:, None] - points[None], axis=-1))

    turned = wheel.deform(square, 10.0)
    assert np.allclose(lengths(turned), lengths(square))  # rigid …
    assert not np.allclose(turned, wheel.deform(square, 0.0), atol=0.02)  # … and turning
    bent = cloth.deform(square, 10.0) - cloth.deform(square, 0.0)
    best_affine = np.linalg.lstsq(np.column_stack([square, np.ones(40)]), bent, rcond=None)[1]
    assert (best_affine > 1e-6).all()  # no affine map explains it


def test_truth_follows_the_dense_flow_and_tells_who_owns_a_point(scene: Scene) -> None:
    truth = scene.truth(80, seed=5)
    assert truth.owner is not None
    assert set(truth.owner.tolist()) == set(range(len(scene.surfaces)))
    visible = ~truth.occluded
    assert visible.any(axis=1).all()
    first = truth.query_points[:, 0].astype(int)
    assert np.array_equal(first, visible.argmax(axis=1))
    rows = np.arange(len(truth))
    assert np.allclose(truth.query_points[:, :0:-1], truth.target_points[rows, first])
    for t in (0, 11, 31):
        pixels = truth.target_points[:, t].astype(np.float64) - 0.5
        owner = scene.owner_at(pixels, t)
        assert np.array_equal(owner[visible[:, t]], truth.owner[visible[:, t]])
        surely_out = ~inside(pixels, scene.size)
        assert not visible[surely_out, t].any()
        assert (owner[~visible[:, t] & ~surely_out] > truth.owner[~visible[:, t] & ~surely_out]).all()
    # A visible point that lies on a pixel centre moves as the dense flow does; between centres, nearly so.
    vectors, _ = scene.flow(11, 14)
    for n in rows[visible[:, 11]]:
        at = truth.target_points[n, 11] - 0.5
        x, y = np.round(at).astype(int)
        if scene.owner(11)[y, x] == truth.owner[n]:
            assert truth.target_points[n, 14] - truth.target_points[n, 11] == pytest.approx(vectors[y, x], abs=0.6)


def test_points_vanish_and_come_back_behind_the_pillar_and_over_the_edge() -> None:
    scene = Scene.make(48, (128, 128), seed=0)
    truth = scene.truth(200, seed=0)
    within = inside(truth.target_points - 0.5, scene.size)
    hidden_inside, out = truth.occluded & within, ~within

    def returning(lost: np.ndarray) -> int:
        seen = ~truth.occluded
        before = np.logical_or.accumulate(seen, axis=1)
        after = np.logical_or.accumulate(seen[:, ::-1], axis=1)[:, ::-1]
        return int((lost & before & after).any(axis=1).sum())

    assert returning(hidden_inside) > 60
    assert returning(out) > 10


def test_near_surfaces_move_more_with_the_camera_than_far_ones() -> None:
    scene = Scene.make(8, (128, 128), seed=0)
    wall, slope = scene.surfaces[0], scene.surfaces[1]
    at = np.array([[64.0, 124.0]])
    speed = [np.linalg.norm(one.to_frame(one.to_surface(at, 0), 5) - at) for one in (wall, slope)]
    assert speed[1] > 1.2 * speed[0]


def test_pictures_are_antialiased_rich_in_texture_and_the_same_for_a_seed(scene: Scene) -> None:
    picture = scene.render(4)
    assert picture.shape == (112, 144, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, Scene.make(32, (144, 112), seed=3).render(4))
    assert not np.array_equal(picture, Scene.make(32, (144, 112), seed=4).render(4))
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    deviation = np.sqrt(np.maximum(cv2.blur(gray**2, (9, 9)) - cv2.blur(gray, (9, 9)) ** 2, 0))
    assert np.quantile(deviation, 0.02) > 2.0  # hardly a patch without anything to hold on to
    # Where the owner changes, some pixels lie between the colors of both sides: edges are soft.
    samples = scene.owner_at(pixel_grid((144 * 4, 112 * 4)).astype(np.float64) / 4 - 0.375, 4)
    shares = (samples == 4).reshape(112, 4, 144, 4).mean(axis=(1, 3))
    rows, columns = np.nonzero((shares > 0.3) & (shares < 0.7))
    mixed = 0
    for y, x in zip(rows, columns, strict=True):
        if 0 < x < 143:
            left, right = gray[y, x - 1], gray[y, x + 1]
            mixed += bool(min(left, right) - 8 <= gray[y, x] <= max(left, right) + 8)
    assert len(rows) >= 15
    assert mixed > 0.8 * len(rows)


def test_a_picture_does_not_depend_on_the_bands_that_it_is_rendered_in(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    whole = [scene.render(t) for t in (0, 9, 20)]
    monkeypatch.setattr("omnimotion_core.evaluation.synthetic._MAX_SAMPLES", 144 * 9 * 7)  # bands of seven rows
    banded = [scene.render(t) for t in (0, 9, 20)]
    difference = np.abs(np.array(whole, int) - banded).max(axis=-1)
    assert (difference > 1).sum() <= 3  # float32 rounds differently: a sample on an outline may change sides
    assert (difference > 0).mean() < 0.01


def test_masks_are_where_their_surface_shows(scene: Scene) -> None:
    masks = [scene.mask(6, name) for name in scene.names]
    assert np.array_equal(np.sum(masks, axis=0), np.ones((112, 144), int))
    assert all(mask.any() for mask in masks)


def test_a_clip_too_short_or_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 frames"):
        Scene.make(1)
    with pytest.raises(ConfigError, match="16x64"):
        Scene.make(4, (16, 64))
