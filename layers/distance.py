"""Layers that compare two inputs vector by vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import number
from backhand.layers.broadcasting import unbroadcast
from backhand.layers.gates import Gate
from backhand.layers.parameter import Array


class _Pairwise(Gate):
    """What the two share: both inputs are broadcast to one shape and dtype, and their gradients summed back."""

    def pair(self, x1: ArrayLike, x2: ArrayLike) -> tuple[Array, Array, list[tuple[Any, Any]]]:
        """Both inputs in their common shape (at least one axis) and dtype, and the shape and dtype that each had."""
        arrays = self.arrays((x1, x2))
        a, b = np.broadcast_arrays(*(np.atleast_1d(x) for x in arrays))
        dtype = np.result_type(a, b)
        return a.astype(dtype, copy=False), b.astype(dtype, copy=False), [(x.shape, x.dtype) for x in arrays]

    def unpair(self, gradients: tuple[Array, Array], were: list[tuple[Any, Any]]) -> tuple[Array, ...]:
        """The gradients in the shapes and dtypes of the inputs."""
        pairs = zip(gradients, were, strict=True)
        return tuple(unbroadcast(dx, shape).astype(dtype, copy=False) for dx, (shape, dtype) in pairs)


class CosineSimilarity(_Pairwise):
    """The cosine of the angle between two vectors.

        y = u . v,        u = x1 / n1,  v = x2 / n2,        ni = max(|xi|, eps)
        dx1 = dout / n1 * (v - y x1 / |x1|)        dx2 = dout / n2 * (u - y x2 / |x2|)

    x1, x2 : any shapes that broadcast      y : their common shape without axis `dim`
    dim : the axis along which the vectors lie, in the common shape
    eps : the least norm that is divided by

    Only what is orthogonal to x1 turns it, so dx1 is v with its part along x1 taken off. Where a norm is below
    eps, torch keeps this formula although the clipped norm is constant there, and so do we; x / |x| is 0 at 0.
    torch.nn.CosineSimilarity
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim = dim
        self.eps = number(self, "eps", eps)

    def forward(self, x1: ArrayLike, x2: ArrayLike) -> Array:
        a, b, were = self.pair(x1, x2)
        if not -a.ndim <= self.dim < a.ndim:
            self.reject(f"inputs with an axis {self.dim}", f"the common shape {a.shape}")
        norms = tuple(np.sqrt(np.square(x).sum(self.dim, keepdims=True)) for x in (a, b))
        y = np.asarray((self._unit(a, norms[0]) * self._unit(b, norms[1])).sum(self.dim))
        self.save(a, b, norms, y, were, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, ...]:
        dout = self.upstream(dout)
        a, b, (a_norm, b_norm), y, were = self.saved()
        dout, y = np.expand_dims(dout, self.dim), np.expand_dims(y, self.dim)
        da = dout / np.maximum(a_norm, self.eps) * (self._unit(b, b_norm) - y * _direction(a, a_norm))
        db = dout / np.maximum(b_norm, self.eps) * (self._unit(a, a_norm) - y * _direction(b, b_norm))
        return self.unpair((da, db), were)

    def _unit(self, x: Array, norm: Array) -> Array:
        return x / np.maximum(norm, self.eps)


def _direction(x: Array, norm: Array) -> Array:
    """x / |x|, and 0 at 0."""
    return x / np.where(norm == 0, x.dtype.type(1), norm)


class PairwiseDistance(_Pairwise):
    """The p-norm of the difference of two vectors.

        y = (sum_i |d_i|^p)^(1/p),        d = x1 - x2 + eps
        dx1_i = dout * sign(d_i) (|d_i| / y)^(p-1)        dx2 = -dx1

    x1, x2 : any shapes that broadcast, the vectors along the last axis
    y : their common shape without its last axis, or with a 1 in its place when `keepdim`
    p : 2 by default; inf is the largest |d_i| and -inf the smallest (several that are equal share the gradient);
        0 is the number of d_i that are not 0, and has the gradient 0
    eps : what keeps d off 0, where the norm has a corner

    The gradient of a norm is bounded: for p = 2 it is the unit vector d / y. Where d_i is 0, 0 is taken.
    torch.nn.PairwiseDistance
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.p = number(self, "p", p)
        self.eps = number(self, "eps", eps)
        self.keepdim = keepdim

    def forward(self, x1: ArrayLike, x2: ArrayLike) -> Array:
        a, b, were = self.pair(x1, x2)
        d = a - b + self.eps
        norm = p_norm(d, self.p)
        scalar = all(shape == () for shape, _ in were)
        y = norm.reshape(()) if scalar else norm if self.keepdim else norm[..., 0]
        self.save(d, norm, were, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, ...]:
        dout = self.upstream(dout)
        d, norm, were = self.saved()
        dd = dout.reshape(norm.shape) * p_norm_slope(d, norm, self.p)
        return self.unpair((dd, -dd), were)


# ---------------------------------------------------------------------- the norm, for losses too


def p_norm(d: Array, p: float) -> Array:
    """(sum_i |d_i|^p)^(1/p) of the vectors along the last axis, which stays with length 1; for any p."""
    with np.errstate(divide="ignore"):  # a negative p and a d_i of 0: an inf in the sum, and so a norm of 0
        return np.asarray(np.linalg.norm(d, p, axis=-1, keepdims=True), d.dtype)


def p_norm_slope(d: Array, norm: Array, p: float) -> Array:
    """The derivative of `p_norm` by each d_i: sign(d_i) (|d_i| / norm)^(p-1), and 0 where d_i or the norm is 0."""
    if p == 0:  # how many are not 0: no slope
        return np.zeros_like(d)
    if np.isinf(p):  # those that are as large share it
        chosen = np.abs(d) == norm
        return np.sign(d) * chosen / np.maximum(chosen.sum(-1, keepdims=True), 1).astype(d.dtype)
    flat = (d == 0) | (norm == 0)
    ratio = np.where(flat, d.dtype.type(1), np.abs(d)) / np.where(norm == 0, d.dtype.type(1), norm)
    return np.sign(d) * ~flat * ratio ** (p - 1)
