"""Layers that drop units at random while training: single numbers or whole channels, to 0 or to SELU's floor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.activations import SELU_ALPHA, SELU_SCALE
from backhand.layers.arguments import within
from backhand.layers.base import Layer
from backhand.layers.parameter import Array


class Dropout(Layer):
    """Set every number to 0 with probability p while training, and scale the rest up; do nothing in eval.

        y = x * mask / (1 - p)        dx = dout * mask / (1 - p)

    x, y : any shape      mask : True with probability 1 - p, drawn anew in every forward
    p : the chance to be dropped; 1 drops everything
    inplace : torch's argument; an input is never written to here, so it changes nothing
    rng : where the masks come from, a Generator or a seed

    The scale keeps the mean of y that of x, so that eval needs no scale at all.
    Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting"
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: np.random.Generator | int | None = None) -> None:
        self.p = within(self, "p", p, 0, 1)
        self.inplace = inplace
        self.rng = np.random.default_rng(rng)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        self.check(x)
        y, mask = x, None
        if self.training and self.p:  # with p = 0 there is nothing to draw
            # drawn in the order of the axes whatever the memory order, so that a seed means one mask
            mask = self.rng.random(self.mask_shape(x), np.float32) >= self.p
            y = self.shift(self._scaled(x, mask), mask)
        self.save(mask, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (mask,) = self.saved()
        return dout if mask is None else self._scaled(dout, mask)

    def _scaled(self, x: Array, mask: Array) -> Array:
        y = np.empty_like(x)  # in x's memory order, which the mask need not share
        np.multiply(x, mask, out=y)
        y *= x.dtype.type(self.scale())
        return y

    def check(self, x: Array) -> None:
        """Reject a shape that has no units to drop."""

    def mask_shape(self, x: Array) -> tuple[int, ...]:
        """The shape of the mask, which is broadcast to that of x."""
        return x.shape

    def scale(self) -> float:
        """What the numbers that stay are multiplied by."""
        return 1 / (1 - self.p) if self.p < 1 else 0

    def shift(self, y: Array, mask: Array) -> Array:
        """What is added to the scaled numbers: here nothing."""
        return y


# ---------------------------------------------------------------------- whole channels


class _Channels(Dropout):
    """Dropout that drops all numbers of a channel together: one number of the mask for each."""

    def check(self, x: Array) -> None:
        if self.training and x.ndim < 2 and 0 < self.p < 1:
            self.reject("x of shape (N, C, ...)", x.shape, "put a Dropout() here to drop single numbers")

    def mask_shape(self, x: Array) -> tuple[int, ...]:
        return (*x.shape[:2], *(1,) * (x.ndim - 2))


class Dropout1d(_Channels):
    """Dropout of whole channels of a sequence: y[n, c] is 0 everywhere, or x[n, c] scaled up.

        y = x * mask / (1 - p)        dx = dout * mask / (1 - p)

    x, y : (N, C, L) or (C, L)      mask : (N, C, 1) or (C, 1)
    p, inplace, rng : as in Dropout

    Neighbours in a feature map are much alike, so a single dropped number could be read off from those beside it.
    Tompson et al. 2014, arXiv:1411.4280
    """

    def check(self, x: Array) -> None:
        if x.ndim not in (2, 3):
            self.reject("x of shape (N, C, L) or (C, L)", x.shape)

    def mask_shape(self, x: Array) -> tuple[int, ...]:
        return (*x.shape[:-1], 1)


class Dropout2d(_Channels):
    """Dropout of whole channels of an image: y[n, c] is 0 everywhere, or x[n, c] scaled up.

        y = x * mask / (1 - p)        dx = dout * mask / (1 - p)

    x, y : (N, C, H, W)      mask : (N, C, 1, 1)
    p, inplace, rng : as in Dropout

    Three axes are taken as (N, C, L) and not as an image without a batch, as in torch: the first two axes are
    those of the mask for any number of axes.
    Tompson et al. 2014, arXiv:1411.4280
    """


class Dropout3d(_Channels):
    """Dropout of whole channels of a volume: y[n, c] is 0 everywhere, or x[n, c] scaled up.

        y = x * mask / (1 - p)        dx = dout * mask / (1 - p)

    x, y : (N, C, D, H, W) or (C, D, H, W)      mask : (N, C, 1, 1, 1) or (C, 1, 1, 1)
    p, inplace, rng : as in Dropout

    Any other number of axes than five counts as one sample, whose first axis is the channels, as in torch.
    Tompson et al. 2014, arXiv:1411.4280
    """

    def check(self, x: Array) -> None:
        if self.training and x.ndim < 1 and 0 < self.p < 1:
            self.reject("x of shape (N, C, D, H, W) or (C, D, H, W)", x.shape)

    def mask_shape(self, x: Array) -> tuple[int, ...]:
        return super().mask_shape(x) if x.ndim == 5 else (*x.shape[:1], *(1,) * (x.ndim - 1))


# ---------------------------------------------------------------------- for networks of SELUs


class AlphaDropout(Dropout):
    """Dropout for SELU networks: what is dropped goes to SELU's floor, and mean 0 and variance 1 stay.

        y = a (x * mask - f (1 - mask)) + a f p        dx = dout * a * mask
        f = 1.7580993408473766, what SELU saturates at        a = 1 / sqrt((1 - p) (1 + p f^2))

    x, y : any shape      mask : True with probability 1 - p, drawn anew in every forward
    p, inplace, rng : as in Dropout; p = 1 gives zeros

    With x of mean 0 and variance 1, the mean of what is in the brackets is -f p and its variance is 1/a^2.
    Klambauer et al. 2017, arXiv:1706.02515, section 3
    """

    floor = SELU_SCALE * SELU_ALPHA

    def scale(self) -> float:
        return float(1 / np.sqrt((1 - self.p) * (1 + self.p * self.floor**2))) if self.p < 1 else 0

    def shift(self, y: Array, mask: Array) -> Array:
        step = self.scale() * self.floor
        y += mask * y.dtype.type(step)  # a f p where x stays, a f (p - 1) where it is dropped
        y -= y.dtype.type(step * (1 - self.p))
        return y


class FeatureAlphaDropout(_Channels, AlphaDropout):
    """AlphaDropout of whole channels.

        y = a (x * mask - f (1 - mask)) + a f p        dx = dout * a * mask

    x, y : (N, C, ...)      mask : (N, C, 1, ...)      a, f : as in AlphaDropout
    p, inplace, rng : as in Dropout; p = 1 gives zeros
    Klambauer et al. 2017, arXiv:1706.02515, section 3
    """
