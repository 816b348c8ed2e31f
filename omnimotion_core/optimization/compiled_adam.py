"""Adam as a compiled loop, for the CPU.

One pass over parameters, gradients and moments, by as many threads as may work. torch's own takes one thread here, and
the first use of its optimisers loads its compiler, which takes seconds and is of no use to the fit.
"""

from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnimotion_core.compilation import compiled
from omnimotion_core.optimization.halves import in_halves

EPS = 1e-8
SHARED = 65_536  # entries from which on a second thread is worth its call

_ONE = np.float32(1)


@compiled
def _update(values, gradient, mean, square, beta_1, beta_2, rate, correction, eps):  # type: ignore[no-untyped-def]
    """One step of flat ``values``, and their moments."""
    new_1, new_2 = _ONE - beta_1, _ONE - beta_2
    for k in range(values.size):
        g = gradient[k]
        m = mean[k] + (g - mean[k]) * new_1
        s = square[k] * beta_2 + g * g * new_2
        mean[k], square[k] = m, s
        values[k] -= rate * m / (np.sqrt(s) * correction + eps)


class CompiledAdam:
    """``torch.optim.Adam`` without its options: the same steps, and the same ``state_dict``.

    Args:
        groups: ``params`` and their learning rate ``lr``, which may be changed in ``param_groups`` between two steps.
        betas: decay of the moments.
        pool: of which a thread takes half of the entries; the values do not depend on it.
    Source: Kingma and Ba 2015, "Adam: a method for stochastic optimization", arXiv:1412.6980, algorithm 1.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, betas: tuple[float, float], pool: Executor | None = None
    ) -> None:
        self.param_groups = [{**group, "params": list(group["params"])} for group in groups]
        self._betas, self._pool = betas, pool
        self._parameters: list[Tensor] = [each for group in self.param_groups for each in group["params"]]
        self._state: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Drop all gradients, or set them to zero."""
        for parameter in self._parameters:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """One step of every parameter that has a gradient."""
        index = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(index, parameter, group["lr"])
                index += 1

    def state_dict(self) -> dict[str, Any]:
        """As torch's: moments and steps of each parameter by its number, and the groups with these numbers."""
        numbers, groups = iter(range(len(self._parameters))), []
        for group in self.param_groups:
            groups.append({**group, "betas": self._betas, "params": [next(numbers) for _ in group["params"]]})
        return {"state": self._state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self._state = {
            index: {name: value.clone() for name, value in moments.items()} for index, moments in state["state"].items()
        }
        for group, kept in zip(self.param_groups, state["param_groups"], strict=True):
            group["lr"] = kept["lr"]

    def _step(self, index: int, parameter: Tensor, rate: float) -> None:
        if index not in self._state:
            self._state[index] = {
                "step": torch.zeros(()), "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }  # fmt: skip
        state = self._state[index]
        state["step"] += 1
        steps, (beta_1, beta_2) = int(state["step"]), self._betas
        factors = tuple(
            np.float32(value)
            for value in (beta_1, beta_2, rate / (1 - beta_1**steps), 1 / np.sqrt(1 - beta_2**steps), EPS)
        )
        assert parameter.grad is not None
        tensors = parameter, parameter.grad.contiguous(), state["exp_avg"], state["exp_avg_sq"]
        arrays = [tensor.view(-1).numpy(force=True) for tensor in tensors]
        count = len(arrays[0])
        in_halves(
            self._pool if count >= SHARED else None, count,
            lambda start, end: _update(*(array[start:end] for array in arrays), *factors),
        )  # fmt: skip
