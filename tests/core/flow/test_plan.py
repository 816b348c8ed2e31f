"""Which pairs get learned flow: within the budget, the most useful first, decided once."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimotion_core.errors import RunError
from omnimotion_core.flow.pairs import Pair, stride_pairs
from omnimotion_core.flow.plan import FILE, MIN_GAP, Plan, choose_pairs

GAPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def cost(plan: Plan, pairs: list[Pair]) -> int:
    return sum(plan.uses(pair, max(GAPS)) for pair in pairs)


@given(
    num_frames=st.integers(2, 90), seconds=st.floats(0.01, 50), budget=st.floats(0, 2000), closures=st.integers(0, 9)
)
def test_the_budget_is_kept(num_frames: int, seconds: float, budget: float, closures: int) -> None:
    pairs = stride_pairs([range(num_frames // 3), range(num_frames // 3, num_frames)], GAPS)
    every, with_closures = choose_pairs(pairs, closures, seconds, budget)
    plan = Plan(estimator="gmflow", every=every, closures=with_closures)
    assert (cost(plan, pairs) + with_closures * closures) * seconds <= budget
    assert all(gap >= MIN_GAP for gap in every)
    assert all(any(plan.uses(pair, max(GAPS)) for pair in pairs if pair.gap == gap) for gap in every)


def test_the_most_useful_distances_come_first() -> None:
    pairs = stride_pairs([range(36)], GAPS)  # 28 pairs over 8 frames, 32 over 4, 20 over 16, 4 over 32, 30 over 6
    assert choose_pairs(pairs, 0, 1.0, 28) == ({8: 1}, False)
    assert choose_pairs(pairs, 0, 1.0, 50) == ({8: 1, 16: 1}, False)  # of two as near to 8 the longer
    assert choose_pairs(pairs, 0, 1.0, 60) == ({8: 1, 16: 1, 32: 1}, False)
    assert choose_pairs(pairs, 0, 1.0, 84) == ({8: 1, 16: 1, 4: 1, 32: 1}, False)
    assert choose_pairs(pairs, 3, 1.0, 1000) == (dict.fromkeys((8, 4, 16, 32, 6, 12, 24), 1), True)


def test_too_little_time_thins_the_first_distance_and_then_leaves_dis_alone() -> None:
    pairs = stride_pairs([range(36)], GAPS)
    assert choose_pairs(pairs, 5, 10.0, 140) == ({8: 2}, False)
    assert choose_pairs(pairs, 5, 10.0, 45) == ({8: 7}, False)
    assert choose_pairs(pairs, 5, 10.0, 25) == ({}, False)


def test_short_clips_and_short_distances_get_none() -> None:
    assert choose_pairs(stride_pairs([range(4)], GAPS), 0, 1.0, 1000) == ({}, False)
    assert choose_pairs(stride_pairs([range(40)], (1, 2)), 0, 1.0, 1000) == ({}, False)


def test_a_plan_says_which_pairs() -> None:
    plan = Plan(estimator="gmflow", every={8: 2, 4: 1}, closures=True)
    assert [plan.uses(Pair(first, first + 8), 32) for first in range(4)] == [True, False, True, False]
    assert plan.uses(Pair(3, 7), 32)
    assert not plan.uses(Pair(0, 1), 32)
    assert plan.uses(Pair(0, 40), 32)
    assert not Plan(estimator="gmflow", every={8: 1}).uses(Pair(0, 40), 32)


def test_the_first_plan_holds(tmp_path: Path) -> None:
    first = Plan(estimator="gmflow", weights_sha256="ab", every={8: 1, 16: 2}, closures=True, seconds_per_pair=1.5)
    assert Plan.read(tmp_path) is None
    assert first.keep(tmp_path / "new") == first
    assert Plan.read(tmp_path / "new") == first
    assert Plan().keep(tmp_path / "new") == first  # another process was earlier
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FILE]


def test_a_file_system_without_links_holds_plans_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: object, target: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", link)
    plan = Plan(estimator="raft", every={4: 1})
    assert plan.keep(tmp_path) == plan
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "every": [1]}',
                                  '{"version": 1, "every": {}, "more": 1}'])  # fmt: skip
def test_a_damaged_plan_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match="is damaged"):
        Plan.read(tmp_path)


def test_the_plan_is_plain_json(tmp_path: Path) -> None:
    Plan(estimator="gmflow", every={8: 2}).keep(tmp_path)
    assert json.loads((tmp_path / FILE).read_text()) == {
        "version": 1, "estimator": "gmflow", "weights_sha256": "", "every": {"8": 2}, "closures": False,
        "seconds_per_pair": 0.0,
    }  # fmt: skip
