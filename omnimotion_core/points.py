"""Points that are asked for: checked, or read from a file; needs numpy alone."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.errors import QueryError


def as_queries(points: Any) -> np.ndarray:
    """Points as an array (N, 3) float32 of (t, x, y).

    Raises:
        QueryError: another shape, no points, or not numbers.
    """
    try:
        queries = np.asarray(points, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise QueryError("the points are not an array of numbers", "give (N, 3) numbers: t, x, y") from error
    if queries.ndim != 2 or queries.shape[1] != 3 or len(queries) == 0:
        raise QueryError(f"the points have shape {queries.shape}", "give (N, 3) numbers: t, x, y")
    if not np.isfinite(queries).all():
        row = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
        raise QueryError(f"point {row} is {queries[row].tolist()}", "give finite numbers: t, x, y")
    return queries


def read_points(path: Path) -> np.ndarray:
    """Points from a file: npz with ``queries`` (N, 3), or csv with t,x,y a line, a header being optional.

    Returns:
        (N, 3) float32 as (t, x, y).
    Raises:
        QueryError: the file is absent or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise QueryError(f"{path} cannot be read ({error.strerror})", "give an npz or csv file of points") from error
    return _points_of_npz(path, content) if content.startswith(b"PK") else _points_of_csv(path, content)


def _points_of_npz(path: Path, content: bytes) -> np.ndarray:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as data:
            return as_queries(data["queries"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise QueryError(f"{path} holds no array 'queries'", "write queries (N, 3) as (t, x, y) into it") from error


def _points_of_csv(path: Path, content: bytes) -> np.ndarray:
    rows: list[list[float]] = []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        cells = [cell.strip() for cell in line.replace(";", ",").split(",")]
        if cells == [""] or line.startswith("#") or (not rows and [cell.lower() for cell in cells] == ["t", "x", "y"]):
            continue
        try:
            t, x, y = map(float, cells)
        except ValueError as error:
            raise QueryError(f"{path}, line {number}: {line[:80]!r} is not t,x,y",
                             "write three numbers a line") from error
        rows.append([t, x, y])
    if not rows:
        raise QueryError(f"{path} holds no points", "write t,x,y a line")
    return as_queries(rows)
