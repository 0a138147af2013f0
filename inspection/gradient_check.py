"""Is this backward right? Central differences in float64 against what the layer says.

`compare_gradients` looks at the numbers. `check_layer`, in layer_check.py, is the whole battery, and
`check_gradients`, in doctor.py, says what is wrong where the numbers differ.
"""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.layers.base import Layer, members
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
    faults: list[Any] = field(default_factory=list)  # of doctor.py: the faults, the likeliest first
    notes: list[str] = field(default_factory=list)
    example: str = ""  # the smallest input that shows it

    @property
    def ok(self) -> bool:
        """Whether every gradient agrees, and no fault was found."""
        return not self.faults and all(not row.problem and row.error <= self.tolerance for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        agree = all(not row.problem and row.error <= self.tolerance for row in self.rows)
        found = "gradients agree" if self.ok else "FAULTY, though the gradients agree" if agree else "GRADIENTS DIFFER"
        lines = [f"{self.layer}: {found} (want < {self.tolerance:.0e})"]
        if not self.rows:
            lines[0] = f"{self.layer}: FAULTY"
        width = max([len(row.name) for row in self.rows], default=4) + 2
        shapes = max([5, *(len(str(row.shape)) for row in self.rows)]) + 2
        heads = f"{'gradient':<{max(width, 10)}}{'shape':<{shapes}}{'rel. error':>10}  {'worst at':<14}"
        if self.rows:
            lines.append(f"  {heads}{'analytic':>12} {'numeric':>12}  verdict")
        for row in self.rows:
            at = str(list(row.index))
            lines.append(
                f"  {row.name:<{max(width, 10)}}{row.shape!s:<{shapes}}{row.error:>10.1e}  {at:<14}"
                f"{row.analytic:>12.4g} {row.numeric:>12.4g}  {row.verdict}"
            )
        for i, fault in enumerate(self.faults):
            lines += _paragraph("  likely: " if i == 0 else "      or: " if fault.second else "     and: ", str(fault))
        for note in self.notes:
            lines += _paragraph("  note: ", note)
        return "\n".join(lines + ([self.example] if self.example else []))


def _paragraph(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=head, subsequent_indent=" " * len(head))


def compare_gradients(
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
    rng = upstream_generator(rng)
    layer = in_float64(layer)
    inputs = floats_where_differentiated(layer, map_leaves(inputs, as_float64))
    generators = [(g, g.bit_generator.state) for g in generators_of(layer)]
    buffers = [(b, b.copy()) for _, b in layer.named_buffers()]

    def run() -> Any:
        for generator, state in generators:
            generator.bit_generator.state = state
        for buffer, value in buffers:
            buffer[...] = value
        return layer.forward(*inputs)

    output = run()
    dout = map_leaves(output, lambda y: rng.standard_normal(np.shape(y)))
    grads = layer.backward(dout)
    report = GradientReport(title(layer), tolerance)

    def outputs() -> list[Array]:
        y = run()
        forget_all(layer)
        return [np.array(leaf, np.float64) for _, leaf in leaves(y)]

    def change(above: list[Array], below: list[Array]) -> float:
        # entry by entry first: the difference of two large sums would drown in their rounding
        parts = zip(leaves(dout), above, below, strict=True)
        return sum(float(np.sum(d * (a - b))) for (_, d), a, b in parts)

    targets: list[tuple[str, Array, Any]] = []
    for name, x, dx in input_gradients(layer, inputs, grads):
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
    flat = [np.concatenate([np.ravel(leaf) for _, leaf in leaves(tree)]) for tree in (output, dout)]
    noise = rounding(flat[0].astype(np.float64), flat[1], step)
    for name, z, analytic in targets:
        report.rows.append(_compare(name, z, analytic, outputs, change, step, rng, most, noise))
    return report


def rounding(y: Array, dout: Array, step: float) -> float:
    """How far a central difference may be off because y is rounded to float64: that counts where a gradient is tiny."""
    return float(4 * np.finfo(np.float64).eps * np.linalg.norm(dout) * np.abs(y).max(initial=0)) / step


def upstream_generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """Where dout is drawn from: from a seed, never the numbers that the inputs may have been drawn with.

    A dout that equals x hides faults: the gradient of a normalisation by such an x is zero, for one.
    """
    return np.random.default_rng((rng, 231) if isinstance(rng, int) else rng)


def forget_all(layer: Layer) -> None:
    """Drop what a forward without a backward left saved."""
    for each in layer.modules():
        each.forget()


def in_float64(layer: Layer, dtype: type = np.float64) -> Layer:
    """A copy in float64 that keeps what backward needs, in the layer's own mode; TypeError if it is no Layer."""
    if not isinstance(layer, Layer):
        hint = f"; did you mean {layer.__name__}()?" if isinstance(layer, type) else ""
        raise TypeError(f"expected a Layer, got {layer!r}{hint}")
    layer = copy.deepcopy(layer).astype(dtype)
    layer.zero_grad()
    for each in layer.modules():
        each.caching = True
    return layer


def floats_where_differentiated(layer: Layer, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs, with integers as floats where the layer gives a gradient by them: they were numbers, not labels."""
    if isinstance(layer, Loss) or all(x.dtype.kind == "f" for _, x in leaves(inputs)):
        return inputs
    output = layer.forward(*inputs)
    grads = layer.backward(map_leaves(output, lambda y: np.ones(np.shape(y))))
    layer.zero_grad()
    grads = grads if isinstance(grads, tuple) else (grads,)
    return tuple(
        map_leaves(x, lambda leaf: leaf.astype(np.float64)) if i < len(grads) and grads[i] is not None else x
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
    noise: float,
) -> GradientRow:
    """The row for one array: numeric gradients entry by entry, then the worst disagreement."""
    entries = np.arange(z.size)
    if z.size > most:
        entries = np.sort(rng.choice(z.size, most, replace=False))
    numeric = np.full(z.size, np.nan)
    for entry in entries if analytic is not None and np.shape(analytic) == z.shape else []:
        at = np.unravel_index(entry, z.shape)
        value = z[at].copy()
        z[at] = value + step
        high, above = float(z[at]), outputs()
        z[at] = value - step
        low, below = float(z[at]), outputs()
        z[at] = value
        numeric[entry] = change(above, below) / (high - low)  # the step that was made, not the one that was meant
    return worst_row(name, z.shape, entries, analytic, numeric, noise)


def worst_row(
    name: str, shape: tuple[int, ...], entries: Array, analytic: Any, numeric: Array, noise: float = 0.0
) -> GradientRow:
    """The row for one array, from its analytic gradient and the numeric one at the entries that were measured.

    noise : what rounding alone may make of the difference; so much is no error
    """
    nowhere = (0,) * len(shape)
    if analytic is None:
        return GradientRow(name, shape, np.inf, nowhere, np.nan, np.nan, "missing: backward returned None")
    analytic = np.asarray(analytic)
    if analytic.shape != shape:
        return GradientRow(name, shape, np.inf, nowhere, np.nan, np.nan, f"has shape {analytic.shape}")
    numeric = numeric.reshape(-1)[entries]
    mine = analytic.reshape(-1)[entries].astype(np.float64)
    scale = max(np.abs(numeric).max(), np.abs(mine).max())
    floor = max(scale / 100, 1e-6)
    with np.errstate(invalid="ignore"):  # what is not finite is an error without bounds
        errors = np.abs(mine - numeric) / np.maximum(np.maximum(np.abs(mine), np.abs(numeric)), floor)
        errors = np.where(np.abs(mine - numeric) <= noise, np.minimum(errors, BANDS[0][0] / 10), errors)
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    index = tuple(int(i) for i in np.unravel_index(entries[worst], shape))
    error = float(errors[worst]) if np.isfinite(errors[worst]) else np.inf
    return GradientRow(name, shape, error, index, float(mine[worst]), float(numeric[worst]))


def input_gradients(layer: Layer, inputs: tuple[Any, ...], grads: Any) -> Iterator[tuple[str, Array, Any]]:
    """(name, x, dx) for every float input; dx is None where the layer gave none."""
    if not isinstance(grads, tuple):
        grads = (grads,)
    # after its scores, a loss gives nothing (or None) for what is data: the target
    data = [i > 0 and isinstance(layer, Loss) and (i >= len(grads) or grads[i] is None) for i in range(len(inputs))]
    several = len(list(leaves(tuple(x for x, skip in zip(inputs, data, strict=True) if not skip)))) > 1
    for i, x in enumerate(inputs):
        if data[i]:
            continue
        dx = grads[i] if i < len(grads) else None
        for path, leaf in leaves(x):
            if leaf.dtype.kind != "f":
                continue
            gradient = dx
            for key in path:
                gradient = gradient[key] if isinstance(gradient, tuple) else None
            where = "".join(f"[{key}]" for key in ((i, *path) if several else path))
            yield f"dx{where}", leaf, gradient


def leaves(tree: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """(path, array) for every array in nested tuples."""
    if isinstance(tree, tuple):
        for i, item in enumerate(tree):
            yield from leaves(item, (*path, i))
    else:
        yield path, tree


def map_leaves(tree: Any, f: Callable[[Any], Any]) -> Any:
    """The same nesting, with f applied to every array in it."""
    if isinstance(tree, tuple):
        return tuple(map_leaves(item, f) for item in tree)
    return f(tree)


def as_float64(x: Any) -> Array:
    """A copy of x as an array, in float64 unless it holds integers."""
    array = np.array(x)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def generators_of(layer: Layer) -> list[np.random.Generator]:
    """Every generator that is an attribute of the layer or of one inside it, in lists and dicts too."""
    found = {id(g): g for each in layer.modules() for _, g in members(each, np.random.Generator)}
    return list(found.values())


def title(layer: Layer) -> str:
    """The layer in one line."""
    name = repr(layer)
    return type(layer).__name__ if "\n" in name else name
