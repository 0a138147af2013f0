"""Adaptive pooling: a grid of a given size over an image of any size, so that what follows always fits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Array, Layer, whole, whole_tuple
from backhand.layers.windows import Sizes, check_image, each


class _AdaptiveAvgPoolNd(Layer):
    """The mean of every cell of a grid laid over the image, whatever its size.

        y[o] = mean of x[floor(o S / O) : ceil((o + 1) S / O)]        dx[those] += dout[o] / their number

    along each axis in turn, S and O being its size before and after: the mean over a box is the mean of means.
    """

    axes: int

    def __init__(self, output_size: int | tuple[int | None, ...] | None) -> None:
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * self.axes
        if len(sizes) not in (1, self.axes):
            whole_tuple(self, "output_size", tuple(sizes), self.axes)
        for size in sizes:
            if size is not None:
                whole(self, "output_size", size)
        self.output_size = output_size

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        check_image(self, x, self.axes)
        shape = x.shape
        y = x + 0 if all(size is None for size in self._sizes()) else x
        for axis, size in zip(range(-self.axes, 0), self._sizes(), strict=True):
            if size is not None:
                y = self._average(y, axis, size)
        self.save(shape, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        for axis, size in zip(range(-self.axes, 0), self._sizes(), strict=True):
            if size is not None:
                dout = self._spread(dout, axis, shape[axis])
        return dout

    def _sizes(self) -> tuple[int | None, ...]:
        return each(self.output_size, self.axes)

    def _average(self, x: Array, axis: int, size: int) -> Array:
        y = np.empty_like(x, shape=_with_size(x, axis, size))
        to, of = np.moveaxis(y, axis, 0), np.moveaxis(x, axis, 0)
        for o, cell in enumerate(_cells(len(of), size)):
            to[o] = of[cell].mean(axis=0)
        return y

    def _spread(self, dy: Array, axis: int, size: int) -> Array:
        """The adjoint of `_average`."""
        dx = np.zeros_like(dy, shape=_with_size(dy, axis, size))
        to, of = np.moveaxis(dx, axis, 0), np.moveaxis(dy, axis, 0)
        for o, cell in enumerate(_cells(size, len(of))):
            to[cell] += of[o] / (cell.stop - cell.start)
        return dx


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    """Average-pooling of sequences to a given size.

        y[o] = mean of x[floor(o S / O) : ceil((o + 1) S / O)]        along the axis, of size S before and O after

    x : (N, C, L) or (C, L)      y : (N, C, L_out), or without N
    output_size : L_out; None keeps the size
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool1d.html
    """

    axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Average-pooling of images to a given size.

        y[o] = mean of x[floor(o S / O) : ceil((o + 1) S / O)]        along each axis, of size S before and O after

    x : (N, C, H, W) or (C, H, W)      y : (N, C, H_out, W_out), or without N
    output_size : H_out = W_out, or (H_out, W_out); None keeps that size
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html
    """

    axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    """Average-pooling of volumes to a given size.

        y[o] = mean of x[floor(o S / O) : ceil((o + 1) S / O)]        along each axis, of size S before and O after

    x : (N, C, D, H, W) or (C, D, H, W)      y : (N, C, D_out, H_out, W_out), or without N
    output_size : one number, or (D_out, H_out, W_out); None keeps that size
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool3d.html
    """

    axes = 3


def _with_size(x: Array, axis: int, size: int) -> Sizes:
    shape = list(x.shape)
    shape[axis] = size
    return tuple(shape)


def _cells(size: int, count: int) -> list[slice]:
    """`count` slices that cover an axis; neighbours share an element where the sizes do not divide."""
    return [slice(o * size // count, -(-(o + 1) * size // count)) for o in range(count)]
