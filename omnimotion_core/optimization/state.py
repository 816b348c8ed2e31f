"""The state of a fit: what a step changes, kept so that a stopped or diverged fit goes on from a good one."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnimotion_core.errors import FitError, RunError
from omnimotion_core.events import Cancelled, Reporter
from omnimotion_core.optimization.checkpoint import load_checkpoint, save_checkpoint
from omnimotion_core.optimization.compiled_adam import CompiledAdam

MAX_RESTARTS = 3  # from the last good state at half the rate, when the loss is no number


class Fitter(ABC):
    """A fit that goes step by step and can be stopped between any two of them.

    Args:
        steps: how many there are to do.
        checkpoint_every: steps between two kept states.
        rates: the settings that a fit which diverges should lower, as told to the user.
    """

    def __init__(
        self, field: nn.Module, optimizer: torch.optim.Optimizer | CompiledAdam, *, steps: int, checkpoint_every: int,
        seed: int, rates: str,
    ) -> None:  # fmt: skip
        self.module, self.optimizer = field, optimizer
        self.steps, self.checkpoint_every, self._rates = steps, checkpoint_every, rates
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.restarts = 0, 0
        self.good = self._snapshot()

    @abstractmethod
    def loss(self) -> Tensor:
        """The loss of the step that is to be done."""

    def backward(self) -> None:
        """Fill the parameters' gradients for the step that is to be done."""
        self.loss().backward()

    @abstractmethod
    def learning_rates(self) -> list[float]:
        """Of each group of parameters, at this step."""

    def run(self, checkpoint: Path, reporter: Reporter, preview: Callable[[], None] = lambda: None) -> None:
        """Do all steps that are left.

        Args:
            checkpoint: folder of the resume state; a state found there is gone on from.
            preview: called at the first step that is left and at every checkpoint, to show the field; changes nothing.
        Raises:
            FitError: the loss stays no number.
            Cancelled: the user asked to stop; the checkpoint holds all that was done.
        """
        self.resume(checkpoint)
        if self.step < self.steps:
            preview()
        while self.step < self.steps:
            try:
                reporter.progress("fit", self.step, self.steps)
            except Cancelled:
                self.save(checkpoint)
                raise
            self.advance()
            if self.step % self.checkpoint_every == 0 and self.step < self.steps:
                self.save(checkpoint)
                preview()
        reporter.progress("fit", self.steps, self.steps)

    def advance(self) -> None:
        """One step; a loss that is no number brings back the last good state and halves the rate."""
        for group, rate in zip(self.optimizer.param_groups, self.learning_rates(), strict=True):
            group["lr"] = rate * 0.5**self.restarts
        self.optimizer.zero_grad(set_to_none=True)
        self.backward()
        self.optimizer.step()
        self.step += 1
        if self.step % self.checkpoint_every == 0 or self.step == self.steps:
            self._keep_or_restart()

    def save(self, folder: Path) -> None:
        """Write the state of this very step."""
        save_checkpoint(folder, {**self._snapshot(), "good": self.good})

    def resume(self, folder: Path) -> None:
        """Go on from the state in ``folder`` where there is one.

        Raises:
            RunError: it is damaged, or of a fit that had other parameters.
        """
        state = load_checkpoint(folder)
        if state is None:
            return
        if not self._is_of_this_fit(state):
            raise RunError(f"checkpoint {folder} is of another version of the program",
                           f"delete {folder} and run the same command again")  # fmt: skip
        self.good = state.pop("good")
        self._restore(state)

    def extra_state(self) -> dict[str, Any]:
        """What else a step changes: plain values and tensors."""
        return {}

    def restore_extra_state(self, state: dict[str, Any]) -> None:
        """Go back to what ``extra_state`` gave."""
        assert not state

    def _is_of_this_fit(self, state: dict[str, Any]) -> bool:
        """Whether ``state`` holds the same parameters, in as many groups."""
        kept, own = ({name: value.shape for name, value in each.items()}
                     for each in (state["field"], self.module.state_dict()))  # fmt: skip
        return kept == own and len(state["optimizer"]["param_groups"]) == len(self.optimizer.param_groups)

    def _keep_or_restart(self) -> None:
        """Keep the state when every parameter is a number, else go back to the one kept before."""
        if all(bool(parameter.isfinite().all()) for parameter in self.module.parameters()):
            self.good = self._snapshot()
            return
        if self.restarts == MAX_RESTARTS:
            raise FitError(
                f"the fit diverges even at {0.5**MAX_RESTARTS:g} of its learning rate",
                f"check the flow that was handed in, or lower {self._rates}",
            )
        restarts = self.restarts + 1
        self._restore(self.good)
        self.restarts = restarts

    def _snapshot(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "step": self.step,
            "restarts": self.restarts,
            "field": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "extra": self.extra_state(),
        }
        copied: dict[str, Any] = _copied(state)
        return copied

    def _restore(self, state: dict[str, Any]) -> None:
        state = _copied(state)
        self.step, self.restarts = state["step"], state["restarts"]
        self.module.load_state_dict(state["field"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.restore_extra_state(state["extra"])


def _copied(state: Any) -> Any:
    """A copy of nested state that shares no tensor with it."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state
