"""What every schedule is: it sets the rates of an optimizer, step by step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from backhand.training.optimizers import Optimizer


class LRScheduler:
    """What every schedule is: it sets the "lr" of each of the optimizer's groups, at once and at each `step()`.

    A subclass writes `next(lr, base)`, and where it exists `at(base)`; both may read `self.last_epoch`, which is t.
    last_epoch : -1 to begin; t of the last step to go on with an optimizer that remembers its "initial_lr"
    """

    _initial = False  # while the step of the constructor runs

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ValueError(f"{type(self).__name__}: expected an Optimizer, got {type(optimizer).__name__}")
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(f"{type(self).__name__}: expected groups with an 'initial_lr' to go on from, got none")
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._begin()

    def next(self, lr: float, base: float) -> float:
        """The rate of a group at t, from its rate at t - 1 and the one that it began with."""
        raise NotImplementedError(f"{type(self).__name__} has no next()")

    def at(self, base: float) -> float | None:
        """The rate of a group at t from nothing but the one that it began with; None where there is no such form."""
        return None

    def step(self) -> None:
        """Go one step on; call it after the optimizer's."""
        self.last_epoch += 1
        self._set(self.next(lr, base) for lr, base in zip(self._rates(), self.base_lrs, strict=True))

    def get_last_lr(self) -> list[float]:
        """The rates that were set last, one for each group."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything but the optimizer."""
        return {name: copy.deepcopy(value) for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`; the optimizer's rates come with the optimizer's own."""
        vars(self).update(copy.deepcopy({k: v for k, v in state_dict.items() if k != "optimizer"}))

    def __repr__(self) -> str:
        hidden = ("optimizer", "base_lrs", "last_epoch")
        own = [f"{k}={v!r}" for k, v in vars(self).items() if k not in hidden and not k.startswith("_")]
        return f"{type(self).__name__}({', '.join(own)})"

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _set(self, rates: Iterator[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, list(rates), strict=True):
            group["lr"] = lr
        self._last_lr: list[float] = self._rates()

    def _begin(self) -> None:
        self._initial = True
        try:
            self.step()
        finally:
            del self._initial  # back to the class's

    def _undo(self) -> None:
        """Take back the step of the constructor, for a schedule that now belongs to another."""
        self.last_epoch -= 1

    def _restart(self) -> None:
        """Stand at t = 0, whatever the rates have become meanwhile."""
        self.last_epoch = 0
        rates = [self.at(base) for base in self.base_lrs]
        pairs = zip(rates, self._rates(), self.base_lrs, strict=True)
        self._set(self.next(lr, base) if rate is None else rate for rate, lr, base in pairs)


def positive(schedule: LRScheduler, name: str, value: int) -> int:
    """The value of an argument that must be more than 0."""
    if isinstance(value, bool) or not value > 0:
        raise ValueError(f"{type(schedule).__name__}: expected {name} to be a positive number, got {value!r}")
    return value
