"""Unfold and Fold: all windows of an image as the columns of a matrix, and columns added up to an image.

Each is the backward of the other, and both are the plain form of what convolutions do inside (columns.py), over the
same windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import whole_tuple
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.layers.windows import Sizes, Windows, check_image, each

IntOrPair = int | tuple[int, int]


class _Windowed(Layer):
    """The four arguments that say where the windows are."""

    axes = 2

    def build(self, kernel_size: IntOrPair, dilation: IntOrPair, padding: IntOrPair, stride: IntOrPair) -> None:
        for name, value, least in (
            ("kernel_size", kernel_size, 1),
            ("dilation", dilation, 1),
            ("padding", padding, 0),
            ("stride", stride, 1),
        ):
            whole_tuple(self, name, value, self.axes, least)
            setattr(self, name, value)
        self._windows = Windows(each(kernel_size, self.axes), each(stride, self.axes), each(dilation, self.axes))
        self._padding = each(padding, self.axes)

    def _count(self, shape: Sizes) -> Sizes:
        """How many windows an image whose last axes are `shape` has along each axis, or the error if none."""
        return self._windows.outputs(self, shape, tuple((p, p) for p in self._padding))

    def _columns(self, image: Array, outputs: Sizes) -> Array:
        """Columns (..., C K, windows) from an image (..., C, H, W)."""
        columns = np.zeros((*image.shape[:-2], int(np.prod(self._windows.kernel)), *outputs), image.dtype)
        for k, (to, at) in enumerate(self._windows.meetings(image.shape[-2:], outputs, self._padding)):
            columns[..., k, :, :][to] = image[at]
        return columns.reshape(*image.shape[:-3], -1, int(np.prod(outputs)))

    def _put_back(self, columns: Array, sizes: Sizes, outputs: Sizes) -> Array:
        """The adjoint of `_columns`: the image (..., C, *sizes) where each number adds to where it was taken from."""
        lead, kernel = columns.shape[:-2], int(np.prod(self._windows.kernel))
        columns = columns.reshape(*lead, -1, kernel, *outputs)
        image = np.zeros((*lead, columns.shape[-4], *sizes), columns.dtype)
        for k, (to, at) in enumerate(self._windows.meetings(sizes, outputs, self._padding)):
            image[at] += columns[..., k, :, :][to]
        return image


class Unfold(_Windowed):
    """Every window of an image as a column ("im2col").

        y[n, (c, k), o] = x[n, c, o stride + k dilation - padding]        with windows o and elements k in row order
        dx[n, c, o stride + k dilation - padding] += dout[n, (c, k), o]        that is, Fold

    x : (N, C, H, W) or (C, H, W)      y : (N, C * K, L), or without N; K the numbers in a window, L the windows
    kernel_size, dilation, padding, stride : one number, or one for each axis; padding is zeros
    A convolution is Unfold, then a product with the weights as a (filters, C * K) matrix.
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Unfold.html
    """

    def __init__(
        self, kernel_size: IntOrPair, dilation: IntOrPair = 1, padding: IntOrPair = 0, stride: IntOrPair = 1
    ) -> None:
        self.build(kernel_size, dilation, padding, stride)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        check_image(self, x, self.axes)
        outputs = self._count(x.shape)
        y = self._columns(x, outputs)
        self.save(x.shape[-2:], outputs, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        sizes, outputs = self.saved()
        return self._put_back(dout, sizes, outputs)


class Fold(_Windowed):
    """Columns added up to an image ("col2im"): what overlaps, adds.

        y[n, c, o stride + k dilation - padding] += x[n, (c, k), o]        with windows o and elements k in row order
        dx[n, (c, k), o] = dout[n, c, o stride + k dilation - padding]        that is, Unfold

    x : (N, C * K, L) or (C * K, L); K the numbers in a window, L the windows
    y : (N, C, *output_size), or without N
    output_size : (H, W) of the image, or one number for both
    kernel_size, dilation, padding, stride : one number, or one for each axis; what falls on padding is dropped
    Fold(Unfold(x)) is x times the number of windows that each pixel is in.
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Fold.html
    """

    def __init__(
        self,
        output_size: IntOrPair,
        kernel_size: IntOrPair,
        dilation: IntOrPair = 1,
        padding: IntOrPair = 0,
        stride: IntOrPair = 1,
    ) -> None:
        whole_tuple(self, "output_size", output_size, self.axes)
        self.output_size = output_size
        self.build(kernel_size, dilation, padding, stride)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        sizes, kernel = each(self.output_size, self.axes), int(np.prod(self._windows.kernel))
        outputs = self._count(sizes)
        windows = int(np.prod(outputs))
        if x.ndim not in (2, 3) or x.shape[-2] % kernel or x.shape[-1] != windows:
            self.reject(f"x of shape (N, C * {kernel}, {windows}) or (C * {kernel}, {windows})", x.shape)
        y = self._put_back(x, sizes, outputs)
        self.save(outputs, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (outputs,) = self.saved()
        return self._columns(dout, outputs)
