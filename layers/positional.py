"""Where in the sequence: attention sees a set, and position encodings make it a sequence.

Both here turn position t into angles t * w_i, with wavelengths that grow geometrically from 2 pi to 2 pi * base. One
adds the sine and cosine of the angles to each vector; the other rotates each vector by them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import positive, refuse, whole
from backhand.layers.base import Layer
from backhand.layers.parameter import Array


class _Positions(Layer):
    """What both share: the checks, and the sines and cosines of the angles."""

    def __init__(self, embed_dim: int, base: float = 10000.0, axis: int = -2) -> None:
        self.embed_dim = whole(self, "embed_dim", embed_dim)
        self.base = positive(self, "base", base)
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == -1:
            refuse(self, "axis to be one before the last", axis)
        self.axis = axis

    def checked(self, x: ArrayLike, start: int) -> Array:
        """x as a float array, or the error that says why its shape does not fit."""
        x = self.input(x)
        whole(self, "start", start, 0)
        if x.ndim < 2 or x.shape[-1] != self.embed_dim or not -x.ndim <= self.axis < x.ndim - 1:
            self.reject(f"x of shape (..., {self.embed_dim}) with the positions on axis {self.axis}", x.shape)
        return x

    def waves(self, x: Array, start: int) -> tuple[Array, Array]:
        """sin and cos of t * base^(-2i / embed_dim), shaped so that t is on x's axis of positions and i on the last."""
        axis = self.axis % x.ndim
        t = np.arange(start, start + x.shape[axis], dtype=np.float64)
        i = np.arange((self.embed_dim + 1) // 2)
        angles = t[:, None] * self.base ** (-2 * i / self.embed_dim)
        shape = (len(t), *(1,) * (x.ndim - axis - 2), len(i))
        return np.sin(angles).astype(x.dtype).reshape(shape), np.cos(angles).astype(x.dtype).reshape(shape)


class SinusoidalPositionalEncoding(_Positions):
    """Add to each vector the sines and cosines of its position.

        y_t = x_t + p_t,    p_t[2i] = sin(t w_i),    p_t[2i + 1] = cos(t w_i),    w_i = base^(-2i / embed_dim)
        dx = dout

    x, y : (..., T, embed_dim), or with T on another axis than -2
    axis : where the positions are; 0 for (T, N, embed_dim)
    start : the position of the first vector; given to forward, as forward(x, start=5)

    p_{t + k} is a rotation of p_t that depends on k alone, so "k places back" is one linear map wherever one is.
    Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5
    """

    def forward(self, x: ArrayLike, start: int = 0) -> Array:
        x = self.checked(x, start)
        sin, cos = self.waves(x, start)
        y = x.copy()
        y[..., 0::2] += sin
        y[..., 1::2] += cos[..., : self.embed_dim // 2]
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dx: Array = self.upstream(dout)
        self.saved()
        return dx


class RotaryPositionalEncoding(_Positions):
    """Rotate each pair of numbers of a vector by an angle that grows with its position.

        y_t = R_t x_t:    (a, b) -> (a cos - b sin, a sin + b cos) of the angle t w_i,    w_i = base^(-2i / embed_dim)
        dx_t = R_t^T dout_t,    the rotation by the opposite angle

    x, y : (..., T, embed_dim), or with T on another axis than -2; embed_dim even: the size of one head
    interleaved : pair i is the numbers 2i and 2i + 1 (as in the paper); False: i and i + embed_dim/2
    axis : where the positions are; 1 for (N, T, heads, embed_dim)
    start : the position of the first vector; given to forward, as forward(x, start=5)

    For queries and keys, not for values: (R_t q) . (R_s k) = q . R_{s-t} k, so a score knows how far apart its two
    places are and nothing else. Su et al. 2021, arXiv:2104.09864, eq. 34
    """

    def __init__(self, embed_dim: int, base: float = 10000.0, interleaved: bool = True, axis: int = -2) -> None:
        super().__init__(embed_dim, base, axis)
        if self.embed_dim % 2:
            refuse(self, "embed_dim to be even", embed_dim)
        self.interleaved = interleaved

    def forward(self, x: ArrayLike, start: int = 0) -> Array:
        x = self.checked(x, start)
        sin, cos = self.waves(x, start)
        y = self._rotate(x, sin, cos)
        self.save(sin, cos, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        sin, cos = self.saved()
        return self._rotate(dout, -sin, cos)

    def _rotate(self, x: Array, sin: Array, cos: Array) -> Array:
        half = self.embed_dim // 2
        first, second = (slice(0, None, 2), slice(1, None, 2)) if self.interleaved else (slice(half), slice(half, None))
        a, b = x[..., first], x[..., second]
        y = np.empty_like(x)
        y[..., first] = a * cos - b * sin
        y[..., second] = a * sin + b * cos
        return y
