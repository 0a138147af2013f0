"""Convolution in one, two and three dimensions: every window of the image times the same weights.

One implementation serves them all. Inside, images are channels-last, (N, *spatial, C) in memory: then a window is
a few contiguous runs, and all windows of a sample, laid out as the rows of a matrix ("im2col"), meet the weights in
one matrix product. To the outside the axes are (N, C, *spatial) as in torch.nn: a transposed view, which costs
nothing, and elementwise layers keep the memory order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.base import Array, Layer, uniform, whole, whole_tuple
from backhand.layers.padding import MODES, Pads, check_pads, pad, unpad
from backhand.layers.windows import Sizes, Windows, check_image

# The batch is worked through in chunks of so many bytes of columns, which stay in a core's cache.
CHUNK_BYTES = 1 << 21
# Up to so many channels in a group the columns lie transposed in memory: for each element of the window a long row over
# the outputs, where the runs over the channels would be too short to be copied fast.
FEW_CHANNELS = 8


class _ConvNd(Layer):
    """What Conv1d, Conv2d and Conv3d are; `axes` is the number of spatial axes.

        y[o] = sum over k of W[k] x[o s + k d - p] + b           at every output o, W[k] being (out, in)
        dx[o s + k d - p] += W[k]^T dout[o]
        dW[k] = sum over o of dout[o] x[o s + k d - p]^T         db = sum over o of dout[o]

    As matrices, with one row in `columns` for each window:

        y = columns W^T + b        dcolumns = dout W        dW = dout^T columns

    and dx is dcolumns put back to where the columns were taken from, adding where windows overlap. The columns are
    made again in the backward: they are kernel-size times as large as x, which is all that is kept.
    """

    axes: int

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
        name = type(self).__name__
        self.in_channels = whole(self, "in_channels", in_channels)
        self.out_channels = whole(self, "out_channels", out_channels)
        self.kernel_size = whole_tuple(self, "kernel_size", kernel_size, self.axes)
        self.stride = whole_tuple(self, "stride", stride, self.axes)
        self.padding: Sizes | str
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"{name}: expected padding to be integers, 'same' or 'valid', got {padding!r}")
            if padding == "same" and set(self.stride) != {1}:
                raise ValueError(f"{name}: expected stride 1 with padding='same', got {stride!r}")
            self.padding = padding
        else:
            self.padding = whole_tuple(self, "padding", padding, self.axes, least=0)
        self.dilation = whole_tuple(self, "dilation", dilation, self.axes)
        self.groups = whole(self, "groups", groups)
        for channels in ("in_channels", "out_channels"):
            if getattr(self, channels) % self.groups:
                raise ValueError(
                    f"{name}: expected {channels} to be a multiple of groups={groups}, got {getattr(self, channels)}"
                )
        if padding_mode not in MODES:
            raise ValueError(f"{name}: expected padding_mode in {MODES}, got {padding_mode!r}")
        self.padding_mode = padding_mode
        rng = np.random.default_rng(rng)
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        bound = 1 / np.sqrt(np.prod(shape[1:]))
        self.weight = uniform(rng, bound, shape, dtype)
        self.bias = uniform(rng, bound, shape[:1], dtype) if bias else None

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.weight.dtype)
        outputs = self._outputs(x)
        images = self._channels_last(x)
        weight = self._weight_matrix()
        y = np.empty((len(images), *outputs, self.out_channels), x.dtype)
        for part in self._chunks(len(images), outputs):
            np.matmul(self._columns(images[part], outputs), weight.swapaxes(1, 2), out=self._grouped(y[part]))
            if self.bias is not None:
                y[part] += self.bias.data
        y = self._channels_first(y, x)
        self.save(x, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (x,) = self.saved()
        images, douts = self._channels_last(x), self._channels_last(dout)
        outputs = douts.shape[1:-1]
        weight = self._weight_matrix()
        dweight = np.zeros_like(weight)
        dx = np.empty(images.shape, images.dtype)
        for part in self._chunks(len(images), outputs):
            rows = self._grouped(np.ascontiguousarray(douts[part]))
            dweight += rows.swapaxes(1, 2) @ self._columns(images[part], outputs)
            dcolumns = np.matmul(rows, weight, out=self._blank_columns(len(images[part]), outputs))
            dx[part] = self._put_back(dcolumns, images[part].shape, outputs)
            if self.bias is not None:
                self.bias.grad += rows.sum(axis=1).reshape(-1)
        self.weight.grad += self._weight_shaped(dweight)
        return self._channels_first(dx, x)

    def __repr__(self) -> str:
        shown = copy.copy(self)
        for name in ("kernel_size", "stride", "padding", "dilation"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(set(value)) == 1:
                setattr(shown, name, value[0])  # 3 for (3, 3), as people write it
        return Layer.__repr__(shown)

    # ------------------------------------------------------------------ columns, and their adjoint

    def _columns(self, images: Array, outputs: Sizes) -> Array:
        """Im2col: a row for each window of the images, (groups, N * outputs, kernel * C/groups)."""
        padded = np.ascontiguousarray(pad(images, self._image_pads(), self.padding_mode))
        windows = self._windows().view(padded, outputs)
        split = np.moveaxis(windows.reshape(*windows.shape[:-1], self.groups, -1), -2, 0)
        columns = self._blank_columns(len(images), outputs)
        columns.reshape(split.shape)[...] = split  # only axes are split, so this is a view of the columns
        return columns

    def _blank_columns(self, samples: int, outputs: Sizes) -> Array:
        """Memory for columns, in the order that suits the number of channels."""
        rows, length = samples * math.prod(outputs), self.weight.size // self.out_channels
        if self.in_channels // self.groups <= FEW_CHANNELS:
            return np.empty((self.groups, length, rows), self.weight.dtype).swapaxes(1, 2)
        return np.empty((self.groups, rows, length), self.weight.dtype)

    def _put_back(self, dcolumns: Array, images: Sizes, outputs: Sizes) -> Array:
        """The adjoint of `_columns`: an array of shape `images` where each number adds to where it was taken from."""
        sizes = tuple(size + before + after for size, (before, after) in zip(images, self._image_pads(), strict=True))
        dpadded = np.zeros((*sizes[:-1], self.groups, sizes[-1] // self.groups), dcolumns.dtype)
        elements = dcolumns.reshape(self.groups, images[0], *outputs, -1, dpadded.shape[-1])
        # the same memory with the axes (kernel,) N, groups, C/groups, *spatial
        elements = np.moveaxis(elements, (-2, 1, 0, -1), (0, 1, 2, 3))
        planes = np.moveaxis(dpadded, (-2, -1), (1, 2))
        meetings = self._windows().meetings(sizes[1:-1], outputs)
        for element, (_, positions) in zip(elements, meetings, strict=True):
            planes[positions] += element
        return unpad(dpadded.reshape(sizes), self._image_pads(), self.padding_mode)

    def _weight_matrix(self) -> Array:
        """The weights in the order of the columns: (groups, out/groups, kernel * in/groups)."""
        weight = np.moveaxis(self.weight.data, 1, -1)
        return weight.reshape(self.groups, self.out_channels // self.groups, -1)

    def _weight_shaped(self, matrix: Array) -> Array:
        """The inverse of `_weight_matrix`."""
        return np.moveaxis(matrix.reshape(self.out_channels, *self.kernel_size, -1), -1, 1)

    def _grouped(self, rows: Array) -> Array:
        """(groups, N * outputs, out/groups): a view of the contiguous (N, *outputs, out)."""
        return rows.reshape(-1, self.groups, self.out_channels // self.groups).swapaxes(0, 1)

    def _chunks(self, samples: int, outputs: Sizes) -> Iterator[slice]:
        """The batch in pieces whose columns have about CHUNK_BYTES."""
        columns = math.prod(outputs) * math.prod(self.kernel_size) * self.in_channels * self.weight.dtype.itemsize
        step = max(1, CHUNK_BYTES // columns)
        return (slice(start, start + step) for start in range(0, samples, step))

    # ------------------------------------------------------------------ geometry

    def _windows(self) -> Windows:
        return Windows(self.kernel_size, self.stride, self.dilation)

    def _pads(self) -> Pads:
        """How much is added (before, after) along each spatial axis."""
        if self.padding == "valid":
            return ((0, 0),) * self.axes
        if self.padding == "same":
            # an odd amount has its larger half at the end, as in torch
            return tuple(((extent - 1) // 2, extent // 2) for extent in self._windows().extent)
        return tuple((int(p), int(p)) for p in self.padding)

    def _image_pads(self) -> Pads:
        """`_pads` for (N, *spatial, C)."""
        return ((0, 0), *self._pads(), (0, 0))

    def _outputs(self, x: Array) -> Sizes:
        """The spatial shape of y, or the error that says why there is none."""
        check_image(self, x, self.axes, self.in_channels)
        check_pads(self, x.shape, self._pads(), self.padding_mode)
        return self._windows().outputs(self, x.shape, self._pads())

    def _channels_last(self, x: Array) -> Array:
        """x as (N, *spatial, C), with N = 1 for a single sample: a view."""
        return np.moveaxis(x if x.ndim == self.axes + 2 else x[None], 1, -1)

    def _channels_first(self, images: Array, like: Array) -> Array:
        """The way back: (N, C, *spatial), or (C, *spatial) where `like` is a single sample."""
        x = np.moveaxis(images, -1, 1)
        return x if like.ndim == x.ndim else x[0]


class Conv1d(_ConvNd):
    """Convolution along a sequence.

        y[n, f, o] = b[f] + sum over c, k of weight[f, c, k] x[n, c, o stride + k dilation - padding]

    x : (N, in_channels, L) or (in_channels, L)      y : (N, out_channels, L_out), or without N
    weight : (out_channels, in_channels / groups, K)      bias : (out_channels,)
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

        y[n, f, o, q] = b[f] + sum over c, k, l of weight[f, c, k, l] x[n, c, o + k, q + l]        (with stride 1)

    x : (N, in_channels, H, W) or (in_channels, H, W)      y : (N, out_channels, H_out, W_out), or without N
    weight : (out_channels, in_channels / groups, *kernel_size)      bias : (out_channels,)
    kernel_size, stride, padding, dilation : one number, or one for each axis; all arguments as in `Conv1d`
    LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition"
    """

    axes = 2


class Conv3d(_ConvNd):
    """Convolution of volumes, or of images over time: the sums of `Conv1d` run over three axes.

        y[n, f, o] = b[f] + sum over c, k of weight[f, c, k] x[n, c, o + k]        (o and k have three components)

    x : (N, in_channels, D, H, W) or without N      y : (N, out_channels, D_out, H_out, W_out)
    weight : (out_channels, in_channels / groups, *kernel_size)      bias : (out_channels,)
    kernel_size, stride, padding, dilation : one number, or one for each axis; all arguments as in `Conv1d`
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv3d.html
    """

    axes = 3
