"""The GPUs that the clips of a batch take turns on: one process a GPU, also among several batches of a user."""

import getpass
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from omnimotion_core.devices import choose_device, gpu_names
from omnimotion_core.errors import RunError
from omnimotion_core.files import safe_name, unwritable


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU and the lock that stands for it."""

    kind: str  # cuda or mps
    index: str  # as CUDA_VISIBLE_DEVICES names it; empty where there is one at most
    lock: FileLock = field(compare=False)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that show a process this GPU alone."""
        return {"CUDA_VISIBLE_DEVICES": self.index} if self.kind == "cuda" else {}


class Gpus:
    """All GPUs of one kind that this process may use.

    Args:
        device: a config's: auto, cpu, cuda or mps.
        folder: where the locks are; a folder of the user's own among the temporary files when not given.
    Raises:
        ConfigError: the device is absent.
    """

    def __init__(self, device: str, folder: Path | None = None) -> None:
        kind = "cpu" if device == "cpu" else choose_device(device).type
        folder = folder or Path(tempfile.gettempdir()) / safe_name(f"omnimotion-{_user()}")
        names = gpu_names(kind)
        if names:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(folder, error) from error
        self._gpus = [Gpu(kind=kind, index=name, lock=FileLock(folder / safe_name(f"{kind}-{name or 0}.lock")))
                      for name in names]  # fmt: skip

    def __len__(self) -> int:
        return len(self._gpus)

    def take(self) -> Gpu | None:
        """A GPU that nobody uses, its lock held; None where all are in use."""
        for gpu in self._gpus:
            if not gpu.lock.is_locked:
                try:
                    gpu.lock.acquire(timeout=0.0)
                except Timeout:
                    continue  # another batch has it
                except OSError as error:
                    raise RunError(f"{gpu.lock.lock_file} cannot be written ({error.strerror})",
                                   "delete it, or set TMPDIR to a folder of your own") from error  # fmt: skip
                return gpu
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "user"
