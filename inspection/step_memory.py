"""How much memory a training step has in use at most: found by running one, in a copy, and counting.

Counted is what Python and NumPy have allocated (tracemalloc), with an empty pool in the place of layers/memory.py's:
the same step counts the same every time, whatever has run before. The interpreter and its libraries, what BLAS keeps
for its own use (some MB for each thread) and what the system's allocator wastes are not in it: the resident memory of
a process is larger by these.
"""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from backhand.inspection.gradient_check import map_leaves
from backhand.layers import memory
from backhand.layers.base import Layer


def step_memory(
    model: Layer, inputs: tuple[Any, ...], optimizer: Callable[..., Any] | None = None
) -> tuple[int, int | None]:
    """(bytes in use at most, bytes that the optimizer remembers) in a step of training on a batch of these inputs.

    peak = parameters + gradients + optimizer + what is cached for backward + working memory

    optimizer : what makes one from parameters; None: there is none

    The batch is a part of it. As in a Trainer, the gradient by the data is left out; the loss is left out as well.
    """
    watched = tracemalloc.is_tracing()
    if not watched:
        tracemalloc.start()
    try:
        with pool_apart(memory.Pool()), np.errstate(all="ignore"):
            start = tracemalloc.get_traced_memory()[0]
            model = copy.deepcopy(model).input_requires_grad_(False)
            for layer in model.modules():
                layer.caching = True
            inputs = map_leaves(inputs, np.copy)
            update = None if optimizer is None else optimizer(model.parameters())
            if update is not None:
                _step(model, inputs, update)  # the first makes what the optimizer remembers
            tracemalloc.reset_peak()
            _step(model, inputs, update)
            peak = tracemalloc.get_traced_memory()[1] - start
    finally:
        if not watched:
            tracemalloc.stop()
    return peak, None if update is None else _remembered(update)


def _step(model: Layer, inputs: tuple[Any, ...], optimizer: Any) -> None:
    model.zero_grad()
    y = model(*inputs)
    dout = map_leaves(y, lambda each: np.ones(np.shape(each), np.asarray(each).dtype))
    del y
    model.backward(dout)
    if optimizer is not None:
        optimizer.step()


def _remembered(optimizer: Any) -> int:
    states = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.nbytes for value in states if isinstance(value, np.ndarray))


@contextmanager
def pool_apart(pool: memory.Pool) -> Iterator[memory.Pool]:
    """Take the memory for results from this pool as long as it lasts: to count it, or to test who uses it."""
    usual, memory._pool = memory._pool, pool
    try:
        yield pool
    finally:
        memory._pool = usual
