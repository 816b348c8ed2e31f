import numpy as np

from omnimotion_core.flow.correspondences import Correspondences, join


def _matches(pair: list[int]) -> Correspondences:
    count = len(pair)
    return Correspondences(
        pairs=np.array([[0, 1], [1, 0], [1, 2], [2, 1]], np.int32), pair=np.array(pair, np.int32),
        source=np.zeros((count, 2), np.int16), target=np.zeros((count, 2), np.float32),
        weight=np.full(count, 255, np.uint8), hidden_pair=np.zeros(0, np.int32),
        hidden_source=np.zeros((0, 2), np.int16),
    )  # fmt: skip


def test_the_matches_of_each_pair_are_found_whether_they_lie_together_or_not() -> None:
    for pair in ([0, 0, 1, 3, 3, 3], [3, 0, 3, 1, 0, 3], [2], []):
        matches = _matches(pair)
        for row in range(len(matches.pairs)):
            assert matches.rows_of(row).tolist() == [at for at, which in enumerate(pair) if which == row]


def test_blocks_are_joined_and_emptied_only_where_that_is_asked_for() -> None:
    def block(pair: list[int]) -> dict[str, np.ndarray]:
        matches = _matches(pair)
        return {name: getattr(matches, name) for name in (
            "pairs", "pair", "source", "target", "weight", "hidden_pair", "hidden_source")}  # fmt: skip

    parts = [block([0, 1, 3]), block([2])]
    kept = join(parts)
    assert kept["pair"].tolist() == [0, 1, 3, 6]
    assert parts[1]["pair"].tolist() == [2]
    emptied = join(parts, empty_parts=True)
    assert not any(parts)
    for name, values in kept.items():
        np.testing.assert_array_equal(emptied[name], values)
