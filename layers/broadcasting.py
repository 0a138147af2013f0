"""Broadcasting and its adjoint: an array that is repeated along an axis gets the sum of the gradients there."""

from __future__ import annotations

import math

import numpy as np

from backhand.layers.parameter import Array


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an input of `shape` was repeated: what was copied, adds."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    stretched = tuple(i for i, n in enumerate(shape, extra) if n == 1 and gradient.shape[i] != 1)
    return np.asarray(gradient.sum(tuple(range(extra)) + stretched, keepdims=True)).reshape(shape)


def broadcast_together(*shapes: tuple[int, ...]) -> bool:
    """Whether arrays of these shapes can meet in one operation."""
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def broadcasts_to(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether an array of `shape` broadcasts to `full` without making it larger."""
    sizes = zip(shape[::-1], full[::-1], strict=False)
    return len(shape) <= len(full) and all(n in (1, m) for n, m in sizes)


def reshape_hint(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What an error says at its end: the reshape that mends a shape, where the numbers stay in their order; or ""."""
    if math.prod(shape) != math.prod(wanted) or (sorted(shape) == sorted(wanted) and 1 not in shape):
        return ""  # turned round, it wants more than another shape
    return f"; {name}.reshape({', '.join(map(str, wanted)) or '()'}) mends it"


def along(values: Array, axis: int, ndim: int) -> Array:
    """A vector as a view that lies along one axis of `ndim`, and broadcasts along the others."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])
