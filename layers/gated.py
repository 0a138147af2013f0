"""Activations that are a product: one number times a gate between 0 and 1 (or nearly so) that opens with another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.activations import Elementwise, sigmoid
from backhand.layers.arguments import one_of
from backhand.layers.base import Layer
from backhand.layers.blocks import flat, in_blocks, without_gaps
from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array
from backhand.layers.special import erf


class _SelfGated(Elementwise):
    """The form of SiLU, Mish and GELU: x times a gate that opens with x.

        y = x g(x)        dx = dout * y',    y' = g + x g'(x)

    The derivative follows from what the gate was computed from, so forward computes it too, while that is in the
    cache, and it is all that is kept.
    """

    def gate(self, x: Array) -> Array:
        """g(x), a new array."""
        raise NotImplementedError

    def slope(self, x: Array, g: Array) -> Array:
        """g'(x), a new array, with the help of g."""
        raise NotImplementedError

    def compute(self, x: Array) -> tuple[Array, Any]:
        x = without_gaps(x)
        y, derivative = empty_like(x), empty_like(x) if self.caching else None
        xs, ys, ds = flat(x), flat(y), None if derivative is None else flat(derivative)

        def work(block: slice) -> None:
            part = xs[block]
            g = self.gate(part)
            np.multiply(part, g, out=ys[block])
            if ds is not None:
                slope = self.slope(part, g)
                slope *= part
                np.add(slope, g, out=ds[block])

        in_blocks(work, x.size)
        return y, derivative

    def gradient(self, dout: Array, kept: Array) -> Array:
        return np.multiply(dout, kept, out=empty_like(dout))


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
        s = 1 - g
        s *= g
        return s


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
            g = erf(x * math.sqrt(0.5))
        else:
            z = np.clip(x, -10, 10)  # tanh u is +-1 long before, and no cube can overflow
            g = z * z
            g *= math.sqrt(2 / math.pi) * 0.044715
            g += math.sqrt(2 / math.pi)
            g *= z
            np.tanh(g, out=g)
        g *= 0.5
        g += 0.5
        return g

    def slope(self, x: Array, g: Array) -> Array:
        if self.approximate == "none":
            with np.errstate(over="ignore"):  # of the square; the exponential is 0 long before
                p = x * x
            p *= -0.5
            np.exp(p, out=p)
            p *= math.sqrt(0.5 / math.pi)
            return p
        p = np.clip(x, -10, 10)
        p *= p
        p *= 3 * 0.044715 * math.sqrt(2 / math.pi)
        p += math.sqrt(2 / math.pi)
        p *= 1 - g
        p *= g
        p *= 2  # (1 - tanh^2) / 2 = 2 g (1 - g)
        return p


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
