"""The softmax family: what turns a vector of scores into probabilities, or into their logarithms.

Its Jacobian is diag(y) - y y^T for every vector; the product with it needs one sum, never the matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Layer
from backhand.layers.blocks import in_blocks
from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array

# So few numbers are worked on at once: cutting them into blocks would cost more than the softmax.
FEW = 1 << 11


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
        return _by_rows(_softmax_backward, axis, dout, y)


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
        dx = super().gradient(dout, y, axis)
        return np.negative(dx, out=dx)


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
        return _by_rows(_log_softmax_backward, axis, dout, y)


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
    """exp(x) / sum exp(x) along an axis, stable at any x: where it matters, the maximum is taken off first."""
    if x.size <= FEW and x.ndim and x.dtype.itemsize > 2:
        y = np.exp(x - np.maximum.reduce(x, axis, keepdims=True))
        y /= np.add.reduce(y, axis, keepdims=True)
        return y
    return _by_rows(softmax_into, axis, x)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - log sum exp(x) along an axis, stable at any x: the maximum is taken off first."""
    return _by_rows(_log_softmax_into, axis, x)


def softmax_into(y: Array, x: Array, axis: int = -1) -> None:
    """Write the softmax of x into y, which may be x."""
    if moderate(x):
        np.exp(x, out=y)
    else:
        np.subtract(x, max_along(x, axis), out=y)
        np.exp(y, out=y)
    y /= sum_along(y, axis)


def moderate(x: Array) -> bool:
    """Whether no exponential of these numbers, and no sum of a row of them, overflows or vanishes."""
    return bool(x.min() > -60 and x.max() < 60) and x.dtype.itemsize > 2


def _softmax_backward(dx: Array, dout: Array, y: Array, axis: int) -> None:
    np.multiply(dout, y, out=dx)
    np.subtract(dout, sum_along(dx, axis), out=dx)
    dx *= y


def _log_softmax_into(y: Array, x: Array, axis: int) -> None:
    np.subtract(x, max_along(x, axis), out=y)
    y -= np.log(sum_along(np.exp(y), axis))


def _log_softmax_backward(dx: Array, dout: Array, y: Array, axis: int) -> None:
    np.exp(y, out=dx)
    dx *= sum_along(dout, axis)
    np.subtract(dout, dx, out=dx)


def _by_rows(work: Callable[..., None], axis: int, *inputs: Array) -> Array:
    """What work(result, *inputs, axis) writes, block by block where the vectors are rows in memory."""
    result = empty_like(inputs[0])
    arrays = [result, *inputs]
    if result.ndim and axis not in (-1, result.ndim - 1):
        arrays = [np.moveaxis(x, axis, -1) for x in arrays]
    if result.ndim and all(x.flags.c_contiguous for x in arrays):
        rows = [x.reshape(-1, x.shape[-1]) for x in arrays]
        in_blocks(lambda block: work(*(x[block] for x in rows), -1), *rows[0].shape)
    else:
        work(result, *inputs, axis)
    return result


def max_along(x: Array, axis: int) -> Array:
    """x.max(axis, keepdims=True); of a table with few columns taken along the first axis, NumPy's fast one."""
    if x.ndim == 2 and axis in (1, -1) and x.shape[1] <= 64:
        largest: Array = np.maximum.reduce(x.T.copy(), axis=0)  # what .max(0) calls, by way of Python
        return largest[:, None]
    top: Array = x.max(axis, keepdims=True)
    return top


def sum_along(x: Array, axis: int) -> Array:
    """x.sum(axis, keepdims=True); over the last axis as a product with ones, which BLAS does faster."""
    if x.ndim > 1 and axis in (x.ndim - 1, -1):
        rows = x.reshape(-1, x.shape[-1])
        return (rows @ np.ones(x.shape[-1], x.dtype)).reshape(*x.shape[:-1], 1)
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
