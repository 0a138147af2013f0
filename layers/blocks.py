"""Several passes over an array, a block at a time.

A NumPy expression of six operations reads and writes its array six times. Where each of them waits for memory, it
pays to take as much as stays in the cache through all six, and then the next block. Threads share the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from backhand.layers.memory import Array, empty_like
from backhand.layers.threads import in_parts

T = TypeVar("T")

# Numbers in a block: four or five arrays of so many float32 stay in an L2 cache of one megabyte.
BLOCK = 1 << 16
# Blocks that are worth waking a thread up for: about a millisecond.
WORTH = 8


def in_blocks(work: Callable[[slice], T], length: int, width: int = 1) -> list[T]:
    """[work(block), ...] for consecutive slices that cover range(length), side by side where there are many.

    width : how many numbers each of the `length` rows has
    The blocks do not depend on the number of threads, so neither do sums that are taken block by block.
    """
    size = max(BLOCK // width, 1)
    if length <= size:
        return [work(slice(0, length))]
    blocks = [slice(start, min(start + size, length)) for start in range(0, length, size)]
    parts = in_parts(lambda part: [work(block) for block in blocks[part]], len(blocks), WORTH)
    return [result for part in parts for result in part]


def row_dots(a: Array, b: Array) -> Array:
    """The product of each row of a with that of b, (..., 1): by BLAS, a third of what einsum takes."""
    dots: Array = np.matmul(a[..., None, :], b[..., None])[..., 0]
    return dots


def flat(x: Array) -> Array:
    """A view of x along one axis, in the order of its memory, which has no gaps."""
    return x.reshape(-1) if x.flags.c_contiguous else x.ravel("K")


def without_gaps(x: Array) -> Array:
    """x, or a copy of it, whose memory is in the order of that of `empty_like(x)`."""
    if x.flags.c_contiguous:
        return x
    copy = empty_like(x)
    if copy.strides == x.strides:
        return x
    copy[...] = x
    return copy
