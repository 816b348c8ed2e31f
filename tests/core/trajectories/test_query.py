import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from omnimotion_core.config import ModelConfig
from omnimotion_core.coordinates import normalized_to_pixel, pixel_to_normalized, rescale_pixels
from omnimotion_core.errors import QueryError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.evaluation.tapvid import queries_for, tapvid_metrics
from omnimotion_core.model.field import Field
from omnimotion_core.model.motion import FieldShape
from omnimotion_core.trajectories.query import Source, track_points


def still_field(cuts: tuple[int, ...] = ()) -> Field:
    """Nothing moves; the right half of frame 2 is covered by something near."""
    shape = FieldShape(size=(64, 48), working_size=(32, 24), num_frames=6, cuts=cuts, first_frame=101, fps=25.0)
    field = Field(shape, ModelConfig(knots=((1.0, 4),))).requires_grad_(False)
    for table in field.couplings.tables:
        table.zero_()
    field.depth.fill_(1.8)
    field.depth[2, :, 4:] = 0.3
    return field


def test_tracks_are_near_the_truth(field: Field, scene: Scene) -> None:
    truth = scene.truth(200, seed=1)
    queries, rows = queries_for(truth, "first")
    score = tapvid_metrics(truth, track_points(field, queries), rows, "first")
    assert score.average_points_within > 0.6
    assert score.occlusion_accuracy > 0.75


def test_a_point_hidden_and_seen_again_is_found_again() -> None:
    tracks = track_points(still_field(), np.array([[0, 50, 20], [0, 10, 20]], np.float32))
    assert tracks.visible[0].tolist() == [True, True, False, True, True, True]
    assert tracks.visible[1].all()
    np.testing.assert_allclose(tracks.positions[0], np.tile([50, 20], (6, 1)), atol=1e-3)
    np.testing.assert_allclose(tracks.depth[0], 1.8, atol=1e-4)


@pytest.mark.parametrize(("difference", "seen"), [(0.0, True), (11.0, True), (13.0, False)])
def test_a_point_that_lands_on_another_color_is_hidden(difference: float, seen: bool) -> None:
    field = still_field()
    field.color_map[4, :, :, :4] = difference  # the left half of frame 4
    tracks = track_points(field, np.array([[0, 10, 20], [0, 60, 20]], np.float32))
    assert tracks.visible[0].tolist() == [True, True, True, True, seen, True]
    assert tracks.visible[1, 4]
    assert tracks.confidence[0, 4] <= tracks.confidence[0, 3]


@pytest.mark.parametrize(("support", "seen"), [(1.0, True), (0.5, True), (0.3, False), (0.0, False)])
def test_the_less_matches_support_a_point_the_more_alike_it_must_look(support: float, seen: bool) -> None:
    field = still_field()
    field.color_map[4] = 9.0
    field.support_map[4] = support  # allows 12, 12, 7.2 and 3
    tracks = track_points(field, np.array([[0, 10, 20]], np.float32))
    assert tracks.visible[0, 4] == seen
    assert tracks.visible[0, 5]


class Sheared:
    """Things move sideways by as much as they are deep; frame 0 shows depth 1, frame t what ``seen`` says."""

    device, threads = torch.device("cpu"), 1

    def __init__(self, seen: list[float], *, single_surface: bool = True) -> None:
        self.seen, self.single_surface = torch.tensor([1.0, *seen]), single_surface
        self.shape = FieldShape(size=(256, 256), working_size=(256, 256), num_frames=len(self.seen))

    def to_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        return points - self._shift(frames, points)

    def from_canonical(self, frames: Tensor, points: Tensor) -> Tensor:
        return points + self._shift(frames, points)

    def _shift(self, frames: Tensor, points: Tensor) -> Tensor:
        shift = torch.zeros_like(points)
        shift[:, 0] = (frames > 0) * 40 * points[:, 2] * (2 / 255)  # of 40 pixels at depth 1
        return shift

    def lift(self, frames: Tensor, pixels: Tensor) -> Tensor:
        return torch.cat([pixel_to_normalized(pixels, (256, 256)), self.seen[frames, None]], dim=-1)

    def to_pixels(self, points: Tensor) -> Tensor:
        return normalized_to_pixel(points[:, :2], (256, 256))

    def shown(self, frames: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(frames, dtype=torch.bool), torch.ones_like(points[:, 0])

    def appearance_at(self, frames: Tensor, xy: Tensor) -> Tensor | None:
        return None

    def evidence_at(self, frames: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(xy[:, 0]), torch.ones_like(xy[:, 0])


@pytest.mark.parametrize(
    ("depth", "frame", "returns"),
    [
        (1.0, 1, True), (0.9, 1, True), (0.88, 1, False), (1.12, 1, False),  # misses by 0, 4, 4.8 and 4.8 px, of 4.5
        (0.77, 11, True), (0.75, 11, False), (0.62, 39, True), (0.58, 39, False),  # of 9.5 and, at most, 16
    ],
)  # fmt: skip
def test_what_is_seen_where_a_point_lands_must_go_back_to_it(depth: float, frame: int, returns: bool) -> None:
    start = np.array([100.0, 80.0], np.float32)
    motion = Sheared([depth] * 39)
    landing = Source.at(motion, np.array([0]), start[None]).land(np.array([0, frame]))
    np.testing.assert_allclose(landing.positions, np.array([start, start + np.array([40, 0])]), atol=1e-3)
    assert landing.visible.tolist() == [True, returns]
    assert landing.confidence[0] == 1
    assert (landing.confidence[1] >= 0.55) == returns  # 0.55 where it is a toss-up
    motion.single_surface = False
    assert Source.at(motion, np.array([0]), start[None]).land(np.array([frame])).visible.all()


def test_facts_of_the_clip_are_handed_on() -> None:
    tracks = track_points(still_field(), np.array([[3, 10, 20]], np.float32))
    assert (tracks.size, tracks.first_frame, tracks.fps) == ((64, 48), 101, 25.0)


def test_a_point_is_visible_and_exact_at_its_own_frame() -> None:
    queries = np.array([[2, 50.25, 20.5], [2, 3.125, 4.0], [5, -0.5, 47.5]], np.float32)
    tracks = track_points(still_field(), queries)
    own = np.arange(3), queries[:, 0].astype(int)
    np.testing.assert_array_equal(tracks.positions[own], queries[:, 1:])
    assert tracks.visible[own].all()


@pytest.mark.parametrize(("entry", "speed"), [(2, -0.5), (2, 0.5), (5, -0.5), (5, 0.5)])
def test_a_point_off_the_picture_is_never_visible(entry: int, speed: float) -> None:
    field = still_field()
    field.depth.fill_(1.8)
    field.affine.matrix[:, entry] = torch.arange(6) * speed  # the camera pans, to each side: a picture in four frames
    grid = [[0, x, y] for x in range(0, 64, 3) for y in range(0, 48, 5)]
    tracks = track_points(field, np.array(grid, np.float32))
    x, y = tracks.positions.transpose(2, 0, 1)
    off = (x < -0.5) | (x > 63.5) | (y < -0.5) | (y > 47.5)
    assert off.mean() > 0.3
    assert not tracks.visible[off].any()
    assert tracks.visible[~off].all()
    assert np.isfinite(tracks.positions).all()


def test_nothing_is_known_beyond_a_cut() -> None:
    tracks = track_points(still_field(cuts=(3,)), np.array([[1, 10, 20], [4, 10, 30]], np.float32))
    assert tracks.visible.tolist() == [[True] * 3 + [False] * 3, [False] * 3 + [True] * 3]
    assert (tracks.confidence[0, 3:] == 0).all()
    np.testing.assert_allclose(tracks.positions[1, :3], np.tile(tracks.positions[1, 3], (3, 1)))


def test_an_answer_does_not_depend_on_the_other_queries(field: Field) -> None:
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 12, 300), rng.random(300) * 127, rng.random(300) * 95]
    queries = np.column_stack(columns).astype(np.float32)
    together = track_points(field, queries)
    chunked = track_points(field, queries, memory_mb=1)
    for k in range(0, 300, 37):
        alone = track_points(field, queries[k : k + 1])
        for other in (together, chunked):
            np.testing.assert_allclose(other.positions[k], alone.positions[0], atol=1e-3)
            np.testing.assert_allclose(other.confidence[k], alone.confidence[0], atol=1e-4)


def test_confidence_is_higher_where_tracks_are_better(field: Field, scene: Scene) -> None:
    truth = scene.truth(400, seed=2)
    queries, rows = queries_for(truth, "first")
    tracks = track_points(field, queries)
    seen = tracks.visible & ~truth.occluded[rows]
    seen[np.arange(len(queries)), queries[:, 0].astype(int)] = False
    miss = np.linalg.norm(tracks.positions + 0.5 - truth.target_points[rows], axis=-1)[seen]
    sure = tracks.confidence[seen] > np.median(tracks.confidence[seen])
    assert miss[sure].mean() < 0.8 * miss[~sure].mean()
    assert tracks.confidence.min() >= 0
    assert tracks.confidence.max() <= 1


def test_the_surer_that_a_point_is_hidden_the_less_its_place_is_trusted() -> None:
    start, frame = np.array([100.0, 80.0], np.float32), 1
    depths = (1.0, 0.9, 0.88, 0.8, 0.4, 0.0)  # the farther from 1, the farther off the way back leads
    found = [
        float(Source.at(Sheared([depth] * 39), np.array([0]), start[None]).land(np.array([frame])).confidence[0])
        for depth in depths
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1
    assert found[1] - found[2] < 0.2  # on both sides of the limit it is nearly the same
    assert found[-1] < 0.15


def test_what_has_left_the_picture_is_hardly_trusted() -> None:
    start = np.array([[240.0, 80.0]], np.float32)
    landing = Source.at(Sheared([1.0] * 39), np.array([0]), start).land(np.array([0, 1]))
    assert landing.visible.tolist() == [True, False]
    np.testing.assert_allclose(landing.confidence, [1.0, 0.1])


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (np.zeros((3, 2)), "array of shape \\(3, 2\\)"),
        (np.array([["a", "b", "c"]]), "give \\(N, 3\\) numbers"),
        (np.array([[0, 1, 1], [6, 1, 1]], np.float32), "point 1 .*\\(6, 1, 1\\) is not in the clip; give whole t"),
        (np.array([[0.5, 1, 1]], np.float32), "whole t"),
        (np.array([[0, 64, 1]], np.float32), "x from 0 to 63"),
        (np.array([[0, np.nan, 1]], np.float32), "nan"),
    ],
)
def test_a_point_that_cannot_be_followed_is_named(points: np.ndarray, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        track_points(still_field(), points)


def test_no_points_give_no_tracks() -> None:
    assert len(track_points(still_field(), np.zeros((0, 3), np.float32))) == 0


def test_plate_and_working_pixels_are_one_picture(field: Field) -> None:
    larger = Field(dataclasses.replace(field.shape, size=(256, 192)), field.config)
    larger.load_state_dict(field.state_dict())
    query = np.array([[0, 40, 50]], np.float32)
    big = query.copy()
    big[:, 1:] = rescale_pixels(query[:, 1:], (128, 96), (256, 192))
    found = track_points(larger.requires_grad_(False), big).positions[0, 1:]
    small = track_points(field, query).positions[0, 1:]
    np.testing.assert_allclose(found, rescale_pixels(small, (128, 96), (256, 192)), atol=1e-2)
