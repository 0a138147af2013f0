"""Padding as layers: a border of zeros, of a constant, of the mirror image, of the edge, or of the other end.

The copies and their adjoint are those of padding.py: what is copied into the border adds to the gradient of where it
was copied from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import number, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.padding import Pads, check_pads, pad, unpad
from backhand.layers.parameter import Array
from backhand.layers.windows import check_image

Amounts = int | tuple[int, ...]


class _PadNd(Layer):
    """What all of them are; `axes` is the number of axes that are padded, the last ones.

    y[i + before] = x[i],  and the border by `mode`        dx = the sum of dout over all places that copy x
    """

    axes: int
    mode: str
    value: float = 0.0

    def __init__(self, padding: Amounts) -> None:
        self.padding = whole_tuple(self, "padding", padding, 2 * self.axes, least=-np.inf)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        self._check(x)
        pads = self._pads()
        check_pads(self, x.shape, pads, self.mode)
        everywhere = ((0, 0),) * (x.ndim - self.axes) + pads
        y = pad(x, everywhere, self.mode, self.value)
        y = x.copy() if y is x else y
        self.save(everywhere, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (pads,) = self.saved()
        return unpad(dout, pads, self.mode)

    def _check(self, x: Array) -> None:
        """Raise the error for an x that does not have the axes to be padded."""
        check_image(self, x, self.axes)

    def _pads(self) -> Pads:
        """(before, after) for each axis; torch's order is that of the last axis first."""
        return tuple(zip(self.padding[::2], self.padding[1::2], strict=True))[::-1]


class _ConstantPadNd(_PadNd):
    """A border of one value: the only padding that takes x with any axes before those that it pads."""

    mode = "zeros"

    def __init__(self, padding: Amounts, value: float) -> None:
        super().__init__(padding)
        self.value = value if value != value else number(self, "value", value)

    def _check(self, x: Array) -> None:
        if x.ndim < self.axes:
            self.reject(f"x with at least {self.axes} axes", f"shape {x.shape}")


class _ZeroPadNd(_ConstantPadNd):
    """A border of zeros."""

    def __init__(self, padding: Amounts) -> None:
        super().__init__(padding, 0.0)


class _ReflectionPadNd(_PadNd):
    """A border that mirrors."""

    mode = "reflect"


class _ReplicationPadNd(_PadNd):
    """A border that repeats the edge."""

    mode = "replicate"


class _CircularPadNd(_PadNd):
    """A border that goes on at the other end."""

    mode = "circular"


class ConstantPad1d(_ConstantPadNd):
    """A border of one value around sequences.

        y[i + before] = x[i],  and `value` in the border        dx = dout without the border

    x : (..., L)
    y : (..., L + left + right)
    padding : one amount, or (left, right); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad1d.html
    """

    axes = 1


class ConstantPad2d(_ConstantPadNd):
    """A border of one value around images.

        y[i + before] = x[i],  and `value` in the border        dx = dout without the border

    x : (..., H, W)
    y : (..., H + top + bottom, W + left + right)
    padding : one amount, or (left, right, top, bottom); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad2d.html
    """

    axes = 2


class ConstantPad3d(_ConstantPadNd):
    """A border of one value around volumes.

        y[i + before] = x[i],  and `value` in the border        dx = dout without the border

    x : (..., D, H, W)
    y : (..., D + front + back, H + top + bottom, W + left + right)
    padding : one amount, or (left, right, top, bottom, front, back); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad3d.html
    """

    axes = 3


class ZeroPad1d(_ZeroPadNd):
    """A border of zeros around sequences.

        y[i + before] = x[i],  and 0 in the border        dx = dout without the border

    x : (..., L)
    y : (..., L + left + right)
    padding : one amount, or (left, right); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad1d.html
    """

    axes = 1


class ZeroPad2d(_ZeroPadNd):
    """A border of zeros around images.

        y[i + before] = x[i],  and 0 in the border        dx = dout without the border

    x : (..., H, W)
    y : (..., H + top + bottom, W + left + right)
    padding : one amount, or (left, right, top, bottom); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad2d.html
    """

    axes = 2


class ZeroPad3d(_ZeroPadNd):
    """A border of zeros around volumes.

        y[i + before] = x[i],  and 0 in the border        dx = dout without the border

    x : (..., D, H, W)
    y : (..., D + front + back, H + top + bottom, W + left + right)
    padding : one amount, or (left, right, top, bottom, front, back); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad3d.html
    """

    axes = 3


class ReflectionPad1d(_ReflectionPadNd):
    """A border in which sequences are mirrored at their edge, which is not repeated.

        y = ... x[2] x[1] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, L) or (C, L)
    y : the same with L + left + right
    padding : one amount, or (left, right); a negative one crops;
        each less than the size of its axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad1d.html
    """

    axes = 1


class ReflectionPad2d(_ReflectionPadNd):
    """A border in which images are mirrored at their edge, which is not repeated.

        y = ... x[2] x[1] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, H, W) or (C, H, W)
    y : the same with H + top + bottom, W + left + right
    padding : one amount, or (left, right, top, bottom); a negative one crops;
        each less than the size of its axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad2d.html
    """

    axes = 2


class ReflectionPad3d(_ReflectionPadNd):
    """A border in which volumes are mirrored at their edge, which is not repeated.

        y = ... x[2] x[1] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, D, H, W) or (C, D, H, W)
    y : the same with D + front + back, H + top + bottom, W + left + right
    padding : one amount, or (left, right, top, bottom, front, back); a negative one crops;
        each less than the size of its axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad3d.html
    """

    axes = 3


class ReplicationPad1d(_ReplicationPadNd):
    """A border in which the edge of sequences is repeated.

        y = ... x[0] x[0] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, L) or (C, L)
    y : the same with L + left + right
    padding : one amount, or (left, right); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad1d.html
    """

    axes = 1


class ReplicationPad2d(_ReplicationPadNd):
    """A border in which the edge of images is repeated.

        y = ... x[0] x[0] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, H, W) or (C, H, W)
    y : the same with H + top + bottom, W + left + right
    padding : one amount, or (left, right, top, bottom); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad2d.html
    """

    axes = 2


class ReplicationPad3d(_ReplicationPadNd):
    """A border in which the edge of volumes is repeated.

        y = ... x[0] x[0] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, D, H, W) or (C, D, H, W)
    y : the same with D + front + back, H + top + bottom, W + left + right
    padding : one amount, or (left, right, top, bottom, front, back); a negative one crops
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad3d.html
    """

    axes = 3


class CircularPad1d(_CircularPadNd):
    """A border in which sequences go on at their other end.

        y = ... x[-2] x[-1] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, L) or (C, L)
    y : the same with L + left + right
    padding : one amount, or (left, right); a negative one crops;
        each at most the size of its axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad1d.html
    """

    axes = 1


class CircularPad2d(_CircularPadNd):
    """A border in which images go on at their other end.

        y = ... x[-2] x[-1] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, H, W) or (C, H, W)
    y : the same with H + top + bottom, W + left + right
    padding : one amount, or (left, right, top, bottom); a negative one crops;
        each at most the size of its axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad2d.html
    """

    axes = 2


class CircularPad3d(_CircularPadNd):
    """A border in which volumes go on at their other end.

        y = ... x[-2] x[-1] | x[0] x[1] x[2] ... along each axis        dx[i] = sum of dout over all copies of x[i]

    x : (N, C, D, H, W) or (C, D, H, W)
    y : the same with D + front + back, H + top + bottom, W + left + right
    padding : one amount, or (left, right, top, bottom, front, back); a negative one crops;
        each at most the size of its axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad3d.html
    """

    axes = 3
