"""Second derivatives, from differences of the gradients that backward gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from backhand.inspection.apart import Again, apart, as_inputs, start_backward, with_target
from backhand.inspection.gradient_check import forget_all
from backhand.inspection.jacobian import LIMIT, STEP
from backhand.inspection.structure import Structure, size_in_words, structure_of
from backhand.layers.base import Layer
from backhand.layers.parameter import Array

LossOf = Callable[[Array], tuple[float, Array]]


@dataclass(repr=False)
class Hessian:
    """How the gradient of a loss changes with the variable.

        H[i, j] = d(dx_i) / dx_j,    which is symmetric

    matrix : (x.size, x.size), made symmetric      shape : of x
    asymmetry : how far it was from being symmetric, by its largest entry: a large one says that the gradient is wrong,
        or x near a kink
    value, gradient : at x
    """

    matrix: Array
    shape: tuple[int, ...]
    asymmetry: float
    value: float
    gradient: Array

    @cached_property
    def eigenvalues(self) -> Array:
        """In rising order: all positive in a minimum, of both signs at a saddle."""
        return np.linalg.eigvalsh(self.matrix)

    @cached_property
    def structure(self) -> Structure:
        """Its kind in a word, the share of zeros, the blocks on its diagonal."""
        # a difference of gradients has errors of about STEP squared, which are no entries
        scale = np.abs(self.matrix).max(initial=0.0)
        clean = np.where(np.abs(self.matrix) < 1e-8 * scale, 0, self.matrix)
        return structure_of(clean, self.shape, self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.matrix if dtype is None else self.matrix.astype(dtype)

    def __repr__(self) -> str:
        n = len(self.matrix)
        values = self.eigenvalues
        bound = 1e-8 * np.abs(values).max(initial=0.0)
        rising, falling = int((values > bound).sum()), int((values < -bound).sum())
        lines = [
            f"Hessian by x {self.shape}: {n:,} x {n:,}, {self.structure}",
            f"  loss {self.value:.6g}, norm of the gradient {np.linalg.norm(self.gradient):.3g}; eigenvalues from "
            f"{values[0]:.3g} to {values[-1]:.3g}: {rising} up, {falling} down, {n - rising - falling} flat",
            f"  asymmetry {self.asymmetry:.1e}{'' if self.asymmetry < 1e-5 else ': is the gradient right?'}",
        ]
        if n <= 12:
            lines.append(np.array2string(self.matrix, precision=4, suppress_small=True, max_line_width=120))
        return "\n".join(lines)


def hessian(loss_of: LossOf, x: Any, *, step: float = STEP, limit: int = LIMIT) -> Hessian:
    """The matrix of second derivatives at x, by central differences of the analytic gradient, in float64.

        H[:, i] ~ (g(x + h e_i) - g(x - h e_i)) / 2h

    loss_of : x -> (loss, its gradient in x's shape): `LossByInput(...)`, `LossByParameters(...)`, or your own
    x : the array at which
    limit : ValueError where the matrix would have more entries
    """
    x = np.array(x, np.float64)
    if x.size**2 > limit:
        raise ValueError(
            f"the Hessian by {x.size:,} numbers is {x.size:,} x {x.size:,} x 8 bytes = {size_in_words(8 * x.size**2)}, "
            f"and {2 * x.size:,} gradients of work. Its product with a vector takes two gradients and "
            f"{size_in_words(8 * x.size)}: hvp(loss_of, x, v). Take a smaller x, or raise limit={limit:,} entries"
        )
    value, gradient = loss_of(x)
    gradient = _checked(gradient, x)
    matrix: Array = np.empty((x.size, x.size))
    for i in range(x.size):
        direction = np.zeros(x.size)
        direction[i] = 1
        matrix[:, i] = _along(loss_of, x, direction.reshape(x.shape), step).reshape(-1)
    scale = np.abs(matrix).max(initial=0.0)
    asymmetry = float(np.abs(matrix - matrix.T).max(initial=0.0) / scale) if scale else 0.0
    return Hessian((matrix + matrix.T) / 2, x.shape, asymmetry, float(value), gradient)


def hvp(loss_of: LossOf, x: Any, v: Any, *, step: float = STEP) -> Array:
    """The product H v, without H: how the gradient changes along v.

        H v ~ (g(x + h v) - g(x - h v)) / 2h

    loss_of, x : as in `hessian`      v : of x's shape
    """
    x, v = np.array(x, np.float64), np.asarray(v, np.float64)
    if v.shape != x.shape:
        raise ValueError(f"hvp: expected v of the shape of x, {x.shape}, got {v.shape}")
    _checked(loss_of(x)[1], x)
    return _along(loss_of, x, v, step)


class LossByInput:
    """A loss as a function of the model's input: what `hessian` and `hvp` take.

        f(x) = (loss, dx)

    model, loss, target : are copied to float64; each call draws the same numbers. A target of several is a tuple

    >>> hessian(LossByInput(model, MSELoss(), y), x)
    """

    def __init__(self, model: Layer, loss: Layer, target: Any = None) -> None:
        self._run = _Run(model, loss, target)

    def __call__(self, x: Array) -> tuple[float, Array]:
        return self._run((x,))


class LossByParameters:
    """A loss as a function of all the model's parameters, in one vector: what `hessian` and `hvp` take.

        f(w) = (loss, dw)

    model, loss, x, target : are copied to float64; each call draws the same numbers. A tuple is several arrays
    start : the parameters as they are, one after the other

    >>> f = LossByParameters(model, MSELoss(), x, y)
    >>> hessian(f, f.start)
    >>> hvp(f, f.start, f.join({"0.weight": v}))
    """

    def __init__(self, model: Layer, loss: Layer, x: Any, target: Any = None) -> None:
        self._run = _Run(model, loss, target)
        self._inputs = tuple(_as_float64(each) for each in as_inputs(x))
        self._parameters = dict(self._run.model.named_parameters())
        self.start = self.join({name: p.data for name, p in self._parameters.items()})

    def __call__(self, w: Array) -> tuple[float, Array]:
        for name, value in self.split(w).items():
            self._parameters[name].data[...] = value
        loss, _ = self._run(self._inputs)
        return loss, self.join({name: p.grad for name, p in self._parameters.items()})

    def split(self, w: Array) -> dict[str, Array]:
        """The vector as named arrays."""
        parts, begin = {}, 0
        for name, p in self._parameters.items():
            parts[name] = np.asarray(w)[begin : begin + p.size].reshape(p.shape)
            begin += p.size
        return parts

    def join(self, arrays: dict[str, Any]) -> Array:
        """Named arrays as one vector; zeros for those that are not named."""
        unknown = arrays.keys() - self._parameters.keys()
        if unknown:
            raise ValueError(f"expected names of parameters ({', '.join(self._parameters)}), got {sorted(unknown)}")
        parts = [np.broadcast_to(arrays.get(name, 0.0), p.shape).reshape(-1) for name, p in self._parameters.items()]
        return np.concatenate([np.zeros(0), *parts])


class _Run:
    """One forward and backward of copies in float64, the same each time."""

    def __init__(self, model: Layer, loss: Layer, target: Any) -> None:
        self.model, self.loss = apart(model, loss)
        for layer in (self.model, self.loss):
            layer.astype(np.float64)
        self.target = target
        self.again = Again(self.model, self.loss)

    def __call__(self, inputs: tuple[Any, ...]) -> tuple[float, Any]:
        self.again()
        for layer in (self.model, self.loss):
            forget_all(layer)
            for parameter in layer.parameters():
                parameter.zero_grad()
        y = self.model.forward(*as_inputs(inputs))
        value = float(self.loss.forward(*with_target(y, self.target)))
        return value, self.model.backward(start_backward(self.loss, y))


def _along(loss_of: LossOf, x: Array, v: Array, step: float) -> Array:
    length = float(np.abs(v).max(initial=0.0))
    if not length:
        return np.zeros(x.shape)
    moved = np.abs(x[v != 0]).max(initial=1.0)
    h = step * float(moved) / length
    above, below = np.array(loss_of(x + h * v)[1]), np.array(loss_of(x - h * v)[1])
    return (above - below) / (2 * h)


def _checked(gradient: Any, x: Array) -> Array:
    array = np.array(gradient, np.float64)
    if array.shape != x.shape:
        raise ValueError(f"expected loss_of(x) to give (loss, gradient of shape {x.shape}), got {array.shape}")
    return array


def _as_float64(x: Any) -> Any:
    return x.astype(np.float64) if getattr(x, "dtype", np.dtype(int)).kind == "f" else x
