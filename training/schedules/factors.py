"""The rate times a factor that depends on the time."""

from __future__ import annotations

from backhand.training.optimizers import Optimizer
from backhand.training.schedules.base import LRScheduler, positive


class StepLR(LRScheduler):
    """Multiply by gamma every `step_size` steps.

    lr_t = lr_0 gamma^(t // step_size)
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = positive(self, "step_size", step_size)
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
        self.total_iters = positive(self, "total_iters", total_iters)
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
