"""The rate by what is measured, not by the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsFloat

from backhand.training.interrupts import Uninterrupted
from backhand.training.optimizers import Optimizer
from backhand.training.schedules.base import LRScheduler, check_optimizer, for_each_group


class ReduceLROnPlateau(LRScheduler):
    """Lower the rate when a measured number has stopped getting better: `step(metrics)` after each epoch.

        lr = max(factor lr, min_lr) after more than `patience` steps in a row without a better number

    mode : "min" or "max", where the better numbers are
    threshold, threshold_mode : better means below best (1 - threshold) for "rel", best - threshold for "abs"
        ("max": above, and +)
    cooldown : so many steps after a reduction are not counted        min_lr : one, or a list with one for each group
    eps : a reduction by no more than this is left out
    It knows no time, so SequentialLR and ChainedScheduler do not take it; the Trainer does, with its `monitor`.
    torch.optim.lr_scheduler.ReduceLROnPlateau
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        check_optimizer(self, optimizer)
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: expected factor to be below 1, got {factor!r}")
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: expected mode to be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"ReduceLROnPlateau: expected threshold_mode to be 'rel' or 'abs', got {threshold_mode!r}")
        self.min_lrs = for_each_group(self, "min_lr", min_lr, optimizer)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.eps = eps
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        self.last_epoch = 0
        self._last_lr = self._rates()

    def step(self, metrics: SupportsFloat) -> None:  # type: ignore[override]
        """Take in the number of this epoch."""
        current = float(metrics)
        with Uninterrupted():
            self.last_epoch += 1
            if self.is_better(current):
                self.best = current
                self.num_bad_epochs = 0
            else:
                self.num_bad_epochs += 1
            if self.cooldown_counter > 0:
                self.cooldown_counter -= 1
                self.num_bad_epochs = 0
            if self.num_bad_epochs > self.patience:
                self._reduce()
                self.cooldown_counter = self.cooldown
                self.num_bad_epochs = 0
            self._last_lr = self._rates()

    def is_better(self, value: float) -> bool:
        """Whether a number is better than the best so far, by more than the threshold; nan never is."""
        sign = -1 if self.mode == "min" else 1
        margin = (
            self.best * (1 + sign * self.threshold)
            if self.threshold_mode == "rel"
            else self.best + (sign * self.threshold)
        )
        return value < margin if self.mode == "min" else value > margin

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if self.default_min_lr is not None:  # groups may have been added
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, least in zip(groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, least)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr
