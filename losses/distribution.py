"""Losses of distributions: how surprised the predicted one is by what came."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import number
from backhand.layers.broadcasting import unbroadcast
from backhand.layers.parameter import Array
from backhand.losses.base import Loss, Pointwise


class KLDivLoss(Pointwise):
    """How far a predicted distribution is from the true one: the surprise that the truth would not have had.

        l = y (log y - x)        dx = -dl * y

    x : log-probabilities, of any shape      target y : as many probabilities, or their logarithms with log_target
    reduction : "batchmean" divides the sum by the length of the first axis, and is the KL divergence of the
        mathematicians; "mean" divides by the number of all l
    log_target : then y = exp(target)

    Where y = 0, y log y is 0; torch's l is nan there if x is -inf, and so is ours.
    Kullback & Leibler 1951, "On Information and Sufficiency", doi:10.1214/aoms/1177729694
    """

    reductions = ("mean", "sum", "none", "batchmean")

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.log_target = log_target

    def count(self, x: Array) -> float | None:
        return (x.shape[0] if x.ndim else 1) if self.reduction == "batchmean" else None

    def function(self, x: Array, target: Array) -> Array:
        if self.log_target:
            return np.exp(target) * (target - x)
        return xlogy(target, target) - target * x

    def gradient(self, dl: Array, x: Array, target: Array) -> Array:
        return -dl * (np.exp(target) if self.log_target else target)


class PoissonNLLLoss(Pointwise):
    """The surprise of a Poisson distribution at a count.

        l = exp(x) - y x            dx = dl * (exp(x) - y)            x the logarithm of the rate
        l = x - y log(x + eps)      dx = dl * (1 - y / (x + eps))     x the rate itself (log_input=False)

    x, target y : one shape, any; y >= 0
    full : add log y!, which moves no gradient, by Stirling: y log y - y + log(2 pi y) / 2 where y > 1
    eps : keeps the logarithm of a rate of 0 finite

    From P(y) = rate^y exp(-rate) / y!. A rate that no float can hold is inf, as in torch.
    torch.nn.PoissonNLLLoss
    """

    def __init__(
        self, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.log_input = log_input
        self.full = full
        self.eps = number(self, "eps", eps)

    def function(self, x: Array, target: Array) -> Array:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            losses = np.exp(x) - target * x if self.log_input else x - target * np.log(x + self.eps)
        if self.full:
            count = np.where(target > 1, target, 1)
            stirling = xlogy(count, count) - count + 0.5 * np.log(2 * math.pi * count)
            losses = losses + np.where(target > 1, stirling, 0)
        return losses

    def gradient(self, dl: Array, x: Array, target: Array) -> Array:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return dl * (np.exp(x) - target if self.log_input else 1 - target / (x + self.eps))


class GaussianNLLLoss(Loss):
    """The surprise of a Gaussian whose mean and variance are both predicted.

        l = (log v + d^2 / v) / 2,    d = x - target,    v = max(var, eps)
        dx = dl * d / v,    dvar = dl * (1 - d^2 / v) / 2v

    x, target : one shape, any
    var : >= 0, x's shape, or with 1 in place of one of its sizes, or without the last one; or one Python float
    full : add log(2 pi) / 2, which moves no gradient      eps : the least variance

    `backward` returns (dx, None, dvar): the target between the two is data. dvar takes no notice of eps, as in
    torch, so that a variance below it can find its way back.
    Nix & Weigend 1994, "Estimating the mean and variance of the target probability distribution"
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = number(self, "eps", eps)

    def forward(self, x: ArrayLike, target: ArrayLike, var: ArrayLike) -> Any:
        x, target = self.pair(x, target)
        aligned = self.input(var, x.dtype)
        if not isinstance(var, float):
            aligned = self._aligned(aligned, x.shape)
        if (aligned < 0).any():
            self.reject("var of at least 0", f"{aligned.min():g}")
        difference = x - target
        v = np.maximum(aligned, self.eps)
        with np.errstate(divide="ignore", invalid="ignore"):  # eps = 0, var = 0
            losses = 0.5 * (np.log(v) + difference * difference / v)
        if self.full:
            losses = losses + 0.5 * math.log(2 * math.pi)
        losses = np.asarray(losses, x.dtype)
        self.save(difference, v.astype(x.dtype, copy=False), np.shape(var), out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> tuple[Array, None, Array]:
        dl = self.upstream(dout)
        difference, v, var_shape = self.saved()
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = difference / v
            dx, dvar = dl * ratio, 0.5 * dl * (1 - difference * ratio) / v
        dx, dvar = np.asarray(dx, dl.dtype), np.asarray(dvar, dl.dtype)
        return dx, None, unbroadcast(dvar, v.shape).reshape(var_shape)

    def _aligned(self, var: Array, shape: tuple[int, ...]) -> Array:
        """The var, so that it broadcasts against x: all sizes, one of them 1, or the last one left out."""
        if var.shape == shape:
            return var
        if var.shape == shape[:-1]:
            return var[..., None]
        if var.ndim == len(shape) and [n for n, m in zip(var.shape, shape, strict=True) if n != m] == [1]:
            return var
        self.reject(f"var of x's shape {shape}, with one size 1, or without the last", var.shape)


def xlogy(x: Array, y: Array) -> Array:
    """x log y, and 0 where x is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, 0, x * np.log(y))
