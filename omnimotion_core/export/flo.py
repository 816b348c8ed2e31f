"""Middlebury's ``.flo`` files: the flow of one pair of frames, as optical-flow programs read it.

A file has no header beyond its size, so a ``.json`` beside it tells what it is of; that is written last.
Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow", and its flow-code: the mark 202021.25 as
float32, width and height as int32, then (u, v) as float32 by rows, all little-endian; y points down.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnimotion_core.errors import ExportError, RunError
from omnimotion_core.export.exr import MAX_SIDE
from omnimotion_core.files import sha256_of, write_atomically, write_text

_MARK = np.array([202021.25], "<f4").tobytes()


def write_flo(path: Path, flow: np.ndarray, facts: Mapping[str, Any]) -> None:
    """Write the flow and the ``.json`` beside it, each as a whole or not at all.

    Args:
        path: ends in ``.flo``.
        flow: (H, W, 2) float32, (dx, dy) in pixels, y down.
        facts: what the ``.json`` tells; ``sha256`` of the flow's file is added.
    Raises:
        ExportError: the flow is not finite, or a file cannot be written.
    """
    if not np.isfinite(flow).all():
        bad = int(np.count_nonzero(~np.isfinite(flow)))
        raise ExportError(f"{path.name}: the flow has {bad} values that are not finite", "mend or mask them")
    data = _MARK + np.array(flow.shape[1::-1], "<i4").tobytes() + np.ascontiguousarray(flow, "<f4").tobytes()
    try:
        with write_atomically(path) as temporary:
            temporary.write_bytes(data)
        written = dict(facts) | {"sha256": hashlib.sha256(data).hexdigest()}
        write_text(_beside(path), json.dumps(written, indent=1) + "\n")
    except RunError as error:
        raise ExportError(error.problem, error.remedy) from error


def read_flo(path: Path) -> np.ndarray:
    """The flow (H, W, 2) float32 of a file.

    Raises:
        ExportError: the file is absent, of another format, truncated, or claims an absurd size.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
            width, height = (int(side) for side in np.frombuffer(head[4:], "<i4")) if len(head) == 12 else (0, 0)
            if head[:4] != _MARK or not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
                raise ExportError(f"{path} is no flow file of Middlebury's format", "write it again")
            data = file.read(width * height * 8 + 1)
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror})", "name a file that is there") from error
    if len(data) != width * height * 8:
        raise ExportError(f"{path} does not hold the {width}x{height} vectors that it claims", "write it again")
    return np.frombuffer(data, "<f4").reshape(height, width, 2).astype(np.float32)


def read_flo_facts(path: Path) -> dict[str, Any]:
    """What is told beside a flow file that is whole; empty where nothing is told, or the file is not that one."""
    try:
        facts = json.loads(_beside(path).read_bytes())
        whole = isinstance(facts, dict) and facts.get("sha256") == sha256_of(path)
    except (OSError, ValueError):
        return {}
    return facts if whole else {}


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")
