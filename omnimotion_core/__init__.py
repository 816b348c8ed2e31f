"""Track Everything: the motion of every pixel of a shot.

    import omnimotion_core as om
    run = om.track("shot.mov", "runs/shot", preset="standard")  # or om.Run.open("runs/shot")
    tracks = run.query(points)  # points (N, 3) as (t, x, y)
    field = run.flow(3, 40)     # any two frames

Nothing is loaded before it is used, so that ``omnimotion --help`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnimotion_core.api import Run, track
    from omnimotion_core.config import Config
    from omnimotion_core.errors import (
        BatchError,
        ClipError,
        ConfigError,
        EvaluationError,
        ExportError,
        FitError,
        FlowError,
        OmniMotionError,
        QueryError,
        RunError,
    )
    from omnimotion_core.events import Cancelled, Reporter
    from omnimotion_core.trajectories.dense import DenseFlow
    from omnimotion_core.trajectories.tracks import Tracks

__version__ = "0.1.0"

_HOMES = {
    "track": "api",
    "Run": "api",
    "Config": "config",
    "Cancelled": "events",
    "Reporter": "events",
    "DenseFlow": "trajectories.dense",
    "Tracks": "trajectories.tracks",
    "OmniMotionError": "errors",
    "BatchError": "errors",
    "ClipError": "errors",
    "ConfigError": "errors",
    "EvaluationError": "errors",
    "ExportError": "errors",
    "FitError": "errors",
    "FlowError": "errors",
    "QueryError": "errors",
    "RunError": "errors",
}

__all__ = [
    "BatchError",
    "Cancelled",
    "ClipError",
    "Config",
    "ConfigError",
    "DenseFlow",
    "EvaluationError",
    "ExportError",
    "FitError",
    "FlowError",
    "OmniMotionError",
    "QueryError",
    "Reporter",
    "Run",
    "RunError",
    "Tracks",
    "__version__",
    "track",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
