"""Unpooling: put numbers back to where a max-pooling found them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import given_size, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.layers.pooling import IntOrTuple
from backhand.layers.windows import Sizes, check_image, each


class _MaxUnpoolNd(Layer):
    """Put each number at its index in a plane of zeros; `axes` is the number of spatial axes.

    y[index[o]] = x[o]        dx[o] = dout[index[o]]
    """

    axes: int

    def __init__(self, kernel_size: IntOrTuple, stride: IntOrTuple | None = None, padding: IntOrTuple = 0) -> None:
        stride = kernel_size if stride is None else stride
        whole_tuple(self, "kernel_size", kernel_size, self.axes)
        whole_tuple(self, "stride", stride, self.axes)
        whole_tuple(self, "padding", padding, self.axes, least=0)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: ArrayLike, indices: ArrayLike, output_size: Sequence[int] | None = None) -> Array:
        x = self.input(x)
        check_image(self, x, self.axes)
        index = self.array(indices)
        if index.dtype.kind not in "iu":
            self.reject("indices as integers", f"dtype {index.dtype}")
        if index.shape != x.shape:
            self.reject(f"indices of x's shape {x.shape}", index.shape)
        sizes = self._sizes(x.shape, output_size)
        volume = int(np.prod(sizes))
        if index.min() < 0 or index.max() >= volume:
            self.reject(f"indices in [0, {volume}) for an output of {sizes}", f"{index.min()} to {index.max()}")
        lead = x.shape[: -self.axes]
        index = index.reshape(*lead, -1).astype(np.int64)  # a copy: backward needs what the caller may change
        y = np.zeros((*lead, volume), x.dtype)
        np.put_along_axis(y, index, x.reshape(*lead, -1), axis=-1)
        y = y.reshape(*lead, *sizes)
        self.save(index, x.shape, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, None]:
        dout = self.upstream(dout)
        index, shape = self.saved()
        flat = dout.reshape(*index.shape[:-1], -1)
        return np.take_along_axis(flat, index, axis=-1).reshape(shape), None

    def _sizes(self, shape: Sizes, wanted: Sequence[int] | None) -> Sizes:
        """The spatial shape of y: that which pooling just fills, or `wanted` where pooling would give x's shape."""
        n = self.axes
        kernel, stride, padding = (each(value, n) for value in (self.kernel_size, self.stride, self.padding))
        sizes = tuple(
            (size - 1) * s + k - 2 * p for size, k, s, p in zip(shape[-n:], kernel, stride, padding, strict=True)
        )
        if wanted is not None:
            given = given_size(self, wanted, n, n + 2)
            if any(abs(a - b) >= s for a, b, s in zip(given, sizes, stride, strict=True)):
                self.reject(f"output_size less than the stride {stride} away from {sizes}", given)
            return given
        if min(sizes) < 1:
            self.reject(f"x large enough that padding={self.padding} leaves something", f"{shape}")
        return sizes


class MaxUnpool1d(_MaxUnpoolNd):
    """Put the maxima of MaxPool1d back to where they were, zeros elsewhere.

        y[n, c, indices[n, c, o]] = x[n, c, o]        dx[n, c, o] = dout[n, c, indices[n, c, o]]

    x, indices : (N, C, L) or (C, L), as MaxPool1d(..., return_indices=True) gives them
    y : (N, C, L_out), or without N;      L_out = (L - 1) stride - 2 padding + kernel_size
    forward(x, indices, output_size=None) : L_out itself (or the whole shape of y), as several may pool to the same L
    backward gives (dx, None). Where an index stands twice the last x is put there; the upstream goes to both, as in
    torch: of overlapping windows both have the same maximum.
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool1d.html
    """

    axes = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """Put the maxima of MaxPool2d back to where they were, zeros elsewhere.

        y[n, c, indices[n, c, o]] = x[n, c, o]        dx[n, c, o] = dout[n, c, indices[n, c, o]]

    x, indices : (N, C, H, W) or (C, H, W); an index counts through the flattened (H_out, W_out)
    y : (N, C, H_out, W_out), or without N;      H_out = (H - 1) stride - 2 padding + kernel_size
    all arguments as in `MaxUnpool1d`, one number or one for each axis
    Zeiler & Fergus 2013, arXiv:1311.2901
    """

    axes = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """Put the maxima of MaxPool3d back to where they were, zeros elsewhere.

        y[n, c, indices[n, c, o]] = x[n, c, o]        dx[n, c, o] = dout[n, c, indices[n, c, o]]

    x, indices : (N, C, D, H, W) or (C, D, H, W); an index counts through the flattened (D_out, H_out, W_out)
    y : (N, C, D_out, H_out, W_out), or without N;      D_out = (D - 1) stride - 2 padding + kernel_size
    all arguments as in `MaxUnpool1d`, one number or one for each axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool3d.html
    """

    axes = 3
