"""Memory for results, used again as soon as nobody can see it any more.

A new array of some hundred kilobytes comes from the system as pages that are mapped one by one when they are first
written to, which costs as much as the arithmetic. Here a block is handed out again once the last array that looks
into it is gone. `ndarray.base` always names the owner of the memory, through any number of views, so the reference
count of a block says exactly that: what a user keeps, whole or as a slice, is never written over.

    y = np.multiply(a, b, out=empty_like(a))        in the place of        y = a * b
"""

from __future__ import annotations

import functools
import math
import operator
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

# Smaller arrays are NumPy's own: the allocator hands their memory out again by itself.
LEAST_BYTES = 1 << 16
# What nobody uses is kept up to this share of the most that has been in use of late, or so many bytes if that is more:
# sizes that are needed one after the other in every step should not chase each other out.
SLACK = 0.25
ROOM = 1 << 25
# Blocks of a size that nobody has asked for in so many calls go.
FORGOTTEN = 1 << 12


# Where an array begins, for the widest registers: those that begin in between take a tenth longer to go through.
ALIGNED = 64


class Pool:
    """Blocks of bytes in lists by their size; free is a block that nothing but its list refers to.

    Whoever asks for an array never waits: a second thread that comes in between (or, in the same one, a signal handler
    or a `__del__`) gets NumPy's own memory.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, list[Array]] = {}
        self._starts: dict[int, int] = {}  # id of a block -> where in it an array begins
        self._used: dict[int, int] = {}  # size -> when one of this size was last asked for
        self._clock = 0
        self._lock = threading.Lock()
        self._peak = 0.0

    def array(self, shape: Shape, dtype: np.dtype[Any], size: int, strides: Shape | None = None) -> Array:
        """An array of `size` bytes whose numbers are whatever was there before."""
        size = _rounded(size)
        if not self._lock.acquire(blocking=False):
            return np.ndarray(shape, dtype, np.empty(size, np.uint8), 0, strides)
        try:
            blocks = self._blocks.get(size)
            if blocks is None:
                blocks = self._blocks[size] = []
            self._clock += 1
            self._used[size] = self._clock
            if not self._clock % FORGOTTEN:
                self._drop([old for old, last in self._used.items() if last <= self._clock - FORGOTTEN])
            try:
                block = blocks[operator.indexOf(_references(blocks), _ALONE)]
            except ValueError:
                block = self._fresh(size)
            return np.ndarray(shape, dtype, block, self._starts[id(block)], strides)
        finally:
            self._lock.release()

    def bytes(self) -> tuple[int, int]:
        """(in use, held): what arrays look into, and that together with what waits to be used again."""
        with self._lock:
            return self._in_use(), self._held()

    def release(self) -> None:
        """Give back to the system what nobody uses."""
        with self._lock:
            self._shrink(0)

    def _fresh(self, size: int) -> Array:
        """A new block, and no more free ones left beside it than SLACK and ROOM allow."""
        in_use = self._in_use() + size
        # a peak is forgotten by and by: a smaller network need not keep the memory of a larger one
        self._peak = max(0.99 * self._peak, in_use)
        self._shrink(max((1 + SLACK) * self._peak - in_use, ROOM))
        try:
            block = _bytes(size)
        except MemoryError:
            self._shrink(0)
            block = _bytes(size)
        self._starts[id(block)] = _before(block)
        self._blocks[size].append(block)
        return block

    def _shrink(self, most: float) -> None:
        """Drop free blocks until no more than so many bytes of them are left."""
        self._drop(sorted(self._blocks, key=self._used.__getitem__), self._held() - self._in_use() - most)

    def _drop(self, sizes: list[int], enough: float = math.inf) -> None:
        """Drop free blocks of these sizes, one after the other, until that was enough bytes."""
        for size in sizes:
            blocks = self._blocks[size]
            while enough > 0 and _ALONE in _references(blocks):
                block = blocks.pop(operator.indexOf(_references(blocks), _ALONE))
                del self._starts[id(block)]
                enough -= size

    def _in_use(self) -> int:
        seen = {size: sum(n != _ALONE for n in _references(blocks)) for size, blocks in self._blocks.items()}
        return sum(size * n for size, n in seen.items())

    def _held(self) -> int:
        return sum(size * len(blocks) for size, blocks in self._blocks.items())


def _references(blocks: list[Array]) -> Iterator[int]:
    """How many references there are to each block; without a variable for it, which could be held by a debugger."""
    return map(sys.getrefcount, blocks)


def _bytes(size: int) -> Array:
    """New memory, with room to begin where it is aligned."""
    return np.empty(size + ALIGNED, np.uint8)


def _before(block: Array) -> int:
    """How many bytes to leave out, so that what comes after them is aligned."""
    return -block.__array_interface__["data"][0] % ALIGNED


# What is counted for a block that only the list refers to: the way of counting counts too.
_ALONE = next(_references([_bytes(1)]))
# An interpreter that does not count references exactly (built without the GIL, or not CPython) has NumPy's own memory.
_exact = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
_pool = Pool()


def _forget_pool() -> None:
    """A child that was forked may find the parent's pool locked for ever; its arrays keep their memory without it."""
    global _pool
    _pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _rounded(size: int) -> int:
    """A size that arrays of almost the same size share: upwards to four significant bits."""
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


def empty(shape: Shape, dtype: DTypeLike = np.float32) -> Array:
    """`numpy.empty`, of memory that may have served before."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST_BYTES or not _exact:
        return np.empty(shape, dtype)
    return _pool.array(shape, dtype, size)


def empty_like(x: Array, dtype: DTypeLike | None = None) -> Array:
    """`numpy.empty_like`: the shape and the memory order of x."""
    dtype = x.dtype if dtype is None else np.dtype(dtype)
    size = x.size * dtype.itemsize
    if size < LEAST_BYTES or not _exact:
        return np.empty_like(x, dtype, subok=False)
    return _pool.array(
        x.shape, dtype, size, None if x.flags.c_contiguous else _order(x.shape, x.strides, dtype.itemsize)
    )


def resized(x: Array, shape: Shape, dtype: DTypeLike | None = None) -> Array:
    """An empty array of another shape with as many axes, which lie in memory in the order of those of x."""
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    array = empty(tuple(shape[axis] for axis in order), x.dtype if dtype is None else dtype)
    return array.transpose(sorted(range(x.ndim), key=order.__getitem__))


def zeros(shape: Shape, dtype: DTypeLike = np.float32) -> Array:
    """`numpy.zeros`, of memory that may have served before."""
    x = empty(shape, dtype)
    x.fill(0)
    return x


def product(a: Array, b: Array) -> Array:
    """The matrix product of two arrays of one dtype, each with two axes."""
    shape = (a.shape[0], b.shape[1])
    size = shape[0] * shape[1] * a.itemsize
    if size < LEAST_BYTES or not _exact:
        return np.matmul(a, b)
    return np.matmul(a, b, out=_pool.array(shape, a.dtype, size))


def aligned(n: int, dtype: np.dtype[Any]) -> Array:
    """A new vector that begins where the widest registers like it, to be kept for long: it is in no pool."""
    block = _bytes(n * dtype.itemsize)
    return np.ndarray(n, dtype, block, _before(block))


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
