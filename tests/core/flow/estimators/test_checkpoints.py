"""Files of weights that are not what they should be are refused in one line, and never executed."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from omnimotion_core.errors import FlowError
from omnimotion_core.flow.estimators.checkpoints import fill, read_weights


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return os.rename, (str(self.path), str(self.path) + ".executed")


def test_a_table_of_tensors_is_read_bare_or_wrapped(tmp_path: Path) -> None:
    table = {"module.a.weight": torch.arange(3.0), "module.b": torch.zeros(())}
    for number, held in enumerate((table, {"model": table, "step": 3}, {"state_dict": table})):
        torch.save(held, tmp_path / f"{number}.pth")
        state = read_weights(tmp_path / f"{number}.pth")
        assert list(state) == ["a.weight", "b"]
        assert state["a.weight"].tolist() == [0, 1, 2]


def test_code_in_a_file_is_not_executed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    torch.save({"a": Malicious(victim)}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": Malicious(victim)}))
    for path in (tmp_path / "new.pth", tmp_path / "old.pth"):
        with pytest.raises(FlowError, match="holds more than tensors"):
            read_weights(path)
    assert victim.exists()


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "whole.pth"
    torch.save({"a": torch.randn(100, 100)}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FlowError, match="cannot be used"):
        read_weights(path)


@pytest.mark.parametrize("held", [[1, 2], {}, {"a": 3}, {"model": "x"}, torch.zeros(2)])
def test_something_else_than_a_table_of_tensors_is_refused(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(FlowError, match="no table of named tensors"):
        read_weights(tmp_path / "other.pth")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pth")
    with pytest.raises(FlowError, match="values that are no numbers"):
        read_weights(tmp_path / "nan.pth")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight": torch.zeros(2, 3)}, "bias is missing"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)}, "more is too much"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"weight is \(3, 2\) and not \(2, 3\)"),
    ],
)
def test_weights_of_another_network_are_refused_with_the_difference(
    state: dict[str, torch.Tensor], reason: str
) -> None:
    with pytest.raises(FlowError, match=f"is not a line: {reason}"):
        fill(nn.Linear(3, 2), state, Path("x.pth"), "a line")
