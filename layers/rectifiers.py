"""Activations made of straight pieces: their derivative is one number on each piece.

At a corner, where no derivative exists, torch's choice is taken: that of the flat or of the negative side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.activations import Elementwise
from backhand.layers.arguments import number, refuse, whole, within
from backhand.layers.base import Layer
from backhand.layers.blocks import blockwise, zeros_beside
from backhand.layers.broadcasting import along
from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array, Parameter, float_dtype


class ReLU(Elementwise):
    """Keep what is positive.

        y = max(x, 0)        dx = dout where x > 0, else 0

    x, y : any shape
    inplace : torch's argument; an input is never written to here, so it changes nothing

    The Jacobian is a diagonal of ones and zeros. At x = 0, where no derivative exists, 0 is taken, as in torch.
    Nair & Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines"; torch.nn.ReLU
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def function(self, x: Array) -> Array:
        return blockwise(_positive_part, empty_like(x), x)

    def gradient(self, dout: Array, kept: Array) -> Array:
        return blockwise(_where_positive, empty_like(kept), dout, kept)


def _positive_part(y: Array, x: Array) -> None:
    np.maximum(x, zeros_beside(x), out=y)


def _where_positive(dx: Array, dout: Array, y: Array) -> None:
    mask = y <= 0  # y > 0 exactly where x > 0; a nan lets its dout through, as in torch
    np.multiply(dout, ~mask, out=dx)


# ---------------------------------------------------------------------- a slope on the negative side


def leaky(x: Array, slope: Any) -> Array:
    """x where it is positive, else slope * x."""
    zeros = zeros_beside(x)
    return np.maximum(x, zeros) + slope * np.minimum(x, zeros)  # one of the two is always 0


def leaky_gradient(dout: Array, positive: Array, slope: Any) -> Array:
    """dout where x was positive, else slope * dout."""
    return dout * positive + slope * (dout * ~positive)


class LeakyReLU(Elementwise):
    """ReLU that lets a little through on the negative side.

        y = x where x > 0, else a x        dx = dout * (1 where x > 0, else a),    a = negative_slope

    x, y : any shape
    inplace : torch's argument; changes nothing here
    Maas, Hannun & Ng 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models"
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope = negative_slope
        self.inplace = inplace

    def function(self, x: Array) -> Array:
        return blockwise(lambda y, x: np.copyto(y, leaky(x, self.negative_slope)), empty_like(x), x)

    def keep(self, x: Array, y: Array) -> Array:
        return x > 0  # with a negative slope of its own sign, y does not tell

    def gradient(self, dout: Array, kept: Array) -> Array:
        def piece(dx: Array, dout: Array, positive: Array) -> None:
            np.copyto(dx, leaky_gradient(dout, positive, self.negative_slope))

        return blockwise(piece, empty_like(kept, dout.dtype), dout, kept)


class PReLU(Layer):
    """LeakyReLU whose slope is learned, one for all channels or one for each.

        y = x where x > 0, else w x
        dx = dout * (1 where x > 0, else w)        dw = sum of dout * x over the places where x <= 0

    x, y : any shape, or (N, num_parameters, ...) when there is more than one parameter
    weight : (num_parameters,), all `init` at the start
    He et al. 2015, arXiv:1502.01852
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype: DTypeLike = np.float32) -> None:
        self.num_parameters = whole(self, "num_parameters", num_parameters)
        self.init = init
        self.weight = Parameter(np.full(num_parameters, init, float_dtype(dtype)))

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.weight.dtype)
        if self.num_parameters > 1 and (x.ndim < 2 or x.shape[1] != self.num_parameters):
            self.reject(f"x of shape (N, {self.num_parameters}, ...)", x.shape)
        y = np.asarray(leaky(x, self._slope(x)), x.dtype)
        self.save(x, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (x,) = self.saved()
        by_slope = dout * np.minimum(x, 0)
        one = self.num_parameters == 1
        self.weight.grad += by_slope.sum(axis=None if one else tuple(i for i in range(x.ndim) if i != 1))
        return np.asarray(leaky_gradient(dout, x > 0, self._slope(x)), dout.dtype)

    def _slope(self, x: Array) -> Array:
        """The weight, in the shape that lays it along the channels of x."""
        if self.num_parameters == 1:
            return self.weight.data.reshape((1,) * x.ndim)
        return along(self.weight.data, 1, x.ndim)


class RReLU(Layer):
    """LeakyReLU whose slope is drawn for every number while training, and the mean of the range in eval.

        y = x where x > 0, else a x        dx = dout * (1 where x > 0, else a)
        a ~ U(lower, upper) in training,  (lower + upper) / 2 in eval

    x, y : any shape
    inplace : torch's argument; changes nothing here
    rng : where the slopes come from, a Generator or a seed
    Xu et al. 2015, arXiv:1505.00853
    """

    def __init__(
        self,
        lower: float = 1 / 8,
        upper: float = 1 / 3,
        inplace: bool = False,
        *,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        most = float(np.finfo(np.float32).max)
        self.upper = within(self, "upper", upper, -most, most)
        self.lower = within(self, "lower", lower, -most, self.upper)
        self.inplace = inplace
        self.rng = np.random.default_rng(rng)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        slope: Any = (self.lower + self.upper) / 2
        if self.training:
            slope = self.rng.random(x.shape, np.float32).astype(x.dtype) * (self.upper - self.lower) + self.lower
            slope = np.asarray(slope, x.dtype)
        y = np.asarray(leaky(x, slope), x.dtype)
        self.save(x > 0, slope, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        positive, slope = self.saved()
        return np.asarray(leaky_gradient(dout, positive, slope), dout.dtype)


# ---------------------------------------------------------------------- flat outside of a range, or inside of it


class _Clipped(Elementwise):
    """The form of those with flat pieces: a mask says where dout passes; elsewhere the derivative is 0."""

    def passes(self, x: Array) -> Array:
        """True where the derivative is 1."""
        raise NotImplementedError

    def keep(self, x: Array, y: Array) -> Array:
        return blockwise(lambda mask, x: np.copyto(mask, self.passes(x)), empty_like(x, bool), x)

    def gradient(self, dout: Array, kept: Array) -> Array:
        return blockwise(
            lambda dx, dout, kept: np.multiply(dout, kept, out=dx), empty_like(kept, dout.dtype), dout, kept
        )


class Hardtanh(_Clipped):
    """Cut off below and above.

        y = min(max(x, min_val), max_val)        dx = dout where min_val < x < max_val, else 0

    x, y : any shape
    inplace : torch's argument; changes nothing here
    Collobert 2004, "Large Scale Machine Learning" (thesis)
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        self.min_val = number(self, "min_val", min_val)
        self.max_val = number(self, "max_val", max_val)
        self.inplace = inplace
        if not self.min_val < self.max_val:
            refuse(self, "min_val < max_val", (min_val, max_val))

    def function(self, x: Array) -> Array:
        return blockwise(lambda y, x: np.clip(x, self.min_val, self.max_val, out=y), empty_like(x), x)

    def passes(self, x: Array) -> Array:
        return ~((x <= self.min_val) | (x >= self.max_val))


class ReLU6(Hardtanh):
    """ReLU cut off at 6, so that few bits suffice for its output.

        y = min(max(x, 0), 6)        dx = dout where 0 < x < 6, else 0

    x, y : any shape
    inplace : torch's argument; changes nothing here
    Krizhevsky 2010, "Convolutional Deep Belief Networks on CIFAR-10"
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)


class Hardsigmoid(_Clipped):
    """A sigmoid of three straight lines.

        y = min(max(x + 3, 0), 6) / 6        dx = dout / 6 where -3 < x < 3, else 0

    x, y : any shape
    inplace : torch's argument; changes nothing here
    Howard et al. 2019, arXiv:1905.02244, section 5.2
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def function(self, x: Array) -> Array:
        return np.clip(x + 3, 0, 6) / 6

    def passes(self, x: Array) -> Array:
        return (x > -3) & (x < 3)

    def gradient(self, dout: Array, kept: Array) -> Array:
        dx = super().gradient(dout, kept)
        dx /= 6
        return dx


class Hardswish(Elementwise):
    """x times its Hardsigmoid: SiLU without an exponential.

        y = x min(max(x + 3, 0), 6) / 6
        dx = dout * (0 where x <= -3, x/3 + 1/2 where -3 < x < 3, else 1)

    x, y : any shape
    inplace : torch's argument; changes nothing here
    Howard et al. 2019, arXiv:1905.02244, section 5.2
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def function(self, x: Array) -> Array:
        return x * (np.clip(x + 3, 0, 6) / 6)

    def keep(self, x: Array, y: Array) -> Array:
        return x  # y takes the same value on both sides of its minimum

    def gradient(self, dout: Array, kept: Array) -> Array:
        above = ~(kept < 3)
        between = (kept > -3) & ~above
        slope = np.fmax(np.fmin(kept, 3), -3) / 3 + 0.5  # clipped, so that no inf meets a 0
        return dout * (slope * between + above)


class Threshold(_Clipped):
    """Replace what does not exceed a threshold.

        y = x where x > threshold, else value        dx = dout where x > threshold, else 0

    x, y : any shape
    inplace : torch's argument; changes nothing here
    torch.nn.Threshold
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        self.threshold = number(self, "threshold", threshold)
        self.value = number(self, "value", value)
        self.inplace = inplace

    def function(self, x: Array) -> Array:
        return np.where(self.passes(x), x, x.dtype.type(self.value))

    def passes(self, x: Array) -> Array:
        return ~(x <= self.threshold)


class _Shrink(_Clipped):
    """The form of the two shrinkages: what is within lambd of 0 becomes 0."""

    lambd: float

    def passes(self, x: Array) -> Array:
        return ~((x >= -self.lambd) & (x <= self.lambd))


class Hardshrink(_Shrink):
    """Set what is small to 0 and leave the rest.

        y = x where |x| > lambd, else 0        dx = dout where |x| > lambd, else 0

    x, y : any shape
    lambd : what counts as small; a negative one leaves everything
    Donoho & Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage" (hard thresholding)
    """

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = number(self, "lambd", lambd)

    def function(self, x: Array) -> Array:
        return x * self.passes(x)


class Softshrink(_Shrink):
    """Move everything towards 0 by lambd, and what would cross 0 to 0.

        y = x - lambd where x > lambd,  x + lambd where x < -lambd,  else 0
        dx = dout where |x| > lambd, else 0

    x, y : any shape
    lambd : 0 or more
    Donoho & Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage" (soft thresholding); it is the proximal
    operator of lambd |x|
    """

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = within(self, "lambd", lambd, 0, float(np.finfo(np.float64).max))

    def function(self, x: Array) -> Array:
        return x - np.clip(x, -self.lambd, self.lambd)
