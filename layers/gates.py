"""The gates of the lecture's circuits: the smallest layers there are.

Each one knows only its own local gradient. Put together in series and in parallel (`Sequential`, `Parallel`) they
make any expression, and the chain rule does the rest: upstream times local is downstream. Four of them have a
pattern worth remembering: add distributes, copy adds, multiply swaps, max routes.

Shapes broadcast as in NumPy; a gradient is summed back to the shape of its own input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.activations import Elementwise
from backhand.layers.arguments import number, whole
from backhand.layers.base import Layer
from backhand.layers.broadcasting import broadcast_together, unbroadcast
from backhand.layers.parameter import Array


class Gate(Layer):
    """What layers with several inputs of one kind share: these come in as arrays that broadcast together."""

    def arrays(self, inputs: tuple[ArrayLike, ...], least: int = 1) -> list[Array]:
        """The inputs as float arrays, or the error that names their shapes."""
        if len(inputs) < least:
            self.reject(f"at least {least} inputs", len(inputs))
        arrays = self.inputs(*inputs)
        if not broadcast_together(*(x.shape for x in arrays)):
            self.reject("inputs whose shapes broadcast", " and ".join(str(x.shape) for x in arrays))
        return arrays

    def gradients(self, each: list[Array], shapes: list[tuple[int, ...]]) -> Any:
        """One gradient for each input, in its own shape; not a tuple where there was one input."""
        own = tuple(unbroadcast(gradient, shape) for gradient, shape in zip(each, shapes, strict=True))
        return own if len(own) > 1 else own[0]


class Add(Gate):
    """The distributor: every input gets the upstream gradient.

        y = x_1 + ... + x_n        dx_i = dout

    x_i : any shapes that broadcast
    """

    def forward(self, *inputs: ArrayLike) -> Array:
        arrays = self.arrays(inputs)
        y = np.asarray(sum(arrays[1:], start=arrays[0] + 0))
        self.save([x.shape for x in arrays], out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        (shapes,) = self.saved()
        return self.gradients([dout] * len(shapes), shapes)


class Copy(Layer):
    """The fork: what comes back along the branches adds up.

        y_1 = ... = y_n = x        dx = dout_1 + ... + dout_n

    x, y_i : any shape
    copies : how many branches, 2 or more
    """

    def __init__(self, copies: int = 2) -> None:
        self.copies = whole(self, "copies", copies, least=2)

    def forward(self, x: ArrayLike) -> tuple[Array, ...]:
        y = (self.array(x),) * self.copies
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Array | None:
        douts = self.upstream(dout)
        self.saved()
        if douts[0] is None:  # copies of integers
            return None
        return np.asarray(sum(douts[1:], start=douts[0] + 0))


class Multiply(Gate):
    """The swap: each input's gradient is the upstream times the other inputs.

        y = x_1 x_2 ... x_n        dx_i = dout * (product of the others)

    x_i : any shapes that broadcast
    """

    def forward(self, *inputs: ArrayLike) -> Array:
        arrays = self.arrays(inputs)
        y = np.asarray(_product(arrays))
        self.save(arrays, out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        (arrays,) = self.saved()
        # not y / x_i, which fails where x_i is 0
        each = [_product([dout, *arrays[:i], *arrays[i + 1 :]]) for i in range(len(arrays))]
        return self.gradients(each, [x.shape for x in arrays])


class Max(Gate):
    """The router: the largest input gets the whole upstream gradient, the others none.

        y = max(x_1, ..., x_n)        dx_i = dout where x_i is the largest, else 0

    x_i : any shapes that broadcast
    Among equals the first one wins, as in max-pooling.
    """

    def forward(self, *inputs: ArrayLike) -> Array:
        arrays = self.arrays(inputs)
        stack = np.stack(np.broadcast_arrays(*arrays))
        winner = stack.argmax(axis=0)
        y = stack.max(axis=0)
        self.save(winner, [x.shape for x in arrays], out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        winner, shapes = self.saved()
        return self.gradients([dout * (winner == i) for i in range(len(shapes))], shapes)


class Exp(Elementwise):
    """The exponential, its own derivative.

        y = exp(x)        dx = dout * y

    x, y : any shape
    """

    def function(self, x: Array) -> Array:
        return np.exp(x)

    def gradient(self, dout: Array, kept: Array) -> Array:
        return dout * kept


class Reciprocal(Elementwise):
    """One over x.

        y = 1 / x        dx = -dout * y^2

    x, y : any shape
    """

    def function(self, x: Array) -> Array:
        return 1 / x

    def gradient(self, dout: Array, kept: Array) -> Array:
        return -dout * kept * kept


class _Affine(Elementwise):
    """The form of the gates whose derivative is the same at every x: nothing has to be kept."""

    def keep(self, x: Array, y: Array) -> None:
        return None


class Negate(_Affine):
    """The sign change.

        y = -x        dx = -dout

    x, y : any shape
    """

    def function(self, x: Array) -> Array:
        return -x

    def gradient(self, dout: Array, kept: None) -> Array:
        return -dout


class AddConstant(_Affine):
    """Add a number that is not learned.

        y = x + c        dx = dout

    x, y : any shape      c = constant
    """

    def __init__(self, constant: float) -> None:
        self.constant = number(self, "constant", constant)

    def function(self, x: Array) -> Array:
        return x + self.constant

    def gradient(self, dout: Array, kept: None) -> Array:
        return dout


class MultiplyConstant(_Affine):
    """Multiply by a number that is not learned.

        y = c x        dx = c dout

    x, y : any shape      c = constant
    """

    def __init__(self, constant: float) -> None:
        self.constant = number(self, "constant", constant)

    def function(self, x: Array) -> Array:
        return x * self.constant

    def gradient(self, dout: Array, kept: None) -> Array:
        return dout * self.constant


def _product(arrays: list[Array]) -> Array:
    product = arrays[0] + 0  # a new array: an output must not be somebody's input
    for x in arrays[1:]:
        product = product * x
    return product
