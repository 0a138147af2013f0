"""Normalization: centre and scale a group of numbers, then let the network choose a new scale and shift.

All of these layers are one function over different groups of axes,

    xhat = (x - mean) * rstd,    rstd = 1 / sqrt(var + eps),    mean and var over the n numbers of a group

and so they have one backward. x_i reaches the loss along three ways: by xhat_i itself, by the mean that is taken
off every xhat_j, and by the variance that scales every xhat_j. With d = dxhat,

    directly            d_i * rstd
    by the mean         dmean/dx_i = 1/n, and each xhat_j moves by -rstd:
                        -rstd * mean(d)
    by the variance     dvar/dx_i = 2 (x_i - mean) / n, and drstd/dvar = -rstd^3 / 2, and each xhat_j moves by
                        (x_j - mean) drstd:   -rstd^3 (x_i - mean) * mean(d * (x - mean)) = -rstd xhat_i mean(d xhat)

(the variance's own way through the mean vanishes: the x_j - mean of a group add up to 0). The sum of the three is

    dx = rstd * (d - mean(d) - xhat * mean(d * xhat))

that is, d without its part along (1, ..., 1) and without its part along xhat, scaled: adding to all of x or
multiplying all of x does not change xhat, so no gradient may point that way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.base import Array, Layer, Parameter, whole, within

Axes = tuple[int, ...]


class _BatchNorm(Layer):
    """What the three BatchNorms share: everything but the number of axes."""

    buffer_names = ("running_mean", "running_var", "num_batches_tracked")
    shapes: dict[int, str] = {}  # the inputs that it takes: how many axes, and how an error names them

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_features = whole(self, "num_features", num_features)
        self.eps = within(self, "eps", eps, 0, np.inf)
        if self.eps == 0:
            raise ValueError(f"{type(self).__name__}: expected eps > 0, got {eps!r}")
        self.momentum = None if momentum is None else within(self, "momentum", momentum, 0, 1)
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine and bias else None
        # Any: without running statistics the three are None
        self.running_mean: Any = np.zeros(num_features, dtype) if track_running_stats else None
        self.running_var: Any = np.ones(num_features, dtype) if track_running_stats else None
        self.num_batches_tracked: Any = np.array(0, np.int64) if track_running_stats else None

    def forward(self, x: ArrayLike) -> Array:
        x = self._checked(x)
        axes = (0, *range(2, x.ndim))
        of_batch = self._uses_batch()
        if of_batch:
            mean, centred, var = centre(x, axes)
            if self.track_running_stats and self.running_mean is not None:
                self._track(mean, var, x.size // self.num_features)
        else:
            # a copy: the mean is kept for backward, and the next training forward moves the buffer
            mean, var = per_channel(self.running_mean.copy(), x), per_channel(self.running_var, x)
            centred = x - mean
        rstd = 1 / np.sqrt(var + self.eps)
        y = centred
        y *= rstd if self.weight is None else rstd * per_channel(self.weight.data, x)
        if self.bias is not None:
            y += per_channel(self.bias.data, x)
        self.save(x, mean, rstd, of_batch, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        x, mean, rstd, of_batch = self.saved()
        axes = (0, *range(2, x.ndim))
        xhat = standardize(x, mean, rstd)
        if self.weight is not None:
            self.weight.grad += total(axes, dout, xhat).reshape(-1)
        if self.bias is not None:
            self.bias.grad += total(axes, dout).reshape(-1)
        # dxhat = dout * weight, and the weight is one number for each channel: it joins rstd
        scale = rstd if self.weight is None else rstd * per_channel(self.weight.data, x)
        # running statistics are constants: then x reaches y directly and in no other way
        return standardize_backward(dout, xhat, scale, axes) if of_batch else dout * scale

    def _uses_batch(self) -> bool:
        """Whether the statistics are the batch's own: in training, and wherever there are no others."""
        return self.training or self.running_mean is None

    def _track(self, mean: Array, var: Array, n: int) -> None:
        """Move the running statistics towards those of this batch, in place."""
        self.num_batches_tracked += 1
        new = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, of_batch in ((self.running_mean, mean), (self.running_var, var * (n / (n - 1)))):
            running *= 1 - new
            running += new * of_batch.reshape(-1)

    def _checked(self, x: ArrayLike) -> Array:
        """x as an array of the layer's dtype, or the error that says why it cannot be normalised."""
        state = self.running_mean if self.weight is None else self.weight
        x = self.input(x, None if state is None else state.dtype)
        if x.ndim not in self.shapes or x.shape[1] != self.num_features:
            wanted = " or ".join(text.format(self.num_features) for text in self.shapes.values())
            self.reject(f"x of shape {wanted}", x.shape)
        if self._uses_batch() and x.size == self.num_features:
            hint = "eval() uses the running statistics" if self.running_mean is not None else ""
            self.reject("more than one value for each channel to take the statistics of", x.shape, hint)
        return x


class BatchNorm1d(_BatchNorm):
    """Normalise each channel over the batch and the length, then scale and shift it.

        y = weight * xhat + bias,    xhat = (x - mean) / sqrt(var + eps)
        dx = weight * rstd * (dout - mean(dout) - xhat * mean(dout * xhat))        (in eval: weight * rstd * dout)
        dweight = sum of dout * xhat,        dbias = sum of dout,        over all but the channel axis

    x, y : (N, C) or (N, C, L)      weight, bias : (C,), from 1 and 0      (the derivation: the head of this file)
    momentum : the weight of the newest batch in running_mean and running_var; None averages over all batches
    track_running_stats : False keeps no running statistics, and then the batch's own serve in eval too

    In training mean and var (divided by n) are those of the batch, and the running statistics move (running_var
    by the unbiased variance, divided by n - 1); eval uses those.
    Ioffe & Szegedy 2015, arXiv:1502.03167
    """

    shapes = {2: "(N, {})", 3: "(N, {}, L)"}


class BatchNorm2d(_BatchNorm):
    """Normalise each channel over the batch and the picture: BatchNorm1d with two axes after the channels.

        y = weight * (x - mean) / sqrt(var + eps) + bias

    x, y : (N, C, H, W)      weight, bias, and the buffers running_mean, running_var : (C,)
    Ioffe & Szegedy 2015, arXiv:1502.03167
    """

    shapes = {4: "(N, {}, H, W)"}


class BatchNorm3d(_BatchNorm):
    """Normalise each channel over the batch and the volume: BatchNorm1d with three axes after the channels.

        y = weight * (x - mean) / sqrt(var + eps) + bias

    x, y : (N, C, D, H, W)      weight, bias, and the buffers running_mean, running_var : (C,)
    Ioffe & Szegedy 2015, arXiv:1502.03167
    """

    shapes = {5: "(N, {}, D, H, W)"}


class LayerNorm(Layer):
    """Normalise each sample over its last axes, then scale and shift it entry by entry.

        y = weight * xhat + bias,    xhat = (x - mean) / sqrt(var + eps)
        dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)),    dxhat = dout * weight
        dweight = sum of dout * xhat,        dbias = sum of dout,        over the leading axes

    x, y : (..., *normalized_shape)      weight, bias : normalized_shape, from 1 and 0
    normalized_shape : an int stands for the last axis alone

    The same in training and eval: no sample sees another one. (The derivation: the head of this file.)
    Ba, Kiros & Hinton 2016, arXiv:1607.06450
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        sizes = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        if not sizes:
            raise ValueError(f"{type(self).__name__}: expected normalized_shape with at least one axis, got ()")
        self.normalized_shape = tuple(whole(self, "normalized_shape", size) for size in sizes)
        self.eps = within(self, "eps", eps, 0, np.inf)
        self.elementwise_affine = elementwise_affine
        self.weight = Parameter(np.ones(self.normalized_shape, dtype)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape, dtype)) if elementwise_affine and bias else None

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, None if self.weight is None else self.weight.dtype)
        first = x.ndim - len(self.normalized_shape)
        if first < 0 or x.shape[first:] != self.normalized_shape:
            self.reject(f"x of shape (..., {', '.join(map(str, self.normalized_shape))})", x.shape)
        axes = tuple(range(first, x.ndim))
        mean, y, var = centre(x, axes)
        rstd = 1 / np.sqrt(var + self.eps)
        y *= rstd
        if self.weight is not None:
            y *= self.weight.data
        if self.bias is not None:
            y += self.bias.data
        self.save(x, mean, rstd, axes, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        x, mean, rstd, axes = self.saved()
        samples = tuple(range(axes[0]))
        xhat = standardize(x, mean, rstd)
        dxhat = dout
        if self.weight is not None:
            self.weight.grad += total(samples, dout, xhat).reshape(self.normalized_shape)
            dxhat = dout * self.weight.data
        if self.bias is not None:
            self.bias.grad += total(samples, dout).reshape(self.normalized_shape)
        return standardize_backward(dxhat, xhat, rstd, axes)


# ---------------------------------------------------------------------- what all normalizations share


def centre(x: Array, axes: Axes) -> tuple[Array, Array, Array]:
    """The mean over `axes`, x - mean (a new array, in the memory order of x), and the variance (divided by n)."""
    mean = average(axes, x)
    centred = x - mean
    return mean, centred, average(axes, centred, centred)


def standardize(x: Array, mean: Array | float, rstd: Array) -> Array:
    """Xhat = (x - mean) * rstd, a new array: backward computes it again, so that only x has to be kept."""
    xhat = x - mean
    xhat *= rstd
    return xhat


def standardize_backward(dxhat: Array, xhat: Array, rstd: Array, axes: Axes, centred: bool = True) -> Array:
    """The dx of xhat = (x - mean) * rstd, where mean and rstd are taken from x over `axes`.

        dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))

    centred : False where no mean is taken off (xhat = x / sqrt(mean(x^2) + eps)): then the middle term is missing
    The memory of xhat becomes that of dx: xhat is used up.
    """
    dx = xhat
    dx *= -average(axes, dxhat, xhat)
    dx += dxhat
    if centred:
        dx -= average(axes, dxhat)
    dx *= rstd
    return dx


def total(axes: Axes, *factors: Array) -> Array:
    """The sum over `axes` of the product of the factors, without forming it; the axes stay, with length 1."""
    shape = factors[0].shape
    labels = list(range(len(shape)))
    # sample by sample first, then over the samples: short sums keep float32 sharp
    first = [axis for axis in labels if axis == 0 or axis not in axes]
    operands = [part for factor in factors for part in (factor, labels)]
    sums: Array = np.einsum(*operands, first)
    if 0 in axes:
        sums = sums.sum(axis=0)
    return sums.reshape([1 if axis in axes else n for axis, n in enumerate(shape)])


def average(axes: Axes, *factors: Array) -> Array:
    """The mean over `axes` of the product of the factors, without forming it; the axes stay, with length 1."""
    sums = total(axes, *factors)
    sums /= factors[0].size // sums.size
    return sums


def per_channel(values: Array, x: Array) -> Array:
    """One value for each channel, as a view that broadcasts against x of shape (N, C, ...)."""
    return values.reshape(1, -1, *(1,) * (x.ndim - 2))
