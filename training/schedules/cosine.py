"""Half a cosine wave, once or again and again."""

from __future__ import annotations

import math

from backhand.layers.arguments import whole
from backhand.training.optimizers import Optimizer
from backhand.training.optimizers.base import is_number
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


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine wave down to `eta_min`, again and again, each time T_mult times as long.

        lr_t = eta_min + (lr_0 - eta_min) (1 + cos(pi T_cur / T_i)) / 2

    T_0 : the length T_i of the first wave        T_cur : how far the present one has come
    `step(epoch)` goes to any time, also between two epochs: step(epoch + batch / batches) after each batch.
    Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0 = self.T_i = whole(self, "T_0", T_0)
        self.T_mult = whole(self, "T_mult", T_mult)
        if not is_number(eta_min):
            raise ValueError(f"CosineAnnealingWarmRestarts: expected eta_min to be a number, got {eta_min!r}")
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2

    def step(self, epoch: float | None = None) -> None:
        """Go one step on, or to a time of your own."""
        if epoch is None and self.last_epoch >= 0:
            self.last_epoch += 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            epoch = 0 if epoch is None else epoch
            if not epoch >= 0:
                raise ValueError(f"CosineAnnealingWarmRestarts: expected epoch to be 0 or more, got {epoch!r}")
            self.T_cur, self.T_i = epoch, self.T_0
            if self.T_mult == 1:
                self.T_cur %= self.T_0
            while self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
            self.last_epoch = math.floor(epoch)
        self._set(self.rates())

    def _restart(self) -> None:
        self.step(0)
