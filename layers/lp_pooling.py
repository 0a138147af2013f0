"""Power-average pooling: between the mean (p = 1) and the maximum (p = inf) of every window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import number, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.layers.pooling import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    IntOrTuple,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from backhand.layers.windows import each


class _LPPoolNd(Layer):
    """The p-norm of every window, as three steps whose derivatives follow one another.

        m[o] = mean over k of x[o s + k]^p        y = (K m)^(1/p)
        dm = dout K / p (K m)^(1/p - 1)           dx[o s + k] += dm[o] / n[o] * p x[o s + k]^(p - 1)

    K numbers are in a window, n of them inside x (fewer than K only with ceil_mode). The middle step is the average
    pooling of that name, and for p = inf all of it is the max-pooling of |x|.
    """

    axes: int
    pools: tuple[Any, Any]  # the average and the largest, for as many axes

    def __init__(
        self,
        norm_type: float,
        kernel_size: IntOrTuple,
        stride: IntOrTuple | None = None,
        ceil_mode: bool = False,
    ) -> None:
        self.norm_type = number(self, "norm_type", norm_type, but=0)
        whole_tuple(self, "kernel_size", kernel_size, self.axes)
        self.kernel_size, self.stride, self.ceil_mode = kernel_size, stride, ceil_mode
        average, largest = self.pools
        pool = largest if np.isinf(self.norm_type) else average
        self.pool = pool(kernel_size, stride, ceil_mode=ceil_mode)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        p = self.norm_type
        if np.isinf(p):
            sign = np.copysign(1, p).astype(x.dtype)  # the largest of -|x| for the smallest of |x|
            y = sign * self.pool(sign * abs(x))
            self.save(x, None, out=y)
            return y
        # a power of a negative number, or of 0, may be no number or infinite: then so is y, without a warning
        with np.errstate(all="ignore"):
            sums = self.pool(x**p) * int(np.prod(each(self.kernel_size, self.axes)))
            y = sums ** (1 / p)
        self.save(x, sums, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        x, sums = self.saved()
        p = self.norm_type
        if np.isinf(p):
            return self.pool.backward(dout) * np.nan_to_num(np.sign(x))  # nan passes nothing on, as in torch
        with np.errstate(all="ignore"):
            dmean = dout * (int(np.prod(each(self.kernel_size, self.axes))) / p) * sums ** (1 / p - 1)
            dmean[sums == 0] = 0  # where no derivative exists, 0 is taken, as in torch
            return self.pool.backward(dmean) * p * x ** (p - 1)


class LPPool1d(_LPPoolNd):
    """The p-norm of every window: power-average pooling of sequences.

        y[o] = (sum over k of x[o stride + k]^p)^(1/p)
        dx[o stride + k] += dout[o] (x[o stride + k] / y[o])^(p - 1)        (0 where y is 0)

    x : (N, C, L) or (C, L)      y : (N, C, L_out), or without N
    norm_type : p. 1 is the sum, inf the largest |x|, -inf the smallest. The power is that of x, not of |x|:
        a sum of odd powers may be negative, and its root then is nan, as in torch
    stride : by default kernel_size, so that windows stand side by side
    ceil_mode : let the last window hang over the end; its sum is scaled up to a whole window
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool1d.html
    """

    axes = 1
    pools = AvgPool1d, MaxPool1d


class LPPool2d(_LPPoolNd):
    """The p-norm of every window: power-average pooling of images.

        y[o] = (sum over k of x[o stride + k]^p)^(1/p)
        dx[o stride + k] += dout[o] (x[o stride + k] / y[o])^(p - 1)        (0 where y is 0)

    x : (N, C, H, W) or (C, H, W)      y : (N, C, H_out, W_out), or without N
    all arguments as in `LPPool1d`, one number or one for each axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool2d.html
    """

    axes = 2
    pools = AvgPool2d, MaxPool2d


class LPPool3d(_LPPoolNd):
    """The p-norm of every window: power-average pooling of volumes.

        y[o] = (sum over k of x[o stride + k]^p)^(1/p)
        dx[o stride + k] += dout[o] (x[o stride + k] / y[o])^(p - 1)        (0 where y is 0)

    x : (N, C, D, H, W) or (C, D, H, W)      y : (N, C, D_out, H_out, W_out), or without N
    all arguments as in `LPPool1d`, one number or one for each axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool3d.html
    """

    axes = 3
    pools = AvgPool3d, MaxPool3d
