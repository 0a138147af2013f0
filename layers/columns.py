"""Convolution and its transpose as matrix products: an image on one side, rows of channels on the other.

Inside, images are channels-last, (N, *spatial, C) in memory: then a window is a few contiguous runs, and all windows
of a sample, laid out as the rows of a matrix ("im2col"), meet the weights in one matrix product. To the outside the
axes are (N, C, *spatial) as in torch.nn: a transposed view, which costs nothing, and elementwise layers keep the
memory order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.arguments import refuse, whole, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.padding import Pads, pad, unpad
from backhand.layers.parameter import Array, uniform
from backhand.layers.windows import Sizes, Windows

# The batch is worked through in chunks of so many bytes of columns, which stay in a core's cache.
CHUNK_BYTES = 1 << 21
# Up to so many channels in a group the columns lie transposed in memory: for each element of the window a long row over
# the outputs, where the runs over the channels would be too short to be copied fast.
FEW_CHANNELS = 8


class ColumnsNd(Layer):
    """What Conv1d-3d and ConvTranspose1d-3d share; `axes` is the number of spatial axes.

        rows = columns(images) W^T        images = put_back(rows W)        dW = rows^T columns(images)

    The weight lies between the two: (channels of a row, channels of the image / groups, *kernel_size). A convolution
    goes from images to rows and its backward from rows to images; the transposed one the other way round.
    """

    axes: int
    padding_mode: str

    def build(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...],
        dilation: int | tuple[int, ...],
        groups: int,
    ) -> None:
        """Check and keep the arguments that both have."""
        self.in_channels = whole(self, "in_channels", in_channels)
        self.out_channels = whole(self, "out_channels", out_channels)
        self.kernel_size = whole_tuple(self, "kernel_size", kernel_size, self.axes)
        self.stride = whole_tuple(self, "stride", stride, self.axes)
        self.dilation = whole_tuple(self, "dilation", dilation, self.axes)
        self.groups = whole(self, "groups", groups)
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                refuse(self, f"{name} to be a multiple of groups={groups}", getattr(self, name))

    def _draw(self, rows: int, image: int, bias: bool, rng: np.random.Generator | int | None, dtype: DTypeLike) -> None:
        """The weight between rows of so many channels and images of so many, and the bias."""
        rng = np.random.default_rng(rng)
        shape = (rows, image // self.groups, *self.kernel_size)
        bound = 1 / np.sqrt(np.prod(shape[1:]))
        self.weight = uniform(rng, bound, shape, dtype)
        self.bias = uniform(rng, bound, (self.out_channels,), dtype) if bias else None

    def _pads(self) -> Pads:
        """How much is added to the image (before, after) along each spatial axis."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = copy.copy(self)
        for name in ("kernel_size", "stride", "padding", "output_padding", "dilation"):
            value = getattr(self, name, None)
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
        rows, length = samples * math.prod(outputs), self.weight.size // len(self.weight.data)
        if self.weight.shape[1] <= FEW_CHANNELS:
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
        """The weights in the order of the columns: (groups, rows/groups, kernel * C/groups)."""
        weight = np.moveaxis(self.weight.data, 1, -1)
        return weight.reshape(self.groups, len(weight) // self.groups, -1)

    def _weight_shaped(self, matrix: Array) -> Array:
        """The inverse of `_weight_matrix`."""
        return np.moveaxis(matrix.reshape(len(self.weight.data), *self.kernel_size, -1), -1, 1)

    def _grouped(self, rows: Array) -> Array:
        """(groups, N * outputs, rows/groups): a view of the contiguous (N, *outputs, rows)."""
        return rows.reshape(-1, self.groups, rows.shape[-1] // self.groups).swapaxes(0, 1)

    def _chunks(self, samples: int, outputs: Sizes) -> Iterator[slice]:
        """The batch in pieces whose columns have about CHUNK_BYTES."""
        length = self.groups * self.weight.size // len(self.weight.data)
        columns = math.prod(outputs) * length * self.weight.dtype.itemsize
        step = max(1, CHUNK_BYTES // columns)
        return (slice(start, start + step) for start in range(0, samples, step))

    # ------------------------------------------------------------------ geometry

    def _windows(self) -> Windows:
        return Windows(self.kernel_size, self.stride, self.dilation)

    def _image_pads(self) -> Pads:
        """`_pads` for (N, *spatial, C)."""
        return ((0, 0), *self._pads(), (0, 0))

    def _channels_last(self, x: Array) -> Array:
        """x as (N, *spatial, C), with N = 1 for a single sample: a view."""
        return np.moveaxis(x if x.ndim == self.axes + 2 else x[None], 1, -1)

    def _channels_first(self, images: Array, like: Array) -> Array:
        """The way back: (N, C, *spatial), or (C, *spatial) where `like` is a single sample."""
        x = np.moveaxis(images, -1, 1)
        return x if like.ndim == x.ndim else x[0]
