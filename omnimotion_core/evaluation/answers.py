"""What other trackers answer to the same queries, read from their files."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omnimotion_core.coordinates import Size, raster_to_pixel
from omnimotion_core.errors import EvaluationError
from omnimotion_core.evaluation.tapvid import RASTER_SIDE
from omnimotion_core.trajectories.tracks import Tracks

_LAYOUT = (
    "write positions (N,T,2) in centre-origin pixels of the plate, or tracks (N,T,2) in corner-origin ones, and "
    "visible or occluded (N,T)"
)
_MAX_QUERY_MISS_PX = 0.05  # between the file's queries and ours: files round
_MAX_START_MISS_PX = 8.0  # of the 256x256 raster: how far the median answer may be from its query, in the query's frame


def load_answers(
    path: Path, queries: np.ndarray, num_frames: int, size: Size, *, first_frame: int = 0, fps: float = 25.0
) -> Tracks:
    """A tracker's answers to ``queries``, in their order.

    The file (npz) has ``positions`` as our tracks.npz, or ``tracks`` or ``target_points`` as TAP-Vid's files, in pixels
    of the plate; ``visible`` or ``occluded``; where it holds ``queries`` (t, x, y) or ``query_points`` (t, y, x), they
    must be ours, and else the tracks must begin at ours. A position that is not a number is hidden; ``confidence`` is
    kept where there is one.

    Args:
        path: the file.
        queries: (N, 3) as (t, x, y) in pixels of the plate.
        num_frames: T.
        size: (width, height) of the plate.
        first_frame, fps: told in the result.
    Raises:
        EvaluationError: the file is absent, damaged, of another layout, clip or size, or answers other queries.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except FileNotFoundError as error:
        raise EvaluationError(f"there is no file of tracks {path}", "check the path") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise EvaluationError(f"{path} is not an npz file of plain arrays", _LAYOUT) from error
    positions, visible = _positions(path, arrays), _visible(path, arrays)
    wanted = (len(queries), num_frames)
    if positions.shape != (*wanted, 2) or visible.shape != wanted:
        raise EvaluationError(
            f"{path} holds positions {positions.shape} and visibility {visible.shape}, not {(*wanted, 2)} and {wanted}",
            "answer every query of this query mode, in order, in every frame",
        )
    told = arrays.get("size")
    if told is not None and told.shape == (2,) and tuple(told.tolist()) != size:
        raise EvaluationError(f"{path} is of a {told[0]}x{told[1]} clip, not {size[0]}x{size[1]}",
                              "give tracks of this clip")  # fmt: skip
    finite = np.isfinite(positions).all(axis=-1)
    positions = np.where(finite[..., None], positions, queries[:, None, 1:])
    _check_queries(path, arrays, positions, queries, size)
    confidence = arrays.get("confidence")
    if confidence is None or confidence.shape != wanted or not np.issubdtype(confidence.dtype, np.number):
        confidence = visible
    return Tracks(
        queries=queries.astype(np.float32),
        positions=positions.astype(np.float32),
        visible=visible & finite,
        confidence=confidence.astype(np.float32),
        depth=np.zeros(wanted, np.float32),
        size=size,
        first_frame=first_frame,
        fps=fps,
    )


def _positions(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Centre-origin pixels, float64."""
    name = next((name for name in ("positions", "tracks", "target_points") if name in arrays), None)
    if name is None or not np.issubdtype(arrays[name].dtype, np.number):
        raise EvaluationError(f"{path} holds no positions (it holds {', '.join(arrays) or 'nothing'})", _LAYOUT)
    positions = arrays[name].astype(np.float64)
    return positions if name == "positions" else raster_to_pixel(positions)


def _visible(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    name = next((name for name in ("visible", "occluded") if name in arrays), None)
    if name is None:
        raise EvaluationError(f"{path} holds neither visible nor occluded (it holds {', '.join(arrays)})", _LAYOUT)
    flags = arrays[name]
    if flags.dtype != np.bool_ and not (np.issubdtype(flags.dtype, np.number) and np.isin(flags, (0, 1)).all()):
        raise EvaluationError(f"{path} holds {name} that is neither true nor false", "write it as bool")
    flags = flags.astype(np.bool_)
    return flags if name == "visible" else ~flags


def _check_queries(
    path: Path, arrays: Mapping[str, np.ndarray], positions: np.ndarray, queries: np.ndarray, size: Size
) -> None:
    """Refuse answers to other queries, or to the same in another order."""
    frames = np.round(queries[:, 0]).astype(int)
    remedy = "answer the queries of this truth and query mode, in their order, in pixels of the plate"
    name = next((name for name in ("queries", "query_points") if name in arrays), None)
    if name is not None:
        theirs = arrays[name]
        if theirs.shape != queries.shape or not np.issubdtype(theirs.dtype, np.number):
            raise EvaluationError(f"{path} answers queries {theirs.shape}, not {queries.shape}", remedy)
        if name == "query_points":
            theirs = np.column_stack([theirs[:, 0], raster_to_pixel(theirs[:, [2, 1]].astype(np.float64))])
        other = (np.round(theirs[:, 0]) != frames) | (
            np.abs(theirs[:, 1:] - queries[:, 1:]).max(axis=1) > _MAX_QUERY_MISS_PX
        )
        if other.any():
            row = int(np.flatnonzero(other)[0])
            asked, found = (", ".join(f"{value:g}" for value in array[row]) for array in (queries, theirs))
            raise EvaluationError(f"{path} answers t, x, y = {found} in row {row}, where {asked} is asked", remedy)
        return
    begun = positions[np.arange(len(queries)), frames]
    miss = np.median(np.linalg.norm((begun - queries[:, 1:]) * (RASTER_SIDE / np.asarray(size)), axis=-1))
    if miss > _MAX_START_MISS_PX:
        raise EvaluationError(f"{path} holds tracks that do not begin at the queries", remedy)
