"""Points out of files: what is read, and what is told of a file that holds something else."""

from pathlib import Path

import numpy as np
import pytest

from omnimotion_core.errors import QueryError
from omnimotion_core.points import read_points

WANTED = np.array([[0, 1.5, 2], [3, -0.25, 40]], np.float32)


@pytest.mark.parametrize(
    "text",
    [
        "0,1.5,2\n3,-0.25,40\n",
        "t,x,y\r\n0, 1.5 ,2\r\n\r\n3,-0.25,4e1",
        "\ufeffT;X;Y\n0;1.5;2\n# a remark\n3;-0.25;40\n",
    ],
)
def test_a_csv_of_points_is_read_with_or_without_a_header(text: str, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8", newline="")
    points = read_points(path)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, WANTED)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_of_points_is_read_whatever_its_name(save: object, tmp_path: Path) -> None:
    path = tmp_path / "points.npz"
    save(path, queries=WANTED.astype(np.float64))  # type: ignore[operator]
    path.rename(tmp_path / "points.dat")
    np.testing.assert_array_equal(read_points(tmp_path / "points.dat"), WANTED)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no points"),
        (b"t,x,y\n", "holds no points"),
        (b"0,1,2\n0,1\n", "line 2: '0,1' is not t,x,y"),
        (b"0,1,2\nt,x,y\n", "line 2"),
        (b"0,1,inf\n", "point 0"),
        (b"PK\x03\x04 torn", "holds no array 'queries'"),
        (b"\x00\xff\x13", "is not t,x,y"),
    ],
)
def test_other_content_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "points"
    path.write_bytes(content)
    with pytest.raises(QueryError, match=words):
        read_points(path)


def test_an_npz_of_other_arrays_or_shapes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "points.npz"
    np.savez(path, points=WANTED)
    with pytest.raises(QueryError, match="no array 'queries'"):
        read_points(path)
    np.savez(path, queries=WANTED[:, :2])
    with pytest.raises(QueryError, match=r"shape \(2, 2\)"):
        read_points(path)
    np.savez(path, queries=np.array([{}], dtype=object))
    with pytest.raises(QueryError, match="no array 'queries'"):
        read_points(path)


def test_a_file_that_is_absent_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(QueryError, match="cannot be read"):
            read_points(path)
