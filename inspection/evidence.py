"""What the doctor measures: the Jacobian of a layer by central differences, and what its backward says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.inspection.gradient_check import (
    GradientRow,
    as_gradient,
    generators_of,
    input_gradients,
    leaves,
    map_leaves,
    returned,
    title,
    upstream_generator,
    worst_row,
    wrong_by,
)
from backhand.inspection.kinks import Kink, looked_at
from backhand.layers.base import Layer
from backhand.layers.parameter import Array

MOST_NUMBERS = 4_000_000  # in a Jacobian that is kept
ENOUGH = 6  # wrong entries that are looked at with smaller steps, where none of them needs it


@dataclass
class Target:
    """One array z that the loss is differentiated by: an input or a parameter.

    z : the array itself; it is moved in place while measuring
    analytic : what backward gave, for each of the douts; None or of a wrong shape where that is the fault
    numeric : what it should have given, of z's shape; nan at the entries that were not measured
    jacobian : dy/dz as (numbers in y, measured entries of z), or None where it would be too large
    entries : which entries of z were measured      steps : with which step
    bends : by how much the slopes of y to the left and to the right differ there
    kinks : the entries (flat) where backward differs and forward has no derivative; it may lie in an interval there
    """

    name: str
    z: Array
    parameter: bool
    analytic: list[Any] = field(default_factory=list)
    numeric: list[Array] = field(default_factory=list)
    jacobian: Array | None = None
    entries: Array = field(default_factory=lambda: np.zeros(0, np.intp))
    steps: Array = field(default_factory=lambda: np.zeros(0))
    bends: Array = field(default_factory=lambda: np.zeros(0))
    kinks: dict[int, Kink] = field(default_factory=dict)

    def wanted(self, dout: int) -> Array:
        """What backward should have given for this dout: the numeric gradient; at kinks the nearest number allowed."""
        wanted = self.numeric[dout].copy()
        for entry, kink in self.kinks.items():
            at = np.unravel_index(entry, self.z.shape)
            wanted[at] = np.clip(self.analytic[dout][at], kink.low[dout], kink.high[dout])
        return wanted

    @property
    def comparable(self) -> bool:
        """Whether analytic and numeric can be set against each other number by number."""
        return all(
            a is not None and a.dtype.kind in "fiub" and a.shape == self.z.shape and np.isfinite(a).all()
            for a in self.analytic
        )

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
    tolerance : the largest relative error that still counts as agreement
    single : whether forward computes in float32, whatever it is given
    error : what backward raised, if it did      returned : what is wrong with the kind of thing that it returned
    """

    def __init__(
        self,
        layer: Layer,
        inputs: tuple[Any, ...],
        *,
        step: float = 1e-5,
        tolerance: float = 1e-6,
        seed: int = 0,
        most: int = 400,
        douts: int = 2,
        only: tuple[str, ...] | None = None,
        single: bool = False,
    ) -> None:
        self.layer, self.inputs = layer, inputs
        self.step, self.tolerance, self.seed, self.most, self.single = step, tolerance, seed, most, single
        self._generators = [(g, g.bit_generator.state) for g in generators_of(layer)]
        self._buffers = [(b, b.copy()) for _, b in layer.named_buffers()]
        self._modules = list(layer.modules())
        self._global: Any = global_state()
        self.rng = upstream_generator(seed)
        self.input_changed = ""
        self.dout_changed = self.output_changed = False
        self.error: Exception | None = None
        self.returned = ""
        self._lent: Any = ((), ())
        self._y: Any = ((), ())
        self._grads: Any = None
        self.y = self.forward()
        self.forget()
        for _, leaf in leaves(self.y):
            if leaf.dtype.kind not in "fiub":
                what = f"dtype {leaf.dtype}" if leaf.ndim else repr(leaf.item())
                raise TypeError(
                    f"{title(layer)}: forward returned {what}; expected an array of real numbers, or a tuple of them"
                )
        if _same_state(self._global, global_state()):
            self._global = None  # it does not draw from NumPy's own generator, and setting that back takes time
        self.flat_y = flat(self.y)
        self._whole_numbers = not any(np.asarray(y).dtype.kind == "f" for _, y in leaves(self.y))
        self.douts = [map_leaves(self.y, self._drawn) for _ in range(douts)]
        self.flat_douts = np.stack([flat(dout) for dout in self.douts])
        found = [self._tried(dout) for dout in self.douts]
        arrays = [(name, x, False) for name, x, _ in input_gradients(layer, self.inputs, self._grads)]
        self._differentiated = {id(x) for _, x, _ in arrays}
        arrays += [(name, p.data, True) for name, p in layer.named_parameters()]
        self.targets = [
            Target(name, z, parameter, [each.get(name) for each in found])
            for name, z, parameter in arrays
            if only is None or name in only
        ]
        self._variants: list[Evidence] | None = None
        self.restore()

    def measure(self) -> Evidence:
        """Fill in what the gradients should be, and look closer where backward differs; returns the Evidence itself."""
        for target in self.targets:
            self._measure(target)
            if target.comparable and self.error is None:
                self._look_closer(target)
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
            handed_on = self.layer.forward(*given)
            y = map_leaves(handed_on, np.array)
        if not same(lent, given):
            self.input_changed = "forward"
        self._lent, self._y = (map_leaves(given, np.array), given), (y, handed_on)
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
        if not self.input_changed and not same(*self._lent):
            self.input_changed = "backward"
        self.output_changed = self.output_changed or not same(*self._y)
        self.returned, grads = returned(self.layer, self.inputs, grads)
        self._grads = grads
        found = {name: dx for name, _, dx in input_gradients(self.layer, self.inputs, grads)}
        found.update((name, parameter.grad) for name, parameter in self.layer.named_parameters())
        return {name: None if g is None else as_gradient(g) for name, g in found.items()}

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
        target.entries, target.steps = entries, np.full(len(entries), self.step)
        numeric = np.empty((len(self.flat_douts), len(entries)))
        keep, bends = self.flat_y.size * len(entries) <= MOST_NUMBERS, np.empty(len(entries))
        jacobian = np.empty((self.flat_y.size, len(entries))) if keep else None
        for i, entry in enumerate(entries):
            (high, above), (low, below) = (self._moved(z, int(entry), way) for way in (self.step, -self.step))
            column = (above - below) / (high - low)  # the step that was made, not the one that was meant
            bends[i] = np.abs(self.flat_douts).max(axis=0) @ np.abs(above + below - 2 * self.flat_y) / self.step
            numeric[:, i] = self.flat_douts @ column
            if jacobian is not None:
                jacobian[:, i] = column
        target.jacobian, target.bends = jacobian, bends
        target.numeric = [target.spread(values) for values in numeric]

    def slope(self, z: Array, entry: int, step: float) -> Array:
        """The derivative of all numbers of y by one entry of z."""
        (high, above), (low, below) = self._moved(z, entry, step), self._moved(z, entry, -step)
        column: Array = (above - below) / (high - low)
        return column

    def sides(self, z: Array, entry: int, step: float) -> Array:
        """The slopes of all numbers of y by one entry of z: to the left, to the right."""
        value = float(z[np.unravel_index(entry, z.shape)])
        moved = [self._moved(z, entry, way) for way in (-step, step)]
        return np.stack([(y - self.flat_y) / (there - value) for there, y in moved])

    def _moved(self, z: Array, entry: int, by: float) -> tuple[float, Array]:
        """An entry of z moved, and y there: nan where forward has no value."""
        at = np.unravel_index(entry, z.shape)
        value = z[at].copy()
        z[at] = value + by
        there = float(z[at])
        try:
            y = self.outputs()
        except Exception:  # forward does not take such a number
            self.forget()
            y = np.full(self.flat_y.size, np.nan)
        z[at] = value
        return there, np.where(np.isfinite(y), y, np.nan)

    def _look_closer(self, t: Target) -> None:
        """Where backward and central differences differ: is there a derivative at all, and is the step small enough?"""
        finest = 1e-3 if self.single else 1e-20
        straight = 0  # entries at which nothing bends, and a smaller step gives the same
        for entry in self.differing(t):
            nth = int(np.searchsorted(t.entries, entry))
            if straight == ENOUGH and t.bends[nth] <= np.abs(self.flat_douts).max(axis=0) @ self.unit / self.step:
                continue
            at = np.unravel_index(entry, t.z.shape)
            least = max(finest, 1e3 * float(np.spacing(abs(t.z[at]))))
            steps = [s for s in self.step * 0.1 ** np.arange(15) if s >= 0.5 * least or s == self.step]
            if len(steps) < 2:  # beside so large a number no smaller step can be made
                continue
            mine = np.array([a[at] for a in t.analytic], np.float64)
            found = looked_at(functools.partial(self.sides, t.z, entry), steps, self.flat_douts, mine, self.unit)
            if isinstance(found, Kink):
                t.kinks[entry] = found
                continue
            column, step = found
            there = self.flat_douts @ column
            was = np.array([n[at] for n in t.numeric])
            if (np.abs(there - was) <= np.abs(mine - was) / 10).all():
                straight = min(straight + 1, ENOUGH)  # the step was small enough
                continue
            straight = -self.most  # here it was not: look at every entry
            for numeric, value in zip(t.numeric, there, strict=True):
                numeric[at] = value
            t.steps[nth] = step
            if t.jacobian is not None:
                t.jacobian[:, nth] = column

    def differing(self, t: Target) -> list[int]:
        """The measured entries at which backward is wrong by more than the tolerance, for any dout."""
        wrong = np.zeros(len(t.entries), bool)
        for i, (a, d) in enumerate(zip(t.analytic, self.flat_douts, strict=True)):
            wrong |= ~(wrong_by(a, t.wanted(i), t.entries, self.noise(t, d)) <= self.tolerance)
        return [int(entry) for entry in t.entries[wrong]]

    def rows(self) -> list[GradientRow]:
        """The table of the check: for every target, where analytic and numeric differ most."""
        return [self._row(t) for t in self.targets]

    def _row(self, t: Target) -> GradientRow:
        problem = self._problem(t)
        if problem:
            return GradientRow(t.name, t.z.shape, np.inf, (0,) * t.z.ndim, np.nan, np.nan, problem)
        pairs = [(a, t.wanted(i), self.noise(t, self.flat_douts[i])) for i, a in enumerate(t.analytic)]
        row = max((worst_row(t.name, t.z.shape, t.entries, *pair) for pair in pairs), key=lambda row: row.error)
        errors = np.max([wrong_by(a, n, t.entries, noise) for a, n, noise in pairs], axis=0)
        fine = set(t.entries[errors <= self.tolerance].tolist())
        row.kinks = len(t.kinks.keys() & fine)
        here = int(np.ravel_multi_index(row.index, t.z.shape))
        if here in t.kinks and here in fine:
            row.error, row.numeric = 0.0, np.nan
        return row

    def _problem(self, t: Target) -> str:
        """Why there are no numbers to compare, in a word or two; "" where there are."""
        if self.error is not None:
            return f"backward raised {type(self.error).__name__}"
        a = t.analytic[0]
        if a is None:
            return f"missing: backward {'left None' if t.parameter else f'returned {self.returned or None}'}"
        if a.dtype.kind not in "fiub":
            return f"has dtype {a.dtype}"
        return f"has shape {a.shape}" if a.shape != t.z.shape else ""

    def noise(self, t: Target, dout: Array) -> Array:
        """How far a gradient by central differences may be off because y is rounded: it counts where one is tiny."""
        return np.linalg.norm(self.unit * dout) / t.steps

    @functools.cached_property
    def unit(self) -> Array:
        """The rounding in a difference, of each number of y: of itself, and of the numbers that it is made of."""
        eps, away = np.finfo(np.float32 if self.single else np.float64).eps, 1e-5
        signs = np.random.default_rng(0)
        try:
            y = flat(self.forward(self.nudged(lambda x: away * x * signs.choice([-1, 1], x.shape))))
        except Exception:  # it does not take such numbers
            y = self.flat_y
        self.forget()
        made_of = np.nan_to_num(np.abs(y - self.flat_y) / away, posinf=0.0)
        unit: Array = 8 * eps * (made_of + np.maximum(np.abs(self.flat_y), 1))
        return unit

    @property
    def failing(self) -> list[str]:
        """The names of the gradients that are wrong."""
        return [row.name for row in self.rows() if row.problem or not row.error <= self.tolerance]

    def again(self, inputs: tuple[Any, ...], **options: Any) -> Evidence:
        """The same layer at other inputs, measured."""
        self.restore()
        mine = {name: getattr(self, name) for name in ("step", "tolerance", "most", "single")}
        return Evidence(self.layer, inputs, **{**mine, **options}).measure()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first input."""
        return np.shape(next(x for _, x in leaves(self.inputs)))

    def shrunk(self, axis: int, size: int, **options: Any) -> Evidence | None:
        """The same with `size` places along an axis of the inputs; None where the layer has no such thing.

        It may refuse the size, or what it is given may be broadcast against its parameters back to the old size, or
        against nothing (then gradients have another shape than before); or y may no longer move with the inputs, as
        after the normalisation of a single number.
        """
        try:
            other = self.again(cut(self.inputs, axis, size), **options)
            moves = size > 1 or other._moves() >= 1e-3 * self._moves()
        except Exception:  # it does not take that size
            self.clear()
            return None
        for (_, before), (_, after) in zip(leaves(self.y), leaves(other.y), strict=True):
            alike = np.ndim(before) > axis and np.shape(before)[axis] == self.shape[axis]
            if np.ndim(before) != np.ndim(after) or (alike and np.shape(after)[axis] != size):
                return None
        problems = {t.name: self._problem(t).partition(" (")[0] for t in self.targets}
        same_kind = all(problems[t.name] == other._problem(t).partition(" (")[0] for t in other.targets)
        return other if moves and same_kind and np.isfinite(other.flat_y).all() else None

    def alone(self, other: Evidence) -> bool:
        """Whether the first sample has the same y in a batch of one, `other`: there are no statistics over samples."""
        pairs = zip(leaves(self.y), leaves(other.y), strict=True)
        return all(
            np.shape(b)[:1] != (1,) or np.shape(a)[0] != self.shape[0] or np.allclose(a[:1], b, rtol=1e-9, atol=1e-12)
            for (_, a), (_, b) in pairs
        )

    def _moves(self) -> float:
        """How far y moves with the inputs."""
        y = flat(self.forward(self.nudged(lambda x: self.step * np.cos(np.arange(x.size).reshape(x.shape)))))
        self.forget()
        return float(np.abs(y - self.flat_y).max(initial=0))

    def nudged(self, by: Callable[[Array], Array]) -> tuple[Any, ...]:
        """The inputs, those that there is a gradient by moved by `by(x)`; what is data stays."""
        mine: tuple[Any, ...] = map_leaves(
            self.inputs, lambda x: np.array(x + by(x)) if id(x) in self._differentiated else x
        )
        return mine

    def variants(self) -> list[Evidence]:
        """The same with one fewer along each axis that the layer takes in another size; made when first asked for."""
        if self._variants is None:
            self._variants = []
            for axis, n in enumerate(self.shape):
                tried = (self.shrunk(axis, size) for size in (n - 1, 1) if size)
                self._variants += [each for each in tried if each is not None][:1]
        return self._variants

    def _drawn(self, y: Any) -> Array:
        """A random dout; nothing flows back by an integer output that stands beside one of floats."""
        drawn = self.rng.standard_normal(np.shape(y))
        return drawn if self._whole_numbers or np.asarray(y).dtype.kind == "f" else np.zeros(np.shape(y))


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
