"""The state from which a stopped fit goes on as if it had not been stopped."""

import pickle
from pathlib import Path
from typing import Any

import torch

from omnimotion_core.errors import RunError
from omnimotion_core.files import write_atomically

FILE = "state.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write plain values and tensors, whole or not at all."""
    with write_atomically(folder / FILE) as temporary:
        torch.save(state, temporary)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state last saved, or None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise RunError(f"checkpoint {path} is damaged", f"delete {folder} and run the same command again") from error
    return state
