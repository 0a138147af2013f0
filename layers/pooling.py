"""Pooling: every window of an image becomes one number, its maximum or its mean.

There are no parameters, so the backward only says where the upstream goes: all of it to the largest, or an equal
share to each. The forward walks over the elements of the window, not over the windows: one operation for each, on a
few samples at a time, in whatever memory order the image has.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import refuse, whole, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.blocks import in_blocks
from backhand.layers.channels import dense
from backhand.layers.memory import empty_like, resized
from backhand.layers.parameter import Array
from backhand.layers.windows import Index, Line, Sizes, Windows, check_image, each

IntOrTuple = int | tuple[int, ...]


class _PoolNd(Layer):
    """The arguments and the geometry of sliding windows; `axes` is the number of spatial axes."""

    axes: int
    kernel_size: IntOrTuple
    stride: IntOrTuple
    padding: IntOrTuple
    dilation: IntOrTuple = 1
    ceil_mode: bool

    def build(self, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> None:
        stride = kernel_size if stride is None else stride
        kernel = whole_tuple(self, "kernel_size", kernel_size, self.axes)
        whole_tuple(self, "stride", stride, self.axes)
        pads = whole_tuple(self, "padding", padding, self.axes, least=0)
        whole_tuple(self, "dilation", dilation, self.axes)
        if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
            refuse(self, f"padding of at most half of kernel_size={kernel_size}", padding)
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def _windows(self) -> Windows:
        return Windows(each(self.kernel_size, self.axes), each(self.stride, self.axes), each(self.dilation, self.axes))

    def _pads(self) -> Sizes:
        return each(self.padding, self.axes)

    def _lines(self, shape: Sizes, outputs: Sizes) -> list[Line]:
        """What is pooled, one axis after the other, from the last to the first."""
        lines = []
        for axis in range(-1, -self.axes - 1, -1):
            after = list(shape)
            after[axis] = outputs[axis]
            lines.append(self._windows().line(shape, tuple(after), axis, self._pads()[axis]))
            shape = tuple(after)
        return lines

    def _outputs(self, x: Array) -> Sizes:
        """The spatial shape of y, or the error that says why there is none."""
        check_image(self, x, self.axes)
        return self._windows().outputs(self, x.shape, tuple((p, p) for p in self._pads()), self.ceil_mode)


class _MaxPoolNd(_PoolNd):
    """The largest element of every window.

        y[o] = max over k of x[o s + k d - p]        dx = dout at the largest element, 0 elsewhere

    Where windows overlap, an element that is the largest of several gets the sum of their upstreams. Among equals
    the first one wins. Padding never wins: it is left out. NaN counts as the largest of all.
    """

    def __init__(
        self,
        kernel_size: IntOrTuple,
        stride: IntOrTuple | None = None,
        padding: IntOrTuple = 0,
        dilation: IntOrTuple = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self.build(kernel_size, stride, padding, dilation, ceil_mode)
        self.dilation = dilation
        self.return_indices = return_indices

    def forward(self, x: ArrayLike) -> Any:
        x = self.input(x)
        outputs = self._outputs(x)
        self._check_filled(x.shape, outputs)
        images = dense(x.reshape(-1, *x.shape[-self.axes - 1 :]))
        y = resized(images, (*images.shape[:2], *outputs))
        winner: Any = None
        if self.caching or self.return_indices:
            winner = empty_like(y, np.min_scalar_type(math.prod(self._windows().kernel)))
        meetings = self._meetings(x.shape[-self.axes :], outputs)

        def pool(part: slice) -> None:
            _largest(images[part], y[part], None if winner is None else winner[part], meetings)

        in_blocks(pool, len(images), images[0].size)
        y = y.reshape(*x.shape[: -self.axes], *outputs)
        result = (y, self._flat_index(winner, images.shape).reshape(y.shape)) if self.return_indices else y
        self.save(winner, x.shape, out=result)
        return result

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        winner, shape = self.saved()
        if self.return_indices:
            dout = dout[0]
        dx = resized(winner, (*winner.shape[:2], *shape[-self.axes :]), dout.dtype)
        # every sample becomes a line, as it lies in memory; starts and steps are places on that line
        starts, steps = self._places(dx.shape, winner.shape, [stride // dx.itemsize for stride in dx.strides[1:]])
        order = (0, *sorted(range(1, dx.ndim), key=lambda axis: -dx.strides[axis]))
        line, turns, upstream, starts = (
            a.transpose(order).reshape(len(a), -1) for a in (dx, winner, dout.reshape(winner.shape), starts[None])
        )

        def scatter(part: slice) -> None:
            # "wrap" is the mode that is fast; no turn is too large
            places = steps.take(turns[part].astype(np.intp), mode="wrap")
            places += starts
            places += np.arange(len(places))[:, None] * line.shape[1]
            to = line[part].reshape(-1)
            to.fill(0)
            np.add.at(to, places.reshape(-1), upstream[part].reshape(-1))

        in_blocks(scatter, *line.shape)
        return dx.reshape(shape)

    def _meetings(self, sizes: Sizes, outputs: Sizes) -> list[tuple[Index, Index]]:
        """The elements of the window from the last to the first: with >=, the first of equals is the last to win.

        What is kept of each window is the turn, in this order, at which its winner came.
        """
        return list(self._windows().meetings(sizes, outputs, self._pads()))[::-1]

    def _check_filled(self, shape: Sizes, outputs: Sizes) -> None:
        """With a dilation, a small x may fall between the elements of a padded window; that has no maximum."""
        w = self._windows()
        for size, count, k, s, d, p in zip(
            shape[-self.axes :], outputs, w.kernel, w.stride, w.dilation, self._pads(), strict=True
        ):
            if d > 1 and p:
                at = np.arange(count)[:, None] * s + np.arange(k) * d - p
                if not ((at >= 0) & (at < size)).any(axis=1).all():
                    self.reject("x with an element in every window", f"{shape}, where one holds only padding")

    def _flat_index(self, winner: Any, shape: Sizes) -> Array:
        """Where in the flattened spatial plane the winners stand."""
        plane = [math.prod(shape[axis + 1 :]) for axis in range(-self.axes, -1)] + [1]
        starts, steps = self._places(shape, winner.shape, [0] * (len(shape) - 1 - self.axes) + plane)
        return steps[winner] + starts

    def _places(self, before: Sizes, after: Sizes, strides: list[int]) -> tuple[Array, Array]:
        """In a sample with these strides: where each window starts, and how far on the element of each turn is."""
        w = self._windows()
        steps = [np.arange(k) * d * m for k, d, m in zip(w.kernel, w.dilation, strides[-self.axes :], strict=True)]
        firsts = [np.arange(count) * m for count, m in zip(after[1:], strides, strict=True)]
        for axis, (s, p) in enumerate(zip(w.stride, self._pads(), strict=True), start=-self.axes):
            firsts[axis] = (np.arange(after[axis]) * s - p) * strides[axis]
        return _outer(np.add, firsts), _outer(np.add, steps).reshape(-1)[::-1].copy()


def _largest(x: Array, y: Array, winner: Array | None, meetings: list[tuple[Index, Index]]) -> None:
    """Write to y the largest element of each window of x, and to `winner` the turn at which it came."""
    whole = all(y[to].shape == y.shape for to, _ in meetings[:2])
    if whole and len(meetings) > 1:
        last, before = (x[at] for _, at in meetings[:2])
        np.maximum(last, before, out=y)
        if winner is not None:
            np.copyto(winner, before >= last)
    else:
        y.fill(-np.inf)
        if winner is not None:
            winner.fill(0)
    for turn, (to, at) in list(enumerate(meetings))[2 if whole and len(meetings) > 1 else 0 :]:
        best, candidate = y[to], x[at]
        if winner is not None:
            # turns only grow, so the maximum is the latest; several times as fast as writing where a mask is true
            np.maximum(winner[to], (candidate >= best) * winner.dtype.type(turn), out=winner[to])
        np.maximum(best, candidate, out=best)
    if winner is not None and np.isnan(y).any():  # nothing is >= NaN; of several, torch has the last one win
        for turn, (to, at) in reversed(list(enumerate(meetings))):
            np.copyto(winner[to], turn, where=np.isnan(x[at]))


class _AvgPoolNd(_PoolNd):
    """The mean of every window.

        y[o] = 1/n[o] sum over k of x[o s + k - p]        dx[o s + k - p] += dout[o] / n[o]

    n is the number of elements in the window: those of the padding are counted with `count_include_pad`, and what
    hangs over the end of the padding (with `ceil_mode`) never is.
    """

    def __init__(
        self,
        kernel_size: IntOrTuple,
        stride: IntOrTuple | None = None,
        padding: IntOrTuple = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self.build(kernel_size, stride, padding, 1, ceil_mode)
        self.count_include_pad = count_include_pad
        if divisor_override is not None and not whole(self, "divisor_override", divisor_override, least=-np.inf):
            refuse(self, "divisor_override other than 0", divisor_override)
        self.divisor_override = divisor_override

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        outputs = self._outputs(x)
        lines = self._lines(x.shape, outputs)
        counts = self._counts(x.shape[-self.axes :], outputs).astype(x.dtype)
        y = resized(x, lines[-1].after)

        def pool(part: slice) -> None:
            sums = x[part]
            for line in lines:
                of = sums
                sums = y[part] if line is lines[-1] else resized(of, (len(of), *line.after[1:]))
                _add_up(of, sums, line)
            sums /= counts

        in_blocks(pool, len(x), x[0].size)
        self.save(x.shape, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        lines = self._lines(shape, dout.shape[-self.axes :])
        counts = self._counts(shape[-self.axes :], dout.shape[-self.axes :]).astype(dout.dtype)
        dx = resized(dout, shape)

        def spread(part: slice) -> None:
            share = dout[part] / counts
            for line in reversed(lines):
                to = dx[part] if line is lines[0] else resized(share, (len(share), *line.before[1:]))
                _spread(share, to, line)
                share = to

        in_blocks(spread, len(dx), dx[0].size)
        return dx

    def _counts(self, sizes: Sizes, outputs: Sizes) -> Array:
        """n for every output: a product of one count along each axis."""
        if self.divisor_override is not None:
            return np.array(self.divisor_override)
        w = self._windows()
        counts = []
        for size, count, k, s, p in zip(sizes, outputs, w.kernel, w.stride, self._pads(), strict=True):
            margin = p if self.count_include_pad else 0
            starts = np.arange(count) * s - p
            counts.append(np.minimum(starts + k, size + margin) - np.maximum(starts, -margin))
        return _outer(np.multiply, counts)


def _add_up(x: Array, y: Array, line: Line) -> None:
    """Write to y the sum of each window along one axis of x."""
    first = 0
    if line.whole and len(line.meetings) > 1:
        (_, a), (_, b) = line.meetings[:2]
        np.add(x[a], x[b], out=y)
        first = 2
    else:
        y.fill(0)
    for to, at in line.meetings[first:]:
        y[to] += x[at]


def _spread(dy: Array, dx: Array, line: Line) -> None:
    """The adjoint of `_add_up`: write to dx the sum of the windows that hold each element."""
    if not line.tiles:
        dx.fill(0)
    for to, at in line.meetings:
        if line.apart:
            dx[at] = dy[to]
        else:
            dx[at] += dy[to]


class MaxPool1d(_MaxPoolNd):
    """The largest element of every window: max-pooling of sequences.

        y[o] = max over k of x[o stride + k dilation - padding]        dx = dout at the largest element

    x : (N, C, L) or (C, L)      y : (N, C, L_out), or without N
    stride : by default kernel_size, so that windows stand side by side
    return_indices : also return where in the (flattened) plane each maximum was found; then y is a tuple of two
    ceil_mode : let the last window hang over the end
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool1d.html
    """

    axes = 1


class MaxPool2d(_MaxPoolNd):
    """The largest element of every window: max-pooling of images.

        y[o] = max over k of x[o stride + k dilation - padding]        dx = dout at the largest element

    x : (N, C, H, W) or (C, H, W)      y : (N, C, H_out, W_out), or without N
    all arguments as in `MaxPool1d`, one number or one for each axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html
    """

    axes = 2


class MaxPool3d(_MaxPoolNd):
    """The largest element of every window: max-pooling of volumes.

        y[o] = max over k of x[o stride + k dilation - padding]        dx = dout at the largest element

    x : (N, C, D, H, W) or (C, D, H, W)      y : (N, C, D_out, H_out, W_out), or without N
    all arguments as in `MaxPool1d`, one number or one for each axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool3d.html
    """

    axes = 3


class AvgPool1d(_AvgPoolNd):
    """The mean of every window: average-pooling of sequences.

        y[o] = 1/n[o] sum over k of x[o stride + k - padding]        dx = dout / n, to every element of the window

    x : (N, C, L) or (C, L)      y : (N, C, L_out), or without N
    stride : by default kernel_size, so that windows stand side by side
    ceil_mode : let the last window hang over the end
    count_include_pad : whether the zeros of the padding count in n
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool1d.html
    """

    axes = 1

    def __init__(
        self,
        kernel_size: IntOrTuple,
        stride: IntOrTuple | None = None,
        padding: IntOrTuple = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)


class AvgPool2d(_AvgPoolNd):
    """The mean of every window: average-pooling of images.

        y[o] = 1/n[o] sum over k of x[o stride + k - padding]        dx = dout / n, to every element of the window

    x : (N, C, H, W) or (C, H, W)      y : (N, C, H_out, W_out), or without N
    divisor_override : an n to take instead
    all other arguments as in `AvgPool1d`, one number or one for each axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html
    """

    axes = 2


class AvgPool3d(_AvgPoolNd):
    """The mean of every window: average-pooling of volumes.

        y[o] = 1/n[o] sum over k of x[o stride + k - padding]        dx = dout / n, to every element of the window

    x : (N, C, D, H, W) or (C, D, H, W)      y : (N, C, D_out, H_out, W_out), or without N
    divisor_override : an n to take instead
    all other arguments as in `AvgPool1d`, one number or one for each axis
    https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool3d.html
    """

    axes = 3


def _outer(operation: np.ufunc, lines: list[Array]) -> Array:
    """The array of the operation over one element of each line: the sums, or products, of a grid."""
    return functools.reduce(operation.outer, lines)
