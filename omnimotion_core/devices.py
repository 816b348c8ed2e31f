"""What computes: the device a job runs on, how many threads, and a run's memory and time."""

import ctypes
import gc
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from omnimotion_core import __version__
from omnimotion_core.errors import ConfigError

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "numpy", "opencv-python-headless", "av", "OpenImageIO", "OpenEXR", "safetensors", "numba")
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # a container's share of the processors, in microseconds
_SAMPLE_S = 0.02  # between two looks at the memory


def choose_device(name: str) -> "torch.device":
    """The device that ``name`` (auto, cpu, cuda or mps) stands for here; auto is cuda, else mps, else cpu.

    Raises:
        ConfigError: the device that was asked for is absent. Another one is never taken in silence.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present[name]:
        raise ConfigError(f"this machine has no device {name!r} that torch can use",
                          f"use --device {' or '.join(kind for kind, there in present.items() if there)}, or auto")
    return torch.device(name)


def gpu_names(kind: str) -> tuple[str, ...]:
    """The GPUs of a kind of device (cpu has none) that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if kind != "cuda":
        return ("",) if kind == "mps" else ()
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(visible.split(",")[:count]) if visible is not None else tuple(map(str, range(count)))


def machine(device: str | None, threads: int | None) -> dict[str, str | int]:
    """The settings of a config that belong to the machine and not to the result; None: as it is."""
    given = (("device", device), ("threads", threads))
    return {name: value for name, value in given if value is not None}


def choose_threads(asked: int) -> int:
    """``asked``, or for 0 as many as this process may use: its cores, a container's or a farm's limit heeded."""
    if asked:
        return asked
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    limits += [int(value) for value in map(os.environ.get, ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"))
               if value is not None and value.isdecimal() and int(value) > 0]
    with suppress(OSError, ValueError):  # "max 100000" where there is no quota
        quota_us, period_us = _CGROUP_QUOTA.read_text().split()
        limits.append(max(1, int(quota_us) // int(period_us)))
    return min(limits)


def require_graphs(run: str, device: "torch.device") -> None:
    """Refuse steps replayed from a CUDA graph (``fit.volumetric.run``) where there are none.

    Raises:
        ConfigError: ``run`` asks for them on another device.
    """
    if run == "graph" and device.type != "cuda":
        raise ConfigError(f"fit.volumetric.run is 'graph', and the fit runs on {device.type}",
                          "choose --device cuda, or set it to 'eager'")  # fmt: skip


def free_memory() -> int:
    """Bytes of main memory that can be had without swapping."""
    return int(psutil.virtual_memory().available)


@contextmanager
def computing(device: "torch.device", threads: int = 1) -> Iterator[None]:
    """torch with the same result each time where it can promise that; put back afterwards.

    One thread, because the tabulated model's fits and queries are many small operations: a second thread gains little
    on idle cores and waits several times as long as it works on busy ones. Large products of matrices use more.
    """
    import torch

    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(threads)
    # elsewhere some gradients (grid_sample's) have no deterministic form and would raise: only the cpu is strict;
    # said this way, since torch.use_deterministic_algorithms loads torch's compiler, which takes two seconds
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "default")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])


@contextmanager
def opencv_on_one_thread() -> Iterator[None]:
    """OpenCV's own threads off: DIS divides its picture by them, and its result with it."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def give_back_memory() -> None:
    """Return to the system what was freed, where its C library keeps it for each thread that asked (Linux)."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


def describe(device: "torch.device", threads: int) -> dict[str, Any]:
    """A device for the manifest."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"type": device.type, "name": name, "threads": threads, "system": platform.platform()}


def package_versions() -> dict[str, str]:
    """The versions of what a result depends on."""
    versions = {"omnimotion": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"  # another build of it, such as opencv-python
    return versions


@dataclass
class Usage:
    """What a piece of work took."""

    seconds: float = 0.0
    peak_memory_mb: float = 0.0  # of this process, all that it holds


@contextmanager
def measured() -> Iterator[Usage]:
    """Time and peak memory of the block, in the record it is given; complete when the block ends."""
    # getrusage knows only the peak of the whole process, so a thread looks at the present size
    usage, process, ended = Usage(), psutil.Process(), threading.Event()

    def watch() -> None:
        while True:
            usage.peak_memory_mb = max(usage.peak_memory_mb, process.memory_info().rss / 2**20)
            if ended.wait(_SAMPLE_S):
                return

    watcher = threading.Thread(target=watch, name="memory-watch", daemon=True)
    began = time.perf_counter()
    watcher.start()
    try:
        yield usage
    finally:
        usage.seconds = time.perf_counter() - began
        ended.set()
        watcher.join()
