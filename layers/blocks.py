"""Several passes over an array, a block at a time.

A NumPy expression of six operations reads and writes its array six times. Where each of them waits for memory, it
pays to take as much as stays in the cache through all six, and then the next block. Threads share the blocks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.memory import Array, empty, empty_like
from backhand.layers.threads import in_parts

T = TypeVar("T")

# Numbers in a block: four or five arrays of so many float32 stay in an L2 cache of one megabyte.
BLOCK = 1 << 16
# Blocks that are worth waking a thread up for: about a millisecond.
WORTH = 8
PAGE = 1 << 12  # bytes


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


def blockwise(work: Callable[..., Any], out: Array, *arrays: Array) -> Array:
    """`work(out, *arrays)`, which writes to `out` number by number, in blocks; returns out.

    The arrays have the shape of out. Where they do not lie in memory in one order, it is one call.
    """
    lines = _lines((out, *arrays)) if out.size > BLOCK else None
    if lines is None:
        work(out, *arrays)
    else:
        in_blocks(lambda block: work(*[line[block] for line in lines]), out.size)
    return out


def add(a: Array, b: Array) -> Array:
    """a + b, in memory that may have served before."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.asarray(a + b)
    return blockwise(lambda out, a, b: np.add(a, b, out=out), empty_like(a), a, b)


def scratch(place: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An empty array for what is dropped again, well placed for operations with others of this kind.

    place : 0 to 7, another one for each that meets in an operation

    It begins at a cache line, and no two places are the same distance into a page of memory: a processor that reads and
    writes at the same distance into two pages takes one for the other, and waits.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = empty((size + PAGE,), np.uint8)
    start = (place * PAGE // 8 - memory.__array_interface__["data"][0]) % PAGE
    return memory[start : start + size].view(dtype).reshape(shape)


def zeros_beside(x: Array) -> Any:
    """Zeros to compare x with: NumPy's maximum of two arrays is four times as fast as that of an array and a number."""
    return _zeros(x.dtype)[: x.size].reshape(x.shape) if x.size <= BLOCK and x.flags.c_contiguous else 0


@functools.lru_cache
def _zeros(dtype: np.dtype[Any]) -> Array:
    zeros = np.zeros(BLOCK, dtype)
    zeros.flags.writeable = False
    return zeros


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


def _lines(arrays: tuple[Array, ...]) -> list[Array] | None:
    """The memory of each array as one axis, if all have their axes in the same order there, without gaps."""
    if all(array.flags.c_contiguous for array in arrays):
        return [array.reshape(-1) for array in arrays]
    strides = arrays[0].strides
    order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    turned = [array.transpose(order) for array in arrays]
    if all(array.flags.c_contiguous for array in turned):
        return [array.reshape(-1) for array in turned]
    return None
