"""Data as the Trainer takes it: a pair of arrays, or any iterable of batches; and cut into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np

from backhand.layers.parameter import Array

Batch = tuple[tuple[Any, ...], Any]  # the inputs of the model, the target


class ArrayBatches:
    """Arrays whose first axes are the samples; one batch at a time is read from them.

    inputs : the arrays that the model takes      target : the array that the loss takes
    """

    def __init__(self, name: str, inputs: tuple[Any, ...], target: Any = None) -> None:
        self.name = name
        self.inputs = tuple(_samples(f"{name}: expected each input", x) for x in inputs)
        self.target: Any = None if target is None else _samples(f"{name}: expected the target", target)
        lengths = [len(each) for each in (*self.inputs, self.target) if each is not None]
        if len(set(lengths)) > 1:
            raise ValueError(f"{name}: expected arrays of one length, got {' and '.join(map(str, lengths))} samples")
        self.samples = lengths[0] if lengths else 0
        if self.samples == 0:
            raise ValueError(f"{name}: expected at least one sample, got none")

    def cuts(self, size: int, merge: bool = False) -> list[tuple[int, int]]:
        """The (begin, end) of every batch; merge: a last batch of one sample joins the one before it."""
        begins = list(range(0, self.samples, size))
        if merge and size > 1 and self.samples > 1 and self.samples % size == 1:
            begins.pop()
        return list(zip(begins, [*begins[1:], self.samples], strict=True))

    def batches(self, size: int, order: Array | None = None, merge: bool = False) -> Iterator[Batch]:
        """The batches, of the samples in the given order, or as they stand."""
        for a, b in self.cuts(size, merge):
            yield self._batch(slice(a, b) if order is None else order[a:b])

    def count(self, size: int, merge: bool = False) -> int | None:
        """How many batches there will be."""
        return len(self.cuts(size, merge))

    def telling_rows(self) -> list[int]:
        """Which samples show whatever is wrong with any of them: the first, and those with the extreme labels."""
        y = self.target
        places = [0]
        if y is not None and y.dtype.kind in "iu":
            if y.size <= 1_000_000:
                values = np.unique(y)
                # the second ones too: the first may be the label that the loss ignores
                places += [int(np.argmax(y == value)) for value in (*values[:2], *values[-2:])]
            else:
                places += [int(y.argmin()), int(y.argmax())]
        chosen = {place // (y.size // self.samples) if place else 0 for place in places}
        return sorted(int(each) for each in chosen)

    def of_rows(self, rows: list[int]) -> Batch:
        """The batch of these samples."""
        return self._batch(np.array(rows))

    def _batch(self, rows: Any) -> Batch:
        target = None if self.target is None else _rows(self.target, rows)
        return tuple(_rows(x, rows) for x in self.inputs), target


class StreamBatches:
    """An iterable of (x, y) batches; several inputs come as ((x1, x2), y)."""

    def __init__(self, name: str, stream: Iterable[Any]) -> None:
        self.name = name
        self.stream = stream
        self.once = iter(stream) is stream  # an iterator: what it gave is gone

    def batches(self, size: int, order: Array | None = None, merge: bool = False) -> Iterator[Batch]:
        """The batches as they come; their size is their own affair."""
        none = True
        for batch in self.stream:
            none = False
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise ValueError(
                    f"{self.name}: expected a pair of arrays (x, y), or an iterable of such pairs as batches; "
                    f"got an iterable of {_describe(batch)}"
                )
            x, y = batch
            yield tuple(np.asarray(each) for each in (x if isinstance(x, tuple) else (x,))), np.asarray(y)
        if none:
            raise ValueError(f"{self.name}: expected at least one batch, got none (an iterator that was used up?)")

    def count(self, size: int, merge: bool = False) -> int | None:
        """How many batches there will be, where the iterable knows."""
        return len(self.stream) if isinstance(self.stream, Sized) else None


def as_batches(name: str, data: Any) -> ArrayBatches | StreamBatches:
    """What `fit` and `evaluate` are given, ready to be cut."""
    if isinstance(data, (tuple, list)) and len(data) == 2 and hasattr(data[1], "shape"):
        x, y = data
        return ArrayBatches(name, x if isinstance(x, tuple) else (x,), y)
    if isinstance(data, (str, bytes, np.ndarray, dict)) or not isinstance(data, Iterable):
        raise ValueError(
            f"{name}: expected a pair of arrays (x, y), or an iterable of such pairs as batches; got {_describe(data)}"
        )
    parts = [part for part in ("train", "validation", "test") if hasattr(data, part)]
    if parts:
        raise ValueError(f"{name}: expected a pair of arrays (x, y), got several; give its .{parts[0]}")
    return StreamBatches(name, data)


def rows_of(inputs: tuple[Any, ...], axis: int = 0) -> int:
    """The number of samples in a batch, which are on this axis."""
    shape = inputs[0].shape
    return int(shape[axis]) if len(shape) > axis else 1


def _samples(expected: str, data: Any) -> Any:
    """An array with a first axis: as it is where it is one (mapped from a file, say), or made of a list."""
    array = data if isinstance(data, np.ndarray) else np.asarray(data)
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"{expected} to be an array of numbers with the samples on its first axis, got {_describe(array)}"
        )
    return array


def _rows(array: Any, rows: Any) -> Array:
    # take() is the faster, but reads the whole of an array that it cannot use as it lies
    if type(array) is np.ndarray and type(rows) is np.ndarray and array.flags.c_contiguous:
        return array.take(rows, axis=0)
    return np.asarray(array[rows])


def _describe(data: Any) -> str:
    if isinstance(data, np.ndarray):
        return f"an array of shape {data.shape} and dtype {data.dtype}"
    return f"{type(data).__name__} {data!r}"[:60]
