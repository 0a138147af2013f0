"""A learnable array and its gradient, and what it starts from."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.memory import Array, product

__all__ = ["Array", "Parameter", "clock", "float_dtype", "uniform", "zero_grads", "zeroed_before"]

# One count for all that happens in an order that matters: what layers save, and when gradients are set to zero.
clock = itertools.count()


class _Zeroed(threading.local):
    """When any gradients were last set to zero in this thread, by `clock`, and when before that.

    Several times in a row, with nothing saved in between (two optimizers, one parameter after the other), count as one,
    from `first` to `last`.
    """

    first = last = before = -1


_zeroed = _Zeroed()


class Parameter:
    """A learnable array and the gradient that accumulates for it.

    data, grad : the same shape and dtype; a backward does `parameter.grad += ...`, never `=`
    requires_grad : False freezes it: optimizers and clipping leave it alone (its gradient is still computed)
    """

    __slots__ = ("_grad", "_stale", "data", "requires_grad", "zeroed", "zeroed_before")
    _grad: Array
    _stale: bool  # the gradient is zero, whatever _grad holds: it is written when somebody asks for it
    zeroed: int  # when `zero_grad` was last called, by `clock`
    zeroed_before: int  # and when before that

    def __init__(self, data: ArrayLike, requires_grad: bool = True) -> None:
        array = np.array(data)
        kind = array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.float32
        self.data: Array = array.astype(kind, copy=False)
        self.grad = np.zeros(self.data.shape, self.data.dtype)
        self.requires_grad = requires_grad
        self.zeroed = self.zeroed_before = -1

    @property
    def grad(self) -> Array:
        """The sum of the gradients of all backwards since it was last set to zero."""
        if self._stale:
            self._grad.fill(0)
            self._stale = False
        return self._grad

    @grad.setter
    def grad(self, grad: Array) -> None:
        self._grad = grad
        self._stale = False

    def zero_grad(self) -> None:
        """Let `grad` be zero; the zeros are written when somebody next asks for it, or never: see `add_product`."""
        zero_grads((self,))

    def add_product(self, a: Array, b: Array) -> None:
        """`grad += a @ b`, for a and b with two axes and any shape of grad that has as many numbers.

        The first product after `zero_grad` goes straight to where the gradient lives: that spares writing zeros,
        an array for the product, and adding the two.
        """
        if self._stale and self._grad.flags.c_contiguous and a.dtype == b.dtype == self._grad.dtype:
            # of one sample it is a column times a row, for which matmul takes five times as long
            times = np.multiply if a.shape[1] == 1 else np.matmul
            times(a, b, out=self._grad.reshape(len(a), -1))
            self._stale = False
        else:
            grad = self.grad
            grad += product(a, b).reshape(grad.shape)

    def holds(self, data: Array, grad: Array) -> bool:
        """Whether these two are its arrays still (the gradient is not brought up to date for the question)."""
        return self.data is data and self._grad is grad

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the data, and so of the gradient."""
        return self.data.shape

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that its layer computes in."""
        return self.data.dtype

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        # the clock of another process, or of the one that it is a copy of, says nothing about it
        for name, value in {**state[1], "zeroed": -1, "zeroed_before": -1}.items():
            setattr(self, name, value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.data if dtype is None else self.data.astype(dtype)

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter({self.data!r}{frozen})"


def zero_grads(parameters: Iterable[Parameter]) -> None:
    """`zero_grad` of each."""
    tick = next(clock)
    if tick != _zeroed.last + 1:
        _zeroed.before, _zeroed.first = _zeroed.last, tick
    _zeroed.last = tick
    first = _zeroed.first
    for p in parameters:
        p._stale = True
        if p.zeroed < first:
            p.zeroed_before = p.zeroed
        p.zeroed = tick


def zeroed_before() -> int:
    """When any gradients were set to zero the last time but one in this thread, by `clock`."""
    return _zeroed.before


def uniform(rng: np.random.Generator, bound: float, shape: tuple[int, ...], dtype: DTypeLike) -> Parameter:
    """A Parameter drawn from U(-bound, bound): what torch's layers start from."""
    return Parameter(rng.uniform(-bound, bound, shape).astype(float_dtype(dtype)))


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype in this machine's byte order, if weights can have it: integers would all become 0."""
    kind = np.dtype(dtype).newbyteorder("=")
    if kind.kind != "f":
        raise ValueError(f"expected a float dtype, got {kind}")
    return kind
