"""Half a cosine wave."""

from __future__ import annotations

import math

from backhand.training.optimizers import Optimizer
from backhand.training.schedules.base import LRScheduler, positive


class CosineAnnealingLR(LRScheduler):
    """Half a cosine wave from the rate down to `eta_min` (and, if it goes on, up again).

        lr_t = eta_min + (lr_0 - eta_min) (1 + cos(pi t / T_max)) / 2

    Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5, without the restarts
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = positive(self, "T_max", T_max)
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
