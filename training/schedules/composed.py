"""Schedules made of schedules."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from backhand.training.interrupts import Uninterrupted
from backhand.training.optimizers import Optimizer
from backhand.training.schedules.base import LRScheduler
from backhand.training.schedules.plateau import ReduceLROnPlateau


class _Composed(LRScheduler):
    """Several schedules of one optimizer."""

    _schedulers: list[LRScheduler]

    def _checked(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer) -> list[LRScheduler]:
        name = type(self).__name__
        if not schedulers:
            raise ValueError(f"{name}: expected at least one scheduler, got none")
        for i, schedule in enumerate(schedulers):
            if isinstance(schedule, ReduceLROnPlateau):
                raise ValueError(f"{name}: expected schedulers of the time alone, got a ReduceLROnPlateau at {i}")
            if not isinstance(schedule, LRScheduler) or schedule.optimizer is not optimizer:
                raise ValueError(f"{name}: expected schedulers of this optimizer, got another thing at {i}")
        return list(schedulers)

    def state_dict(self) -> dict[str, Any]:
        own = {k: copy.deepcopy(v) for k, v in vars(self).items() if k not in ("optimizer", "_schedulers")}
        return {**own, "_schedulers": [schedule.state_dict() for schedule in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for schedule, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            schedule.load_state_dict(state)

    def _undo(self) -> None:
        for schedule in self._schedulers:
            schedule._undo()


class SequentialLR(_Composed):
    """One schedule after the other: each begins anew at its milestone.

    SequentialLR(optimizer, [LinearLR(optimizer, total_iters=5), CosineAnnealingLR(optimizer, 95)], milestones=[5])
    is a warm-up of 5 steps before a cosine.
    torch.optim.lr_scheduler.SequentialLR
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        schedulers, milestones = self._checked(schedulers, optimizer), list(milestones)
        if len(milestones) != len(schedulers) - 1:
            got = f"{len(milestones)} and {len(schedulers)}"
            raise ValueError(f"SequentialLR: expected one milestone fewer than schedulers, got {got}")
        if milestones != sorted(milestones):
            raise ValueError(f"SequentialLR: expected milestones in order, got {milestones}")
        self._schedulers = schedulers
        self._milestones = milestones
        self.optimizer = optimizer
        self.last_epoch = last_epoch + 1
        self._set([group["initial_lr"] for group in optimizer.param_groups])
        for schedule in schedulers:
            schedule._undo()
        self._schedulers[bisect_right(milestones, 0)]._begin()
        self._last_lr = self._rates()

    def step(self) -> None:
        with Uninterrupted():
            self.last_epoch += 1
            i = bisect_right(self._milestones, self.last_epoch)
            if i > 0 and self._milestones[i - 1] == self.last_epoch:
                self._schedulers[i]._restart()
            else:
                self._schedulers[i].step()
            self._last_lr = self._rates()

    def __repr__(self) -> str:
        return f"SequentialLR({self._schedulers!r}, milestones={self._milestones})"

    def _undo(self) -> None:
        super()._undo()
        self.last_epoch = -1

    def _restart(self) -> None:
        self.last_epoch = 0
        self._schedulers[bisect_right(self._milestones, 0)]._restart()
        self._last_lr = self._rates()

    def _begin(self) -> None:
        self.last_epoch = 0
        self._schedulers[bisect_right(self._milestones, 0)]._begin()
        self._last_lr = self._rates()


class ChainedScheduler(_Composed):
    """Several schedules at once: each changes what the ones before it have left.

        lr_t = lr_0 times the factors of all of them, where they are factors of the rate of the step before

    optimizer : theirs, unless given
    torch.optim.lr_scheduler.ChainedScheduler
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if optimizer is None and schedulers and isinstance(schedulers[0], LRScheduler):
            optimizer = schedulers[0].optimizer
        self._schedulers = self._checked(schedulers, optimizer)  # type: ignore[arg-type]
        self.optimizer = self._schedulers[-1].optimizer
        self._last_lr = self._rates()

    def step(self) -> None:
        with Uninterrupted():
            for schedule in self._schedulers:
                schedule.step()
            self._last_lr = self._rates()

    def __repr__(self) -> str:
        return f"ChainedScheduler({self._schedulers!r})"

    def _restart(self) -> None:
        self._set([group["initial_lr"] for group in self.optimizer.param_groups])
        self._begin()

    def _begin(self) -> None:
        for schedule in self._schedulers:
            schedule._begin()
        self._last_lr = self._rates()
