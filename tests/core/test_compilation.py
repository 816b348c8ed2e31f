"""Compiled loops: where the package cannot keep them."""

from typing import Any

import numba
import pytest

from omnimotion_core.compilation import compiled


def test_loops_need_no_place_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    original = numba.njit

    def njit(*functions: Any, **settings: Any) -> Any:  # numba calls it too, for what it loads late
        if settings.get("cache"):
            raise RuntimeError("no locator available")
        return original(*functions, **settings)

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled(lambda x: x + 1)(2) == 3
