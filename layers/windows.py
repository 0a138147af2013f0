"""Windows that slide over an image: the geometry that convolution and pooling share, in any number of dimensions.

Output o of a window with stride s, dilation d and padding p looks, with its k-th element, at the input position

    i = o s + k d - p

along every axis. All that follows is this one line: how many outputs there are, which elements fall inside the
input, and the view in which every output sees its window.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from backhand.layers.base import Layer
from backhand.layers.padding import Pads
from backhand.layers.parameter import Array

Sizes = tuple[int, ...]
Index = tuple[Any, ...]
AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


@dataclass(frozen=True)
class Windows:
    """Windows of `kernel` elements, `dilation` apart, every `stride` positions: one number for each axis."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    @property
    def extent(self) -> Sizes:
        """How far a window stretches: d (k - 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def outputs(self, layer: Layer, shape: Sizes, pads: Pads, ceil_mode: bool = False) -> Sizes:
        """How many windows fit along each of the last axes of `shape`, or the layer's error where none does.

            floor((size + padding - extent) / stride) + 1

        ceil_mode : round up, so that the last window may hang over the end; but it has to start inside the input
            or the padding before it
        """
        sizes = shape[len(shape) - len(pads) :]
        counts = []
        for size, (before, after), extent, s in zip(sizes, pads, self.extent, self.stride, strict=True):
            room = size + before + after - extent
            count = (room + (s - 1 if ceil_mode else 0)) // s + 1
            if ceil_mode and (count - 1) * s >= size + before:
                count -= 1
            counts.append(count)
        if min(counts) < 1:
            padded = tuple(size + sum(both) for size, both in zip(sizes, pads, strict=True))
            layer.reject(
                f"x that one window of {self.extent} fits into", f"{shape}, which is {padded} with its padding"
            )
        return tuple(counts)

    def meetings(self, sizes: Sizes, outputs: Sizes, padding: Sizes | None = None) -> Iterator[tuple[Index, Index]]:
        """For each element of the window, in order: the outputs that have it inside the input, and where it is then.

        Both index the last axes, one input position for each output. padding : the amount before x
        """
        padding = padding or (0,) * len(sizes)
        lines = []
        for size, count, k, s, d, p in zip(
            sizes, outputs, self.kernel, self.stride, self.dilation, padding, strict=True
        ):
            lines.append([_meeting(size, count, s, element * d - p) for element in range(k)])
        for pairs in itertools.product(*lines):
            yield (..., *(to for to, _ in pairs)), (..., *(at for _, at in pairs))

    def line(self, before: Sizes, after: Sizes, axis: int, padding: int) -> Line:
        """Windows along one axis alone, counted from the end (-1), that turns an array of one shape into the other."""
        k, s, d, size, count = self.kernel[axis], self.stride[axis], self.dilation[axis], before[axis], after[axis]
        beside = (slice(None),) * (-1 - axis)
        pairs = [_meeting(size, count, s, element * d - padding) for element in range(k)][::-1]
        return Line(
            before,
            after,
            [((..., to, *beside), (..., at, *beside)) for to, at in pairs],
            whole=all(to.stop - to.start == count for to, _ in pairs),
            apart=s > d * (k - 1),
            tiles=s == k and d == 1 and padding == 0 and count * k == size,
        )

    def view(self, x: Array, outputs: Sizes) -> Array:
        """Every window of a channels-last batch, without copying: (N, *outputs, *kernel, C) from (N, *sizes, C)."""
        n = len(outputs)
        batch, *axes, channel = x.strides
        steps = [stride * s for stride, s in zip(axes, self.stride, strict=True)]
        inner = [stride * d for stride, d in zip(axes, self.dilation, strict=True)]
        return np.lib.stride_tricks.as_strided(
            x, (len(x), *outputs, *self.kernel, x.shape[n + 1]), (batch, *steps, *inner, channel), writeable=False
        )


@dataclass(frozen=True)
class Line:
    """Windows along one axis of an array: the shapes before and after, and how outputs and elements meet.

    meetings : as in `Windows.meetings`, but from the last element of the window to the first
    whole : every output has all its elements inside the input
    apart : no element is in two windows      tiles : every element is in exactly one
    """

    before: Sizes
    after: Sizes
    meetings: list[tuple[Index, Index]]
    whole: bool
    apart: bool
    tiles: bool


def _meeting(size: int, count: int, s: int, shift: int) -> tuple[slice, slice]:
    """The outputs o in [0, count) with 0 <= o s + shift < size, and those positions."""
    first = max(0, -(shift // s))  # ceil(-shift / s)
    last = min(count - 1, (size - 1 - shift) // s)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(first, last + 1), slice(first * s + shift, last * s + shift + 1, s)


def check_image(layer: Layer, x: Array, n: int, channels: int | None = None) -> None:
    """Raise the layer's error unless x is (N, C, *spatial) or (C, *spatial) with n spatial axes."""
    if x.ndim in (n + 1, n + 2) and channels in (None, x.shape[-n - 1]):
        return
    c = "C" if channels is None else channels
    hint = ""
    if channels == 1 and x.ndim == n + 1:
        hint = "x[:, None] gives it an axis of one channel"
    elif channels is not None and x.ndim in (n + 1, n + 2) and x.shape[-1] == channels:
        hint = "the channels come before the spatial axes: np.moveaxis(x, -1, 1)"
        if x.ndim == n + 1:
            hint = hint.replace("-1, 1", "-1, 0")
    layer.reject(f"x of shape (N, {c}, {AXES[n]}) or ({c}, {AXES[n]})", x.shape, hint)


def each(value: Any, n: int) -> Sizes:
    """A checked argument, an int or a tuple of them, as one number for each of n axes."""
    if isinstance(value, (tuple, list)):
        return tuple(value) * (n if len(value) == 1 else 1)
    return (value,) * n


def copy_runs(source: Array, target: Array) -> None:
    """Copy an array whose last axis is contiguous to one that is contiguous, of any shape.

    NumPy copies an element of any size with one memcpy, so runs are copied much faster than their numbers are.
    """
    run = np.dtype((np.void, source.shape[-1] * source.itemsize))
    np.copyto(target.reshape(source.shape).view(run), source.view(run))
