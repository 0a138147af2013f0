"""What every schedule is: it sets the rates of an optimizer, step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from backhand.training.interrupts import Uninterrupted
from backhand.training.optimizers import Optimizer


class LRScheduler:
    """What every schedule is: it sets the "lr" of each of the optimizer's groups, at once and at each `step()`.

    A subclass writes `next(lr, base)`, and where it exists `at(base)`; both may read `self.last_epoch`, which is t.
    Where the groups differ in more than their rates, it writes `rates()`, which is all groups at once.
    last_epoch : -1 to begin; t of the last step to go on with an optimizer that remembers its "initial_lr"
    """

    _initial = False  # while the step of the constructor runs

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(self, optimizer)
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

    def rates(self) -> list[float]:
        """The rates of all groups at t."""
        return [self.next(lr, base) for lr, base in zip(self._rates(), self.base_lrs, strict=True)]

    def step(self) -> None:
        """Go one step on; call it after the optimizer's."""
        with Uninterrupted():  # t and the rates of all groups agree
            self.last_epoch += 1
            self._set(self.rates())

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

    def _set(self, rates: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
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
        closed = [self.at(base) for base in self.base_lrs]
        rates = [lr for lr in closed if lr is not None]
        self._set(rates if len(rates) == len(closed) else self.rates())


def positive(schedule: LRScheduler, name: str, value: int) -> int:
    """The value of an argument that must be more than 0."""
    if isinstance(value, bool) or not value > 0:
        raise ValueError(f"{type(schedule).__name__}: expected {name} to be a positive number, got {value!r}")
    return value


def for_each_group(schedule: LRScheduler, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """The value of an argument for each group: a list of them, or one for all."""
    n = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        problem = f"expected {name} to be one value, or one for each of the {n} groups, got {len(value)}"
        raise ValueError(f"{type(schedule).__name__}: {problem}")
    return list(value)


def state_of_function(function: Callable[..., float] | None) -> dict[str, Any] | None:
    """What a state_dict keeps of a function: the attributes of a callable object, nothing of a plain function."""
    return None if isinstance(function, FunctionType) else copy.deepcopy(getattr(function, "__dict__", None))


def check_optimizer(schedule: LRScheduler, optimizer: Any) -> None:
    """Raise ValueError for anything else."""
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"{type(schedule).__name__}: expected an Optimizer, got {type(optimizer).__name__}")
