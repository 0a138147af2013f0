"""Activations: one function applied to every number. Here the form they share, and the smooth ones.

An elementwise layer's Jacobian is diagonal, so its whole backward is one product, dx = dout * f'(x). Where f' can
be had from the output (sigmoid, tanh, ReLU), the output is what is kept. Those made of straight pieces are in
rectifiers.py, those that multiply by a gate in gated.py, those over vectors in softmax.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import number
from backhand.layers.base import Layer
from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array


class Elementwise(Layer):
    """The form that elementwise activations share.

        y = f(x)        dx = dout * f'(x)

    x, y : any shape

    A subclass writes `function(x)` and `gradient(dout, kept)`, and where the derivative needs something else than
    the output, also `keep(x, y)`, which says what. Half precision is computed in single precision.
    """

    def function(self, x: Array) -> Array:
        """f(x), a new array."""
        raise NotImplementedError

    def keep(self, x: Array, y: Array) -> Any:
        """What the derivative is computed from: x, y, or a mask."""
        return y

    def gradient(self, dout: Array, kept: Any) -> Array:
        """dout * f'(x), with f' from what was kept; a new array."""
        raise NotImplementedError

    def compute(self, x: Array) -> tuple[Array, Any]:
        """y, and what is kept of this forward."""
        y = self.function(x)
        return y, self.keep(x, y)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        y, kept = self.compute(x.astype(np.float32) if x.dtype.itemsize < 4 else x)
        y = np.asarray(y, x.dtype)
        self.save(kept, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (kept,) = self.saved()
        return np.asarray(self.gradient(dout, kept), dout.dtype)


# ---------------------------------------------------------------------- sigmoid, tanh and what is made of them


class Sigmoid(Elementwise):
    """Squash to (0, 1).

        y = 1 / (1 + exp(-x))        dx = dout * y (1 - y)

    x, y : any shape

    Small outputs keep all their digits, so that the logarithm that a BCELoss takes of them does too.
    torch.nn.Sigmoid
    """

    def function(self, x: Array) -> Array:
        return sigmoid(x)

    def gradient(self, dout: Array, kept: Array) -> Array:
        d = np.subtract(1, kept, out=empty_like(kept))
        d *= kept
        d *= dout
        return d


class Tanh(Elementwise):
    """Squash to (-1, 1).

        y = tanh(x)        dx = dout * (1 - y^2)

    x, y : any shape
    torch.nn.Tanh
    """

    def function(self, x: Array) -> Array:
        return np.tanh(x, out=empty_like(x))

    def gradient(self, dout: Array, kept: Array) -> Array:
        d = np.multiply(kept, kept, out=empty_like(kept))
        np.subtract(1, d, out=d)
        d *= dout
        return d


class Tanhshrink(Elementwise):
    """What tanh takes off.

        y = x - tanh(x)        dx = dout * tanh(x)^2

    x, y : any shape
    torch.nn.Tanhshrink
    """

    def function(self, x: Array) -> Array:
        return x - np.tanh(x)

    def keep(self, x: Array, y: Array) -> Array:
        return x  # x - y would be inf - inf at the ends

    def gradient(self, dout: Array, kept: Array) -> Array:
        t = np.tanh(kept)
        return dout * t * t


class LogSigmoid(Elementwise):
    """The logarithm of the sigmoid, finite where the sigmoid itself is too small to have one.

        y = log(1 / (1 + exp(-x))) = -softplus(-x)        dx = dout * (1 - exp(y))

    x, y : any shape

    The derivative is sigmoid(-x) = 1 - sigmoid(x), and exp(y) is sigmoid(x).
    torch.nn.LogSigmoid
    """

    def function(self, x: Array) -> Array:
        return -softplus(-x)

    def gradient(self, dout: Array, kept: Array) -> Array:
        return -dout * np.expm1(kept)


class Softplus(Elementwise):
    """A smooth ReLU.

        y = log(1 + exp(beta x)) / beta        dx = dout * sigmoid(beta x)

    x, y : any shape
    beta : how sharp the bend is; not 0
    threshold : where beta x is above it, y = x and dx = dout, from which the formula hardly differs there
    Dugas et al. 2001, "Incorporating Second-Order Functional Knowledge for Better Option Pricing"
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = number(self, "beta", beta, but=0)
        self.threshold = number(self, "threshold", threshold)

    def function(self, x: Array) -> Array:
        z = self.beta * x
        return np.where(z > self.threshold, x, softplus(z) / self.beta)

    def keep(self, x: Array, y: Array) -> Array:
        return x  # y does not tell on which side of the threshold x was

    def gradient(self, dout: Array, kept: Array) -> Array:
        z = self.beta * kept
        return dout * np.maximum(sigmoid(z), z > self.threshold)  # no sigmoid is above 1


class Softsign(Elementwise):
    """Squash to (-1, 1), with tails longer than those of tanh.

        y = x / (1 + |x|)        dx = dout / (1 + |x|)^2

    x, y : any shape; as in torch, y is nan at +-inf
    Bergstra et al. 2009, "Quadratic Polynomials Learn Better Image Features"
    """

    def function(self, x: Array) -> Array:
        return x / (1 + np.abs(x))

    def keep(self, x: Array, y: Array) -> Array:
        return x  # 1 - |y| would cancel in the tails

    def gradient(self, dout: Array, kept: Array) -> Array:
        shrink = 1 / (1 + np.abs(kept))
        return dout * shrink * shrink


# ---------------------------------------------------------------------- an exponential on the negative side

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


class _Exponential(Elementwise):
    """The form of ELU, SELU and CELU: a line for x > 0, a saturating exponential for x <= 0.

    y = scale x where x > 0, else height (exp(rate x) - 1)
    dx = dout * (scale where x > 0, else height rate exp(rate x))
    """

    scale: float = 1.0
    height: float = 1.0
    rate: float = 1.0

    def function(self, x: Array) -> Array:
        with np.errstate(over="ignore"):  # CELU with a negative alpha grows on both sides
            # one of the two terms is always 0; expm1 keeps the digits of an x near 0
            return self.scale * np.maximum(x, 0) + self.height * np.expm1(self.rate * np.minimum(x, 0))

    def keep(self, x: Array, y: Array) -> Array:
        return x  # with a negative alpha, y does not tell the sides apart

    def gradient(self, dout: Array, kept: Array) -> Array:
        negative = kept <= 0
        with np.errstate(over="ignore"):
            slope = (self.height * self.rate) * np.exp(self.rate * np.fmin(kept, 0))
        return dout * (self.scale * ~negative + slope * negative)


class ELU(_Exponential):
    """ReLU with a smooth negative side that saturates at -alpha.

        y = x where x > 0, else alpha (exp(x) - 1)
        dx = dout * (1 where x > 0, else alpha exp(x))

    x, y : any shape
    inplace : torch's argument; changes nothing here
    Clevert, Unterthiner & Hochreiter 2015, arXiv:1511.07289
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha = number(self, "alpha", alpha)
        self.inplace = inplace
        self.height = self.alpha


class SELU(_Exponential):
    """ELU scaled so that a deep network keeps mean 0 and variance 1 by itself.

        y = s x where x > 0, else s a (exp(x) - 1)        s = 1.0507009873554805, a = 1.6732632423543772
        dx = dout * (s where x > 0, else s a exp(x))

    x, y : any shape
    inplace : torch's argument; changes nothing here

    a and s make (0, 1) the fixed point of mean and variance; start the weights from normal(0, 1/fan_in), and drop
    with AlphaDropout.
    Klambauer et al. 2017, arXiv:1706.02515
    """

    scale = SELU_SCALE
    height = SELU_SCALE * SELU_ALPHA

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace


class CELU(_Exponential):
    """ELU with a slope of 1 on both sides of 0, whatever its alpha.

        y = x where x > 0, else alpha (exp(x/alpha) - 1)
        dx = dout * (1 where x > 0, else exp(x/alpha))

    x, y : any shape
    alpha : where the negative side saturates, at -alpha; not 0
    inplace : torch's argument; changes nothing here
    Barron 2017, arXiv:1704.07483
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha = number(self, "alpha", alpha, but=0)
        self.inplace = inplace
        self.height = self.alpha
        self.rate = 1 / self.alpha


# ---------------------------------------------------------------------- the functions, for other layers and losses


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), stable at any x: where the exponential overflows, this is 0."""
    y = np.negative(x, out=empty_like(x))
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    return np.divide(1, y, out=y)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), stable at any x: the exponential is that of a negative number."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
