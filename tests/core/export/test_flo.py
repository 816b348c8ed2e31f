import struct
from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.errors import ExportError
from omnimotion_core.export.flo import read_flo, read_flo_facts, write_flo

FLOW = np.random.default_rng(0).normal(0, 9, (5, 7, 2)).astype(np.float32)


def test_the_file_is_middlebury_s_to_the_byte(tmp_path: Path) -> None:
    write_flo(tmp_path / "a.flo", FLOW[:, ::-1], {"te/frame": 3})
    by_hand = struct.pack("<fii", 202021.25, 7, 5) + b"".join(
        struct.pack("<ff", *FLOW[y, 6 - x]) for y in range(5) for x in range(7)
    )
    assert (tmp_path / "a.flo").read_bytes() == by_hand
    np.testing.assert_array_equal(read_flo(tmp_path / "a.flo"), FLOW[:, ::-1])
    assert read_flo_facts(tmp_path / "a.flo")["te/frame"] == 3


def test_what_stands_beside_a_file_counts_for_that_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.flo"
    write_flo(path, FLOW, {"te/frame": 3})
    path.write_bytes(path.read_bytes()[:-1])
    assert read_flo_facts(path) == {}
    write_flo(path, FLOW, {"te/frame": 3})
    path.with_suffix(".json").write_text("[1, 2", encoding="utf-8")
    assert read_flo_facts(path) == {}
    assert read_flo_facts(tmp_path / "absent.flo") == {}


@pytest.mark.parametrize(
    "data",
    [b"", b"PIEH", b"PIEX" + struct.pack("<ii", 1, 1) + bytes(8), b"PIEH" + struct.pack("<ii", 1, 1) + bytes(7),
     b"PIEH" + struct.pack("<ii", 1, 1) + bytes(9), b"PIEH" + struct.pack("<ii", 60000, 60000),
     b"PIEH" + struct.pack("<ii", -1, 1)],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.flo").write_bytes(data)
    with pytest.raises(ExportError):
        read_flo(tmp_path / "a.flo")


def test_flow_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    broken = FLOW.copy()
    broken[0, 0], broken[3, 2] = (np.nan, 0), (0, np.inf)
    with pytest.raises(ExportError, match="2 values that are not finite"):
        write_flo(tmp_path / "a.flo", broken, {})
    assert list(tmp_path.iterdir()) == []
