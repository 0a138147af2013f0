"""What all recurrent layers share: one loop over time, forward and backward; and which rows take part in a step.

A cell kind (cells.py) writes its own step and its own step back, both elementwise. What is the same for all kinds is
here: the matrix products, the order of the steps, sequences of different lengths, and the weight gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.base import Layer
from backhand.layers.parameter import Array, Parameter, uniform

Spans = list[tuple[int, int]]
States = tuple[Array, ...]  # (h,), or (h, c)


class Weights(NamedTuple):
    """The parameters of one layer in one direction."""

    ih: Parameter
    hh: Parameter
    b_ih: Parameter | None
    b_hh: Parameter | None
    hr: Parameter | None


class Kept(NamedTuple):
    """What one scan needs on its way back; everything but the gates may be in other hands."""

    x: Array
    start: States
    states: States  # of all the steps
    gates: Array | None


class Packing:
    """Sequences as rows, step after step, without the padding: what `pack_padded_sequence` gives in torch.

    Sorted from long to short, the sequences that are still under way at step t are the first n_t, so a step works on
    the rows spans[t] of every array. Without lengths this is a reshape.

    spans : (begin, stop) for each step
    order : the sequences from long to short, or None when all have full length
    """

    def __init__(self, steps: int, batch: int, lengths: Array | None) -> None:
        self.shape = (steps, batch)
        self.order: Array | None = None
        counts = [batch] * steps
        if lengths is not None and lengths.min() < steps:
            self.order = np.argsort(-lengths, kind="stable")
            under_way = np.arange(steps)[:, None] < lengths[self.order]
            self.places = (np.arange(steps)[:, None] * batch + self.order)[under_way]
            counts = [int(n) for n in under_way.sum(axis=1) if n]
        stops = np.cumsum(counts).tolist()
        self.spans: Spans = list(zip([0, *stops[:-1]], stops, strict=True))

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


class Recurrence(Layer):
    """One layer of a recurrent net in one direction.

        a_t = [x_t W_ih^T + b_ih | h_{t-1} W_hh^T + b_hh]        s_t = step(a_t, s_{t-1}),    s = h, or (h, c)

    Where a block of columns is fed by x and by h, the two are added. On the way back, from the last step to the first,

        ds_t = dy_t + (ds_t from step t+1)        da_t, ds_{t-1} = step_back(ds_t)        dh_{t-1} += da_t W_hh

    and when all the steps are done, one product over all of them for each gradient:

        dW_ih = da^T x        dW_hh = da^T h_before        db = sum of da        dx = da W_ih

    A cell kind says how many states it has (`states`), how many blocks of hidden_size columns (`blocks`), which of them
    x and h feed (`x_blocks`, `h_blocks`), by how many blocks the rows of W_hh are rolled to stand in that order
    (`h_roll`), whether the way back needs the gates or only the states (`keeps_gates`), and writes the two steps.
    """

    input_size: int
    hidden_size: int
    proj_size: int = 0
    states: int = 1
    blocks: int = 1
    x_blocks: tuple[int, int] = (0, 1)
    h_blocks: tuple[int, int] = (0, 1)
    h_roll: int = 0
    keeps_gates: bool = True

    def step(self, a: Array, before: States, after: States) -> None:
        """Turn `a` into the gates, in place, and write the new states into `after`."""
        raise NotImplementedError

    def step_back(self, a: Array, before: States, after: States, d: list[Array]) -> tuple[Array | None, ...]:
        """Turn the gates `a` into their gradient, in place, given that of `after`.

        Returns what flows to `before` other than through a; None is nothing.
        """
        raise NotImplementedError

    def unprojected(self, a: Array, states: States) -> Array:
        """What W_hr multiplies, of all the steps, from the gates and the states."""
        raise NotImplementedError

    # ------------------------------------------------------------------ parameters

    def add_weights(self, suffix: str, inputs: int, bias: bool, rng: np.random.Generator, dtype: DTypeLike) -> None:
        """The parameters of one layer in one direction, from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))."""
        rows = self.hidden_size * (self.x_blocks[1] - self.x_blocks[0])
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, self.output_size)}
        if bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        for name, shape in shapes.items():
            setattr(self, name + suffix, uniform(rng, 1 / np.sqrt(self.hidden_size), shape, dtype))

    def weights(self, suffix: str = "") -> Weights:
        """The parameters whose names end like that."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return Weights(*(getattr(self, name + suffix, None) for name in names))  # type: ignore[arg-type]

    @property
    def output_size(self) -> int:
        """How many numbers h has."""
        return self.proj_size or self.hidden_size

    # ------------------------------------------------------------------ initial states

    def initial(self, hx: Any, shapes: list[tuple[int, ...]], dtype: DTypeLike) -> States:
        """The given initial states, checked; zeros where there are none."""
        if hx is None:
            return tuple(np.zeros(shape, dtype) for shape in shapes)
        if self.states == 1:
            hx = (hx,)
        elif not isinstance(hx, (tuple, list)) or len(hx) != self.states:
            kind = f"{type(hx).__name__} of {len(hx)}" if isinstance(hx, (tuple, list)) else type(hx).__name__
            self.reject("hx as a tuple (h, c)", f"a {kind}")
        given = tuple(self.input(s, dtype) for s in hx)
        for name, s, shape in zip("hc", given, shapes, strict=False):
            if s.shape != shape:
                self.reject(f"the initial {name} of shape {shape}", s.shape)
        return given

    def nested(self, states: Any) -> Any:
        """The states as the user sees them: h, or (h, c)."""
        return tuple(states) if self.states > 1 else states[0]

    # ------------------------------------------------------------------ the loop over time

    def scan(self, x: Array, start: States, spans: Spans, w: Weights, y: Array) -> tuple[Kept, States]:
        """All the steps, in the order of `spans`.

        x : (rows, inputs)      start : (N, ...) each      y : (rows, output_size), written to
        Returns what the way back needs, and the last state of every sequence.
        """
        by_x, by_h = self._columns()
        a = self._from_inputs(x, w, by_x, by_h)
        recurrent = self._rolled(w.hh.data).T
        product = np.empty((len(start[0]), recurrent.shape[1]), a.dtype)
        hidden = None if w.hr is None else np.empty((len(start[0]), self.hidden_size), a.dtype)
        states = (y, *(np.empty((len(x), s.shape[-1]), a.dtype) for s in start[1:]))
        end = tuple(np.empty_like(s) for s in start)
        before = tuple(s[:0] for s in start)
        for begin, stop in spans:
            n = stop - begin
            if n != len(before[0]):
                before = tuple(map(_carry, before, start, end, [n] * self.states))
            gates = a[begin:stop]
            from_h = gates[:, by_h]
            from_h += np.matmul(before[0], recurrent, out=product[:n])
            after = tuple([s[begin:stop] for s in states])
            if w.hr is None or hidden is None:
                self.step(gates, before, after)
            else:
                self.step(gates, before, (hidden[:n], *after[1:]))
                np.matmul(hidden[:n], w.hr.data.T, out=after[0])
            before = after
        for s, last in zip(before, end, strict=True):
            last[: len(s)] = s  # of those that were under way to the end
        return Kept(x, start, states, a if self.keeps_gates else None), end

    def scan_back(self, kept: Kept, dy: Array, dend: States, spans: Spans, w: Weights) -> tuple[Array, States]:
        """The same steps in reverse; adds to the gradients of the weights, returns dx and that of the initial states.

        dy : (rows, output_size)      dend : (N, ...) each, the gradient by the last states
        """
        x, start, states, a = kept
        by_x, by_h = self._columns()
        if a is None:
            a = np.empty((len(x), self.blocks * self.hidden_size), x.dtype)
        hh = self._rolled(w.hh.data)
        befores = tuple(_before(s, s0, spans) for s, s0 in zip(states, start, strict=True))
        if w.hr is not None:
            hidden, dh_all = self.unprojected(a, states), np.empty_like(befores[0])
        dstart = tuple(np.empty_like(s) for s in dend)
        d: Any = [s[:0] for s in dend]
        for begin, stop in reversed(spans):
            n = stop - begin
            if n != len(d[0]):  # what ends here has its last state here
                d = list(map(_carry, d, dend, dstart, [n] * self.states))
            d[0] += dy[begin:stop]
            if w.hr is not None:
                dh_all[begin:stop] = d[0]
                d[0] = d[0] @ w.hr.data
            gates = a[begin:stop]
            before, after = (tuple([s[begin:stop] for s in each]) for each in (befores, states))
            around = self.step_back(gates, before, after, d)
            dh = gates[:, by_h] @ hh
            if around[0] is not None:
                dh += around[0]
            d = [dh, *around[1:]]
        for s, first in zip(d, dstart, strict=True):
            first[: len(s)] = s

        da_x, da_h = a[:, by_x], a[:, by_h]  # on the way, the gates have become their gradients
        w.ih.grad += da_x.T @ x
        w.hh.grad += self._rolled(da_h.T @ befores[0], back=True)
        if w.b_ih is not None and w.b_hh is not None:
            db = a.sum(axis=0)
            w.b_ih.grad += db[by_x]
            w.b_hh.grad += self._rolled(db[by_h], back=True)
        if w.hr is not None:
            w.hr.grad += dh_all.T @ hidden
        return da_x @ w.ih.data, dstart

    def _columns(self) -> tuple[slice, slice]:
        size = self.hidden_size
        return slice(*(b * size for b in self.x_blocks)), slice(*(b * size for b in self.h_blocks))

    def _rolled(self, rows: Array, back: bool = False) -> Array:
        """The rows of W_hh in the order of the columns that h feeds, or a gradient in the order of W_hh."""
        shift = self.hidden_size * self.h_roll
        return np.roll(rows, -shift if back else shift, axis=0) if shift else rows

    def _from_inputs(self, x: Array, w: Weights, by_x: slice, by_h: slice) -> Array:
        """The a of all the steps, as far as it does not depend on h: one product."""
        a = np.empty((len(x), self.blocks * self.hidden_size), w.ih.dtype)
        np.matmul(x, w.ih.data.T, out=a[:, by_x])
        if by_x != by_h:
            a[:, : by_x.start] = 0
        if w.b_ih is not None and w.b_hh is not None:
            bias = np.zeros(a.shape[1], a.dtype)
            bias[by_x] = w.b_ih.data
            bias[by_h] += self._rolled(w.b_hh.data)
            a += bias
        return a


def _carry(state: Array, start: Array, end: Array, n: int) -> Array:
    """The state with n rows: those that begin here join from `start`, those that are over leave theirs in `end`."""
    m = len(state)
    end[n:m] = state[n:]
    return state[:n] if n <= m else np.concatenate((state, start[m:n]))


def _before(states: Array, start: Array, spans: Spans) -> Array:
    """Every row's state before its step: that of the step before, or its initial one."""
    before = np.empty(states.shape, states.dtype)
    last = states[:0]
    for begin, stop in spans:
        m = min(len(last), stop - begin)
        before[begin : begin + m] = last[:m]
        before[begin + m : stop] = start[m : stop - begin]
        last = states[begin:stop]
    return before


def features(layer: Recurrence, x: ArrayLike, axes: dict[int, str], dtype: DTypeLike) -> Array:
    """x in `dtype`, checked: as many axes as one of `axes` (ndim -> how it is written), and its features."""
    array = layer.input(x, dtype)
    if array.ndim not in axes or array.shape[-1] != layer.input_size:
        layer.reject(f"x of shape {' or '.join(axes.values())}", array.shape)
    return array
