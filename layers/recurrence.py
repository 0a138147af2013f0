"""What all recurrent layers share: the parameters, the initial states, and the products that need no loop over time.

A kind of cell writes the loop over the steps, there and back (recurrent_steps.py). What is the same for all kinds is
here: the product of all the inputs before the loop, and the gradients of all the weights after it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.base import Layer
from backhand.layers.memory import empty, product
from backhand.layers.packing import Packing
from backhand.layers.parameter import Array, Parameter, uniform

States = tuple[Array, ...]  # (h,), or (h, c)


class Weights(NamedTuple):
    """The parameters of one layer in one direction."""

    ih: Parameter
    hh: Parameter
    b_ih: Parameter | None
    b_hh: Parameter | None
    hr: Parameter | None


class Kept(NamedTuple):
    """What one scan needs on its way back.

    x : (rows, inputs), or (rows, 1) integers in the place of one-hot rows
    states : (N + rows, size) each: the initial ones, then those of all the steps
    gates : (blocks, rows, hidden_size), or None where the states tell enough
    """

    x: Array
    states: States
    gates: Array | None


class Recurrence(Layer):
    """One layer of a recurrent net in one direction.

        a_t = x_t W_ih^T + b_ih + h_{t-1} W_hh^T + b_hh        s_t = step(a_t, s_{t-1}),    s = h, or (h, c)

    The part of a_t that x gives is one product for all the steps. On the way back, from the last step to the first,

        ds_t = dy_t + (ds_t from step t+1)        da_t, ds_{t-1} = step_back(ds_t)        dh_{t-1} += da_t W_hh

    and when all the steps are done, one product over all of them for each gradient:

        dW_ih = da^T x        dW_hh = da^T h_before        db = sum of da        dx = da W_ih

    All arrays are rows, one for each step of each sequence (packing.py).

    A cell kind says how many states it has (`states`), in which order it wants the blocks of hidden_size rows of the
    weights (`order`), of how many of these it takes the sigmoid (`sigmoids`, the first ones), how many blocks of its
    own stand behind them (`more`), and whether the way back needs them all (`keeps_gates`). It writes the two loops.
    """

    input_size: int
    hidden_size: int
    proj_size: int = 0
    states: int = 1
    order: tuple[int, ...] = (0,)
    sigmoids: int = 0
    more: int = 0
    keeps_gates: bool = True

    def steps(self, a: Array, states: States, packing: Packing, w: Weights) -> None:
        """Turn `a`, what x gives, into the gates, and write the states of all the steps behind the initial ones.

        a : (blocks, rows, hidden_size)      states : (N + rows, size) each
        """
        raise NotImplementedError

    def steps_back(self, kept: Kept, dy: Array, d: States, packing: Packing, w: Weights) -> tuple[Array, Array]:
        """The gradients by what x and what h gave to all the steps, in the order of the rows of W_ih and W_hh.

        dy : (rows, output_size)
        d : (N, size) each, the gradient by the last states, and in the end that by the initial ones
        """
        raise NotImplementedError

    # ------------------------------------------------------------------ parameters

    def add_weights(self, suffix: str, inputs: int, bias: bool, rng: np.random.Generator, dtype: DTypeLike) -> None:
        """The parameters of one layer in one direction, from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))."""
        rows = self.hidden_size * len(self.order)
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

    # ------------------------------------------------------------------ all the steps

    def scan(self, x: Array, start: States, packing: Packing, w: Weights) -> Kept:
        """All the steps, from the first to the last.

        x : (rows, inputs), or (rows, 1) integers      start : (N, size) each
        """
        a = self._from_inputs(x, packing, w)
        states = []
        for s in start:
            states.append(empty((len(s) + len(x), s.shape[1]), a.dtype))
            states[-1][: len(s)] = s
        self.steps(a, tuple(states), packing, w)
        return Kept(x, tuple(states), a if self.keeps_gates else None)

    def scan_back(
        self, kept: Kept, dy: Array, dend: States, packing: Packing, w: Weights, wants_dx: bool = True
    ) -> tuple[Array | None, States]:
        """The same steps in reverse; adds to the gradients of the weights, returns dx and that of the initial states.

        dy : (rows, output_size)      dend : (N, size) each, the gradient by the last states
        """
        d = tuple(s.copy() for s in dend)
        da_x, da_h = self.steps_back(kept, dy, d, packing, w)
        w.ih.add_product(da_x.T, _dense(kept.x, w.ih))
        w.hh.add_product(da_h.T, packing.before(kept.states[0]))
        if w.b_ih is not None:
            ones = np.ones(len(dy), dy.dtype)
            db = ones @ da_x
            w.b_ih.grad += db
            if w.b_hh is not None:
                w.b_hh.grad += db if da_h is da_x else ones @ da_h
        return product(da_x, w.ih.data) if wants_dx else None, d

    def arranged(self, weight: Array) -> Array:
        """A weight or bias as (blocks, hidden_size, ...) in the order that this kind wants, those of sigmoids halved.

        For sigmoid(a) = (tanh(a/2) + 1) / 2: then one tanh serves all gates.
        """
        given = weight.reshape(len(self.order), self.hidden_size, -1)
        blocks = np.empty_like(given)
        for k, source in enumerate(self.order):
            np.multiply(given[source], 0.5 if k < self.sigmoids else 1, out=blocks[k])
        return blocks

    def _from_inputs(self, x: Array, packing: Packing, w: Weights) -> Array:
        """The a of all the steps, as far as it does not depend on h: one product.

        The blocks of all the steps stand one after another. Of one sequence alone they stand side by side instead, so
        that a step is one run of numbers: there the number of calls counts, and a call on one run is the fastest.
        """
        n, size, rows = len(self.order), self.hidden_size, len(x)
        weight = self.arranged(w.ih.data)
        if x.dtype.kind in "iu":  # the product with a one-hot row is a column of the weight
            a = empty((n + self.more, rows, size), weight.dtype)
            weight = np.ascontiguousarray(weight.swapaxes(1, 2))
            for block, columns in zip(a, weight, strict=False):
                columns.take(x[:, 0], axis=0, out=block, mode="clip")
        elif packing.shape[1] == 1:
            side_by_side = empty((rows, (n + self.more) * size), x.dtype)
            np.matmul(x, weight.reshape(n * size, -1).T, out=side_by_side[:, : n * size])
            a = side_by_side.reshape(rows, -1, size).swapaxes(0, 1)
        else:
            a = empty((n + self.more, rows, size), x.dtype)
            np.matmul(x, weight.swapaxes(1, 2), out=a[:n])
        if w.b_ih is not None:
            bias = self.arranged(w.b_ih.data)
            if w.b_hh is not None:
                merged = n - self.more  # a block with one more behind it keeps the two apart
                bias[:merged] += self.arranged(w.b_hh.data)[:merged]
            a[:n] += bias.swapaxes(1, 2)
        return a


def _dense(x: Array, weight: Parameter) -> Array:
    """x, or the one-hot rows that its integers stand for.

    They are formed for the gradient alone: a product with mostly zeros is faster than adding up rows in the order of
    the integers.
    """
    if x.dtype.kind == "f":
        return x
    rows = np.zeros((len(x), weight.shape[1]), weight.dtype)
    rows[np.arange(len(x)), x[:, 0]] = 1
    return rows


def features(layer: Recurrence, x: ArrayLike, axes: dict[int, str], dtype: DTypeLike) -> Array:
    """x in `dtype`, checked: as many axes as one of `axes` (ndim -> how it is written), and its features."""
    array = layer.input(x, dtype)
    if array.ndim not in axes or array.shape[-1] != layer.input_size:
        layer.reject(f"x of shape {' or '.join(axes.values())}", array.shape)
    return array
