"""Convolution in one, two and three dimensions: every window of the image times the same weights.

One implementation serves them all. The sums themselves are done in correlation.py: through columns, or as Winograd does
them (winograd.py); those of a depthwise convolution in depthwise.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import one_of, refuse, whole_tuple
from backhand.layers.columns import ColumnsNd
from backhand.layers.depthwise import Depthwise
from backhand.layers.memory import empty
from backhand.layers.padding import MODES, Pads, check_pads, pad, unpad
from backhand.layers.parameter import Array
from backhand.layers.windows import Sizes, check_image


class _ConvNd(ColumnsNd):
    """What Conv1d, Conv2d and Conv3d are; `axes` is the number of spatial axes.

        y[o] = sum over k of W[k] x[o s + k d - p] + b           at every output o, W[k] being (out, in)
        dx[o s + k d - p] += W[k]^T dout[o]
        dW[k] = sum over o of dout[o] x[o s + k d - p]^T         db = sum over o of dout[o]

    As matrices, with one row in `columns` for each window:

        y = columns W^T + b        dcolumns = dout W        dW = dout^T columns

    and dx is dcolumns put back to where the columns were taken from, adding where windows overlap. With stride 1 that
    is a convolution as well, of the padded dout with the kernel backwards; its columns, of dout, serve dW too. Columns
    are made again in the backward: they are kernel-size times as large as x, which is all that is kept.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.build(in_channels, out_channels, kernel_size, stride, dilation, groups)
        self.padding: Sizes | str
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                refuse(self, "padding to be integers, 'same' or 'valid'", padding)
            if padding == "same" and set(self.stride) != {1}:
                refuse(self, "stride 1 with padding='same'", stride)
            self.padding = padding
        else:
            self.padding = whole_tuple(self, "padding", padding, self.axes, least=0)
        self.padding_mode = one_of(self, "padding_mode", padding_mode, MODES)
        self._draw(self.out_channels, self.in_channels, bias, rng, dtype)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.weight.dtype)
        outputs = self._outputs(x)
        images = self._channels_last(x)
        bias = None if self.bias is None else self.bias.data
        if self._depthwise():
            y = self._kernels(outputs).forward(images, bias)
        else:
            y = empty((len(images), *outputs, self.out_channels), x.dtype)
            self._gather(images, y, bias)
        y = self._channels_first(y, x)
        self.save(x, out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        (x,) = self.saved()
        images, drows = self._channels_last(x), self._channels_last(dout)
        self._add_to_bias(drows)
        if self._depthwise():
            dx = self._backward_depthwise(drows, images)
            return None if dx is None else self._channels_first(dx, x)
        dx = empty(images.shape, images.dtype) if self.input_requires_grad else None
        if dx is not None and self._mirrored():
            self._backward_mirrored(drows, dx, images)
        else:
            self._gather(images, None, drows=drows)
            if dx is not None:
                self._spread(drows, dx)
        return None if dx is None else self._channels_first(dx, x)

    def _backward_mirrored(self, drows: Array, dx: Array, images: Array) -> None:
        if self.padding_mode == "zeros":
            self._spread_mirrored(drows, dx, images)
        else:
            pads: Pads = ((0, 0), *self._pads(), (0, 0))
            padded = pad(images, pads, self.padding_mode)
            dpadded = empty(padded.shape, padded.dtype)
            self._spread_mirrored(drows, dpadded, padded)
            dx[...] = unpad(dpadded, pads, self.padding_mode)

    def _depthwise(self) -> bool:
        return self.groups == self.in_channels > 1

    def _kernels(self, outputs: Sizes) -> Depthwise:
        weight = self.weight.data.reshape(self.out_channels, -1).T
        return Depthwise(weight, self._windows(), outputs, self._pads(), self.padding_mode)

    def _backward_depthwise(self, drows: Array, images: Array) -> Array | None:
        dweight, dx = self._kernels(drows.shape[1:-1]).backward(images, drows, self.input_requires_grad)
        self.weight.grad += dweight.T.reshape(self.weight.shape)
        return dx

    def _pads(self) -> Pads:
        """How much is added (before, after) along each spatial axis."""
        if self.padding == "valid":
            return ((0, 0),) * self.axes
        if self.padding == "same":
            # an odd amount has its larger half at the end, as in torch
            return tuple(((extent - 1) // 2, extent // 2) for extent in self._windows().extent)
        return tuple((int(p), int(p)) for p in self.padding)

    def _outputs(self, x: Array) -> Sizes:
        """The spatial shape of y, or the error that says why there is none."""
        check_image(self, x, self.axes, self.in_channels)
        check_pads(self, x.shape, self._pads(), self.padding_mode)
        return self._windows().outputs(self, x.shape, self._pads())


class Conv1d(_ConvNd):
    """Convolution along a sequence.

        y[n, f, o] = bias[f] + sum over c, k of weight[f, c, k] x[n, c, o stride + k dilation - padding]
        dx[n, c, o stride + k dilation - padding] += sum over f of weight[f, c, k] dout[n, f, o]
        dweight[f, c, k] = sum over n, o of dout[n, f, o] x[n, c, o stride + k dilation - padding]
        dbias[f] = sum over n, o of dout[n, f, o]

    x : (N, in_channels, L) or (in_channels, L)      y : (N, out_channels, L_out), or without N
    weight : (out_channels, in_channels / groups, K)      bias : (out_channels,);      K = kernel_size
        L_out = floor((L + 2 padding - dilation (K - 1) - 1) / stride) + 1
    padding : an amount, "valid" (none) or "same" (L_out = L)
    groups : that many convolutions side by side, each of its own in_channels / groups channels
    padding_mode : "zeros", "reflect", "replicate" or "circular"
    All start from U(-b, b), b = 1 / sqrt(in_channels / groups * K).
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html
    """

    axes = 1


class Conv2d(_ConvNd):
    """Convolution of images: the sums of `Conv1d` run over the height and the width of the kernel.

        y[n, f, o, q] = bias[f] + sum over c, k, l of weight[f, c, k, l] x[n, c, o + k, q + l]        (with stride 1)
        dx[n, c, o + k, q + l] += sum over f of weight[f, c, k, l] dout[n, f, o, q]
        dweight[f, c, k, l] = sum over n, o, q of dout[n, f, o, q] x[n, c, o + k, q + l]        dbias[f] = sum of dout

    x : (N, in_channels, H, W) or (in_channels, H, W)      y : (N, out_channels, H_out, W_out), or without N
    weight : (out_channels, in_channels / groups, *kernel_size)      bias : (out_channels,)
    kernel_size, stride, padding, dilation : one number, or one for each axis; all arguments as in `Conv1d`
    LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition"
    """

    axes = 2


class Conv3d(_ConvNd):
    """Convolution of volumes, or of images over time: the sums of `Conv1d` run over three axes.

        y[n, f, o] = bias[f] + sum over c, k of weight[f, c, k] x[n, c, o + k]        (o and k have three components)
        dx[n, c, o + k] += sum over f of weight[f, c, k] dout[n, f, o]
        dweight[f, c, k] = sum over n, o of dout[n, f, o] x[n, c, o + k]        dbias[f] = sum of dout

    x : (N, in_channels, D, H, W) or without N      y : (N, out_channels, D_out, H_out, W_out)
    weight : (out_channels, in_channels / groups, *kernel_size)      bias : (out_channels,)
    kernel_size, stride, padding, dilation : one number, or one for each axis; all arguments as in `Conv1d`
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv3d.html
    """

    axes = 3
