from collections.abc import Sequence

import numpy as np

from omnimotion_core.flow.candidates import Direction, best_of, has_failed, mended


def direction(x: Sequence[float], cost: Sequence[float]) -> Direction:
    flow = np.array([[[value, 0.0] for value in x]], np.float32)
    none = np.zeros((1, len(x)), np.float32)
    return Direction(flow, np.array([cost], np.float32), appearance=none, moved=none + x[0])


def test_the_second_best_mends_what_failed_and_refines_what_it_agrees_with() -> None:
    first = direction([5, 5, 5, 5], [0.5, 0.5, 2.5, 0.5])
    second = direction([5.5, 17, 17, 5.5], [0.1, 0.1, 3.0, 0.9])
    taken = mended(first, second)
    assert taken.flow[0, :, 0].tolist() == [5.5, 5, 17, 5]
    assert taken.moved[0].tolist() == [5, 5, 5.5, 5]  # what was refined has moved as before


def test_the_best_costs_least_at_each_pixel_of_each_direction() -> None:
    candidates = [(direction([k, k, k], costs), direction([-k, -k, -k], costs[::-1]))
                  for k, costs in ((1, [1, 2, 3]), (2, [2, 1, 3]), (3, [3, 3, 1]))]  # fmt: skip
    there, back = best_of(candidates)
    assert there.flow[0, :, 0].tolist() == [1, 2, 3]
    assert back.flow[0, :, 0].tolist() == [-3, -2, -1]


def test_much_has_failed_where_a_fifth_of_one_picture_is_lost() -> None:
    fine, failed = direction([0] * 10, [0] * 10), direction([0] * 10, [0] * 8 + [2, 2])
    assert has_failed((fine, failed))
    assert not has_failed((fine, direction([0] * 10, [0] * 9 + [2])))
