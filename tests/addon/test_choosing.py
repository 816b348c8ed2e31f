"""The few tracks that are taken."""

import numpy as np

from blender_addon.choosing import Candidate, best_keyframes, choose


def still(weight: float, place: tuple[float, float], frames: range) -> Candidate:
    return Candidate(weight, dict.fromkeys(frames, place))


def test_long_and_sure_tracks_come_first() -> None:
    tracks = [still(0.5, (0.1, 0.1), range(10)), still(0.9, (0.5, 0.5), range(10)), still(0.9, (0.9, 0.9), range(3))]
    assert choose(tracks, 2) == [1, 0]
    assert choose(tracks, 9) == [1, 0, 2]


def test_an_empty_corner_beats_a_crowded_one() -> None:
    crowd = [still(0.9, (0.5 + 0.001 * k, 0.5), range(10)) for k in range(5)]
    assert choose([*crowd, still(0.6, (0.05, 0.95), range(10))], 2) == [0, 5]


def test_what_is_seen_once_or_never_is_not_taken() -> None:
    assert choose([Candidate(1.0, {}), Candidate(1.0, {4: (0.5, 0.5)})], 5) == []
    assert choose([], 5) == []


def test_the_heap_chooses_as_a_plain_greedy_search_does() -> None:
    rng = np.random.default_rng(0)
    tracks = []
    for _ in range(150):
        first, length = int(rng.integers(0, 20)), int(rng.integers(2, 20))
        place = (float(rng.uniform()), float(rng.uniform()))
        tracks.append(still(float(rng.uniform(0.2, 1)), place, range(first, first + length)))
    frames = sorted({frame for one in tracks for frame in one.seen})
    anchors = sorted({frames[k * (len(frames) - 1) // 15] for k in range(16)})
    taken: dict[tuple[int, int, int], int] = {}

    def slots(one: Candidate) -> list[tuple[int, int, int]]:
        return [(f, int(one.seen[f][0] * 6), int(one.seen[f][1] * 6)) for f in anchors if f in one.seen]

    expected: list[int] = []
    while len(expected) < 30:
        gains = [sum(one.weight / (1 + taken.get(slot, 0)) for slot in slots(one)) + 1e-6 * one.weight * len(one.seen)
                 for one in tracks]  # fmt: skip
        expected.append(max((i for i in range(len(tracks)) if i not in expected), key=lambda i: gains[i]))
        for slot in slots(tracks[expected[-1]]):
            taken[slot] = taken.get(slot, 0) + 1
    assert choose(tracks, 30) == expected


def test_keyframes_lie_where_the_tracks_part_most() -> None:
    """Ten points that spread from frame to frame, the first five of which end early."""
    tracks = [Candidate(1.0, {f: (0.05 * k * f / 20, 0.1) for f in range(1, 13 if k < 5 else 21)}) for k in range(10)]
    assert best_keyframes(tracks) is not None
    first, last = best_keyframes(tracks) or (0, 0)
    assert first == 1
    assert 11 <= last <= 12  # later ones share five tracks alone
    assert best_keyframes(tracks[:7]) is None
    assert best_keyframes([]) is None
