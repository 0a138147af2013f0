"""Pools that make a mistake with borrowed memory show: what is handed out is full of nan, or still in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from backhand.inspection.step_memory import pool_apart
from backhand.layers import memory


class Poisoned(memory.Pool):
    """Fills each block with nan (in integers -1) when it hands it out: who reads before writing will show it."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_out = 0

    def array(self, *args: Any, **options: Any) -> Any:
        array = super().array(*args, **options)
        block = array
        while isinstance(block.base, np.ndarray):
            block = block.base
        block.fill(0xFF)
        self.handed_out += 1
        return array


class Careless(memory.Pool):
    """Hands out the same block again, whether or not somebody looks into it."""

    def __init__(self) -> None:
        super().__init__()
        self.block = np.zeros(1 << 20, np.uint8)

    def array(self, *args: Any, **options: Any) -> Any:
        array = super().array(*args, **options)
        assert array.nbytes <= self.block.nbytes
        return np.ndarray(array.shape, array.dtype, self.block, 0, array.strides)


@contextmanager
def every_result_from(pool: memory.Pool) -> Iterator[memory.Pool]:
    """Results of any size come from this pool, as long as it lasts (of no size at all: there is no such block)."""
    with pytest.MonkeyPatch.context() as patch, pool_apart(pool):
        patch.setattr(memory, "LEAST_BYTES", 1)
        yield pool
