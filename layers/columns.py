"""What convolution and transposed convolution share: an image on one side, rows of channels on the other.

Both ways between them are correlations (correlation.py). To the outside the axes are (N, C, *spatial) as in torch.nn,
inside (N, *spatial, C): that is a transposed view, which costs nothing, and elementwise layers keep the memory order.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.arguments import refuse, whole, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.correlation import Correlation
from backhand.layers.padding import Pads
from backhand.layers.parameter import Array, uniform
from backhand.layers.windows import Index, Windows


class ColumnsNd(Layer):
    """What Conv1d-3d and ConvTranspose1d-3d share; `axes` is the number of spatial axes.

        rows[o] = sum over k of images[o s + k d - p] W[k]^T        images[o s + k d - p] += rows[o] W[k]

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

    # ------------------------------------------------------------------ both ways

    def _gather(self, images: Array, rows: Array | None, bias: Array | None = None, drows: Array | None = None) -> None:
        """Rows from images (where given, to be written), and dW from the images and drows."""
        outputs = (drows if rows is None else rows).shape[1:-1]  # type: ignore[union-attr]
        # (rows, C/groups, *kernel) to (groups, *kernel, C/groups, rows/groups)
        weight = np.moveaxis(self._weight_groups(self.weight.data), (1, 2), (-1, -2))
        every = Correlation(self._windows(), self._pads(), outputs, self.padding_mode)
        dweight = every.run(images, weight, rows, bias, drows)
        if dweight is not None:
            self._add_to_weight(np.moveaxis(dweight, (-1, -2), (1, 2)))

    def _spread(self, rows: Array, images: Array) -> None:
        """Images from rows (to be written): the adjoint of `_gather`."""
        weight = np.moveaxis(self._weight_groups(self.weight.data), (1, 2), (-1, -2))
        Correlation(self._windows(), self._pads(), rows.shape[1:-1], self.padding_mode).spread(rows, weight, images)

    def _mirrored(self) -> bool:
        """Whether `_spread` is better done as a correlation of the rows with the kernel backwards.

        That takes a stride of 1. With few channels in the images its product would be too narrow.
        """
        return set(self.stride) == {1} and self.weight.shape[1] > 8

    def _spread_mirrored(self, rows: Array, images: Array, partner: Array | None = None) -> None:
        """The same, and dW from `partner` in the place of the images where there is one, for one set of columns.

        With stride 1 an image position i meets output i + p - k d with element k: the kernel backwards, at the rows
        padded by the extent of the window less p.
        """
        backwards: Index = (..., *(slice(None, None, -1),) * self.axes)
        weight = np.moveaxis(self._weight_groups(self.weight.data)[backwards], (1, 2), (-2, -1))
        pads = self._pads() if self.padding_mode == "zeros" else ((0, 0),) * self.axes
        pads = tuple((e - 1 - a, e - 1 - b) for e, (a, b) in zip(self._windows().extent, pads, strict=True))
        dweight = Correlation(self._windows(), pads, images.shape[1:-1]).run(rows, weight, images, drows=partner)
        if dweight is not None:
            self._add_to_weight(np.moveaxis(dweight, (-2, -1), (1, 2))[backwards])

    def _weight_groups(self, weight: Array) -> Array:
        """(rows, C/groups, *kernel) as (groups, rows/groups, C/groups, *kernel)."""
        return weight.reshape(self.groups, -1, *weight.shape[1:])

    def _add_to_weight(self, dweight: Array) -> None:
        grad = self._weight_groups(self.weight.grad)
        grad += dweight

    # ------------------------------------------------------------------ geometry

    def _windows(self) -> Windows:
        return Windows(self.kernel_size, self.stride, self.dilation)

    def _channels_last(self, x: Array) -> Array:
        """x as (N, *spatial, C), with N = 1 for a single sample: a view."""
        return np.moveaxis(x if x.ndim == self.axes + 2 else x[None], 1, -1)

    def _channels_first(self, images: Array, like: Array) -> Array:
        """The way back: (N, C, *spatial), or (C, *spatial) where `like` is a single sample."""
        x = np.moveaxis(images, -1, 1)
        return x if like.ndim == x.ndim else x[0]

    def _add_to_bias(self, dy: Array) -> None:
        """Add the sum of a channels-last dy over all but its channels; whole lines are added, for longer loops."""
        if self.bias is None:
            return
        if dy.flags.c_contiguous:
            lines = np.add.reduce(dy.reshape(-1, math.prod(dy.shape[-2:])), axis=0)
            self.bias.grad += lines.reshape(-1, dy.shape[-1]).sum(axis=0)
        else:
            self.bias.grad += dy.sum(axis=tuple(range(dy.ndim - 1)))
