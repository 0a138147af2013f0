"""Is this backward right? Central differences in float64 against what the layer says.

`check_gradients` looks at the numbers and reports; `check_layer` is the whole battery that every layer of this
project has to pass, and yours can too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.layers.base import Layer, LayerError, members
from backhand.layers.parameter import Array
from backhand.losses.base import Loss

# Relative error, from the CS231n notes (https://cs231n.github.io/neural-networks-3/#gradcheck).
BANDS = (
    (1e-7, "good"),
    (1e-4, "fine at a kink, else suspicious"),
    (1e-2, "suspicious"),
    (np.inf, "wrong"),
)


@dataclass
class GradientRow:
    """One array of a gradient check: where the analytic and the numeric gradient differ most.

    error : |a - n| / max(|a|, |n|, floor) at the worst index; floor is 1/100 of the largest gradient in the array,
        so that rounding in entries that hardly matter is not mistaken for an error
    """

    name: str
    shape: tuple[int, ...]
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    problem: str = ""  # what is wrong besides the numbers: a shape, a missing gradient

    @property
    def verdict(self) -> str:
        """The band of the CS231n notes that the error falls into."""
        return self.problem or next(word for bound, word in BANDS if self.error <= bound)


@dataclass
class GradientReport:
    """What a gradient check found; prints as a table, and is true when every row is within the tolerance."""

    layer: str
    tolerance: float
    rows: list[GradientRow] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every gradient agrees."""
        return all(not row.problem and row.error <= self.tolerance for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{self.layer}: {'gradients agree' if self.ok else 'GRADIENTS DIFFER'} (want < {self.tolerance:.0e})"]
        width = max([len(row.name) for row in self.rows], default=4) + 2
        shapes = max([5, *(len(str(row.shape)) for row in self.rows)]) + 2
        heads = f"{'gradient':<{max(width, 10)}}{'shape':<{shapes}}{'rel. error':>10}  {'worst at':<14}"
        lines.append(f"  {heads}{'analytic':>12} {'numeric':>12}  verdict")
        for row in self.rows:
            at = str(list(row.index))
            lines.append(
                f"  {row.name:<{max(width, 10)}}{row.shape!s:<{shapes}}{row.error:>10.1e}  {at:<14}"
                f"{row.analytic:>12.4g} {row.numeric:>12.4g}  {row.verdict}"
            )
        return "\n".join(lines)


def check_gradients(
    layer: Layer,
    *inputs: Any,
    tolerance: float = 1e-6,
    step: float = 1e-5,
    rng: np.random.Generator | int | None = 0,
    most: int = 400,
) -> GradientReport:
    """Compare every gradient of a layer with central differences, for a random upstream gradient.

        dz ~ sum of dout * (y(z + h) - y(z - h)) / 2h

    layer : any Layer; it is copied to float64 and stays untouched. Generators inside it are set back before each
        forward, so that dropout drops the same units each time.
    inputs : arrays, or (nested) tuples of arrays where the layer takes tuples. Integers count as data, like labels,
        unless the layer gives a gradient by them. Keep the numbers away from kinks.
    tolerance : the largest relative error that still counts as agreement
    step : h
    rng : where dout comes from
    most : entries compared in each array; of a larger one, that many are drawn
    Raises ValueError where nothing can be compared: no gradient at all, or another output each time.
    """
    rng = np.random.default_rng(rng)
    layer = _double(layer)
    inputs = _floats_where_differentiated(layer, _map(inputs, _as_float64))
    generators = [(g, g.bit_generator.state) for g in _generators(layer)]
    buffers = [(b, b.copy()) for _, b in layer.named_buffers()]

    def run() -> Any:
        for generator, state in generators:
            generator.bit_generator.state = state
        for buffer, value in buffers:
            buffer[...] = value
        return layer.forward(*inputs)

    output = run()
    dout = _map(output, lambda y: rng.standard_normal(np.shape(y)))
    grads = layer.backward(dout)
    report = GradientReport(_title(layer), tolerance)

    def outputs() -> list[Array]:
        y = run()
        layer_forget(layer)
        return [np.array(leaf, np.float64) for _, leaf in _leaves(y)]

    def change(above: list[Array], below: list[Array]) -> float:
        # entry by entry first: the difference of two large sums would drown in their rounding
        parts = zip(_leaves(dout), above, below, strict=True)
        return sum(float(np.sum(d * (a - b))) for (_, d), a, b in parts)

    targets: list[tuple[str, Array, Any]] = []
    for name, x, dx in _input_gradients(layer, inputs, grads):
        targets.append((name, x, dx))
    for name, parameter in layer.named_parameters():
        targets.append((name, parameter.data, parameter.grad.copy()))
    if not targets:
        raise ValueError(
            f"{report.layer}: nothing to compare, it has no parameters and gives no gradient by its inputs"
        )
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(outputs(), outputs(), strict=True)):
        raise ValueError(
            f"{report.layer}: the same input gives another output each time; keep the numpy.random.Generator that it "
            "draws from as an attribute of the layer, where it can be set back"
        )
    for name, z, analytic in targets:
        report.rows.append(_compare(name, z, analytic, outputs, change, step, rng, most))
    return report


def check_layer(
    layer: Layer,
    *inputs: Any,
    tolerance: float = 1e-6,
    step: float = 1e-5,
    rng: np.random.Generator | int | None = 0,
) -> GradientReport:
    """Put a layer through everything a correct layer must survive; AssertionError says what it did not.

    1. arguments may be read-only: neither forward nor backward writes into what it was lent
    2. every dx and every parameter gradient against float64 central differences, with a random dout
    3. there is one gradient for each input
    4. gradients add, in place: a second pass doubles them
    5. nothing stays saved after backward, and nothing is saved in eval()
    6. two forwards, then two backwards in reverse, give each forward its own gradients
    7. float32 stays float32, forward and backward
    8. non-contiguous inputs and a single sample give the same numbers (or a clear LayerError for the latter)
    The layer itself is not touched. Returns the report of step 2.
    """
    inputs = _floats_where_differentiated(_double(layer), _map(inputs, _as_float64))
    trial = _Trial(layer, np.random.default_rng(rng))
    trial.read_only(inputs)
    report = check_gradients(layer, *inputs, tolerance=tolerance, step=step, rng=rng)
    if not report:
        raise AssertionError(str(report))
    trial.counted(inputs)
    trial.gradients_add(inputs)
    trial.nothing_left(inputs)
    trial.two_at_once(inputs)
    trial.dtype_kept(inputs)
    trial.strided(inputs)
    trial.one_sample(inputs)
    return report


class _Trial:
    """The parts of the battery; each works on a fresh copy of the layer, in float64 unless it says otherwise."""

    def __init__(self, layer: Layer, rng: np.random.Generator) -> None:
        self.layer = layer
        self.rng = rng
        self.title = _title(layer)

    def fresh(self, dtype: type = np.float64) -> Layer:
        return _double(self.layer, dtype)

    def once(self, layer: Layer, inputs: Any, dout: Any = None) -> tuple[Any, Any, Any]:
        """(output, dout, gradients) of one pass; dout is drawn when it is not given."""
        output = layer.forward(*inputs)
        if dout is None:
            dout = _map(output, lambda y: self.rng.standard_normal(np.shape(y)).astype(np.asarray(y).dtype))
        return output, dout, layer.backward(dout)

    def gradients(self, layer: Layer) -> list[tuple[str, Array]]:
        return [(name, parameter.grad.copy()) for name, parameter in layer.named_parameters()]

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            raise AssertionError(f"{self.title}: {problem}")

    def same(self, got: Any, wanted: Any, problem: str) -> None:
        pairs = zip(_leaves(got), _leaves(wanted), strict=True)
        for (path, a), (_, b) in pairs:
            if a is None and b is None:
                continue
            self.expect(
                np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-9, atol=1e-12),
                problem + (f" (number {'.'.join(map(str, path))} of several)" if path else ""),
            )

    def read_only(self, inputs: Any) -> None:
        layer = self.fresh()
        frozen = _map(inputs, _frozen)
        try:
            output = layer.forward(*frozen)
            dout = _map(output, lambda y: _frozen(self.rng.standard_normal(np.shape(y))))
            _map(output, lambda y: _freeze_in_place(y))
            layer.backward(dout)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise AssertionError(f"{self.title}: writes into an array that it was lent ({error})") from error

    def gradients_add(self, inputs: Any) -> None:
        layer = self.fresh()
        states = [(g, g.bit_generator.state) for g in _generators(layer)]
        buffers = [(b, b.copy()) for _, b in layer.named_buffers()]
        arrays = [(name, p, p.grad) for name, p in layer.named_parameters()]
        _, dout, _ = self.once(layer, inputs)
        first = self.gradients(layer)
        for generator, state in states:
            generator.bit_generator.state = state
        for buffer, value in buffers:
            buffer[...] = value
        self.once(layer, inputs, dout)
        for (name, once), (_, twice) in zip(first, self.gradients(layer), strict=True):
            self.same(twice, 2 * once, f"a second pass must double the gradient of {name}: use += in backward")
        for name, parameter, array in arrays:
            self.expect(parameter.grad is array, f"the gradient of {name} became another array: add in place, use +=")

    def counted(self, inputs: Any) -> None:
        _, _, grads = self.once(self.fresh(), inputs)
        if isinstance(self.layer, Loss):
            return
        if len(inputs) == 1:
            self.expect(
                not isinstance(grads, tuple) or isinstance(inputs[0], tuple),
                "takes one input, so backward returns dx, not a tuple",
            )
        else:
            got = len(grads) if isinstance(grads, tuple) else 1
            self.expect(got == len(inputs), f"takes {len(inputs)} inputs, but backward returned {got} gradients")

    def two_at_once(self, inputs: Any) -> None:
        other = _map(inputs, lambda x: x * 0.75 if x.dtype.kind == "f" else x)
        alone, together = self.fresh(), self.fresh()
        y1, dout1, dx1 = self.once(alone, inputs)
        y2, dout2, dx2 = self.once(alone, other)
        self.same(together.forward(*inputs), y1, "the same forward gives another output the second time")
        self.same(together.forward(*other), y2, "a second forward before the backward gives another output")
        problem = "two forwards, then two backwards in reverse, mix up what was saved: use save() and saved()"
        self.same(together.backward(dout2), dx2, problem)
        self.same(together.backward(dout1), dx1, problem)
        one, both = (tuple(g for _, g in self.gradients(each)) for each in (alone, together))
        self.same(both, one, problem)

    def nothing_left(self, inputs: Any) -> None:
        layer = self.fresh()
        self.once(layer, inputs)
        self.expect(not _kept(layer), f"still keeps something after backward: {_kept(layer)}")
        layer.eval().forward(*inputs)
        self.expect(not _kept(layer), f"saves in eval(), where nothing should be kept: {_kept(layer)}")

    def dtype_kept(self, inputs: Any) -> None:
        layer = self.fresh(np.float32)
        single = _map(inputs, lambda x: x.astype(np.float32) if x.dtype.kind == "f" else x)
        output, _, grads = self.once(layer, single)
        for what, tree in (("output", output), ("gradient", grads)):
            for path, leaf in _leaves(tree):
                kind = getattr(leaf, "dtype", None)
                if kind is not None and kind.kind == "f":
                    self.expect(kind == np.float32, f"float32 in, but the {what} {path} is {kind}")
        for name, parameter in layer.named_parameters():
            self.expect(parameter.grad.dtype == np.float32, f"the gradient of {name} became {parameter.grad.dtype}")

    def strided(self, inputs: Any) -> None:
        straight, strided = self.fresh(), self.fresh()
        y, dout, dx = self.once(straight, inputs)
        gaps = _map(inputs, _with_gaps)
        self.same(strided.forward(*gaps), y, "a non-contiguous input gives another output")
        self.same(strided.backward(_map(dout, _with_gaps)), dx, "a non-contiguous input or dout gives another dx")

    def one_sample(self, inputs: Any) -> None:
        if not all(np.ndim(x) for _, x in _leaves(inputs)):
            return
        layer = self.fresh()
        try:
            self.once(layer, _map(inputs, lambda x: x[:1]))
        except LayerError:
            return  # one sample is too few for it, and it says so
        self.expect(not _kept(layer), "keeps something after the backward of one sample")


def layer_forget(layer: Layer) -> None:
    """Drop what a forward without a backward left saved."""
    for each in layer.modules():
        each.forget()


def _double(layer: Layer, dtype: type = np.float64) -> Layer:
    """A copy in float64 that keeps what backward needs, in the layer's own mode; TypeError if it is no Layer."""
    if not isinstance(layer, Layer):
        hint = f"; did you mean {layer.__name__}()?" if isinstance(layer, type) else ""
        raise TypeError(f"expected a Layer, got {layer!r}{hint}")
    layer = copy.deepcopy(layer).astype(dtype)
    layer.zero_grad()
    for each in layer.modules():
        each.caching = True
    return layer


def _floats_where_differentiated(layer: Layer, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs, with integers as floats where the layer gives a gradient by them: they were numbers, not labels."""
    if isinstance(layer, Loss) or all(x.dtype.kind == "f" for _, x in _leaves(inputs)):
        return inputs
    output = layer.forward(*inputs)
    grads = layer.backward(_map(output, lambda y: np.ones(np.shape(y))))
    layer.zero_grad()
    grads = grads if isinstance(grads, tuple) else (grads,)
    return tuple(
        _map(x, lambda leaf: leaf.astype(np.float64)) if i < len(grads) and grads[i] is not None else x
        for i, x in enumerate(inputs)
    )


def _compare(
    name: str,
    z: Array,
    analytic: Any,
    outputs: Callable[[], list[Array]],
    change: Callable[[list[Array], list[Array]], float],
    step: float,
    rng: np.random.Generator,
    most: int,
) -> GradientRow:
    """The row for one array: numeric gradients entry by entry, then the worst disagreement."""
    nowhere = (0,) * z.ndim
    if analytic is None:
        return GradientRow(name, z.shape, np.inf, nowhere, np.nan, np.nan, "missing: backward returned None")
    analytic = np.asarray(analytic)
    if analytic.shape != z.shape:
        return GradientRow(name, z.shape, np.inf, nowhere, np.nan, np.nan, f"has shape {analytic.shape}")
    entries = np.arange(z.size)
    if z.size > most:
        entries = np.sort(rng.choice(z.size, most, replace=False))
    numeric = np.empty(len(entries))
    for i, entry in enumerate(entries):
        at = np.unravel_index(entry, z.shape)
        value = z[at].copy()
        z[at] = value + step
        high, above = float(z[at]), outputs()
        z[at] = value - step
        low, below = float(z[at]), outputs()
        z[at] = value
        numeric[i] = change(above, below) / (high - low)  # the step that was made, not the one that was meant
    mine = analytic.reshape(-1)[entries].astype(np.float64)
    scale = max(np.abs(numeric).max(), np.abs(mine).max())
    floor = max(scale / 100, 1e-6)
    errors = np.abs(mine - numeric) / np.maximum(np.maximum(np.abs(mine), np.abs(numeric)), floor)
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    index = tuple(int(i) for i in np.unravel_index(entries[worst], z.shape))
    error = float(errors[worst]) if np.isfinite(errors[worst]) else np.inf
    return GradientRow(name, z.shape, error, index, float(mine[worst]), float(numeric[worst]))


def _input_gradients(layer: Layer, inputs: tuple[Any, ...], grads: Any) -> Iterator[tuple[str, Array, Any]]:
    """(name, x, dx) for every float input; dx is None where the layer gave none."""
    if not isinstance(grads, tuple):
        grads = (grads,)
    # after its scores, a loss gives nothing (or None) for what is data: the target
    data = [i > 0 and isinstance(layer, Loss) and (i >= len(grads) or grads[i] is None) for i in range(len(inputs))]
    several = len(list(_leaves(tuple(x for x, skip in zip(inputs, data, strict=True) if not skip)))) > 1
    for i, x in enumerate(inputs):
        if data[i]:
            continue
        dx = grads[i] if i < len(grads) else None
        for path, leaf in _leaves(x):
            if leaf.dtype.kind != "f":
                continue
            gradient = dx
            for key in path:
                gradient = gradient[key] if isinstance(gradient, tuple) else None
            where = "".join(f"[{key}]" for key in ((i, *path) if several else path))
            yield f"dx{where}", leaf, gradient


def _leaves(tree: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """(path, array) for every array in nested tuples."""
    if isinstance(tree, tuple):
        for i, item in enumerate(tree):
            yield from _leaves(item, (*path, i))
    else:
        yield path, tree


def _map(tree: Any, f: Callable[[Any], Any]) -> Any:
    """The same nesting, with f applied to every array in it."""
    if isinstance(tree, tuple):
        return tuple(_map(item, f) for item in tree)
    return f(tree)


def _as_float64(x: Any) -> Array:
    array = np.array(x)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _frozen(x: Any) -> Array:
    array = np.array(x)
    array.flags.writeable = False
    return array


def _freeze_in_place(x: Any) -> None:
    if isinstance(x, np.ndarray):
        x.flags.writeable = False


def _with_gaps(x: Any) -> Array:
    """The same numbers in memory of which they use every second one, with the axes in reverse order."""
    x = np.asarray(x)
    if x.ndim == 0:
        return x
    wide: Array = np.zeros((*x.shape[::-1][:-1], x.shape[0] * 2), x.dtype).T[::2]
    wide[...] = x
    return wide


def _generators(layer: Layer) -> list[np.random.Generator]:
    found = {id(g): g for each in layer.modules() for _, g in members(each, np.random.Generator)}
    return list(found.values())


def _kept(layer: Layer) -> list[str]:
    return [name or type(each).__name__ for name, each in layer.named_modules() if vars(each).get("_stack")]


def _title(layer: Layer) -> str:
    name = repr(layer)
    return type(layer).__name__ if "\n" in name else name
