"""The machine's part of a job: device, threads, time and memory."""

import platform
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest
import torch

from omnimotion_core.devices import (
    choose_device,
    choose_threads,
    computing,
    describe,
    give_back_memory,
    package_versions,
)
from omnimotion_core.errors import ConfigError


def test_auto_takes_the_best_device_and_an_absent_one_is_an_error() -> None:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    assert choose_device("auto").type == next(name for name, there in present.items() if there)
    for name, there in present.items():
        if there:
            assert choose_device(name).type == name
        else:
            with pytest.raises(ConfigError, match=f"no device '{name}'"):
                choose_device(name)


def test_threads_heed_a_limit_set_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert choose_threads(0) >= 1
    assert choose_threads(7) == 7
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert choose_threads(0) == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "many")
    assert choose_threads(0) >= 1


def test_torchs_state_is_put_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyError), computing(torch.device("cpu"), 2):
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_no_process_waits_for_torchs_compiler_to_load() -> None:
    child = """
import sys, torch
from omnimotion_core.devices import computing
with computing(torch.device("cpu")):
    assert torch.are_deterministic_algorithms_enabled()
print("torch._dynamo" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.strip() == "False"


def test_time_and_peak_memory_are_those_of_the_block() -> None:
    child = """
import time, numpy as np
from omnimotion_core.devices import measured
with measured() as idle:
    time.sleep(0.05)
with measured() as busy:
    block = np.ones(64 * 2**20, np.uint8)
    time.sleep(0.3)
    del block
with measured() as after:
    time.sleep(0.05)
print(idle.seconds, idle.peak_memory_mb, busy.peak_memory_mb, after.peak_memory_mb)
"""  # of its own, since memory that other tests freed would be used again unseen
    told = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True, timeout=60).stdout
    seconds, idle, busy, after = map(float, told.split())
    assert seconds >= 0.05
    assert busy > idle + 50
    assert after < busy - 30


def test_a_device_and_the_versions_are_told_as_plain_values() -> None:
    facts = describe(torch.device("cpu"), 3)
    assert facts["type"] == "cpu"
    assert facts["threads"] == 3
    assert all(facts.values())
    assert package_versions()["torch"] == torch.__version__


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what threads have freed")
def test_what_a_thread_has_freed_is_given_back() -> None:
    kept: list[np.ndarray] = []

    def work() -> None:
        blocks = [np.ones(8192) for _ in range(1600)]  # 100 MB in pieces that the C library holds on to
        kept.append(blocks[-1])  # at the end of the thread's heap, so that nothing before it goes by itself

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = psutil.Process().memory_info().rss
    give_back_memory()
    assert before - psutil.Process().memory_info().rss > 50 * 2**20
    assert kept[0].all()
