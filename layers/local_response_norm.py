"""Local response normalization: every number divided by the activity of its neighbour channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import number, whole
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.layers.windows import Windows


class LocalResponseNorm(Layer):
    """Divide by a power of the sum of squares over neighbour channels.

        y_c = x_c S_c^-beta,    S_c = k + alpha/size * sum of x_j^2 over the window of c
        dx_j = dout_j S_j^-beta - 2 alpha/size beta x_j * sum of q_c over every c whose window holds j,
        q_c = dout_c x_c S_c^(-beta-1)

    x, y : (N, C, ...), at least three axes
    size : how many channels a window has, c - size//2 to c + (size-1)//2; missing ones count as 0

    The c whose windows hold j run from j - (size-1)//2 to j + size//2: the mirrored window, which for an even size is
    another one. Here alpha is divided by size, as in torch and Caffe; the paper's alpha is not, so its layer with
    alpha=1e-4, n=5 is LocalResponseNorm(5, alpha=5e-4, k=2).
    Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size = whole(self, "size", size)
        self.alpha = number(self, "alpha", alpha)
        self.beta = number(self, "beta", beta)
        self.k = number(self, "k", k)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        if x.ndim < 3:
            self.reject("x of shape (N, C, ...) with at least three axes", x.shape)
        with np.errstate(all="ignore"):  # where k = 0, S may be 0; and it may overflow: then y is 0, as in torch
            y = x / self._activity(x) ** self.beta
        self.save(x, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (x,) = self.saved()
        with np.errstate(all="ignore"):
            s = self._activity(x)
            direct = dout / s**self.beta
            mirrored = self._window_sums(direct * x / s, mirrored=True)
            return direct - (2 * self.alpha / self.size * self.beta) * x * mirrored

    def _activity(self, x: Array) -> Array:
        """S: k + alpha/size times the sum of squares over the window."""
        return self.alpha / self.size * self._window_sums(x * x) + self.k

    def _window_sums(self, a: Array, mirrored: bool = False) -> Array:
        """The sum over the window of each channel; mirrored, its adjoint, over all windows that hold the channel."""
        sums = np.zeros_like(a)
        to_last, of_last = np.moveaxis(sums, 1, -1), np.moveaxis(a, 1, -1)
        channels = (a.shape[1],)
        for to, at in Windows((self.size,), (1,), (1,)).meetings(channels, channels, (self.size // 2,)):
            if mirrored:
                to, at = at, to
            to_last[to] += of_last[at]
        return sums
