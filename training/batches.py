"""Data as the Trainer takes it: a pair of arrays, or any iterable of batches; and cut into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np

from backhand.datasets.arrays import as_numbers, describe
from backhand.layers.parameter import Array

Batch = tuple[tuple[Any, ...], Any]  # the inputs of the model, the target


class ArrayBatches:
    """Arrays whose first axes are the samples; one batch at a time is read from them.

    inputs : the arrays that the model takes      target : the array that the loss takes
    """

    def __init__(self, name: str, inputs: tuple[Any, ...], target: Any = None) -> None:
        self.name = name
        self.inputs = tuple(as_numbers(f"{name}: expected each input", x) for x in inputs)
        self.target: Any = None if target is None else as_numbers(f"{name}: expected the target", target)
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
                    f"got an iterable of {describe(batch)}"
                )
            x, y = batch
            inputs = x if isinstance(x, tuple) else (x,)
            yield tuple([self._numbers("each input", each, 1) for each in inputs]), self._numbers("the target", y, 0)
        if none:
            raise ValueError(f"{self.name}: expected at least one batch, got none (an iterator that was used up?)")

    def _numbers(self, what: str, data: Any, axes: int) -> Array:
        if type(data) is np.ndarray and data.ndim >= axes and data.dtype.kind in "fiub":
            return data
        return np.asarray(as_numbers(f"{self.name}: expected {what} of a batch", data, axes))

    def count(self, size: int, merge: bool = False) -> int | None:
        """How many batches there will be, where the iterable knows."""
        return len(self.stream) if isinstance(self.stream, Sized) else None


def as_batches(name: str, data: Any) -> ArrayBatches | StreamBatches:
    """What `fit` and `evaluate` are given, ready to be cut: a pair (x, y), or an iterable of batches, each a pair.

    Of two things, the second says which. An array is y. So is a list of numbers in a tuple, (x, y). A tuple in a list
    is a batch, [(x, y), (x, y)]; so is whatever holds arrays, [[x, y], [x, y]], as long as it is not two lists in a
    tuple. The rest can be either where it is two times two, and is refused.
    """
    if isinstance(data, (tuple, list)) and len(data) == 2 and _is_pair(name, data[0], data[1], isinstance(data, tuple)):
        x, y = data
        return ArrayBatches(name, x if isinstance(x, tuple) else (x,), y)
    if isinstance(data, (str, bytes, np.ndarray, dict)) or not isinstance(data, Iterable):
        raise ValueError(
            f"{name}: expected a pair of arrays (x, y), or an iterable of such pairs as batches; got {describe(data)}"
        )
    parts = [part for part in ("train", "validation", "test") if hasattr(data, part)]
    if parts:
        raise ValueError(f"{name}: expected a pair of arrays (x, y), got several; give its .{parts[0]}")
    return StreamBatches(name, data)


def _is_pair(name: str, x: Any, y: Any, in_a_tuple: bool) -> bool:
    """Whether two things are x and y, and not two batches; ValueError where nobody can tell."""
    if hasattr(y, "shape"):
        return True
    if not (_like_a_batch(x) and _like_a_batch(y)):
        if isinstance(y, list):
            return True
        raise ValueError(
            f"{name}: expected a pair of arrays (x, y), or an iterable of such pairs as batches; got {describe(x)} "
            f"and {describe(y)}"
        )
    with_arrays = all(any(hasattr(part, "shape") for part in each) for each in (x, y))
    tuples = type(y) is not list and type(x) is not list
    if (with_arrays and (tuples or not in_a_tuple)) or (tuples and not in_a_tuple):
        return False
    if in_a_tuple and isinstance(y, list) and not hasattr(y[0], "shape"):
        return True
    raise ValueError(
        f"{name}: expected a pair of arrays (x, y), or an iterable of such pairs as batches; got a "
        f"{'tuple' if in_a_tuple else 'list'} of two times two, which can be either: give two arrays (x, y), or a "
        "list of tuples, [(x, y), (x, y)]"
    )


def _like_a_batch(data: Any) -> bool:
    """Whether it is two things, the first of which has an axis for the samples."""
    return (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and (isinstance(data[0], (tuple, list)) or getattr(data[0], "shape", ()) != ())
    )


def rows_of(inputs: tuple[Any, ...], axis: int = 0) -> int:
    """The number of samples in a batch, which are on this axis."""
    shape = inputs[0].shape
    return int(shape[axis]) if len(shape) > axis else 1


def _rows(array: Any, rows: Any) -> Array:
    # take() is the faster, but reads the whole of an array that it cannot use as it lies
    if type(array) is np.ndarray and type(rows) is np.ndarray and array.flags.c_contiguous:
        return array.take(rows, axis=0)
    return np.asarray(array[rows])
