"""Work shared out between two threads, always in the same halves, so that results do not depend on the threads."""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

Result = TypeVar("Result")


def in_halves(pool: Executor | None, count: int, work: Callable[[int, int], Result]) -> tuple[Result, Result]:
    """``work(start, end)`` of both halves of ``count``: the first by a thread of ``pool``, where there is one."""
    half = (count + 1) // 2
    if pool is None:
        return work(0, half), work(half, count)
    first = pool.submit(work, 0, half)
    second = work(half, count)
    return first.result(), second
