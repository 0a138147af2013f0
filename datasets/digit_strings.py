"""Questions and answers that are strings of digits: something small for an encoder and a decoder to learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backhand.datasets.base import Array, count, reject


class Answered(NamedTuple):
    """Questions, answers, and the answers as targets; unpacks as `(src, tgt), y = answered`.

    x : src (N, S) and tgt (N, T) int64, tgt beginning with START      y : (N, T) int64, the same ending with END
    """

    x: tuple[Array, Array]
    y: Array


class DigitStrings:
    """A string of digits, to be said backwards, or in order.

        "reverse":  4 0 7 -> 7 0 4        "sort":  4 0 7 -> 0 4 7

    answer : "reverse" or "sort"      lengths : of the strings, each drawn evenly from these
    vocab_size : 13: the ten digits behind PAD, START and END; digit d is d + 3. PAD (0) fills up shorter strings
    """

    PAD, START, END = 0, 1, 2
    vocab_size = 13

    def __init__(self, answer: str = "reverse", lengths: tuple[int, int] = (1, 10)) -> None:
        if answer not in ("reverse", "sort"):
            reject("answer", "'reverse' or 'sort'", repr(answer))
        self.answer = answer
        low = count("lengths[0]", lengths[0], 1)
        self.lengths = low, count("lengths[1]", lengths[1], low)

    def draw(self, rng: np.random.Generator | int | None = None, batch: int = 1) -> Answered:
        """A batch of questions and their answers, padded to the longest length that there is."""
        generator = np.random.default_rng(rng)
        batch, longest = count("batch", batch, 1), self.lengths[1]
        lengths = generator.integers(self.lengths[0], longest + 1, batch)
        src = np.zeros((batch, longest), np.int64)
        tgt = np.zeros((batch, longest + 1), np.int64)
        y = np.zeros((batch, longest + 1), np.int64)
        for i, n in enumerate(lengths.tolist()):
            src[i, :n] = generator.integers(3, 13, n)
            answer = src[i, :n][::-1] if self.answer == "reverse" else np.sort(src[i, :n])
            tgt[i, : n + 1] = [self.START, *answer]
            y[i, : n + 1] = [*answer, self.END]
        return Answered((src, tgt), y)

    def stream(self, batches: int, batch: int = 1, rng: np.random.Generator | int | None = 0) -> AnsweredStream:
        """`batches` batches at a time, for `Trainer.fit`: each epoch draws new ones; list(...) keeps some."""
        return AnsweredStream(self, count("batches", batches, 1), count("batch", batch, 1), np.random.default_rng(rng))

    def decode(self, tokens: ArrayLike) -> list[str]:
        """Strings of digits of (N, T) tokens, each as far as its END."""
        rows = [[*row, self.END] for row in np.asarray(tokens).tolist()]
        return ["".join(str(t - 3) for t in row[: row.index(self.END)] if t >= 3) for row in rows]


class AnsweredStream:
    """Batches of digit strings: as many as its length each time it is gone through, never the same again."""

    def __init__(self, task: DigitStrings, batches: int, batch: int, rng: np.random.Generator) -> None:
        self.task, self.batches, self.batch, self.rng = task, batches, batch, rng

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Answered]:
        return (self.task.draw(self.rng, self.batch) for _ in range(self.batches))
