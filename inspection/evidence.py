"""What the doctor measures: the Jacobian of a layer by central differences, and what its backward says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.inspection.gradient_check import (
    GradientRow,
    generators_of,
    input_gradients,
    leaves,
    map_leaves,
    rounding,
    upstream_generator,
    worst_row,
)
from backhand.layers.base import Layer
from backhand.layers.parameter import Array

MOST_NUMBERS = 4_000_000  # in a Jacobian that is kept


@dataclass
class Target:
    """One array z that the loss is differentiated by: an input or a parameter.

    z : the array itself; it is moved in place while measuring
    analytic : what backward gave, for each of the douts; None or of a wrong shape where that is the fault
    numeric : what it should have given, of z's shape; nan at the entries that were not measured
    jacobian : dy/dz as (numbers in y, measured entries of z), or None where it would be too large
    entries : which entries of z were measured
    """

    name: str
    z: Array
    parameter: bool
    analytic: list[Any] = field(default_factory=list)
    numeric: list[Array] = field(default_factory=list)
    jacobian: Array | None = None
    entries: Array = field(default_factory=lambda: np.zeros(0, np.intp))

    @property
    def comparable(self) -> bool:
        """Whether analytic and numeric can be set against each other number by number."""
        return all(a is not None and a.shape == self.z.shape and np.isfinite(a).all() for a in self.analytic)

    @property
    def whole(self) -> bool:
        """Whether every entry was measured, and the Jacobian kept."""
        return self.jacobian is not None and len(self.entries) == self.z.size

    def pull(self, dout: Array) -> Array:
        """The right gradient for another (flat) dout, of z's shape; nan where it was not measured."""
        return self.spread(dout @ self.jacobian)

    def spread(self, values: Array) -> Array:
        """One value for each measured entry, as an array of z's shape."""
        full = np.full(self.z.size, np.nan)
        full[self.entries] = values
        return full.reshape(self.z.shape)


class Evidence:
    """One layer at one point: its outputs, the douts, and a Target for everything that it is differentiated by.

    The layer and the inputs are worked on as they are: hand in copies in float64.
    error : what forward or backward raised, if they did
    """

    def __init__(
        self,
        layer: Layer,
        inputs: tuple[Any, ...],
        *,
        step: float = 1e-5,
        seed: int = 0,
        most: int = 400,
        douts: int = 2,
        only: tuple[str, ...] | None = None,
    ) -> None:
        self.layer, self.inputs, self.step, self.most = layer, inputs, step, most
        self._generators = [(g, g.bit_generator.state) for g in generators_of(layer)]
        self._buffers = [(b, b.copy()) for _, b in layer.named_buffers()]
        self._modules = list(layer.modules())
        self._global: Any = global_state()
        self.rng = upstream_generator(seed)
        self.input_changed = ""
        self.dout_changed = False
        self.error: Exception | None = None
        self._grads: Any = None
        self.y = self.forward()
        self.forget()
        if _same_state(self._global, global_state()):
            self._global = None  # it does not draw from NumPy's own generator, and setting that back takes time
        self.flat_y = flat(self.y)
        self.douts = [map_leaves(self.y, lambda y: self.rng.standard_normal(np.shape(y))) for _ in range(douts)]
        found = [self._tried(dout) for dout in self.douts]
        arrays = [(name, x, False) for name, x, _ in input_gradients(layer, self.inputs, self._grads)]
        arrays += [(name, p.data, True) for name, p in layer.named_parameters()]
        self.targets = [
            Target(name, z, parameter, [each.get(name) for each in found])
            for name, z, parameter in arrays
            if only is None or name in only
        ]
        self._variants: list[Evidence] | None = None
        self.restore()

    def measure(self) -> Evidence:
        """Fill in what the gradients should be; returns the Evidence itself."""
        for target in self.targets:
            self._measure(target)
        self.restore()
        return self

    # ------------------------------------------------------------------ running the layer

    def restore(self) -> None:
        """Set generators (NumPy's global one too) and buffers back to where they were."""
        for generator, state in self._generators:
            generator.bit_generator.state = state
        for buffer, value in self._buffers:
            buffer[...] = value
        if self._global is not None:
            global_state(self._global)

    def forget(self) -> None:
        """Drop what a forward without a backward left saved."""
        for each in self._modules:
            each.forget()

    def forward(self, inputs: tuple[Any, ...] | None = None, restore: bool = True) -> Any:
        """y, from copies of the inputs; it is noted when the layer writes into them."""
        if restore:
            self.restore()
        lent = self.inputs if inputs is None else inputs
        given = map_leaves(lent, np.array)
        with np.errstate(all="ignore"):
            y = map_leaves(self.layer.forward(*given), np.array)
        if not same(lent, given):
            self.input_changed = "forward"
        return y

    def outputs(self) -> Array:
        """All numbers of y in one vector; nothing stays saved."""
        self.restore()
        with np.errstate(all="ignore"):
            y = flat(self.layer.forward(*(map_leaves(self.inputs, np.array) if self.input_changed else self.inputs)))
        self.forget()
        return y

    def gradients(self, dout: Any, inputs: tuple[Any, ...] | None = None) -> dict[str, Any]:
        """Name -> what one forward and one backward with this dout give."""
        self.layer.zero_grad()
        self.forward(inputs)
        found = self.backward(dout)
        self.clear()
        return found

    def backward(self, dout: Any) -> dict[str, Any]:
        """Name -> gradient, of the backward of the forward that was just run; parameters as they have added up."""
        given = map_leaves(dout, np.array)
        with np.errstate(all="ignore"):
            grads = self.layer.backward(given)
        if not same(dout, given):
            self.dout_changed = True
        self._grads = grads
        found = {name: dx for name, _, dx in input_gradients(self.layer, self.inputs, grads)}
        found.update((name, parameter.grad) for name, parameter in self.layer.named_parameters())
        return {name: None if g is None else np.array(g) for name, g in found.items()}

    def clear(self) -> None:
        """Zero gradients of the right shape, and nothing saved."""
        for parameter in self.layer.parameters():
            parameter.grad = np.zeros_like(parameter.data)
        self.layer.zero_grad()

    def _tried(self, dout: Any) -> dict[str, Any]:
        try:
            return self.gradients(dout)
        except Exception as error:  # whatever somebody's backward raises is what is wrong with it
            self.error = error
            self.clear()
            return {}

    # ------------------------------------------------------------------ measuring

    def _measure(self, target: Target) -> None:
        """Central differences by every entry of z, or by `most` of them."""
        z = target.z
        entries = np.arange(z.size)
        if z.size > self.most:
            entries = np.sort(self.rng.choice(z.size, self.most, replace=False))
        target.entries = entries
        flat_douts = np.stack([flat(dout) for dout in self.douts])
        numeric = np.empty((len(flat_douts), len(entries)))
        keep = self.flat_y.size * len(entries) <= MOST_NUMBERS
        jacobian = np.empty((self.flat_y.size, len(entries))) if keep else None
        for i, entry in enumerate(entries):
            column = self.slope(z, int(entry), self.step)
            numeric[:, i] = flat_douts @ column
            if jacobian is not None:
                jacobian[:, i] = column
        target.jacobian = jacobian
        target.numeric = [target.spread(values) for values in numeric]

    def slope(self, z: Array, entry: int, step: float) -> Array:
        """The derivative of all numbers of y by one entry of z."""
        at = np.unravel_index(entry, z.shape)
        value = z[at].copy()
        z[at] = value + step
        high, above = float(z[at]), self.outputs()
        z[at] = value - step
        low, below = float(z[at]), self.outputs()
        z[at] = value
        column: Array = (above - below) / (high - low)  # the step that was made, not the one that was meant
        return column

    def rows(self) -> list[GradientRow]:
        """The table of the check: for every target, where analytic and numeric differ most."""
        return [
            max(
                (
                    worst_row(t.name, t.z.shape, t.entries, a, n, rounding(self.flat_y, d, self.step))
                    for a, n, d in zip(t.analytic, t.numeric, self.flat_douts, strict=True)
                ),
                key=lambda row: (bool(row.problem), row.error),
            )
            for t in self.targets
        ]

    def failing(self, tolerance: float) -> list[str]:
        """The names of the gradients that are wrong."""
        return [row.name for row in self.rows() if row.problem or not row.error <= tolerance]

    def again(self, inputs: tuple[Any, ...], **options: Any) -> Evidence:
        """The same layer at other inputs, measured."""
        self.restore()
        return Evidence(self.layer, inputs, **{"step": self.step, "most": self.most, **options}).measure()

    def variants(self) -> list[Evidence]:
        """The same with one fewer along each axis that the layer takes in another size; made when first asked for."""
        if self._variants is None:
            self._variants = []
            for axis, n in enumerate(np.shape(next(x for _, x in leaves(self.inputs)))):
                for size in [s for s in (n - 1, 1) if s]:
                    try:
                        self._variants.append(self.again(cut(self.inputs, axis, size)))
                        break
                    except Exception:  # it does not take that size
                        self.forget()
        return self._variants

    @property
    def flat_douts(self) -> list[Array]:
        """The douts, each with all its numbers in one vector."""
        return [flat(dout) for dout in self.douts]


def _same_state(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one[1], other[1]) and one[2:] == other[2:])


def global_state(new: Any = None) -> Any:
    """The state of NumPy's global generator, which somebody's layer may draw from; sets it where a new one is given."""
    if new is not None:
        np.random.set_state(new)  # noqa: NPY002
    return np.random.get_state()  # noqa: NPY002


def flat(tree: Any) -> Array:
    """All numbers of nested tuples of arrays in one vector of float64."""
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for _, leaf in leaves(tree)])


def same(one: Any, other: Any) -> bool:
    """Whether two trees hold the same numbers."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f") for (_, a), (_, b) in pairs)


def cut(inputs: tuple[Any, ...], axis: int, size: int) -> tuple[Any, ...]:
    """The inputs with the first `size` places along an axis, in every array that is as long there as the first one."""
    n = np.shape(next(x for _, x in leaves(inputs)))[axis]
    part = (slice(None),) * axis + (slice(0, size),)
    smaller: tuple[Any, ...] = map_leaves(
        inputs, lambda x: x[part].copy() if x.ndim > axis and x.shape[axis] == n else x
    )
    return smaller
