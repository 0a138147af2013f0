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

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import number, refuse, whole
from backhand.layers.base import Layer
from backhand.layers.blocks import in_blocks, row_dots
from backhand.layers.broadcasting import along
from backhand.layers.memory import empty, empty_like, product
from backhand.layers.parameter import Array, Parameter, float_dtype

Axes = tuple[int, ...]

# Without an eps (or with one below 0, which torch allows) a group of equal numbers gives nan, as it must: no warning.
quiet = np.errstate(divide="ignore", invalid="ignore")


class _OfRows(Layer):
    """The form of LayerNorm and RMSNorm: every sample is a row, and the rows go block by block through all passes."""

    centred: bool
    normalized_shape: tuple[int, ...]
    weight: Parameter | None
    bias: Parameter | None = None

    def epsilon(self, dtype: np.dtype[Any]) -> float:
        """What is added to the variance."""
        raise NotImplementedError

    @quiet
    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, None if self.weight is None else self.weight.dtype)
        last_axes(self, x, self.normalized_shape)
        n = math.prod(self.normalized_shape)
        rows, eps, weight = x.reshape(-1, n), self.epsilon(x.dtype), self._weight(n, x.dtype)
        ones, bias = weight[2], None if self.bias is None else self.bias.data.reshape(n)
        y = empty(rows.shape, x.dtype)
        mean, rstd = np.zeros(len(rows), x.dtype), np.zeros((len(rows), 2), x.dtype)

        def work(block: slice) -> None:
            part, out, r = rows[block], y[block], rstd[block, 0]
            if self.centred:
                m = np.matmul(part, ones, out=mean[block])
                m /= n
                part = np.subtract(part, m[:, None], out=out)
            np.divide(row_dots(part, part)[:, 0], n, out=r)
            r += eps
            np.sqrt(r, out=r)
            np.divide(1, r, out=r)
            np.multiply(part, product(rstd[block], weight[:2]), out=out)
            if bias is not None:
                np.add(out, bias, out=out)

        in_blocks(work, len(rows), n)
        y = y.reshape(x.shape)
        self.save(rows, mean, rstd, out=y)
        return y

    @quiet
    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        rows, mean, rstd = self.saved()
        n = rows.shape[1]
        drows, weight = dout.reshape(rows.shape), self._weight(n, rows.dtype)
        dx, ones = empty(rows.shape, rows.dtype), np.ones(len(rows), rows.dtype)

        def work(block: slice) -> tuple[Array, Any]:
            d, out, r = drows[block], dx[block], rstd[block, 0]
            centred = np.subtract(rows[block], mean[block, None], out=empty_like(d))  # mean: zeros for RMSNorm
            np.multiply(d, centred, out=out)
            dweight = r @ out
            # the means of dxhat * xhat and of dxhat, for each row, and rstd, which they are all multiplied by
            along_xhat = out @ weight[0]
            along_xhat *= r * r * r
            along_xhat /= n
            np.multiply(d, product(rstd[block], weight[:2]), out=out)
            centred *= along_xhat[:, None]
            if self.centred:
                along_ones = d @ weight[0]
                along_ones *= r
                along_ones /= n
                centred += along_ones[:, None]
            np.subtract(out, centred, out=out)
            return dweight, None if self.bias is None else ones[: len(d)] @ d

        for dweight, dbias in in_blocks(work, len(rows), n):
            if self.weight is not None:
                self.weight.grad += dweight.reshape(self.normalized_shape)
            if self.bias is not None:
                self.bias.grad += dbias.reshape(self.normalized_shape)
        return dx.reshape(dout.shape)

    def _weight(self, n: int, dtype: np.dtype[Any]) -> Array:
        """The weight, zeros and ones, n of each.

        With the zeros below it, and beside rstd, the products rstd_i * weight_j are a matrix product, which costs a
        third of the broadcast one. A sum over a row is the product with the ones.
        """
        lines = np.zeros((3, n), dtype)
        lines[0] = 1 if self.weight is None else self.weight.data.reshape(n)
        lines[2] = 1
        return lines


class LayerNorm(_OfRows):
    """Normalise each sample over its last axes, then scale and shift it entry by entry.

        y = weight * xhat + bias,    xhat = (x - mean) / sqrt(var + eps)
        dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)),    dxhat = dout * weight
        dweight = sum of dout * xhat,        dbias = sum of dout,        over the leading axes

    x, y : (..., *normalized_shape)      weight, bias : normalized_shape, from 1 and 0; none without elementwise_affine
    normalized_shape : an int stands for the last axis alone

    The same in training and eval: no sample sees another one. (The derivation: the head of this file.)
    Ba, Kiros & Hinton 2016, arXiv:1607.06450
    """

    centred = True

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.normalized_shape = sizes_of(self, normalized_shape)
        self.eps = number(self, "eps", eps)
        self.elementwise_affine = elementwise_affine
        self.weight, self.bias = scale_and_shift(self.normalized_shape, elementwise_affine, bias, dtype)

    def epsilon(self, dtype: np.dtype[Any]) -> float:
        return self.eps


class RMSNorm(_OfRows):
    """Scale each sample by its root mean square over its last axes, then entry by entry: LayerNorm without the mean.

        y = weight * xhat,    xhat = x * rstd,    rstd = 1 / sqrt(mean(x^2) + eps)
        dx = rstd * (dxhat - xhat * mean(dxhat * xhat)),    dxhat = dout * weight
        dweight = sum of dout * xhat        over the leading axes

    x, y : (..., *normalized_shape)      weight : normalized_shape, from 1; none without elementwise_affine
    normalized_shape : an int stands for the last axis alone
    eps : None is the machine epsilon of x's dtype

    No mean is taken off, so of the three ways of the derivation (head of this file) the second one is missing.
    Zhang & Sennrich 2019, arXiv:1910.07467
    """

    centred = False

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.normalized_shape = sizes_of(self, normalized_shape)
        self.eps = None if eps is None else number(self, "eps", eps)
        self.elementwise_affine = elementwise_affine
        self.weight, _ = scale_and_shift(self.normalized_shape, elementwise_affine, False, dtype)

    def epsilon(self, dtype: np.dtype[Any]) -> float:
        return float(np.finfo(dtype).eps) if self.eps is None else self.eps


class GroupNorm(Layer):
    """Normalise each sample over a group of its channels and their pixels, then scale and shift channel by channel.

        y = weight * xhat + bias,    xhat = (x - mean) / sqrt(var + eps)        mean, var over a group of a sample
        dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)),    dxhat = dout * weight
        dweight = sum of dout * xhat,        dbias = sum of dout,        over all but the channel axis

    x, y : (N, num_channels, ...)      weight, bias : (num_channels,), from 1 and 0; none without `affine`
    num_groups : into so many groups of neighbours the channels are divided; 1 is LayerNorm over a whole sample,
        num_channels is InstanceNorm

    The same in training and eval: no sample sees another one. (The derivation: the head of this file.)
    Wu & He 2018, arXiv:1803.08494
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_groups = whole(self, "num_groups", num_groups)
        self.num_channels = whole(self, "num_channels", num_channels)
        if num_channels % num_groups:
            refuse(self, f"num_channels to be a multiple of num_groups={num_groups}", num_channels)
        self.eps = number(self, "eps", eps)
        self.affine = affine
        self.weight, self.bias = scale_and_shift((self.num_channels,), affine, bias, dtype)

    @quiet
    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, None if self.weight is None else self.weight.dtype)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            self.reject(f"x of shape (N, {self.num_channels}, ...)", x.shape)
        if x.size == self.num_groups:
            self.reject("more than one value for each group to take the statistics of", x.shape)
        mean, xhat, var = centre(self._grouped(x), (2,))
        rstd = 1 / np.sqrt(var + self.eps)
        xhat *= rstd
        y = xhat.reshape(x.shape)
        if self.weight is not None:
            y *= along(self.weight.data, 1, x.ndim)
        if self.bias is not None:
            y += along(self.bias.data, 1, x.ndim)
        self.save(x, mean, rstd, out=y)
        return y

    @quiet
    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        x, mean, rstd = self.saved()
        axes = (0, *range(2, x.ndim))
        xhat = standardize(self._grouped(x), mean, rstd)
        dxhat = dout
        if self.weight is not None:
            self.weight.grad += sum_over(axes, dout, xhat.reshape(x.shape)).reshape(-1)
            dxhat = dout * along(self.weight.data, 1, x.ndim)
        if self.bias is not None:
            self.bias.grad += sum_over(axes, dout).reshape(-1)
        return standardize_backward(self._grouped(dxhat), xhat, rstd, (2,)).reshape(x.shape)

    def _grouped(self, x: Array) -> Array:
        """x with all numbers of a group along its last axis: (N, groups, C/groups * pixels)."""
        return x.reshape(len(x), self.num_groups, -1)


# ---------------------------------------------------------------------- what all normalizations share


def sizes_of(layer: Layer, normalized_shape: Any) -> tuple[int, ...]:
    """The sizes of the axes to normalise over, checked."""
    sizes = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not sizes:
        refuse(layer, "normalized_shape with at least one axis", ())
    return tuple(whole(layer, "normalized_shape", size) for size in sizes)


def scale_and_shift(
    shape: tuple[int, ...], affine: bool, bias: bool, dtype: DTypeLike
) -> tuple[Parameter | None, Parameter | None]:
    """The weight and the bias that come after a normalization: from 1 and 0, or None where there are none."""
    dtype = float_dtype(dtype)
    weight = Parameter(np.ones(shape, dtype)) if affine else None
    return weight, Parameter(np.zeros(shape, dtype)) if affine and bias else None


def last_axes(layer: Layer, x: Array, sizes: tuple[int, ...]) -> Axes:
    """Those axes of x, or the layer's error where x does not end with these sizes."""
    first = x.ndim - len(sizes)
    if first < 0 or x.shape[first:] != sizes:
        layer.reject(f"x of shape (..., {', '.join(map(str, sizes))})", x.shape)
    return tuple(range(first, x.ndim))


def centre(x: Array, axes: Axes) -> tuple[Array, Array, Array]:
    """The mean over `axes`, x - mean (a new array, in the memory order of x), and the variance (divided by n)."""
    mean = mean_over(axes, x)
    centred = x - mean
    return mean, centred, mean_over(axes, centred, centred)


def standardize(x: Array, mean: Array | float, rstd: Array) -> Array:
    """The xhat = (x - mean) * rstd, a new array: backward computes it again, so that only x has to be kept."""
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
    dx *= -mean_over(axes, dxhat, xhat)
    dx += dxhat
    if centred:
        dx -= mean_over(axes, dxhat)
    dx *= rstd
    return dx


def sum_over(axes: Axes, *factors: Array) -> Array:
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


def mean_over(axes: Axes, *factors: Array) -> Array:
    """The mean over `axes` of the product of the factors, without forming it; the axes stay, with length 1."""
    sums = sum_over(axes, *factors)
    sums /= factors[0].size // sums.size
    return sums
