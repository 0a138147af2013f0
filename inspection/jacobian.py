"""The Jacobian, written out, beside the product with it that backward computes without ever forming it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from backhand.inspection.apart import Again, apart, as_inputs
from backhand.inspection.gradient_check import forget_all, leaves, map_leaves, title
from backhand.inspection.structure import Structure, size_in_words, structure_of
from backhand.layers.base import Layer
from backhand.layers.parameter import Array

LIMIT = 10_000_000  # entries of a matrix
STEP = 6e-6  # the cube root of float64's precision: there the two errors of a central difference are level


@dataclass(repr=False)
class Jacobian:
    """Every derivative of every output by every input.

        J[i, j] = dy_i / dx_j        backward(dout) = dout J

    matrix : (y.size, x.size)      out_shape, in_shape : those of y and x
    of, by : words for the layer and for x
    difference : the largest difference between dout J and backward(dout), for a random dout
    aligned : whether equal axes of y and x mean the same; those of y and a parameter do not
    """

    matrix: Array
    out_shape: tuple[int, ...]
    in_shape: tuple[int, ...]
    of: str
    by: str
    difference: float
    aligned: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape

    @cached_property
    def structure(self) -> Structure:
        """Its kind in a word, the share of zeros, the blocks on its diagonal."""
        return structure_of(self.matrix, self.out_shape, self.in_shape, self.aligned)

    @property
    def zeros(self) -> float:
        return self.structure.zeros

    def product(self, dout: Any) -> Array:
        """Upstream times local by the explicit matrix, in the shape of x; `vjp` gives the same without it."""
        return (np.asarray(dout).reshape(-1) @ self.matrix).reshape(self.in_shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.matrix if dtype is None else self.matrix.astype(dtype)

    def __repr__(self) -> str:
        rows, columns = self.shape
        lines = [
            f"Jacobian of {self.of}: y {self.out_shape} by {self.by} {self.in_shape}",
            f"  {rows:,} x {columns:,}, {self.structure}",
            f"  explicit: {size_in_words(self.matrix.nbytes)}; dout J, as backward computes it: "
            f"{size_in_words(columns * self.matrix.itemsize)}; the two differ by {self.difference:.1e} at most",
        ]
        if max(rows, columns) <= 12:
            lines.append(np.array2string(self.matrix, precision=4, suppress_small=True, max_line_width=120))
        return "\n".join(lines)


def jacobian(layer: Layer, x: Any, *, by: int | str = 0, limit: int = LIMIT, **options: Any) -> Jacobian:
    """The Jacobian of a layer at x, one row for each backward with a dout that is 1 in one place and 0 elsewhere.

    layer : any Layer, in its own mode; it is copied and stays untouched. Every forward draws the same numbers
    x : the input; a tuple is several inputs
    by : the number of the input, or the name of a parameter, "weight", that it is differentiated by
    limit : ValueError where it would have more entries, which says what it would have cost
    options : keyword arguments of forward

    Several outputs stand one after the other in its rows.

    >>> jacobian(ReLU(), np.array([1.0, -2, 3, -1]))
    Jacobian of ReLU(): y (4,) by x (4,)
      4 x 4, diagonal; 88% zeros
      ...
    """
    pull = _Pull(layer, as_inputs(x), options)
    wanted = pull.variable(by)
    y = pull.forward()
    outputs = [leaf for _, leaf in leaves(y) if leaf.dtype.kind == "f"]
    rows = sum(out.size for out in outputs)
    if not outputs:
        raise ValueError(f"{title(layer)}: expected outputs of floats, got integers; they have no derivative")
    name = by if isinstance(by, str) else "x" if len(pull.inputs) == 1 else f"input {by}"
    item = np.result_type(*outputs).itemsize
    if rows * wanted.size > limit:
        raise ValueError(
            f"the Jacobian of {title(layer)} at {name} of shape {wanted.shape} has {rows:,} rows, one for each output, "
            f"and {wanted.size:,} columns: {rows:,} x {wanted.size:,} x {item} bytes = "
            f"{size_in_words(rows * wanted.size * item)}. backward(dout) gives the product dout J, which is all that "
            f"is ever needed, in {size_in_words(wanted.size * item)}: vjp(layer, x, dout). To look at J itself take a "
            f"smaller x; or raise limit={limit:,} entries"
        )
    drawn = np.random.default_rng(0).standard_normal(rows)
    implicit = pull.gradient(by, _nested(drawn, y))
    matrix: Array = np.empty((rows, wanted.size), implicit.dtype)
    for i in range(rows):
        matrix[i] = pull.gradient(by, _nested(np.arange(rows) == i, y)).reshape(-1)
    difference = np.abs(drawn @ matrix - implicit.reshape(-1)).max(initial=0.0)
    out_shape = outputs[0].shape if len(outputs) == 1 else (rows,)
    return Jacobian(matrix, out_shape, wanted.shape, title(layer), name, float(difference), name != by)


def vjp(layer: Layer, x: Any, dout: Any, **options: Any) -> Any:
    """The product dout J: what `backward` is for. Returns dx (a tuple where x is one), leaves the layer untouched.

    layer, x, options : as in `jacobian`      dout : of the shape of the output (a tuple of several)
    """
    pull = _Pull(layer, as_inputs(x), options)
    pull.forward()
    return pull.layer.backward(map_leaves(dout, lambda d: None if d is None else np.array(d)))


def jvp(layer: Layer, x: Any, v: Any, *, step: float = STEP, **options: Any) -> Any:
    """The product J v, the change of the output along v: a central difference in float64.

        J v ~ (f(x + h v) - f(x - h v)) / 2h

    layer, x, options : as in `jacobian`
    v : of the shape of x; where x is a tuple, a tuple, with None where an input stays as it is
    step : h times the largest number in v, for an x of about 1; for a larger x it grows with it
    """
    pull = _Pull(layer, as_inputs(x), options, np.float64)
    inputs = map_leaves(pull.inputs, lambda z: z.astype(np.float64) if z.dtype.kind == "f" else z)
    along = _like(inputs, v if isinstance(x, tuple) else (v,))
    length = max((np.abs(d).max(initial=0.0) for _, d in leaves(along) if d is not None), default=0.0)
    scale = max((np.abs(z).max(initial=0.0) for _, z in leaves(inputs) if z.dtype.kind == "f"), default=0.0)
    h = step * max(1.0, float(scale)) / (float(length) or 1.0)
    pull.inputs = _moved(inputs, along, h)
    above = pull.forward()
    pull.inputs = _moved(inputs, along, -h)
    below = pull.forward()
    return _difference(above, below, 2 * h)


class _Pull:
    """A copy of a layer that goes forward in the same way each time, and pulls a dout back to what is asked for."""

    def __init__(self, layer: Layer, inputs: Any, options: dict[str, Any], dtype: Any = None) -> None:
        self.layer, _ = apart(layer)
        if dtype is not None:
            self.layer.astype(dtype)
        self.inputs = map_leaves(inputs, lambda z: np.asarray(float(z) if isinstance(z, int) else z))
        self.options = options
        self.again = Again(self.layer)

    def forward(self) -> Any:
        self.again()
        forget_all(self.layer)
        return map_leaves(self.layer.forward(*map_leaves(self.inputs, np.array), **self.options), np.asarray)

    def gradient(self, by: int | str, dout: Any) -> Array:
        self.forward()
        for parameter in self.layer.parameters():
            parameter.zero_grad()
        dx = self.layer.backward(dout)
        if isinstance(by, str):
            return dict(self.layer.named_parameters())[by].grad.copy()
        dx = dx[by] if len(self.inputs) > 1 else dx
        if dx is None or isinstance(dx, tuple):
            got = "None" if dx is None else "a tuple"
            raise ValueError(f"{title(self.layer)}: expected a gradient by input {by}, but backward gives {got} for it")
        return np.asarray(dx)

    def variable(self, by: int | str) -> Array:
        """The array that is differentiated by."""
        if isinstance(by, str):
            known = dict(self.layer.named_parameters())
            if by not in known:
                names = ", ".join(map(repr, known)) or "none"
                raise ValueError(f"{title(self.layer)}: expected by to be a parameter ({names}), got {by!r}")
            return known[by].data
        if not 0 <= by < len(self.inputs) or isinstance(self.inputs[by], tuple):
            arrays = [i for i, z in enumerate(self.inputs) if not isinstance(z, tuple)]
            raise ValueError(f"{title(self.layer)}: expected by to be the number of an array {arrays}, got {by!r}")
        return np.asarray(self.inputs[by])


def _nested(flat: Array, y: Any) -> Any:
    """The numbers of a vector as a dout for the outputs y."""
    begin = 0

    def part(out: Array) -> Array | None:
        nonlocal begin
        if out.dtype.kind != "f":
            return None
        begin += out.size
        return flat[begin - out.size : begin].reshape(out.shape).astype(out.dtype)

    return map_leaves(y, part)


def _like(inputs: Any, v: Any) -> Any:
    """The direction, in the nesting of the inputs."""
    if v is None:
        return map_leaves(inputs, lambda z: None)
    if isinstance(inputs, tuple):
        if not isinstance(v, tuple) or len(v) != len(inputs):
            raise ValueError(f"jvp: expected v in the nesting of x, a tuple of {len(inputs)}, got {_brief(v)}")
        return tuple(_like(z, d) for z, d in zip(inputs, v, strict=True))
    direction = np.asarray(v, np.float64)
    if direction.shape != inputs.shape:
        raise ValueError(f"jvp: expected v of the shape of x, {inputs.shape}, got {direction.shape}")
    return direction


def _moved(inputs: Any, along: Any, h: float) -> Any:
    if isinstance(inputs, tuple):
        return tuple(_moved(z, d, h) for z, d in zip(inputs, along, strict=True))
    return inputs if along is None else inputs + h * along


def _difference(above: Any, below: Any, by: float) -> Any:
    if isinstance(above, tuple):
        return tuple(_difference(a, b, by) for a, b in zip(above, below, strict=True))
    return (above - below) / by if above.dtype.kind == "f" else None


def _brief(v: Any) -> str:
    return f"a tuple of {len(v)}" if isinstance(v, tuple) else f"an array of shape {np.shape(v)}"
