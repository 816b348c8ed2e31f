"""Loops over plain arrays, compiled when they are first called."""

from collections.abc import Callable
from typing import Any

import numba

_FAST = {"contract", "arcp", "nsz", "reassoc"}  # but for infinities and what is no number, whose tests must hold


def compiled(function: Callable[..., Any]) -> Any:
    """``function`` compiled when it is first called, and kept for later processes where there is a place for it."""
    try:
        return numba.njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return numba.njit(nogil=True, fastmath=_FAST, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """``function`` as a part of the compiled ones that use it.

    A loop that called another compiled function would round otherwise in the process that compiles it than in those
    that load it.
    """
    return numba.njit(inline="always")(function)
