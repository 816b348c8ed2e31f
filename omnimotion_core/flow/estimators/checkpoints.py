"""Weights read from a file, never executed: a file that holds anything but tensors is refused."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnimotion_core.errors import FlowError
from omnimotion_core.flow.weights import require_known_hash

_WRAPPERS = ("model", "state_dict")  # names under which training programs keep the weights
_COUNTERS = "num_batches_tracked"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a PyTorch file, on the CPU, ``module.`` taken off their names.

    Raises:
        FlowError: the file is absent, truncated, no file of tensors, holds code, or is a known one with another hash.
    """
    require_known_hash(path)
    try:
        with warnings.catch_warnings():  # of pickle's protocol, before it refuses the file
            warnings.simplefilter("ignore")
            held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unusable(path, "it holds more than tensors, or is damaged, and is not opened") from error
    except Exception as error:  # damaged bytes may fail in any way, and the user can mend it
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise _unusable(path, f"it is truncated or no file of PyTorch: {reason}") from error
    for name in _WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
    if not (isinstance(held, Mapping) and held and all(isinstance(value, Tensor) for value in held.values())):
        raise _unusable(path, "it holds no table of named tensors")
    if not all(torch.isfinite(value).all() for value in held.values()):
        raise _unusable(path, "it holds values that are no numbers")
    return {str(name).removeprefix("module."): value for name, value in held.items()}


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Put the weights into the network.

    Raises:
        FlowError: they are of another network than ``what``; the first difference is told.
    """
    expected = {name: value for name, value in network.state_dict().items() if not name.endswith(_COUNTERS)}
    given = {name: value for name, value in state.items() if not name.endswith(_COUNTERS)}
    for name in [*expected, *given]:
        if name not in given:
            raise _unusable(path, f"it is not {what}: {name} is missing")
        if name not in expected:
            raise _unusable(path, f"it is not {what}: {name} is too much")
        if expected[name].shape != given[name].shape:
            sizes = f"{tuple(given[name].shape)} and not {tuple(expected[name].shape)}"
            raise _unusable(path, f"it is not {what}: {name} is {sizes}")
    network.load_state_dict(given, strict=False)  # the counters of batches are of no use here


def _unusable(path: Path, reason: str) -> FlowError:
    return FlowError(f"weights {path} cannot be used ({reason})",
                     "give another file with --weights, or get a known one: omnimotion weights list")  # fmt: skip
