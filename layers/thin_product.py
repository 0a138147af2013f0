"""The product of a few rows with a matrix, the same matrix again and again: what every step over time does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backhand.layers.parameter import Array

# OpenBLAS multiplies matrices up to this many multiplications without copying them into another order first, which
# costs more than it brings for so few rows; and a slab of 64 columns or less stays in the first cache.
SMALL = 1_000_000
WIDEST, NARROWEST = 64, 32


class ThinProduct:
    """y = rows @ matrix, with the matrix laid out once for products with so many rows.

        times(rows, matrix, into(y))

    matrix : (blocks, K, M), of which every block gives its own M columns
    rows : (n, K)      y : (blocks, n, M)
    count : about how many rows come at a time; with one it is a product with a vector, which takes the matrix as it is
    """

    times: Callable[..., Any]

    def __init__(self, matrix: Array, count: int) -> None:
        blocks, k, m = matrix.shape
        self.one = count == 1
        if self.one:
            self.times = np.dot
            self.matrix = matrix.swapaxes(1, 2).reshape(blocks * m, k).T
        else:
            self.times = np.matmul
            widths = range(WIDEST, NARROWEST - 1, -1)
            self.width = next((w for w in widths if m % w == 0 and count * k * w <= SMALL), m)
            self.matrix = np.ascontiguousarray(matrix.reshape(blocks, k, -1, self.width).swapaxes(1, 2))

    def into(self, y: Array) -> Array:
        """The view of y that `times` writes to."""
        if self.one:
            return y.reshape(1, -1)
        return y.reshape(*y.shape[:-1], -1, self.width).swapaxes(1, 2)
