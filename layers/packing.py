"""Which sequences take part in which step: batches of sequences with different lengths, without their padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array


class Run(NamedTuple):
    """Steps that follow each other with the same n sequences under way.

    rows : where they stand among the rows of all the steps, n for each step
    before, after : where the states before and after them stand; the initial states come first there
    """

    n: int
    rows: slice
    before: slice
    after: slice

    def steps(self, *arrays: Array) -> Iterator[tuple[Array, ...]]:
        """For each step its views, (..., n, F) each, of arrays (..., T n, F)."""
        return zip(*map(self._split, arrays), strict=True)

    def steps_back(self, *arrays: Array) -> Iterator[tuple[Array, ...]]:
        """The same, from the last step to the first."""
        return zip(*(self._split(each)[::-1] for each in arrays), strict=True)

    def _split(self, rows: Array) -> list[Array]:
        if rows.ndim == 2:
            return list(rows.reshape(-1, self.n, rows.shape[1]))
        return list(rows.reshape(len(rows), -1, self.n, rows.shape[2]).swapaxes(0, 1))

    def pieces(self, most: int) -> Iterator[Run]:
        """The same steps in shorter runs, of at most so many rows or of one step, the last one first."""
        length = max(most // self.n, 1) * self.n
        whole = self.rows.stop - self.rows.start
        for stop in range(whole, 0, -length):
            part = slice(max(stop - length, 0), stop)
            yield Run(self.n, *(slice(each.start + part.start, each.start + part.stop) for each in self[1:]))


class Packing:
    """Sequences as rows, step after step, without the padding: what `pack_padded_sequence` gives in torch.

    Sorted from long to short, the sequences that are still under way at step t are the first n_t, and n_t never grows.
    Without lengths this is a reshape.

    runs : the steps, in as few runs as can be; one, without lengths
    order : the sequences from long to short, or None when all have full length
    """

    def __init__(self, steps: int, batch: int, lengths: Array | None) -> None:
        self.shape = (steps, batch)
        self.order: Array | None = None
        self.runs = [self._run(batch, 0, 0, steps * batch)]
        if lengths is not None and lengths.min() < steps:
            self.order = np.argsort(-lengths, kind="stable")
            self._pack(lengths[self.order], self.order)

    def _pack(self, lengths: Array, order: Array) -> None:
        steps, batch = self.shape
        time = np.arange(steps)[:, None]
        under_way = time < lengths
        self.places = (time * batch + order)[under_way]
        counts = under_way.sum(axis=1)
        begins = np.cumsum(counts) - counts
        # row (t, j) changes places with (length_j - 1 - t, j)
        self.turned = (begins[lengths - 1 - time] + np.arange(batch))[under_way]
        self.runs = []
        begin, last = 0, batch
        for n in counts[counts > 0].tolist():
            before, rows = batch + begin - last, n
            if self.runs and self.runs[-1].n == n and self.runs[-1].before.stop == before:
                _, own, befores, _ = self.runs.pop()
                begin, before, rows = own.start, befores.start, n + own.stop - own.start
            self.runs.append(self._run(n, begin, before, rows))
            begin, last = begin + rows, n

    def _run(self, n: int, begin: int, before: int, rows: int) -> Run:
        starts = begin, before, self.shape[1] + begin
        return Run(n, *(slice(start, start + rows) for start in starts))

    def pack(self, x: Array) -> Array:
        """(T, N, F) -> (rows, F)."""
        rows = x.reshape(-1, x.shape[-1])
        return rows if self.order is None else rows[self.places]

    def unpack(self, rows: Array) -> Array:
        """(rows, F) -> (T, N, F), with zeros after the end of each sequence."""
        if self.order is not None:
            padded = np.zeros((self.shape[0] * self.shape[1], rows.shape[-1]), rows.dtype)
            padded[self.places] = rows
            rows = padded
        return rows.reshape(*self.shape, -1)

    def turn(self, rows: Array) -> Array:
        """(rows, F) with every sequence back to front; a second time, it is as it was."""
        if self.order is not None:
            return rows[self.turned]
        turned = empty_like(rows)
        np.copyto(turned.reshape(*self.shape, -1), rows.reshape(*self.shape, -1)[::-1])
        return turned

    def before(self, states: Array) -> Array:
        """(N + rows, F), the initial states and those of all the steps -> (rows, F), those before each step."""
        if len(self.runs) == 1:
            return states[self.runs[0].before]
        return np.concatenate([states[run.before] for run in self.runs])

    def last(self, states: Array) -> Array:
        """(N + rows, F) -> (N, F), the last state of each sequence."""
        last = states[: self.shape[1]].copy()
        for run in self.runs:
            last[: run.n] = states[run.after][-run.n :]
        return last

    def sort(self, states: Array) -> Array:
        """(K, N, F) with the sequences from long to short."""
        return states if self.order is None else states[:, self.order]

    def unsort(self, states: Array) -> Array:
        """(K, N, F) with the sequences as they were given."""
        if self.order is None:
            return states
        given = np.empty_like(states)
        given[:, self.order] = states
        return given
