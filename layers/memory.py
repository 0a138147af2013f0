"""Memory for results, used again as soon as nobody can see it any more.

A new array of some hundred kilobytes comes from the system as pages that are mapped one by one when they are first
written to, which costs as much as the arithmetic. Here a block is handed out again once the last array that looks
into it is gone. `ndarray.base` always names the owner of the memory, through any number of views, so the reference
count of a block says exactly that: what a user keeps, whole or as a slice, is never written over.

    y = np.multiply(a, b, out=empty_like(a))        in the place of        y = a * b
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

# Smaller arrays are NumPy's own: the allocator hands their memory out again by itself.
LEAST_BYTES = 1 << 16
# What nobody uses is kept up to this share of the most that has been in use of late.
SLACK = 0.25


class Pool:
    """Blocks of bytes in lists by their size; free is a block that nothing but its list refers to."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[Array]] = {}
        self._used: dict[int, int] = {}  # size -> when one of this size was last asked for
        self._clock = itertools.count()
        self._lock = threading.Lock()
        self._peak = 0.0

    def array(self, shape: Shape, dtype: np.dtype[Any], strides: Shape | None = None) -> Array:
        """An array whose numbers are whatever was there before."""
        size = _rounded(math.prod(shape) * dtype.itemsize)
        with self._lock:
            block = next(_unseen(self._blocks.get(size, ())), None)
            if block is None:
                block = self._fresh(size)
            self._used[size] = next(self._clock)
            return np.ndarray(shape, dtype, block, 0, strides)

    def bytes(self) -> tuple[int, int]:
        """(in use, held): what arrays look into, and that together with what waits to be used again."""
        with self._lock:
            return self._in_use(), self._held()

    def release(self) -> None:
        """Give back to the system what nobody uses."""
        with self._lock:
            self._shrink(0)

    def _fresh(self, size: int) -> Array:
        """A new block, and no more than SLACK of free ones left beside it."""
        in_use = self._in_use() + size
        # a peak is forgotten by and by: a smaller network need not keep the memory of a larger one
        self._peak = max(0.99 * self._peak, in_use)
        self._shrink((1 + SLACK) * self._peak - in_use)
        block = np.empty(size, np.uint8)
        self._blocks.setdefault(size, []).append(block)
        return block

    def _shrink(self, most: float) -> None:
        """Drop free blocks, those of the sizes that were asked for longest ago first, until so many bytes are left."""
        free = self._held() - self._in_use()
        for size in sorted(self._blocks, key=lambda size: self._used.get(size, 0)):
            drop = min(math.ceil(max(free - most, 0) / size), sum(1 for _ in _unseen(self._blocks[size])))
            gone = {id(block) for block in itertools.islice(_unseen(self._blocks[size]), drop)}
            self._blocks[size] = [block for block in self._blocks[size] if id(block) not in gone]
            free -= drop * size

    def _in_use(self) -> int:
        return self._held() - sum(size for size, blocks in self._blocks.items() for _ in _unseen(blocks))

    def _held(self) -> int:
        return sum(size * len(blocks) for size, blocks in self._blocks.items())


def _unseen(blocks: Sequence[Array]) -> Iterator[Array]:
    """Those that nothing but the list refers to."""
    for block in blocks:
        if _references(block) <= _alone:
            yield block


def _calibrated() -> int:
    """What the count reads, up there, for a block that only the list refers to: the way of counting counts too."""
    global _alone
    blocks = [np.empty(0, np.uint8)]
    while next(_unseen(blocks), None) is None:
        _alone += 1
    return _alone


# An interpreter that does not count references exactly (no GIL, not CPython) gets NumPy's own memory.
_exact = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
_references = sys.getrefcount if _exact else id
_alone = 0
if _exact:
    _calibrated()
_pool = Pool()


def _rounded(size: int) -> int:
    """A size that arrays of almost the same size share: upwards to four significant bits."""
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


def empty(shape: Shape, dtype: DTypeLike = np.float32) -> Array:
    """`numpy.empty`, of memory that may have served before."""
    dtype = np.dtype(dtype)
    if math.prod(shape) * dtype.itemsize < LEAST_BYTES or not _exact:
        return np.empty(shape, dtype)
    return _pool.array(shape, dtype)


def empty_like(x: Array, dtype: DTypeLike | None = None) -> Array:
    """`numpy.empty_like`: the shape and the memory order of x."""
    dtype = x.dtype if dtype is None else np.dtype(dtype)
    if x.size * dtype.itemsize < LEAST_BYTES or not _exact:
        return np.empty_like(x, dtype, subok=False)
    return _pool.array(x.shape, dtype, None if x.flags.c_contiguous else _order(x.shape, x.strides, dtype.itemsize))


def zeros(shape: Shape, dtype: DTypeLike = np.float32) -> Array:
    """`numpy.zeros`, of memory that may have served before."""
    x = empty(shape, dtype)
    x.fill(0)
    return x


def product(a: Array, b: Array) -> Array:
    """The matrix product of two arrays of one dtype, each with two axes."""
    shape = (a.shape[0], b.shape[1])
    if shape[0] * shape[1] * a.itemsize < LEAST_BYTES or not _exact:
        return np.matmul(a, b)
    return np.matmul(a, b, out=_pool.array(shape, a.dtype))


def release() -> None:
    """Give back to the system the memory that waits to be used again."""
    _pool.release()


@functools.lru_cache(maxsize=1024)
def _order(shape: Shape, strides: Shape, itemsize: int) -> Shape:
    """The strides of a contiguous array whose axes lie in memory in the same order as those with these strides."""
    result = [0] * len(shape)
    step = itemsize
    for axis in sorted(range(len(shape)), key=lambda axis: (abs(strides[axis]), -axis)):
        result[axis] = step
        step *= shape[axis]
    return tuple(result)
