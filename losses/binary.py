"""Losses of yes or no: each number is a verdict of its own, and any number of them may be yes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.activations import sigmoid, softplus
from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array
from backhand.losses.base import TINY, Loss, Pointwise, alone, weight_for, weights


class BCEWithLogitsLoss(Loss):
    """The surprise at a yes or no, when the score is turned into a probability by a sigmoid.

        l = -weight (pos_weight y log p + (1 - y) log(1 - p)),    p = sigmoid(x)
        dx = dl * weight * ((1 - y) p - pos_weight y (1 - p)),    without weights: dl * (p - y)

    x, target y : one shape, any; y between 0 (no) and 1 (yes)
    weight, pos_weight : broadcast against x; pos_weight says how much more a yes counts than a no; buffers

    From d log p / dx = 1 - p and d log(1 - p) / dx = -p: as with softmax, exp and log cancel, and the error in the
    probability is left. Computed from log(1 - p) = log p - x and log p = -softplus(-x), which cannot overflow.
    torch.nn.BCEWithLogitsLoss
    """

    buffer_names = ("weight", "pos_weight")

    def __init__(
        self,
        weight: ArrayLike | None = None,
        *,
        reduction: str = "mean",
        pos_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(reduction=reduction)
        self.weight = weights(self, "weight", weight)
        self.pos_weight = weights(self, "pos_weight", pos_weight)

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, y = self.pair(x, target)
        self.no_signs(y)
        if self.weight is None and self.pos_weight is None:
            losses = np.subtract(1, y, out=empty_like(x))
            losses *= x
            losses += softplus(-x)
            self.save(x, y, out=losses)
            return self.reduce(losses)
        weight, pos_weight = self._weights(x)
        # l = (1 - y) x - (1 + (pos_weight - 1) y) log p
        factor = 1 + (pos_weight - 1) * y
        losses = weight * ((1 - y) * x + factor * softplus(-x))
        losses = np.asarray(losses, x.dtype)
        self.save(x, y, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        x, y = self.saved()
        p = sigmoid(x)
        if self.weight is None and self.pos_weight is None:
            p -= y
            p *= alone(dl)
            return np.asarray(p, x.dtype)
        weight, pos_weight = self._weights(x)
        return np.asarray(dl * weight * ((1 - y) * p - pos_weight * y * (1 - p)), x.dtype)

    def _weights(self, x: Array) -> tuple[Array, Array]:
        return weight_for(self, "weight", x), weight_for(self, "pos_weight", x)


class BCELoss(Pointwise):
    """The surprise at a yes or no, for a probability; from a score, BCEWithLogitsLoss does it without losing digits.

        l = -weight (y log x + (1 - y) log(1 - x))        dx = dl * weight (x - y) / (x (1 - x))

    x, target y : one shape, any; both between 0 and 1      weight : broadcasts to x; a buffer

    No logarithm counts as less than -100 (so a verdict that is certain and wrong costs 100, not infinity), and
    x (1 - x) not as less than 1e-12, as in torch. There dx is not the slope of l, which would be 0: it still points
    out of the hole.
    torch.nn.BCELoss
    """

    buffer_names = ("weight",)

    def __init__(self, weight: ArrayLike | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.weight = weights(self, "weight", weight)

    def operands(self, x: ArrayLike, target: ArrayLike) -> tuple[Array, ...]:
        x, target = self.pair(x, target)
        self.shares(x, "x", slack=0)
        self.shares(target)
        weight_for(self, "weight", x)
        return x, target

    def function(self, x: Array, target: Array) -> Array:
        with np.errstate(divide="ignore"):
            yes, no = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
        return weight_for(self, "weight", x) * ((target - 1) * no - target * yes)

    def gradient(self, dl: Array, x: Array, target: Array) -> Array:
        return dl * weight_for(self, "weight", x) * ((x - target) / np.maximum(x * (1 - x), TINY))


class MultiLabelSoftMarginLoss(Loss):
    """BCEWithLogitsLoss for labels of which several may hold, averaged over the classes of each sample.

        l = -1/C sum_c weight_c (y_c log p_c + (1 - y_c) log(1 - p_c)),    p = sigmoid(x)
        dx_c = dl * weight_c / C * (p_c - y_c)

    x, target y : (..., C), y between 0 (does not hold) and 1 (holds)      l : (...)
    weight : (C,), or whatever broadcasts to x; a buffer
    torch.nn.MultiLabelSoftMarginLoss
    """

    buffer_names = ("weight",)

    def __init__(self, weight: ArrayLike | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.weight = weights(self, "weight", weight)

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, y = self.pair(x, target)
        if x.ndim == 0:
            self.reject("x of shape (..., C)", x.shape)
        self.no_signs(y)
        surprise = y * softplus(-x) + (1 - y) * softplus(x)
        losses = np.asarray((weight_for(self, "weight", x) * surprise).mean(-1), x.dtype)
        self.save(x, y, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        x, y = self.saved()
        dx = (sigmoid(x) - y) * (weight_for(self, "weight", x) / x.shape[-1])
        return np.asarray(dx * dl[..., None], x.dtype)


class SoftMarginLoss(Pointwise):
    """Logistic regression with labels -1 and 1: the smooth relative of the hinge.

        l = log(1 + exp(-y x))        dx = -dl * y sigmoid(-y x)

    x, target y : one shape, any; y is 1 or -1

    Where exp overflows, torch has inf; here the sum is max(z, 0) + log(1 + exp(-|z|)) with z = -y x, right at any z.
    torch.nn.SoftMarginLoss
    """

    def operands(self, x: ArrayLike, target: ArrayLike) -> tuple[Array, ...]:
        x, target = self.pair(x, target)
        self.signs(target)
        return x, target

    def function(self, x: Array, target: Array) -> Array:
        return softplus(-target * x)

    def gradient(self, dl: Array, x: Array, target: Array) -> Array:
        return -dl * target * sigmoid(-target * x)
