"""The rate times a factor that depends on the time."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from backhand.training.optimizers import Optimizer
from backhand.training.schedules.base import LRScheduler, check_optimizer, for_each_group, positive, state_of_function


class StepLR(LRScheduler):
    """Multiply by gamma every `step_size` steps.

        lr_t = lr_0 gamma^(t // step_size)

    torch.optim.lr_scheduler.StepLR
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = positive(self, "step_size", step_size)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        return lr if self.last_epoch == 0 or self.last_epoch % self.step_size else lr * self.gamma

    def at(self, base: float) -> float:
        return base * self.gamma ** (self.last_epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """Multiply by gamma at each milestone.

        lr_t = lr_0 gamma^(how many milestones are at or before t)

    milestones : numbers of steps, in any order; one that is there twice counts twice
    torch.optim.lr_scheduler.MultiStepLR
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        return lr * self.gamma ** self.milestones[self.last_epoch]

    def at(self, base: float) -> float:
        return base * self.gamma ** sum(n for milestone, n in self.milestones.items() if milestone <= self.last_epoch)


class ExponentialLR(LRScheduler):
    """Multiply by gamma at every step.

        lr_t = lr_0 gamma^t

    torch.optim.lr_scheduler.ExponentialLR
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        return lr if self._initial else lr * self.gamma

    def at(self, base: float) -> float:
        return base * self.gamma**self.last_epoch


class ConstantLR(LRScheduler):
    """Hold the rate at a fraction for some steps, then let it be.

        lr_t = lr_0 factor for t < total_iters,    lr_0 afterwards

    torch.optim.lr_scheduler.ConstantLR
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f"ConstantLR: expected factor in [0, 1], got {factor!r}")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        if self.last_epoch == 0:
            return lr * self.factor
        if self.last_epoch != self.total_iters:
            return lr
        return lr * (1 / self.factor) if self.factor else base  # from 0 no factor leads back

    def at(self, base: float) -> float:
        return base if self.last_epoch >= self.total_iters else base * self.factor


class LinearLR(LRScheduler):
    """Go from one fraction of the rate to another on a straight line: the warm-up.

        lr_t = lr_0 (start_factor + (end_factor - start_factor) min(t, total_iters) / total_iters)

    torch.optim.lr_scheduler.LinearLR
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


class PolynomialLR(LRScheduler):
    """Go down to 0 along a power of the time that is left.

        lr_t = lr_0 (1 - min(t, total_iters) / total_iters)^power

    torch.optim.lr_scheduler.PolynomialLR
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = positive(self, "total_iters", total_iters)
        self.power = power
        super().__init__(optimizer, last_epoch)

    def next(self, lr: float, base: float) -> float:
        t, T = self.last_epoch, self.total_iters
        if self._initial or t > T:
            return lr
        return lr * ((1 - t / T) / (1 - (t - 1) / T)) ** self.power

    def at(self, base: float) -> float:
        return base * (1 - min(self.total_iters, self.last_epoch) / self.total_iters) ** self.power


class LambdaLR(LRScheduler):
    """The rate times a function of the time.

        lr_t = lr_0 lr_lambda(t)

    lr_lambda : a function for all groups, or a list with one for each. A state_dict keeps the attributes of callable
        objects, but not plain functions
    torch.optim.lr_scheduler.LambdaLR
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(self, optimizer)
        self.lr_lambdas = for_each_group(self, "lr_lambda", lr_lambda, optimizer)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(f"{type(self).__name__}: expected lr_lambda to be a function, got {function!r}")
        super().__init__(optimizer, last_epoch)

    def rates(self) -> list[float]:
        return [base * f(self.last_epoch) for f, base in zip(self.lr_lambdas, self.base_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        own = {k: copy.deepcopy(v) for k, v in vars(self).items() if k not in ("optimizer", "lr_lambdas")}
        return {**own, "lr_lambdas": [state_of_function(f) for f in self.lr_lambdas]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "lr_lambdas"})
        for function, state in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if state is not None:
                vars(function).update(copy.deepcopy(state))


class MultiplicativeLR(LambdaLR):
    """The rate of the step before times a function of the time.

        lr_t = lr_{t-1} lr_lambda(t)

    lr_lambda : as in LambdaLR; it is not called for t = 0
    torch.optim.lr_scheduler.MultiplicativeLR
    """

    def rates(self) -> list[float]:
        if self._initial:
            return self._rates()
        return [lr * f(self.last_epoch) for f, lr in zip(self.lr_lambdas, self._rates(), strict=True)]
