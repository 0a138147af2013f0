"""Activations that are a product: one number times a gate between 0 and 1 (or nearly so) that opens with another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.activations import Elementwise, sigmoid
from backhand.layers.arguments import one_of
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.layers.special import erf


class _SelfGated(Elementwise):
    """The form of SiLU, Mish and GELU: x times a gate that opens with x.

        y = x g(x)        dx = dout * (g + x g'(x))

    The gate is kept beside x: it costs an exponential or more, and its own derivative follows from it.
    """

    def gate(self, x: Array) -> Array:
        """g(x)."""
        raise NotImplementedError

    def slope(self, x: Array, g: Array) -> Array:
        """g'(x), with the help of g."""
        raise NotImplementedError

    def compute(self, x: Array) -> tuple[Array, Any]:
        g = np.asarray(self.gate(x), x.dtype)
        return x * g, (x, g)

    def gradient(self, dout: Array, kept: tuple[Array, Array]) -> Array:
        x, g = kept
        return dout * (g + x * self.slope(x, g))


class SiLU(_SelfGated):
    """x times its own sigmoid; also called swish.

        y = x s        dx = dout * (s + x s (1 - s)),    s = sigmoid(x)

    x, y : any shape
    inplace : torch's argument; changes nothing here
    Elfwing, Uchibe & Doya 2017, arXiv:1702.03118; Hendrycks & Gimpel 2016, arXiv:1606.08415
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def gate(self, x: Array) -> Array:
        return sigmoid(x)

    def slope(self, x: Array, g: Array) -> Array:
        return g * (1 - g)


class Mish(_SelfGated):
    """x times the tanh of its own softplus.

        y = x t        dx = dout * (t + x (1 - t^2) sigmoid(x)),    t = tanh(softplus(x))

    x, y : any shape
    inplace : torch's argument; changes nothing here

    With e = exp(x) the gate is the fraction e (e + 2) / (e (e + 2) + 2), which needs neither logarithm nor tanh.
    Misra 2019, arXiv:1908.08681
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def gate(self, x: Array) -> Array:
        e = np.exp(np.minimum(x, 20))  # from there on the gate is 1 in any precision
        n = e * (e + 2)
        return n / (n + 2)

    def slope(self, x: Array, g: Array) -> Array:
        return (1 - g * g) * sigmoid(x)


class GELU(_SelfGated):
    """x times the chance that a normal number is below it.

        y = x P(x)        dx = dout * (P(x) + x p(x))
        P(x) = (1 + erf(x / sqrt 2)) / 2,    p(x) = exp(-x^2 / 2) / sqrt(2 pi)

    x, y : any shape
    approximate : "none", or "tanh" for P(x) = (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), then
        p(x) = (1 - tanh(u)^2) u' / 2 and u' = sqrt(2/pi) (1 + 0.134145 x^2)
    Hendrycks & Gimpel 2016, arXiv:1606.08415
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = one_of(self, "approximate", approximate, ("none", "tanh"))

    def gate(self, x: Array) -> Array:
        if self.approximate == "none":
            return 0.5 * erf(x * math.sqrt(0.5)) + 0.5
        z = np.clip(x, -10, 10)  # tanh u is +-1 long before, and no cube can overflow
        return 0.5 * np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)) + 0.5

    def slope(self, x: Array, g: Array) -> Array:
        if self.approximate == "none":
            z = np.clip(x, -40, 40)  # exp(-800) is 0, and no square can overflow
            return np.exp(-0.5 * z * z) * math.sqrt(0.5 / math.pi)
        z = np.clip(x, -10, 10)
        # (1 - tanh^2) / 2 = 2 g (1 - g)
        return 2 * g * (1 - g) * (math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z * z))


class GLU(Layer):
    """One half of the input, gated by the sigmoid of the other half.

        y = a s,    (a, b) = the halves of x,    s = sigmoid(b)
        da = dout * s        db = dout * a s (1 - s)        dx = (da, db)

    x : any shape with an even size along axis `dim`      y : half that size along it
    Dauphin et al. 2016, arXiv:1612.08083
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        if not -x.ndim <= self.dim < x.ndim or x.shape[self.dim] % 2:
            self.reject(f"x with an even size along axis {self.dim}", f"shape {x.shape}")
        a, b = np.split(x, 2, self.dim)
        s = sigmoid(b)
        y = a * s
        self.save(a, s, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        a, s = self.saved()
        da = dout * s
        return np.concatenate([da, da * a * (1 - s)], self.dim)
