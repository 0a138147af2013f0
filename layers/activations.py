"""Activations: one function applied to every number, or (Softmax) to every vector.

An elementwise layer's Jacobian is diagonal, so its whole backward is one product, dx = dout * f'(x). Where f' can
be had from the output (sigmoid, tanh, ReLU), the output is what is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Array, Layer


class Elementwise(Layer):
    """The form that elementwise activations share.

        y = f(x)        dx = dout * f'(x)

    x, y : any shape

    A subclass writes `function(x)` and `gradient(dout, kept)`, and where the derivative needs something else than
    the output, also `keep(x, y)`, which says what.
    """

    def function(self, x: Array) -> Array:
        """f(x), a new array."""
        raise NotImplementedError

    def keep(self, x: Array, y: Array) -> Array:
        """What the derivative is computed from: x, y, or a mask."""
        return y

    def gradient(self, dout: Array, kept: Array) -> Array:
        """dout * f'(x), with f' from what was kept; a new array."""
        raise NotImplementedError

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        y = self.function(x)
        self.save(self.keep(x, y), out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (kept,) = self.saved()
        return self.gradient(dout, kept)


class ReLU(Elementwise):
    """Keep what is positive.

        y = max(x, 0)        dx = dout where x > 0, else 0

    x, y : any shape

    The Jacobian is a diagonal of ones and zeros. At x = 0, where no derivative exists, 0 is taken, as in torch.
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace  # torch's argument; an input is never written to here, so it changes nothing

    def function(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def gradient(self, dout: Array, kept: Array) -> Array:
        return dout * (kept > 0)  # y > 0 exactly where x > 0


class LeakyReLU(Elementwise):
    """ReLU that lets a little through on the negative side.

        y = x where x > 0, else a x        dx = dout * (1 where x > 0, else a),    a = negative_slope

    x, y : any shape
    Maas, Hannun & Ng 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models"
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope = negative_slope
        self.inplace = inplace

    def function(self, x: Array) -> Array:
        return np.where(x > 0, x, self.negative_slope * x)

    def keep(self, x: Array, y: Array) -> Array:
        return x > 0  # with a negative slope of its own sign, y does not tell

    def gradient(self, dout: Array, kept: Array) -> Array:
        return np.where(kept, dout, self.negative_slope * dout)


class Sigmoid(Elementwise):
    """Squash to (0, 1).

        y = 1 / (1 + exp(-x))        dx = dout * y (1 - y)

    x, y : any shape

    Computed as (tanh(x/2) + 1) / 2, the same function, which cannot overflow.
    """

    def function(self, x: Array) -> Array:
        return sigmoid(x)

    def gradient(self, dout: Array, kept: Array) -> Array:
        return dout * kept * (1 - kept)


class Tanh(Elementwise):
    """Squash to (-1, 1).

        y = tanh(x)        dx = dout * (1 - y^2)

    x, y : any shape
    """

    def function(self, x: Array) -> Array:
        return np.tanh(x)

    def gradient(self, dout: Array, kept: Array) -> Array:
        return dout * (1 - kept * kept)


class Softmax(Layer):
    """Turn scores into probabilities.

        y_i = exp(x_i) / sum_j exp(x_j)
        dx_i = y_i (dout_i - sum_j dout_j y_j)

    x, y : any shape; the sums run over axis `dim`
    dim : None is torch's old rule, the first axis for 0, 1 or 3 axes, else the second; better say which

    The Jacobian is diag(y) - y y^T; the product with it needs one dot product, never the matrix.
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        axis = softmax_axis(self, x)
        y = softmax(x, axis)
        self.save(y, axis, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        y, axis = self.saved()
        return y * (dout - (dout * y).sum(axis, keepdims=True))


# ---------------------------------------------------------------------- the functions, for other layers and losses


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), stable at any x."""
    half: Array = 0.5 * np.tanh(0.5 * x) + 0.5
    return half


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum exp(x) along an axis, stable at any x: the maximum is taken off first."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.divide(e, e.sum(axis, keepdims=True))


def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - log sum exp(x) along an axis, stable at any x: the maximum is taken off first."""
    shifted = x - largest(x, axis)
    return shifted - np.log(total(np.exp(shifted), axis))


def largest(x: Array, axis: int) -> Array:
    """x.max(axis, keepdims=True); of a table with few columns taken along the first axis, NumPy's fast one."""
    if x.ndim == 2 and axis in (1, -1) and x.shape[1] <= 64:
        return x.T.copy().max(0)[:, None]
    top: Array = x.max(axis, keepdims=True)
    return top


def total(x: Array, axis: int) -> Array:
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
