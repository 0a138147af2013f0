"""The softmax family: what turns a vector of scores into probabilities, or into their logarithms.

Its Jacobian is diag(y) - y y^T for every vector; the product with it needs one sum, never the matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Layer
from backhand.layers.parameter import Array


class Softmax(Layer):
    """Turn scores into probabilities.

        y_i = exp(x_i) / sum_j exp(x_j)
        dx_i = y_i (dout_i - sum_j dout_j y_j)

    x, y : any shape; the sums run over axis `dim`
    dim : None is torch's old rule, the first axis for 0, 1 or 3 axes, else the second; better say which

    The maximum is taken off first, so no score is too large.
    torch.nn.Softmax
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        axis = softmax_axis(self, x)
        y = self.function(x, axis)
        self.save(y, axis, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        y, axis = self.saved()
        return self.gradient(dout, y, axis)

    def function(self, x: Array, axis: int) -> Array:
        """y, from which alone `gradient` has to work."""
        return softmax(x, axis)

    def gradient(self, dout: Array, y: Array, axis: int) -> Array:
        """The product of dout with the Jacobian."""
        return y * (dout - (dout * y).sum(axis, keepdims=True))


class Softmin(Softmax):
    """Turn costs into probabilities: the smallest number gets the largest share.

        y = softmax(-x)
        dx_i = -y_i (dout_i - sum_j dout_j y_j)

    x, y : any shape; the sums run over axis `dim`
    dim : as in Softmax
    torch.nn.Softmin
    """

    def function(self, x: Array, axis: int) -> Array:
        return softmax(-x, axis)

    def gradient(self, dout: Array, y: Array, axis: int) -> Array:
        return -super().gradient(dout, y, axis)


class LogSoftmax(Softmax):
    """The logarithm of the softmax, without the detour through numbers too small to have one.

        y_i = x_i - log sum_j exp(x_j)
        dx_i = dout_i - exp(y_i) sum_j dout_j

    x, y : any shape; the sums run over axis `dim`
    dim : as in Softmax

    The Jacobian is 1 - (ones) p^T with p = exp(y), the softmax. NLLLoss on top of it is CrossEntropyLoss.
    torch.nn.LogSoftmax
    """

    def function(self, x: Array, axis: int) -> Array:
        return log_softmax(x, axis)

    def gradient(self, dout: Array, y: Array, axis: int) -> Array:
        return dout - np.exp(y) * dout.sum(axis, keepdims=True)


class Softmax2d(Softmax):
    """Softmax over the channels, at every place of an image.

        y_c = exp(x_c) / sum_k exp(x_k)        dx_c = y_c (dout_c - sum_k dout_k y_k)

    x, y : (N, C, H, W) or (C, H, W); the sums run over C
    torch.nn.Softmax2d
    """

    def __init__(self) -> None:
        super().__init__(-3)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        if x.ndim not in (3, 4):
            self.reject("x of shape (N, C, H, W) or (C, H, W)", x.shape)
        return super().forward(x)


# ---------------------------------------------------------------------- the functions, for other layers and losses


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum exp(x) along an axis, stable at any x: the maximum is taken off first."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.divide(e, e.sum(axis, keepdims=True))


def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - log sum exp(x) along an axis, stable at any x: the maximum is taken off first."""
    shifted = x - max_along(x, axis)
    return shifted - np.log(sum_along(np.exp(shifted), axis))


def max_along(x: Array, axis: int) -> Array:
    """x.max(axis, keepdims=True); of a table with few columns taken along the first axis, NumPy's fast one."""
    if x.ndim == 2 and axis in (1, -1) and x.shape[1] <= 64:
        return x.T.copy().max(0)[:, None]
    top: Array = x.max(axis, keepdims=True)
    return top


def sum_along(x: Array, axis: int) -> Array:
    """x.sum(axis, keepdims=True); over the last axis as a product with ones, which BLAS does faster."""
    if x.ndim > 1 and axis in (x.ndim - 1, -1):
        return (x @ np.ones(x.shape[-1], x.dtype))[..., None]
    return np.asarray(x.sum(axis, keepdims=True))


def softmax_axis(layer: Layer, x: Array) -> int:
    """The axis that `layer.dim` names in x, or the error that says x has no such axis."""
    dim: int | None = layer.dim  # type: ignore[attr-defined]
    if dim is None:
        return 0 if x.ndim in (0, 1, 3) else 1
    axes = max(x.ndim, 1)  # a single number counts as a vector of one, as in torch
    if not -axes <= dim < axes:
        layer.reject(f"x with an axis {dim}", f"shape {x.shape}")
    return dim
