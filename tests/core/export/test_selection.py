import time

import numpy as np

from omnimotion_core.export.selection import choose_tracks, first_seen, usable
from omnimotion_core.trajectories.tracks import Tracks

from .conftest import MakeTracks


def still_tracks(places: list[tuple[float, float]], visible: np.ndarray, confidence: np.ndarray) -> Tracks:
    num, num_frames = visible.shape
    positions = np.repeat(np.array(places, np.float32)[:, None], num_frames, axis=1)
    return Tracks(
        queries=np.column_stack([np.zeros(num), np.array(places)]).astype(np.float32), positions=positions,
        visible=visible, confidence=confidence.astype(np.float32), depth=np.ones((num, num_frames), np.float32),
        size=(100, 100), first_frame=1, fps=24.0,
    )  # fmt: skip


def slow_choice(gains: np.ndarray, cells: np.ndarray, count: int) -> list[int]:
    """The documented greedy by loops; ``gains`` (N, A) is 0 where a track is not seen."""
    chosen: list[int] = []
    while len(chosen) < count:
        worth = []
        for row in range(len(gains)):
            crowd = [sum(cells[other, a] == cells[row, a] and gains[other, a] > 0 for other in chosen)
                     for a in range(gains.shape[1])]  # fmt: skip
            worth.append(-1.0 if row in chosen else sum(gains[row] / (1 + np.array(crowd))))
        chosen.append(int(np.argmax(worth)))
    return sorted(chosen)


def test_longer_and_surer_tracks_are_preferred() -> None:
    visible = np.ones((4, 10), bool)
    visible[0, 3:] = False
    confidence = np.array([0.9, 0.9, 0.2, 0.8])[:, None] * np.ones((4, 10))
    tracks = still_tracks([(50, 50)] * 4, visible, confidence)
    assert choose_tracks(tracks, 2).tolist() == [1, 3]


def test_a_lonely_track_beats_a_better_one_in_a_crowd() -> None:
    places = [(10.0, 10.0)] * 20 + [(90.0, 90.0)]
    confidence = np.concatenate([np.full(20, 0.9), [0.6]])[:, None] * np.ones((21, 5))
    tracks = still_tracks(places, np.ones((21, 5), bool), confidence)
    assert 20 in choose_tracks(tracks, 8)


def test_the_choice_is_that_of_the_plain_loop(make_tracks: MakeTracks) -> None:
    tracks = make_tracks(50, 8, (100, 100), seed=3)
    count = 12
    seen = usable(tracks)
    side = np.sqrt(100 * 100 * 4 / count)
    cells_a_side = int(np.ceil(100 / side))
    cell = np.floor((tracks.positions + 0.5) * cells_a_side / 100).clip(0, cells_a_side - 1)
    gains = np.where(seen & (seen.sum(axis=1) >= 2)[:, None], tracks.confidence, 0).astype(float)
    cells = cell[..., 1] * cells_a_side + cell[..., 0]
    assert choose_tracks(tracks, count).tolist() == slow_choice(gains, cells, count)


def test_every_region_of_an_even_field_is_served() -> None:
    rng = np.random.default_rng(1)
    places = [(float(x), float(y)) for x, y in rng.uniform(0, 99, (2000, 2))]
    tracks = still_tracks(places, np.ones((2000, 4), bool), rng.uniform(0.5, 1.0, (2000, 4)))
    chosen = np.array(places)[choose_tracks(tracks, 100)]
    counts, _, _ = np.histogram2d(chosen[:, 0], chosen[:, 1], bins=5, range=[[0, 100], [0, 100]])
    assert counts.min() >= 2
    assert counts.max() <= 7


def test_tracks_too_short_for_an_anchor_fill_what_is_left_and_single_frames_never() -> None:
    visible = np.zeros((3, 100), bool)
    visible[0, :] = True
    visible[1, 1:3] = True  # 32 anchors over 100 frames skip frames 1 and 2
    visible[2, 50] = True
    tracks = still_tracks([(50, 50)] * 3, visible, np.ones((3, 100)))
    assert choose_tracks(tracks, 3).tolist() == [0, 1]


def test_4000_tracks_of_250_frames_are_chosen_from_in_seconds(make_tracks: MakeTracks) -> None:
    tracks = make_tracks(4000, 250, (1920, 1080))
    begin = time.process_time()
    assert len(choose_tracks(tracks, 500)) == 500
    assert time.process_time() - begin < 10  # under 1 s; the limit is against a quadratic slip


def test_first_seen_is_where_a_track_is_first_visible() -> None:
    tracks = still_tracks([(5, 5)], np.array([[False, True, True]]), np.ones((1, 3)))
    tracks.positions[0, 1] = (7, 8)
    np.testing.assert_array_equal(first_seen(tracks), [[7, 8]])
