"""Losses of a difference: a number against the number that it should be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import positive, within
from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array
from backhand.losses.base import Loss, alone


class _OfDifference(Loss):
    """What these losses share.

        l = f(d),    d = x - target        dx = dl * f'(d)

    x, target : one shape, any. Where torch would stretch one of them (and warn), here is an error: a column less a
    row is a table of all pairs, and hardly ever what was meant.
    """

    def function(self, difference: Array) -> Array:
        """f(d), a new array."""
        raise NotImplementedError

    def gradient(self, dl: Any, difference: Array) -> Array:
        """dl * f'(d), a new array; dl is a number where it is the same for all."""
        raise NotImplementedError

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, target = self.pair(x, target)
        difference = np.subtract(x, target, out=empty_like(x))
        losses = np.asarray(self.function(difference), x.dtype)
        self.save(difference, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        (difference,) = self.saved()
        return np.asarray(self.gradient(alone(dl), difference), dl.dtype)


class MSELoss(_OfDifference):
    """The squared difference.

        l = d^2,    d = x - target        dx = dl * 2 d

    x, target : one shape, any
    torch.nn.MSELoss
    """

    def function(self, difference: Array) -> Array:
        return np.multiply(difference, difference, out=empty_like(difference))

    def gradient(self, dl: Any, difference: Array) -> Array:
        return np.multiply(difference, 2 * dl, out=empty_like(difference))


class L1Loss(_OfDifference):
    """The absolute difference.

        l = |d|,    d = x - target        dx = dl * sign(d)

    x, target : one shape, any; where they are equal the gradient is 0 (nan where there is no number; in torch 0)
    torch.nn.L1Loss
    """

    def function(self, difference: Array) -> Array:
        return np.abs(difference)

    def gradient(self, dl: Any, difference: Array) -> Array:
        return dl * np.sign(difference)


class HuberLoss(_OfDifference):
    """The squared difference near 0, the absolute one further out, so that no outlier pulls harder than delta.

        l = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2),    d = x - target
        dx = dl * clip(d, -delta, delta)

    x, target : one shape, any      delta : where the parabola goes over into the line, above 0

    Both branches are c (|d| - c / 2) with c = min(|d|, delta), and the slope of that is c with the sign of d.
    Huber 1964, "Robust Estimation of a Location Parameter", doi:10.1214/aoms/1177703732
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = positive(self, "delta", delta)

    def function(self, difference: Array) -> Array:
        return _huber(difference, self.delta)

    def gradient(self, dl: Any, difference: Array) -> Array:
        return dl * np.clip(difference, -self.delta, self.delta)


class SmoothL1Loss(_OfDifference):
    """The absolute difference with its corner rounded off: HuberLoss(delta=beta) divided by beta.

        l = d^2 / (2 beta) where |d| < beta, else |d| - beta / 2,    d = x - target
        dx = dl * clip(d / beta, -1, 1)

    x, target : one shape, any      beta : half the width of the rounding; with 0 it is L1Loss
    Girshick 2015, "Fast R-CNN", arXiv:1504.08083, equation 3
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.beta = within(self, "beta", beta, 0, np.inf)

    def function(self, difference: Array) -> Array:
        return _huber(difference, self.beta) / self.beta if self.beta else np.abs(difference)

    def gradient(self, dl: Any, difference: Array) -> Array:
        if not self.beta:
            return dl * np.sign(difference)
        return dl * (np.clip(difference, -self.beta, self.beta) / self.beta)


def _huber(difference: Array, delta: float) -> Array:
    size = np.abs(difference)
    c = np.minimum(size, delta)
    product: Array = c * (size - 0.5 * c)
    return product
