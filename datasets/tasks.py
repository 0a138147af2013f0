"""The algorithmic tasks of the Neural Turing Machine: sequences that are drawn, never read from a file.

A task draws batches of sequences, x (T, B, inputs) and the answer y (L, B, outputs), numbers 0 and 1 that are wanted at
the last L steps. All sequences of a batch have one length.

    task = CopyTask()
    x, y = task.draw(rng=0, batch=16)

Graves, Wayne & Danihelka 2014, arXiv:1410.5401, section 4. Where the paper leaves the layout open, one is fixed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backhand.datasets.base import Array, count

Range = tuple[int, int]


class Sequences(NamedTuple):
    """Sequences and what they are answered with; unpacks as `x, y = sequences`.

    x : (T, B, inputs) float32      y : (L, B, outputs) float32, wanted at the last L steps
    """

    x: Array
    y: Array


class Task:
    """What all tasks have: `draw` for one batch, `stream` for a training set that never ends nor repeats.

    inputs, outputs : channels      chance : bits per sequence of somebody who guesses, with the default sizes
    """

    inputs: int
    outputs: int
    chance: float

    def draw(
        self, rng: np.random.Generator | int | None = None, batch: int = 1, length: int | None = None
    ) -> Sequences:
        """A batch of sequences; `length` (of what is copied, or how many items there are) is drawn where it is None."""
        generator = np.random.default_rng(rng)
        return self._draw(generator, count("batch", batch, 1), length)

    def _draw(self, rng: np.random.Generator, batch: int, length: int | None) -> Sequences:
        raise NotImplementedError

    def stream(self, batches: int, batch: int = 1, rng: np.random.Generator | int | None = 0) -> Stream:
        """`batches` batches at a time, for `Trainer.fit(task.stream(1000), ...)`: each epoch draws new ones."""
        return Stream(self, count("batches", batches, 1), count("batch", batch, 1), np.random.default_rng(rng))

    def fixed(self, batches: int, batch: int = 1, rng: np.random.Generator | int | None = 1) -> list[Sequences]:
        """So many batches, always the same ones: for validation."""
        generator = np.random.default_rng(rng)
        return [self.draw(generator, batch) for _ in range(count("batches", batches, 1))]


class Stream:
    """Batches of a task: as many as its length each time it is gone through, never the same again."""

    def __init__(self, task: Task, batches: int, batch: int, rng: np.random.Generator) -> None:
        self.task = task
        self.batches = batches
        self.batch = batch
        self.rng = rng

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Sequences]:
        return (self.task.draw(self.rng, self.batch) for _ in range(self.batches))


class CopyTask(Task):
    """Say again what was said.

        x: L vectors of random bits, a delimiter, L blanks (2 L + 1 steps)      y: the L vectors

    bits : the width of a vector; one more channel has the delimiter      lengths : L is drawn evenly from these
    """

    def __init__(self, bits: int = 8, lengths: Range = (1, 20)) -> None:
        self.bits = count("bits", bits, 1)
        self.lengths = _range("lengths", lengths)
        self.inputs, self.outputs = bits + 1, bits
        self.chance = bits * sum(self.lengths) / 2

    def _draw(self, rng: np.random.Generator, batch: int, length: int | None) -> Sequences:
        n = _length(rng, self.lengths, length)
        said = _bits(rng, (n, batch, self.bits))
        x = np.zeros((2 * n + 1, batch, self.inputs), np.float32)
        x[:n, :, : self.bits] = said
        x[n, :, self.bits] = 1
        return Sequences(x, said)


class RepeatCopyTask(Task):
    """Say it so many times, and then that it was all.

        x: L vectors of random bits, a delimiter, a count, R L + 1 blanks (L + 2 + R L + 1 steps)
        y: the L vectors R times, then a mark: R L + 1 steps, with a channel for the mark

    The count stands in a channel of its own, as (R - mean) / deviation over what R may be.
    """

    def __init__(self, bits: int = 8, lengths: Range = (1, 10), repeats: Range = (1, 10)) -> None:
        self.bits = count("bits", bits, 1)
        self.lengths, self.repeats = _range("lengths", lengths), _range("repeats", repeats)
        self.inputs, self.outputs = bits + 2, bits + 1
        self.chance = bits * sum(self.lengths) / 2 * sum(self.repeats) / 2

    def _draw(self, rng: np.random.Generator, batch: int, length: int | None, repeats: int | None = None) -> Sequences:
        n, r = _length(rng, self.lengths, length), _length(rng, self.repeats, repeats)
        said = _bits(rng, (n, batch, self.bits))
        x = np.zeros((n + 2 + r * n + 1, batch, self.inputs), np.float32)
        x[:n, :, : self.bits] = said
        x[n, :, self.bits] = 1
        low, high = self.repeats
        deviation = np.sqrt(((high - low + 1) ** 2 - 1) / 12) or 1.0
        x[n + 1, :, self.bits + 1] = (r - (low + high) / 2) / deviation
        y = np.zeros((r * n + 1, batch, self.outputs), np.float32)
        y[:-1, :, : self.bits] = np.tile(said, (r, 1, 1))
        y[-1, :, self.bits] = 1
        return Sequences(x, y)


class AssociativeRecallTask(Task):
    """Shown one item of a list, say the next one.

        x: for each item a delimiter and 3 vectors, then a delimiter, a query delimiter, the 3 vectors of the query,
           a query delimiter, 3 blanks (4 n + 9 steps)
        y: the 3 vectors of the item that followed the query, which is never the last

    bits : the width of a vector; two more channels have the delimiters      items : n is drawn evenly from these
    """

    def __init__(self, bits: int = 6, items: Range = (2, 6), item_length: int = 3) -> None:
        self.bits = count("bits", bits, 1)
        self.items = _range("items", items, least=2)
        self.item_length = count("item_length", item_length, 1)
        self.inputs, self.outputs = bits + 2, bits
        self.chance = float(bits * item_length)

    def _draw(self, rng: np.random.Generator, batch: int, length: int | None) -> Sequences:
        n, k = _length(rng, self.items, length, least=2), self.item_length
        items = _bits(rng, (n, k, batch, self.bits))
        asked = rng.integers(0, n - 1, batch)
        x = np.zeros((n * (k + 1) + 2 * k + 3, batch, self.inputs), np.float32)
        for i in range(n):
            start = i * (k + 1)
            x[start, :, self.bits] = 1
            x[start + 1 : start + 1 + k, :, : self.bits] = items[i]
        end = n * (k + 1)
        x[end, :, self.bits] = 1
        x[[end + 1, end + 2 + k], :, self.bits + 1] = 1
        each = np.arange(batch)
        x[end + 2 : end + 2 + k, :, : self.bits] = items[asked, :, each].swapaxes(0, 1)
        return Sequences(x, np.ascontiguousarray(items[asked + 1, :, each].swapaxes(0, 1)))


class NGramsTask(Task):
    """Guess the next bit of a source whose table of probabilities is new in every sequence.

        x: the bits before (`length` steps, from a blank on)      y: the bits, at the steps after the first order - 1

    order : 6 means that a bit depends on the 5 before it; the 2^5 probabilities are drawn from Beta(1/2, 1/2)

    `optimum` is what the best there is can do, which counts how often each context was followed by a 1.
    """

    def __init__(self, order: int = 6, length: int = 200) -> None:
        self.order = count("order", order, 2)
        self.length = count("length", length, order)
        self.inputs = self.outputs = 1
        self.chance = float(self.length - order + 1)

    def _draw(self, rng: np.random.Generator, batch: int, length: int | None) -> Sequences:
        steps = self.length if length is None else count("length", length, self.order)
        context = self.order - 1
        table = rng.beta(0.5, 0.5, (batch, 1 << context))
        bits = np.zeros((steps, batch), np.int64)
        bits[:context] = rng.integers(0, 2, (context, batch))
        for t in range(context, steps):
            bits[t] = rng.random(batch) < table[np.arange(batch), _contexts(bits, t, context)]
        x = np.zeros((steps, batch, 1), np.float32)
        x[1:, :, 0] = bits[:-1]
        return Sequences(x, bits[context:, :, None].astype(np.float32))

    def optimum(self, sequences: Sequences) -> Array:
        """Bits per sequence, (B,), of the estimate (N1 + 1/2) / (N0 + N1 + 1) for the context at hand."""
        context = self.order - 1
        bits = np.concatenate([sequences.x[1:, :, 0], sequences.y[-1:, :, 0]]).astype(np.int64)
        steps, batch = bits.shape
        counts = np.zeros((2, batch, 1 << context))
        cost = np.zeros(batch)
        each = np.arange(batch)
        for t in range(context, steps):
            at = _contexts(bits, t, context)
            zeros, ones = counts[0, each, at], counts[1, each, at]
            p = (ones + 0.5) / (zeros + ones + 1)
            cost -= np.log2(np.where(bits[t] == 1, p, 1 - p))
            counts[bits[t], each, at] += 1
        return cost


class PrioritySortTask(Task):
    """Say the vectors in the order of their priorities, the highest first.

        x: n vectors of random bits, each with a priority from -1 to 1, a delimiter, m blanks      y: the m best

    bits : the width of a vector; two more channels have the priority and the delimiter
    """

    def __init__(self, bits: int = 8, vectors: int = 20, best: int = 16) -> None:
        self.bits = count("bits", bits, 1)
        self.vectors = count("vectors", vectors, 1)
        self.best = count("best", best, 1, vectors)
        self.inputs, self.outputs = bits + 2, bits
        self.chance = float(bits * best)

    def _draw(self, rng: np.random.Generator, batch: int, length: int | None) -> Sequences:
        n = self.vectors if length is None else count("length", length, 1)
        best = min(self.best, n)
        vectors = _bits(rng, (n, batch, self.bits))
        priority = rng.uniform(-1, 1, (n, batch)).astype(np.float32)
        x = np.zeros((n + 1 + best, batch, self.inputs), np.float32)
        x[:n, :, : self.bits] = vectors
        x[:n, :, self.bits] = priority
        x[n, :, self.bits + 1] = 1
        order = np.argsort(-priority, axis=0)[:best]
        return Sequences(x, np.take_along_axis(vectors, order[:, :, None], axis=0))


def _bits(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(0, 2, shape).astype(np.float32)


def _range(name: str, value: Range, least: int = 1) -> Range:
    low, high = value
    return count(f"{name}[0]", low, least), count(f"{name}[1]", high, low)


def _length(rng: np.random.Generator, lengths: Range, given: int | None, least: int = 1) -> int:
    return int(rng.integers(lengths[0], lengths[1] + 1)) if given is None else count("length", given, least)


def _contexts(bits: Array, t: int, context: int) -> Array:
    """The last bits before t, read as a number."""
    return np.asarray((bits[t - context : t] << np.arange(context)[:, None]).sum(axis=0))
