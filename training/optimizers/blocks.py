"""Parameters laid out on flat vectors, and the arithmetic on such vectors that optimizers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from backhand.layers.guard import widened
from backhand.layers.memory import aligned
from backhand.layers.parameter import Array, Parameter
from backhand.layers.threads import in_parts

# Numbers per piece of an update: the handful of vectors that it touches then stay in the cache.
PIECE = 1 << 15
# Pieces for which another thread is worth its while: a millisecond of an update by Adam.
LEAST = 32


class Block:
    """Parameters that are updated as one vector: of one group and dtype, and with the same steps behind them.

    data, grad : (n,) flat; the parameters' `data` and `grad` are views of them
    arrays : name -> (n,), what the optimizer remembers for each number; of float16, in float32
    scalars : name -> float, what it remembers for all of them (the number of steps)
    """

    def __init__(self, parameters: list[Parameter], states: Mapping[Parameter, Mapping[str, Any]]) -> None:
        dtype = parameters[0].dtype.newbyteorder("=")
        first = states.get(parameters[0], {})
        n = sum(p.size for p in parameters)
        self.data, self.grad = aligned(n, dtype), aligned(n, dtype)
        # squares and an eps of 1e-8 are lost in float16
        self.dtype = remembered_in(dtype)
        self.arrays = {name: aligned(n, self.dtype) for name, value in first.items() if isinstance(value, np.ndarray)}
        self.scalars = {name: value for name, value in first.items() if not isinstance(value, np.ndarray)}
        self.places: dict[Parameter, slice] = {}
        self.members: list[tuple[Parameter, Array, Array]] = []
        start = 0
        for p in parameters:
            place = self.places[p] = slice(start, start + p.size)
            start += p.size
            self.data[place] = p.data.reshape(-1)
            self.grad[place] = p.grad.reshape(-1)
            for name, flat in self.arrays.items():
                flat[place] = states[p][name].reshape(-1)
            p.data, p.grad = self.data[place].reshape(p.shape), self.grad[place].reshape(p.shape)
            self.members.append((p, p.data, p.grad))
        self._work = aligned(min(n, PIECE), self.dtype), aligned(min(n, PIECE), self.dtype)
        self._cut: dict[tuple[str, ...], list[tuple[Array, ...]]] = {}

    def intact(self) -> bool:
        """Whether every parameter still lives here, and is still to be trained."""
        # Parameter.holds, written out: this is asked three times in each step
        for p, data, grad in self.members:
            if p.data is not data or p._grad is not grad or not p.requires_grad:
                return False
        return True

    def collect(self) -> None:
        """Bring the gradients up to date: those that no backward has added to since `zero_grad` become zeros."""
        for p, _, _ in self.members:
            if p._stale:
                p.grad  # noqa: B018  (asking for it writes the zeros)

    def state(self) -> Iterator[tuple[Parameter, dict[str, Any]]]:
        """(parameter, what is remembered for it), arrays as views."""
        for p, place in self.places.items():
            yield p, {**self.scalars, **{name: flat[place].reshape(p.shape) for name, flat in self.arrays.items()}}

    def count(self) -> int:
        """The number of this step, from 1."""
        self.scalars["step"] = self.scalars.get("step", 0.0) + 1
        return int(self.scalars["step"])

    def begin(self, name: str, start: float) -> None:
        """Let an array begin at `start` where it is missing."""
        if name not in self.arrays:
            self.arrays[name] = aligned(len(self.data), self.dtype)
            self.arrays[name].fill(start)

    def matrices(self, name: str) -> Iterator[tuple[Array, Array, Array]]:
        """(w, g, the array called `name`) of each parameter, in its shape; for updates that see whole parameters."""
        self.begin(name, 0.0)
        for p, w, g in self.members:
            wide = widened(w)
            yield wide, widened(g), self.arrays[name][self.places[p]].reshape(p.shape)
            if wide is not w:
                w[...] = wide

    def each(self, move: Callable[..., object], *names: str) -> None:
        """Call move(w, g, the arrays called `names`, two buffers) for each piece; arrays that are missing begin at 0.

        Pieces are moved side by side where there are many: `move` writes to nothing else.
        """
        pieces = self._cut.get(names)
        if pieces is None:
            for name in names:
                self.begin(name, 0.0)
            flats = [self.data, self.grad, *(self.arrays[name] for name in names)]
            starts = range(0, len(self.data), PIECE)
            pieces = self._cut[names] = [tuple(flat[a : a + PIECE] for flat in flats) for a in starts]

        half = self.data.dtype != self.dtype
        if len(pieces) == 1 and not half:
            move(*pieces[0], *self._work)
            return

        def run(part: slice) -> None:
            a, b = self._work if part.start == 0 else map(np.empty_like, self._work)
            for vectors in pieces[part]:
                n = len(vectors[0])
                if n < len(a):  # the last one
                    a, b = a[:n], b[:n]
                if not half:
                    move(*vectors, a, b)
                else:
                    w, g, *remembered = vectors
                    wide = widened(w)
                    move(wide, widened(g), *remembered, a, b)
                    w[...] = wide

        in_parts(run, len(pieces), LEAST)


def remembered_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of what an optimizer remembers for parameters of this one, and computes its steps in."""
    return np.promote_types(dtype, np.float32)


def descent(group: dict[str, Any], w: Array, g: Array, buffer: Array) -> Array:
    """The gradient to go down: with maximize, and with weight decay unless decoupled; g is never written to."""
    decay = float(group["weight_decay"])
    if decay and not group.get("decoupled_weight_decay"):
        np.multiply(w, decay, out=buffer)
        return np.subtract(buffer, g, out=buffer) if group["maximize"] else np.add(buffer, g, out=buffer)
    return np.negative(g, out=buffer) if group["maximize"] else g


def shrink(group: dict[str, Any], w: Array) -> None:
    """The other weight decay, of the weights themselves: w = (1 - lr weight_decay) w, where it is decoupled."""
    if group["weight_decay"] and group["decoupled_weight_decay"]:
        w *= 1 - float(group["lr"]) * float(group["weight_decay"])


def lerp(average: Array, x: Array, weight: float, buffer: Array) -> None:
    """average = (1 - weight) average + weight x"""
    np.subtract(x, average, out=buffer)
    buffer *= weight
    average += buffer


def add_square(average: Array, keep: float, g: Array, weight: float, buffer: Array) -> None:
    """average = keep average + weight g^2"""
    average *= keep
    np.multiply(g, g, out=buffer)
    buffer *= weight
    average += buffer


def finite(vector: Array) -> bool:
    """Whether all numbers of a flat vector are finite."""
    # one product tells for sure when they are; squares that are too large for float32 are looked at again
    return math.isfinite(vector.dot(vector)) or bool(np.isfinite(vector).all())
