"""A learnable array and its gradient, and what it starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[Any]


class Parameter:
    """A learnable array and the gradient that accumulates for it.

    data, grad : the same shape and dtype; a backward does `parameter.grad += ...`, never `=`
    requires_grad : False freezes it: optimizers and clipping leave it alone (its gradient is still computed)
    """

    __slots__ = ("data", "grad", "requires_grad")

    def __init__(self, data: ArrayLike, requires_grad: bool = True) -> None:
        array = np.array(data)
        self.data: Array = array if array.dtype.kind == "f" else array.astype(np.float32)
        self.grad: Array = np.zeros(self.data.shape, self.data.dtype)
        self.requires_grad = requires_grad

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

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.data if dtype is None else self.data.astype(dtype)

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter({self.data!r}{frozen})"


def uniform(rng: np.random.Generator, bound: float, shape: tuple[int, ...], dtype: DTypeLike) -> Parameter:
    """A Parameter drawn from U(-bound, bound): what torch's layers start from."""
    return Parameter(rng.uniform(-bound, bound, shape).astype(float_dtype(dtype)))


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype, if weights can have it: integers would all become 0."""
    kind = np.dtype(dtype)
    if kind.kind != "f":
        raise ValueError(f"expected a float dtype, got {kind}")
    return kind
