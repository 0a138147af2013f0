"""Losses between two arrays of numbers of the same shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Array
from backhand.losses.base import Loss


class MSELoss(Loss):
    """The squared difference.

        l = (x - target)^2        dx = dl * 2 (x - target)

    x, target : one shape, any
    """

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, target = self.pair(x, target)
        difference = x - target
        losses = difference * difference
        self.save(difference, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        (difference,) = self.saved()
        return 2 * dl * difference


class L1Loss(Loss):
    """The absolute difference.

        l = |x - target|        dx = dl * sign(x - target)

    x, target : one shape, any; where they are equal the gradient is 0
    """

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, target = self.pair(x, target)
        difference = x - target
        losses = np.abs(difference)
        self.save(np.sign(difference), out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        (sign,) = self.saved()
        return dl * sign
