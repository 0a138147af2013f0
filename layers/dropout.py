"""Layers that drop units at random while training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Array, Layer, within


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
        # drawn in the order of the axes whatever the memory order, so that a seed means one mask
        mask = self.rng.random(x.shape, np.float32) >= self.p if self.training else None
        y = self._apply(mask, x)
        self.save(mask, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (mask,) = self.saved()
        return self._apply(mask, dout)

    def _apply(self, mask: Array | None, x: Array) -> Array:
        if mask is None:
            return x
        y = np.empty_like(x)  # in x's memory order, which the mask need not share
        np.multiply(x, mask, out=y)
        y *= x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        return y
