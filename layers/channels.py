"""One number for each channel beside an array (N, C, ...): sums down to it, and products with it, at full speed.

NumPy is fast along long runs in memory. Next to an array with its channels last, a vector of 16 channels is a run of
16: so several pixels are taken as one row, and the vector is repeated to their length. With the channels first, a
sample is such a row, with each number repeated over the pixels of its channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from backhand.layers.blocks import BLOCK, in_blocks
from backhand.layers.memory import Array, empty, empty_like

# Rows of pixels are made so long, where their number lets them; for sums shorter ones are faster.
ROW = 1 << 13
SUMMED = 1 << 10


class Channels:
    """How arrays of one shape (N, C, ...) and one memory order lie as a matrix.

        channels last      (a, b, c, a, b, c, ...)      some pixels to a row
        channels first     (a, a, ..., b, b, ..., c)    one sample to a row; or one channel, if samples are large

    like : an array with that shape and memory, without gaps
    """

    def __init__(self, like: Array) -> None:
        self.like = like
        self.shape = like.shape
        n, self.channels, *sizes = like.shape
        pixels = math.prod(sizes)
        self.order = (0, *range(2, like.ndim), 1)
        self.last = like.transpose(self.order).flags.c_contiguous
        if self.last:
            self.repeats = math.gcd(n * pixels, _power(ROW // self.channels))
            self.matrix = (n * pixels // self.repeats, self.repeats * self.channels)
            self.run = math.gcd(self.repeats, _power(SUMMED // self.channels)) * self.channels
        else:
            self.repeats = pixels
            # within one channel, and short enough for the sums to be sharp
            self.run = pixels // math.gcd(pixels, _power(pixels // BLOCK))
            small = self.channels * pixels <= BLOCK
            self.matrix = (n, self.channels * pixels) if small else (n * self.channels, pixels)

    def rows(self, x: Array) -> Array:
        """x as the matrix: a view, where x lies in memory as it should, else a copy."""
        return (x.transpose(self.order) if self.last else x).reshape(self.matrix)

    def sums(self, a: Array, b: Array) -> tuple[Array, Array]:
        """The sums of b, and of a * b, over all but the channels: (C,) in double precision."""
        a, b = (self.rows(x).reshape(-1, self.run) for x in (a, b))
        if self.last:
            pairs = in_blocks(lambda part: _down(a[part], b[part]), *a.shape)
            both = np.sum(pairs, axis=0, dtype=np.float64).reshape(2, -1, self.channels).sum(axis=1)
        else:
            pairs = in_blocks(lambda part: _along(a[part], b[part]), *a.shape)
            each = np.concatenate(pairs, axis=1).reshape(2, self.shape[0], self.channels, -1)
            both = each.sum(axis=(1, 3), dtype=np.float64)
        return both[0], both[1]

    def apply(self, work: Callable[..., Any], *operands: Array) -> Array:
        """A new array that `work(out, *operands)` writes, piece by piece.

        operands : arrays of the full shape, and vectors of one number for each channel
        """
        out = empty_like(self.like)
        matrices = [self.rows(out), *(self._operand(each, out.dtype) for each in operands)]

        def piece(part: slice) -> None:
            work(*[matrix if len(matrix) == 1 else matrix[part] for matrix in matrices])

        in_blocks(piece, *self.matrix)
        return out

    def _operand(self, values: Array, dtype: Any) -> Array:
        """As it meets the matrix: the matrix itself; for a vector a row, or a column where rows are channels."""
        if values.ndim > 1:
            return self.rows(values)
        values = values.astype(dtype, copy=False)
        if self.last:
            return np.tile(values, self.repeats)[None]
        if self.matrix[0] == self.shape[0]:
            return np.repeat(values, self.repeats)[None]
        return np.tile(values, self.shape[0])[:, None]


def dense(x: Array) -> Array:
    """x if its numbers lie without gaps and its channels first or last in memory, else such a copy."""
    if x.flags.c_contiguous or np.moveaxis(x, 1, -1).flags.c_contiguous:
        return x
    copy = empty(x.shape, x.dtype)
    np.copyto(copy, x)
    return copy


def _power(number: int) -> int:
    """The largest power of two in it, at least 1."""
    return 1 << max(number, 1).bit_length() - 1


def _down(a: Array, b: Array) -> Array:
    """The sums of b and a * b over the rows."""
    return np.stack((np.ones(len(b), b.dtype) @ b, np.einsum("rw,rw->w", a, b)))


def _along(a: Array, b: Array) -> Array:
    """The sums of b and a * b along the rows."""
    return np.stack((b @ np.ones(b.shape[1], b.dtype), np.einsum("rw,rw->r", a, b)))
