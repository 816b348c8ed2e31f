"""TAP-Vid's metrics: how near tracks are to the truth, and whether they know when a point is hidden.

Truth is kept as its files hold it, in raster coordinates (the image's top-left corner is (0, 0)); the metrics are taken
in a raster scaled to 256x256, whatever the clip's size. Tracks are centre-origin pixels and are converted here, once.

Letters: AJ average Jaccard, δ_x share of points within x, OA occlusion accuracy, TC temporal coherence.
Source: Doersch et al. 2022, arXiv:2211.03726 (AJ, δ, OA); Wang et al. 2023, arXiv:2306.05422 (TC).
"""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np

from omnimotion_core.coordinates import Size, pixel_to_raster, raster_to_pixel
from omnimotion_core.errors import EvaluationError
from omnimotion_core.files import write_atomically
from omnimotion_core.trajectories.tracks import Tracks

QueryMode = Literal["first", "strided"]
QUERY_MODES: tuple[str, ...] = get_args(QueryMode)
THRESHOLDS_PX = (1, 2, 4, 8, 16)  # of the 256x256 raster
RASTER_SIDE = 256
QUERY_STRIDE = 5  # frames between the queries of mode "strided"
_LAYOUT = "write target_points (N,T,2) as (x, y), occluded (N,T) and query_points (N,3) as (t, y, x)"


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
    """Where points truly are, in TAP-Vid's layout: raster coordinates of the plate, top-left corner (0, 0)."""

    target_points: np.ndarray  # (N, T, 2) float, (x, y); of no meaning where hidden
    occluded: np.ndarray  # (N, T) bool: hidden, or out of the frame
    query_points: np.ndarray  # (N, 3) float, (t, y, x)
    owner: np.ndarray | None = None  # (N,) int, which object a point belongs to, where that is known
    size: Size | None = None  # of the plate, where the file tells it

    def __post_init__(self) -> None:
        target, occluded, queries = self.target_points.shape, self.occluded.shape, self.query_points.shape
        if len(target) != 3 or target[2] != 2 or occluded != target[:2] or queries != (target[0], 3):
            raise EvaluationError(
                f"the truth holds target_points {target}, occluded {occluded}, query_points {queries}", _LAYOUT
            )
        if self.occluded.dtype != np.bool_:
            raise EvaluationError(f"the truth's occluded is of type {self.occluded.dtype}", "write it as bool")
        if self.owner is not None and self.owner.shape != target[:1]:
            raise EvaluationError(f"the truth's owner has shape {self.owner.shape}", f"write ({target[0]},)")
        if self.occluded.all():
            raise EvaluationError("the truth has no point that is visible in any frame", "give visible points")
        if not np.isfinite(self.target_points[~self.occluded]).all():
            raise EvaluationError("the truth has visible points that are not numbers", "mark them as occluded")

    def __len__(self) -> int:
        return len(self.target_points)

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.occluded.shape[1])

    def save(self, path: Path) -> None:
        """Write the truth file (npz) as a whole or not at all."""
        arrays = {"target_points": self.target_points, "occluded": self.occluded, "query_points": self.query_points}
        if self.owner is not None:
            arrays["owner"] = self.owner
        if self.size is not None:
            arrays["size"] = np.asarray(self.size, np.int64)
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own flag

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The truth from a file's arrays; numbers 0 and 1 stand for ``occluded`` too.

        Raises:
            EvaluationError: a name or a shape is wrong.
        """
        wanted = ("target_points", "occluded", "query_points")
        missing = [name for name in wanted if name not in arrays]
        if missing:
            found = ", ".join(arrays) or "nothing"
            raise EvaluationError(f"the truth has no {', '.join(missing)} (it holds {found})", _LAYOUT)
        if any(not np.issubdtype(arrays[name].dtype, np.number) for name in ("target_points", "query_points")):
            raise EvaluationError("the truth's points are not numbers", _LAYOUT)
        occluded = arrays["occluded"]
        if occluded.dtype != np.bool_ and np.isin(occluded, (0, 1)).all():
            occluded = occluded.astype(np.bool_)
        size = arrays.get("size")
        return cls(
            target_points=arrays["target_points"], occluded=occluded, query_points=arrays["query_points"],
            owner=arrays.get("owner"),
            size=(int(size[0]), int(size[1])) if size is not None and size.shape == (2,) else None,
        )  # fmt: skip


def load_truth(path: Path, num_frames: int | None = None, size: Size | None = None) -> Truth:
    """The truth of a TAP-Vid npz file.

    Args:
        path: the file.
        num_frames: of the clip it must belong to; None: any.
        size: (width, height) of the clip's plate; checked where the file tells its own, and against the points.
    Raises:
        EvaluationError: the file is absent, damaged, of another layout, or belongs to another clip.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except FileNotFoundError as error:
        raise EvaluationError(f"there is no truth file {path}", "check the path") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:  # TypeError: a lone array, .npy
        raise EvaluationError(f"{path} is not an npz file of plain arrays", _LAYOUT) from error
    try:
        truth = Truth.from_arrays(arrays)
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error.problem}", error.remedy) from error
    if num_frames is not None and truth.num_frames != num_frames:
        raise EvaluationError(
            f"{path} tells {truth.num_frames} frames, the run has {num_frames}", "use the truth of the same frames"
        )
    if size is not None:
        _check_size(truth, size, path)
    return truth


def _check_size(truth: Truth, size: Size, path: Path) -> None:
    if truth.size is not None and truth.size != size:
        raise EvaluationError(f"{path} is of a {_times(truth.size)} clip, not {_times(size)}", "use this clip's truth")
    visible = truth.target_points[~truth.occluded]
    grace = 1.0  # px: files round at the edge
    if (visible < -grace).any() or (visible > np.asarray(size) + grace).any():
        raise EvaluationError(
            f"{path} has visible points outside the {_times(size)} picture", "give coordinates in pixels of the plate"
        )
    if visible.max() <= 1.0:
        raise EvaluationError(f"{path} has all points within one pixel", "multiply coordinates by the plate's size")


def _times(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def queries_for(truth: Truth, mode: QueryMode) -> tuple[np.ndarray, np.ndarray]:
    """The queries that a benchmark mode asks.

    Args:
        truth: of the clip.
        mode: ``first``, every point once, where it is first visible; ``strided``, every point at each of the frames
            0, 5, 10, … in which it is visible.
    Returns:
        queries (Q, 3) float32 as (t, x, y) in centre-origin pixels, and rows (Q,): each query's row of the truth.
        Points that are never visible (in those frames) are not asked.
    Raises:
        EvaluationError: the mode is unknown, or no point is visible in a frame that it asks.
    """
    _check_mode(mode)
    visible = ~truth.occluded
    if mode == "first":
        rows = np.flatnonzero(visible.any(axis=1))
        frames = visible.argmax(axis=1)[rows]
    else:
        steps, rows = np.nonzero(visible[:, ::QUERY_STRIDE].T)
        frames = steps * QUERY_STRIDE
    if not len(rows):
        raise EvaluationError(f"no point is visible in any of the frames 0, {QUERY_STRIDE}, …", "use query mode first")
    points = raster_to_pixel(truth.target_points[rows, frames].astype(np.float64))
    return np.concatenate([frames[:, None], points], axis=1).astype(np.float32), rows


def _check_mode(mode: str) -> None:
    if mode not in QUERY_MODES:
        raise EvaluationError(f"query mode is {mode!r}", f"choose one of {', '.join(QUERY_MODES)}")


@dataclass(frozen=True, kw_only=True)
class TapVidMetrics:
    """One clip's scores; shares are 0..1, nan where the truth has nothing to count."""

    mode: QueryMode
    num_queries: int
    average_jaccard: float  # AJ
    average_points_within: float  # δ_avg
    occlusion_accuracy: float  # OA
    temporal_coherence: float  # TC, pixels of the 256x256 raster; smaller is smoother, and standing still is smooth
    jaccard: dict[int, float]  # by threshold in pixels of the 256x256 raster
    points_within: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; nan becomes None."""
        return {
            "query": self.mode,
            "queries": self.num_queries,
            "average_jaccard": _plain(self.average_jaccard),
            "average_points_within": _plain(self.average_points_within),
            "occlusion_accuracy": _plain(self.occlusion_accuracy),
            "temporal_coherence": _plain(self.temporal_coherence),
            "jaccard": {str(x): _plain(share) for x, share in self.jaccard.items()},
            "points_within": {str(x): _plain(share) for x, share in self.points_within.items()},
        }

    def format(self) -> str:
        """One line: AJ, δ_avg, OA and TC."""
        return (
            f"AJ {self.average_jaccard:.3f}  δ_avg {self.average_points_within:.3f}  "
            f"OA {self.occlusion_accuracy:.3f}  TC {self.temporal_coherence:.2f}"
        )


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def format_table(results: Mapping[str, TapVidMetrics], seconds: Mapping[str, float | None] | None = None) -> str:
    """A table with a line for each named result; ``seconds`` adds a column, with a dash where they are not known."""
    width = max((len(name) for name in results), default=0)

    def took(name: str) -> str:
        if seconds is None:
            return ""
        known = seconds.get(name)
        return f"  {'-' if known is None else format(known, '.1f'):>7}"

    head = f"{'':{width}}     AJ  δ_avg     OA     TC" + ("" if seconds is None else "  seconds")
    return "\n".join([
        head,
        *(
            f"{name:{width}}  {one.average_jaccard:5.3f}  {one.average_points_within:5.3f}  "
            f"{one.occlusion_accuracy:5.3f}  {one.temporal_coherence:5.2f}{took(name)}"
            for name, one in results.items()
        ),
    ])  # fmt: skip


def tapvid_metrics(truth: Truth, tracks: Tracks, rows: np.ndarray, mode: QueryMode) -> TapVidMetrics:
    """Scores of ``tracks`` against the truth.

    Jaccard at x is TP / (truly visible + FP): TP truly visible, told visible and within x; FP told visible, but truly
    hidden or not within x. Points within x ignore what was told of visibility. Sums go over points and frames:
    ``first`` counts the frames after the query's, ``strided`` all but the query's; TC takes all frames, three in a row.

    Args:
        truth: of the clip.
        tracks: answers to ``queries_for(truth, mode)``, in that order; their ``size`` is the plate's.
        rows: (Q,) each track's row of the truth, from ``queries_for``.
        mode: the query mode that the tracks answer.
    Raises:
        EvaluationError: tracks and truth differ in frames or in number, or no frame is left to count.
    Source: Doersch et al. 2022, arXiv:2211.03726; TC as Wang et al. 2023, arXiv:2306.05422.
    """
    _check_mode(mode)
    if len(rows) != len(tracks):
        raise EvaluationError(f"there are {len(tracks)} tracks for {len(rows)} queries", "answer every query")
    if tracks.num_frames != truth.num_frames:
        raise EvaluationError(
            f"tracks have {tracks.num_frames} frames, the truth has {truth.num_frames}", "use the truth of this clip"
        )
    predicted, actual = in_raster(truth, tracks, rows)
    visible = ~truth.occluded[rows]  # (Q, T)
    told = tracks.visible
    counted = counted_frames(tracks.queries[:, 0], truth.num_frames, mode)
    if not counted.any():
        raise EvaluationError("the truth has no frame after its queries", "use query mode strided or a longer truth")

    squared = ((predicted - actual) ** 2).sum(axis=-1)
    num_visible = (visible & counted).sum()
    within, jaccard = {}, {}
    for threshold in THRESHOLDS_PX:
        near = squared < threshold**2
        correct = near & visible & counted
        false_positives = (told & ~(visible & near) & counted).sum()
        within[threshold] = _share(correct.sum(), num_visible)
        jaccard[threshold] = _share((correct & told).sum(), num_visible + false_positives)
    return TapVidMetrics(
        mode=mode,
        num_queries=len(rows),
        average_jaccard=float(np.mean(list(jaccard.values()))),
        average_points_within=float(np.mean(list(within.values()))),
        occlusion_accuracy=_share(((told == visible) & counted).sum(), counted.sum()),
        temporal_coherence=_temporal_coherence(predicted, actual, visible),
        jaccard=jaccard,
        points_within=within,
    )


def in_raster(truth: Truth, tracks: Tracks, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the tracks say that the points are, and where they are: (Q, T, 2) each, in the 256x256 raster."""
    scale = RASTER_SIDE / np.asarray(tracks.size, np.float64)
    predicted = pixel_to_raster(tracks.positions.astype(np.float64)) * scale
    return predicted, truth.target_points[rows].astype(np.float64) * scale


def counted_frames(query_frames: np.ndarray, num_frames: int, mode: QueryMode) -> np.ndarray:
    """(Q, T) bool: the frames that enter the sums."""
    frames, queried = np.arange(num_frames)[None], np.round(query_frames).astype(int)[:, None]
    return frames > queried if mode == "first" else frames != queried


def _share(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else math.nan


def _temporal_coherence(predicted: np.ndarray, actual: np.ndarray, visible: np.ndarray) -> float:
    """Mean distance of the accelerations, over every three frames in a row in which the point is truly visible."""
    seen = visible[:, :-2] & visible[:, 1:-1] & visible[:, 2:]
    if not seen.any():
        return math.nan
    difference = np.diff(predicted, n=2, axis=1) - np.diff(actual, n=2, axis=1)  # (Q, T-2, 2)
    return float(np.linalg.norm(difference[seen], axis=-1).mean())
