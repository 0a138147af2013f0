"""Schedules: the learning rate over time.

The names, arguments and values are those of torch.optim.lr_scheduler. In the equations t counts the calls of
`step()`, lr_0 is the rate that the optimizer was built with. The rates are computed from those of the step before,
as in torch, so that several schedules, or a hand, can change them together.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
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


class StepLR(LRScheduler):
    """Multiply by gamma every `step_size` steps.

    lr_t = lr_0 gamma^(t // step_size)
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = _positive(self, "step_size", step_size)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        return lr if self.last_epoch == 0 or self.last_epoch % self.step_size else lr * self.gamma

    def at(self, base: float) -> float:
        return base * self.gamma ** (self.last_epoch // self.step_size)


class LinearLR(LRScheduler):
    """Go from one fraction of the rate to another on a straight line: the warm-up.

    lr_t = lr_0 (start_factor + (end_factor - start_factor) min(t, total_iters) / total_iters)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"LinearLR: expected start_factor in (0, 1], got {start_factor!r}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: expected end_factor in [0, 1], got {end_factor!r}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = _positive(self, "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        if self.last_epoch == 0:
            return lr * self.start_factor
        if self._initial or self.last_epoch > self.total_iters:
            return lr
        rise = self.end_factor - self.start_factor
        lr *= 1 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise)
        return max(lr, 0.0)  # an end_factor of 0 may come out below it by rounding

    def at(self, base: float) -> float:
        done = min(self.total_iters, self.last_epoch) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine wave from the rate down to `eta_min` (and, if it goes on, up again).

        lr_t = eta_min + (lr_0 - eta_min) (1 + cos(pi t / T_max)) / 2

    Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5, without the restarts
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = _positive(self, "T_max", T_max)
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        t, T = self.last_epoch, self.T_max
        if self._initial:
            return lr
        if (t - 1 - T) % (2 * T) == 0:  # at the bottom the ratio below would be 0 / 0
            return lr + (base - self.eta_min) * (1 - math.cos(math.pi / T)) / 2
        ratio = (1 + math.cos(math.pi * t / T)) / (1 + math.cos(math.pi * (t - 1) / T))
        return ratio * (lr - self.eta_min) + self.eta_min

    def at(self, base: float) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2


class SequentialLR(LRScheduler):
    """One schedule after the other: each begins anew at its milestone.

    SequentialLR(optimizer, [LinearLR(optimizer, total_iters=5), CosineAnnealingLR(optimizer, 95)], milestones=[5])
    is a warm-up of 5 steps before a cosine.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        schedulers, milestones = list(schedulers), list(milestones)
        if not schedulers or len(milestones) != len(schedulers) - 1:
            got = f"{len(milestones)} and {len(schedulers)}"
            raise ValueError(f"SequentialLR: expected one milestone fewer than schedulers, got {got}")
        for i, schedule in enumerate(schedulers):
            if not isinstance(schedule, LRScheduler) or schedule.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: expected schedulers of this optimizer, got another thing at {i}")
        if milestones != sorted(milestones):
            raise ValueError(f"SequentialLR: expected milestones in order, got {milestones}")
        self._schedulers = schedulers
        self._milestones = milestones
        self.optimizer = optimizer
        self.last_epoch = last_epoch + 1
        self._set(group["initial_lr"] for group in optimizer.param_groups)
        for schedule in schedulers:
            schedule._undo()
        self._schedulers[bisect_right(milestones, 0)]._begin()
        self._last_lr = self._rates()

    def step(self) -> None:
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            self._schedulers[i]._restart()
        else:
            self._schedulers[i].step()
        self._last_lr = self._rates()

    def state_dict(self) -> dict[str, Any]:
        own = {k: copy.deepcopy(v) for k, v in vars(self).items() if k not in ("optimizer", "_schedulers")}
        return {**own, "_schedulers": [schedule.state_dict() for schedule in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for schedule, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            schedule.load_state_dict(state)

    def __repr__(self) -> str:
        return f"SequentialLR({self._schedulers!r}, milestones={self._milestones})"

    def _undo(self) -> None:
        self.last_epoch = -1
        for schedule in self._schedulers:
            schedule._undo()

    def _restart(self) -> None:
        self.last_epoch = 0
        self._schedulers[bisect_right(self._milestones, 0)]._restart()
        self._last_lr = self._rates()

    def _begin(self) -> None:
        self.last_epoch = 0
        self._schedulers[bisect_right(self._milestones, 0)]._begin()
        self._last_lr = self._rates()


def _positive(schedule: LRScheduler, name: str, value: int) -> int:
    if isinstance(value, bool) or not value > 0:
        raise ValueError(f"{type(schedule).__name__}: expected {name} to be a positive number, got {value!r}")
    return value
