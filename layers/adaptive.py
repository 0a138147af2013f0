"""Adaptive pooling: a grid of a given size over an image of any size, so that what follows always fits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import whole, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.layers.windows import Sizes, check_image, each


class _AdaptivePoolNd(Layer):
    """The size of the grid; `axes` is the number of spatial axes."""

    axes: int

    def build(self, output_size: int | tuple[int | None, ...] | None) -> None:
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * self.axes
        if len(sizes) not in (1, self.axes):
            whole_tuple(self, "output_size", tuple(sizes), self.axes)
        for size in sizes:
            if size is not None:
                whole(self, "output_size", size)
        self.output_size = output_size

    def _sizes(self) -> tuple[int | None, ...]:
        return each(self.output_size, self.axes)

    def _resized(self) -> list[tuple[int, int]]:
        """(axis, size) for every axis whose size is given, from the last to the first."""
        pairs = zip(range(-self.axes, 0), self._sizes(), strict=True)
        return [(axis, size) for axis, size in pairs if size is not None][::-1]


class _AdaptiveAvgPoolNd(_AdaptivePoolNd):
    """The mean of every cell of a grid laid over the image, whatever its size.

        y[o] = mean of x[floor(o S / O) : ceil((o + 1) S / O)]        dx[those] += dout[o] / their number

    along each axis in turn, S and O being its size before and after: the mean over a box is the mean of means.
    """

    def __init__(self, output_size: int | tuple[int | None, ...] | None) -> None:
        self.build(output_size)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        check_image(self, x, self.axes)
        y = x
        for axis, size in self._resized():
            y = average_cells(y, axis, size)
        y = x.copy() if y is x else y
        self.save(x.shape, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        for axis, _ in reversed(self._resized()):
            dout = spread_cells(dout, axis, shape[axis])
        return dout


class _AdaptiveMaxPoolNd(_AdaptivePoolNd):
    """The largest element of every cell of a grid laid over the image, whatever its size.

        y[o] = max of x[floor(o S / O) : ceil((o + 1) S / O)]        dx = dout at the largest element, 0 elsewhere

    along each axis in turn: the largest in a box is the largest among the largest of its lines. Where cells share an
    element, its upstreams add. Among equals the first one wins; NaN counts as the largest, and then the last one wins.
    """

    def __init__(self, output_size: int | tuple[int | None, ...] | None, return_indices: bool = False) -> None:
        self.build(output_size)
        self.return_indices = return_indices

    def forward(self, x: ArrayLike) -> Any:
        x = self.input(x)
        check_image(self, x, self.axes)
        sizes = x.shape[-self.axes :]
        # where in the flattened plane each number comes from travels along with it
        y, index = x, np.broadcast_to(np.arange(np.prod(sizes)).reshape(sizes), x.shape)
        for axis, size in self._resized():
            y, index = _largest(y, index, axis, size)
        if y is x:
            y, index = x.copy(), index.copy()
        result = (y, index) if self.return_indices else y
        self.save(index, x.shape, out=result)
        return result

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        index, shape = self.saved()
        dout = dout[0] if self.return_indices else dout
        planes = int(np.prod(shape[: -self.axes]))
        dx = np.zeros((planes, int(np.prod(shape[-self.axes :]))), dout.dtype)
        np.add.at(dx, (np.arange(planes)[:, None], index.reshape(planes, -1)), dout.reshape(planes, -1))
        return dx.reshape(shape)


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    """Average-pooling of sequences to a given size.

        y[o] = mean of x[floor(o S / O) : ceil((o + 1) S / O)]        along the axis, of size S before and O after
        dx = dout[o] / (the number of those), added up over the cells that share an element

    x : (N, C, L) or (C, L)      y : (N, C, L_out), or without N
    output_size : L_out; None keeps the size
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool1d.html
    """

    axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Average-pooling of images to a given size.

        y[o] = mean of x[floor(o S / O) : ceil((o + 1) S / O)]        along each axis, of size S before and O after
        dx = dout[o] / (the number of those), added up over the cells that share an element

    x : (N, C, H, W) or (C, H, W)      y : (N, C, H_out, W_out), or without N
    output_size : H_out = W_out, or (H_out, W_out); None keeps that size
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html
    """

    axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    """Average-pooling of volumes to a given size.

        y[o] = mean of x[floor(o S / O) : ceil((o + 1) S / O)]        along each axis, of size S before and O after
        dx = dout[o] / (the number of those), added up over the cells that share an element

    x : (N, C, D, H, W) or (C, D, H, W)      y : (N, C, D_out, H_out, W_out), or without N
    output_size : one number, or (D_out, H_out, W_out); None keeps that size
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool3d.html
    """

    axes = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Max-pooling of sequences to a given size.

        y[o] = max of x[floor(o S / O) : ceil((o + 1) S / O)]        along the axis, of size S before and O after
        dx = dout at the largest element of each cell, 0 elsewhere

    x : (N, C, L) or (C, L)      y : (N, C, L_out), or without N
    output_size : L_out; None keeps the size
    return_indices : also return where each maximum was found; then y is a tuple of two
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool1d.html
    """

    axes = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Max-pooling of images to a given size.

        y[o] = max of x[floor(o S / O) : ceil((o + 1) S / O)]        along each axis, of size S before and O after
        dx = dout at the largest element of each cell, 0 elsewhere

    x : (N, C, H, W) or (C, H, W)      y : (N, C, H_out, W_out), or without N
    output_size : H_out = W_out, or (H_out, W_out); None keeps that size
    return_indices : also return where in the flattened plane each maximum was found; then y is a tuple of two
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool2d.html
    """

    axes = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Max-pooling of volumes to a given size.

        y[o] = max of x[floor(o S / O) : ceil((o + 1) S / O)]        along each axis, of size S before and O after
        dx = dout at the largest element of each cell, 0 elsewhere

    x : (N, C, D, H, W) or (C, D, H, W)      y : (N, C, D_out, H_out, W_out), or without N
    output_size : one number, or (D_out, H_out, W_out); None keeps that size
    return_indices : also return where in the flattened volume each maximum was found; then y is a tuple of two
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool3d.html
    """

    axes = 3


def average_cells(x: Array, axis: int, size: int) -> Array:
    """The means of `size` cells along one axis."""
    y = np.empty_like(x, shape=_with_size(x, axis, size))
    to, of = np.moveaxis(y, axis, 0), np.moveaxis(x, axis, 0)
    for o, cell in enumerate(_cells(len(of), size)):
        to[o] = of[cell].mean(axis=0)
    return y


def spread_cells(dy: Array, axis: int, size: int) -> Array:
    """The adjoint of `average_cells`, for an axis of `size`."""
    dx = np.zeros_like(dy, shape=_with_size(dy, axis, size))
    to, of = np.moveaxis(dx, axis, 0), np.moveaxis(dy, axis, 0)
    for o, cell in enumerate(_cells(size, len(of))):
        to[cell] += of[o] / (cell.stop - cell.start)
    return dx


def _largest(x: Array, index: Array, axis: int, size: int) -> tuple[Array, Array]:
    """The largest of each of `size` cells along one axis, and its index."""
    shape = _with_size(x, axis, size)
    y, where = np.empty_like(x, shape=shape), np.empty(shape, np.int64)
    to, of = np.moveaxis(y, axis, 0), np.moveaxis(x, axis, 0)
    to_index, of_index = np.moveaxis(where, axis, 0), np.moveaxis(index, axis, 0)
    for o, cell in enumerate(_cells(len(of), size)):
        values = of[cell]
        turn = values.argmax(axis=0)  # the first NaN, where there is one
        nan = np.isnan(values)
        if nan.any():
            turn = np.where(nan.any(axis=0), len(nan) - 1 - nan[::-1].argmax(axis=0), turn)
        turn = turn[None]
        to[o] = np.take_along_axis(values, turn, 0)[0]
        to_index[o] = np.take_along_axis(of_index[cell], turn, 0)[0]
    return y, where


def _with_size(x: Array, axis: int, size: int) -> Sizes:
    shape = list(x.shape)
    shape[axis] = size
    return tuple(shape)


def _cells(size: int, count: int) -> list[slice]:
    """`count` slices that cover an axis; neighbours share an element where the sizes do not divide."""
    return [slice(o * size // count, -(-(o + 1) * size // count)) for o in range(count)]
