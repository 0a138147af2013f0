"""Schedules made of schedules."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from backhand.training.optimizers import Optimizer
from backhand.training.schedules.base import LRScheduler


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
