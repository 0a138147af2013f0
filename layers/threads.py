"""The other cores: work that is bound by memory, or made of many small products, split along the batch.

NumPy lets other threads run while it is inside a large operation, so parts of a batch can be worked on side by side.
The BLAS has threads of its own; meanwhile it is held to one in each part. There is one number of threads, that of the
BLAS: OPENBLAS_NUM_THREADS, threadpoolctl and `set_num_threads` all set it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")

_blas: list[Any] | None = None  # threadpoolctl's handles, found at the first question: looking for them takes a while
_workers: ThreadPoolExecutor | None = None
_size = 0
_lock = threading.Lock()
_inside = 0  # how many calls hold the BLAS to one thread
_before: list[tuple[Any, int]] = []  # what it had before


def get_num_threads() -> int:
    """How many threads work on one operation."""
    return max((library.num_threads for library in _libraries()), default=1)


def set_num_threads(threads: int) -> None:
    """Let so many threads work on one operation, in the BLAS and in the layers (as torch.set_num_threads)."""
    if not isinstance(threads, (int, np.integer)) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"set_num_threads: expected an integer, 1 or more, got {threads!r}")
    for library in _libraries():
        library.set_num_threads(int(threads))


def in_parts(work: Callable[[slice], T], length: int, least: int = 1) -> list[T]:
    """[work(part), ...] for consecutive slices that cover range(length), one for each thread, side by side.

    least : no part is shorter than this; with one thread, or little to do, it is one call in this thread
    Parts must not write to the same memory. The first exception is raised once all parts have ended; a part for which
    there is no thread to be had is worked on in this one.
    """
    parts = length // max(least, 1)
    threads = min(parts, get_num_threads()) if parts > 1 else 1
    if threads < 2:
        return [work(slice(0, length))]
    edges = [length * i // threads for i in range(threads + 1)]
    first, *others = (slice(a, b) for a, b in itertools.pairwise(edges))
    state = np.geterr()

    def quietly(part: slice) -> T:
        with np.errstate(**state):  # a thread does not inherit it
            return work(part)

    futures: list[Future[T]] = []
    with _held_to_one():
        try:
            with contextlib.suppress(RuntimeError):  # no thread can be started
                pool = _pool(threads - 1)
                for part in others:
                    futures.append(pool.submit(quietly, part))
            done = [work(first), *(future.result() for future in futures)]
            return [*done, *(work(part) for part in others[len(futures) :])]
        finally:
            for future in futures:
                future.exception()  # waits


@contextlib.contextmanager
def _held_to_one() -> Iterator[None]:
    """The BLAS with one thread, until the last of those has left that are in here at the same time."""
    global _inside, _before
    with _lock:
        if not _inside:
            _before = [(library, library.num_threads) for library in _libraries()]
            for library, _ in _before:
                library.set_num_threads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for library, number in _before:
                    library.set_num_threads(number)


def _libraries() -> list[Any]:
    global _blas
    if _blas is None:
        from threadpoolctl import ThreadpoolController

        _blas = ThreadpoolController().select(user_api="blas").lib_controllers
    return _blas


def _pool(workers: int) -> ThreadPoolExecutor:
    global _workers, _size
    if _workers is None or _size < workers:
        from concurrent.futures import ThreadPoolExecutor

        _workers, _size = ThreadPoolExecutor(workers, thread_name_prefix="backhand"), workers
    return _workers


def _forget_workers() -> None:
    """The threads of a parent are not there in a forked child, and what they had locked or begun will not end."""
    global _workers, _lock, _inside
    _workers, _lock = None, threading.Lock()
    if _inside:
        _inside = 0
        for library, number in _before:
            library.set_num_threads(number)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
