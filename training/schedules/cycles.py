"""The rate up and down again, and the momentum the other way."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backhand.layers.arguments import whole
from backhand.training.optimizers import Optimizer
from backhand.training.schedules.base import LRScheduler, check_optimizer, for_each_group, positive, state_of_function


class _MomentumCycle(LRScheduler):
    """A schedule that moves the momentum too: the groups' "momentum", or beta1, the first of their "betas"."""

    cycle_momentum: bool
    use_beta1: bool

    def _check_momentum(self, optimizer: Optimizer) -> None:
        if self.cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            hint = "use cycle_momentum=False"
            problem = f"expected an optimizer with momentum or betas, got {type(optimizer).__name__}; {hint}"
            raise ValueError(f"{type(self).__name__}: {problem}")
        self.use_beta1 = "betas" in optimizer.defaults

    def _begin_momentum(self, optimizer: Optimizer, lowest: list[float], highest: list[float]) -> None:
        for group, low, high in zip(optimizer.param_groups, lowest, highest, strict=True):
            self._set_momentum(group, high)
            group["max_momentum"], group["base_momentum"] = high, low

    def _set_momentum(self, group: dict[str, Any], momentum: float) -> None:
        if self.use_beta1:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum


class OneCycleLR(_MomentumCycle):
    """Up to a high rate and down to almost nothing, once; to be stepped after every batch.

        lr :       max_lr / div_factor -> max_lr -> max_lr / div_factor / final_div_factor
        momentum : max_momentum -> base_momentum -> max_momentum        (where cycle_momentum)

    max_lr, base_momentum, max_momentum : one for all groups, or a list with one for each
    total_steps : or else epochs and steps_per_epoch, of which it is the product; a step beyond it is a ValueError
    pct_start : the share of the steps on the way up, a float
    anneal_strategy : "cos", half a cosine wave between each two of these, or "linear", a straight line
    three_phase : down to max_lr / div_factor as slowly as up, and from there to the end
    cycle_momentum : with Adam and its kin it is beta1 that is moved
    Smith & Topin 2017, arXiv:1708.07120
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(self, optimizer)
        if total_steps is not None:
            self.total_steps = whole(self, "total_steps", total_steps)
        elif epochs is not None and steps_per_epoch is not None:
            self.total_steps = whole(self, "epochs", epochs) * whole(self, "steps_per_epoch", steps_per_epoch)
        else:
            raise ValueError("OneCycleLR: expected total_steps, or epochs and steps_per_epoch, got neither")
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: expected pct_start to be a float from 0 to 1, got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: expected anneal_strategy to be 'cos' or 'linear', got {anneal_strategy!r}")
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        last = self.total_steps - 1.0
        up = pct_start * self.total_steps - 1
        # (the last step of a phase, the rates and the momenta that it leads from and to)
        self._phases = [(up, "initial_lr", "max_lr", "max_momentum", "base_momentum")]
        if three_phase:
            down = 2 * pct_start * self.total_steps - 2
            self._phases += [
                (down, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                (last, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
            ]
        else:
            self._phases.append((last, "max_lr", "min_lr", "base_momentum", "max_momentum"))
        self._place(last_epoch + 1)
        highest = for_each_group(self, "max_lr", max_lr, optimizer)
        momenta = [
            for_each_group(self, name, value, optimizer)
            for name, value in (("base_momentum", base_momentum), ("max_momentum", max_momentum))
        ]
        self._check_momentum(optimizer)
        for group, lr in zip(optimizer.param_groups, highest, strict=True):
            if last_epoch == -1:
                group["initial_lr"], group["max_lr"] = lr / div_factor, lr
                group["min_lr"] = group["initial_lr"] / final_div_factor
            elif "min_lr" not in group or (cycle_momentum and "base_momentum" not in group):
                raise ValueError("OneCycleLR: expected groups with the rates of a cycle to go on from, got none")
        if cycle_momentum and last_epoch == -1:
            self._begin_momentum(optimizer, *momenta)
        super().__init__(optimizer, last_epoch)

    def step(self) -> None:
        self._place(self.last_epoch + 1)  # raises before anything is changed
        super().step()

    def rates(self) -> list[float]:
        share, (_, start_lr, end_lr, start_momentum, end_momentum) = self._place(self.last_epoch)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[start_lr], group[end_lr], share))
            if self.cycle_momentum:
                self._set_momentum(group, self._between(group[start_momentum], group[end_momentum], share))
        return rates

    def _place(self, t: int) -> tuple[float, tuple[float, str, str, str, str]]:
        """(how much of the phase is done at t, the phase)."""
        start = 0.0
        for phase in self._phases:
            end = phase[0]
            if (t <= end or phase is self._phases[-1]) and t <= self.total_steps and end != start:
                return (t - start) / (end - start), phase
            start = end
        raise ValueError(f"OneCycleLR: expected at most {self.total_steps} steps, and phases of some length, got {t}")

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)
        return (end - start) * share + start


class CyclicLR(_MomentumCycle):
    """Up and down between two rates on straight lines, cycle by cycle; to be stepped after every batch.

        lr_t = base_lr + (max_lr - base_lr) h_t s,    h_t from 0 to 1 in step_size_up steps, and back in step_size_down
        momentum_t = max_momentum - (max_momentum - base_momentum) h_t s        (where cycle_momentum)

    base_lr, max_lr, base_momentum, max_momentum : one for all groups, or a list with one for each
    mode : s = 1 for "triangular", 1 / 2^(cycle - 1) for "triangular2", gamma^t for "exp_range"
    scale_fn : s of your own, of the number of the cycle from 1 (scale_mode "cycle") or of t ("iterations"); mode is
        then ignored
    cycle_momentum : with Adam and its kin it is beta1 that is moved
    Smith 2015, arXiv:1506.01186
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(self, optimizer)
        if scale_fn is None and mode not in ("triangular", "triangular2", "exp_range"):
            problem = f"expected mode to be 'triangular', 'triangular2' or 'exp_range', got {mode!r}"
            raise ValueError(f"CyclicLR: {problem}")
        if scale_mode not in ("cycle", "iterations"):
            raise ValueError(f"CyclicLR: expected scale_mode to be 'cycle' or 'iterations', got {scale_mode!r}")
        lowest = for_each_group(self, "base_lr", base_lr, optimizer)
        self.max_lrs = for_each_group(self, "max_lr", max_lr, optimizer)
        up = float(positive(self, "step_size_up", step_size_up))
        down = up if step_size_down is None else float(step_size_down)
        if not down >= 0:
            raise ValueError(f"CyclicLR: expected step_size_down to be 0 or more, got {step_size_down!r}")
        self.total_size = up + down
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode if scale_fn else "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        self._check_momentum(optimizer)
        self.base_momentums = for_each_group(self, "base_momentum", base_momentum, optimizer)
        self.max_momentums = for_each_group(self, "max_momentum", max_momentum, optimizer)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, lowest, strict=True):
                group["lr"] = lr
            if cycle_momentum:
                self._begin_momentum(optimizer, self.base_momentums, self.max_momentums)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lowest

    def scale_fn(self, x: float) -> float:
        """s, of the number of the cycle or of t."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return 1 / 2.0 ** (x - 1) if self.mode == "triangular2" else self.gamma**x

    def rates(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            momenta = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in momenta:
                self._set_momentum(group, high - (high - low) * height * scale)
        return [low + (high - low) * height * scale for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        own = {k: copy.deepcopy(v) for k, v in vars(self).items() if k not in ("optimizer", "_scale_fn_custom")}
        return {**own, "_scale_fn_custom": state_of_function(self._scale_fn_custom)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_scale_fn_custom"})
        if state_dict["_scale_fn_custom"] is not None:
            vars(self._scale_fn_custom).update(copy.deepcopy(state_dict["_scale_fn_custom"]))
