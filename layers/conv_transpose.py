"""Transposed convolution: the backward of a convolution as a layer of its own, from small images to large ones.

Every pixel of x paints the weights, scaled by itself, over a window of y, and where windows overlap they add. Its
matrix is the transpose of that of a convolution from y to x. So its forward is what a convolution's backward does with
dout, and its backward is a convolution of dout, with the same columns (columns.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import given_size, refuse, whole_tuple
from backhand.layers.columns import ColumnsNd
from backhand.layers.memory import empty
from backhand.layers.padding import Pads
from backhand.layers.parameter import Array
from backhand.layers.windows import Sizes, check_image


class _ConvTransposeNd(ColumnsNd):
    """What ConvTranspose1d, 2d and 3d are; `axes` is the number of spatial axes.

    y[o s + k d - p] += W[k]^T x[o]          for every o and k, W[k] being (in, out); then + b
    dx[o] = sum over k of W[k] dout[o s + k d - p]
    dW[k] = sum over o of x[o] dout[o s + k d - p]^T         db = sum of dout
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        padding_mode: str = "zeros",
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.build(in_channels, out_channels, kernel_size, stride, dilation, groups)
        self.padding = whole_tuple(self, "padding", padding, self.axes, least=0)
        self.output_padding = whole_tuple(self, "output_padding", output_padding, self.axes, least=0)
        if padding_mode != "zeros":
            refuse(self, "padding_mode 'zeros'", padding_mode)
        self.padding_mode = padding_mode
        self._draw(self.in_channels, self.out_channels, bias, rng, dtype)

    def forward(self, x: ArrayLike, output_size: Sequence[int] | None = None) -> Array:
        x = self.input(x, self.weight.dtype)
        check_image(self, x, self.axes, self.in_channels)
        sizes = self._sizes(x.shape, output_size)
        pixels = self._channels_last(x)
        y = empty((len(pixels), *sizes, self.out_channels), x.dtype)
        spread = self._spread_mirrored if self._mirrored() else self._spread
        spread(pixels, y)
        if self.bias is not None:
            y += self.bias.data
        y = self._channels_first(y, x)
        self.save(x, out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        (x,) = self.saved()
        pixels, douts = self._channels_last(x), self._channels_last(dout)
        self._add_to_bias(douts)
        dx = empty(pixels.shape, x.dtype) if self.input_requires_grad else None
        self._gather(douts, dx, drows=pixels)
        return None if dx is None else self._channels_first(dx, x)

    def _pads(self) -> Pads:
        return tuple((p, p) for p in self.padding)

    def _sizes(self, shape: Sizes, wanted: Sequence[int] | None) -> Sizes:
        """The spatial shape of y: `wanted` where that fits, or the error that says why not.

        A convolution with a stride rounds down, so `stride` sizes of y go to the same size of x: output_padding, or
        output_size, says which of them it is.
        """
        n, extent = self.axes, self._windows().extent
        least = tuple(
            (size - 1) * s - 2 * p + e
            for size, s, p, e in zip(shape[-n:], self.stride, self.padding, extent, strict=True)
        )
        if wanted is not None:
            sizes = given_size(self, wanted, n, len(shape))
            if any(not low <= size < low + s for low, size, s in zip(least, sizes, self.stride, strict=True)):
                most = tuple(low + s - 1 for low, s in zip(least, self.stride, strict=True))
                self.reject(f"output_size from {least} to {most} for x of shape {shape}", sizes)
            return sizes
        for extra, s, d in zip(self.output_padding, self.stride, self.dilation, strict=True):
            if extra >= max(s, d):
                self.reject("output_padding smaller than either stride or dilation", self.output_padding)
        sizes = tuple(low + extra for low, extra in zip(least, self.output_padding, strict=True))
        if min(sizes) < 1:
            self.reject(f"x large enough that padding={self.padding} leaves something", f"{shape}")
        return sizes


class ConvTranspose1d(_ConvTransposeNd):
    """Transposed convolution of sequences: each element of x adds a scaled copy of the kernel to y.

        y[n, f, o stride + k dilation - padding] += sum over c of weight[c, f, k] x[n, c, o]        and + bias[f]
        dx[n, c, o] = sum over f, k of weight[c, f, k] dout[n, f, o stride + k dilation - padding]
        dweight[c, f, k] = sum over n, o of x[n, c, o] dout[n, f, o stride + k dilation - padding]
        dbias[f] = sum of dout[n, f]

    x : (N, in_channels, L) or (in_channels, L)      y : (N, out_channels, L_out), or without N
    weight : (in_channels, out_channels / groups, K)      bias : (out_channels,);      K = kernel_size
        L_out = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1
    padding : how much is cut off at both ends of y; output_padding : how much longer y is at its end
    groups : that many transposed convolutions side by side, each of its own channels
    padding_mode : "zeros", the only one, as in torch
    forward(x, output_size=None) : L_out itself (or the whole shape of y) instead of output_padding, where
        `stride` different lengths are possible
    All start from U(-b, b), b = 1 / sqrt(out_channels / groups * K).
    Dumoulin & Visin 2016, arXiv:1603.07285; torch.nn.ConvTranspose1d
    """

    axes = 1


class ConvTranspose2d(_ConvTransposeNd):
    """Transposed convolution of images: each pixel of x adds a scaled copy of the kernel to y.

        y[n, f, o stride + k dilation - padding] += sum over c of weight[c, f, k] x[n, c, o]        and + bias[f]
        dx[n, c, o] = sum over f, k of weight[c, f, k] dout[n, f, o stride + k dilation - padding]
        dweight[c, f, k] = sum over n, o of x[n, c, o] dout[n, f, o stride + k dilation - padding]
        dbias[f] = sum of dout[n, f]

    x : (N, in_channels, H, W) or (in_channels, H, W)      y : (N, out_channels, H_out, W_out), or without N
    weight : (in_channels, out_channels / groups, *kernel_size)      bias : (out_channels,)
    o and k have two components; arguments are one number or one for each axis, otherwise as in `ConvTranspose1d`
    Dumoulin & Visin 2016, arXiv:1603.07285
    """

    axes = 2


class ConvTranspose3d(_ConvTransposeNd):
    """Transposed convolution of volumes: each voxel of x adds a scaled copy of the kernel to y.

        y[n, f, o stride + k dilation - padding] += sum over c of weight[c, f, k] x[n, c, o]        and + bias[f]
        dx[n, c, o] = sum over f, k of weight[c, f, k] dout[n, f, o stride + k dilation - padding]
        dweight[c, f, k] = sum over n, o of x[n, c, o] dout[n, f, o stride + k dilation - padding]
        dbias[f] = sum of dout[n, f]

    x : (N, in_channels, D, H, W) or without N      y : (N, out_channels, D_out, H_out, W_out), or without N
    weight : (in_channels, out_channels / groups, *kernel_size)      bias : (out_channels,)
    o and k have three components; arguments are one number or one for each axis, otherwise as in `ConvTranspose1d`
    Dumoulin & Visin 2016, arXiv:1603.07285
    """

    axes = 3
