"""Is this backward right? The report of a gradient check, and what every such check needs.

`check_gradients`, in doctor.py, compares the numbers and says what is wrong where they differ; `check_layer`, in
layer_check.py, is the whole battery.
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
    kinks : entries at which forward has no derivative, and backward gives what it may give there; where all are such,
        numeric is nan
    """

    name: str
    shape: tuple[int, ...]
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    problem: str = ""  # what is wrong besides the numbers: a shape, a missing gradient
    kinks: int = 0

    @property
    def verdict(self) -> str:
        """The band of the CS231n notes that the error falls into."""
        if np.isnan(self.numeric) and not self.error:
            return "no derivative"
        return self.problem or next(word for bound, word in BANDS if self.error <= bound)


@dataclass
class GradientReport:
    """What a gradient check found; prints as a table, and is true when every row is within the tolerance."""

    layer: str
    tolerance: float
    rows: list[GradientRow] = field(default_factory=list)
    faults: list[Any] = field(default_factory=list)  # of doctor.py: the faults, the likeliest first
    notes: list[str] = field(default_factory=list)
    example: str = ""  # the smallest input that shows it, in words
    example_inputs: tuple[Any, ...] = ()  # and as arrays: the same layer, given these, is faulty in the same way

    @property
    def ok(self) -> bool:
        """Whether every gradient agrees, and no fault was found."""
        return self.agrees and not self.faults

    @property
    def agrees(self) -> bool:
        """Whether every gradient agrees."""
        return all(not row.problem and row.error <= self.tolerance for row in self.rows)

    @property
    def kinks(self) -> int:
        """At how many entries forward has no derivative, so that there backward could not be compared."""
        return sum(row.kinks for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        found = "gradients agree" if self.ok else "FAULTY, though the gradients agree"
        found = found if self.agrees else "GRADIENTS DIFFER"
        stand = "1 entry stands" if self.kinks == 1 else f"{self.kinks} entries stand"
        kinks = f"; {stand} at a kink, where there is no derivative" if self.kinks and self.agrees else ""
        lines = [f"{self.layer}: {found} (want < {self.tolerance:.0e}){kinks}"]
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
                f"{row.analytic:>12.4g} {_number(row.numeric):>12}  {row.verdict}"
            )
        for i, fault in enumerate(self.faults):
            lines += _paragraph("  likely: " if i == 0 else "      or: " if fault.second else "     and: ", str(fault))
        for note in self.notes:
            lines += _paragraph("  note: ", note)
        return "\n".join(lines + ([self.example] if self.example else []))


def _number(x: float) -> str:
    return "none" if np.isnan(x) else f"{x:.4g}"


def _paragraph(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=head, subsequent_indent=" " * len(head))


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


def worst_row(
    name: str, shape: tuple[int, ...], entries: Array, analytic: Any, numeric: Array, noise: Array | float = 0.0
) -> GradientRow:
    """The row for one array, from its analytic gradient and the numeric one at the entries that were measured.

    noise : what rounding alone may make of the difference; so much is no error
    """
    errors = wrong_by(analytic, numeric, entries, noise)
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    at = tuple(int(i) for i in np.unravel_index(entries[worst], shape))
    error = float(errors[worst]) if np.isfinite(errors[worst]) else np.inf
    return GradientRow(name, shape, error, at, float(analytic[at]), float(numeric[at]))


def wrong_by(analytic: Array, numeric: Array, entries: Array, noise: Array | float = 0.0) -> Array:
    """The relative error at each of these entries; nan or inf where a number is not finite."""
    numeric = numeric.reshape(-1)[entries]
    mine = analytic.reshape(-1)[entries].astype(np.float64)
    scale = max(np.nanmax(np.abs(numeric), initial=0), np.abs(mine).max(initial=0))
    floor = max(scale / 100, 1e-6)
    with np.errstate(invalid="ignore"):  # what is not finite is an error without bounds
        errors = np.abs(mine - numeric) / np.maximum(np.maximum(np.abs(mine), np.abs(numeric)), floor)
        return np.where(np.abs(mine - numeric) <= noise, np.minimum(errors, BANDS[0][0] / 10), errors)


def returned(layer: Layer, inputs: tuple[Any, ...], grads: Any) -> tuple[str, Any]:
    """(what is wrong with the kind of thing that backward returned, or ""; the same with lists as tuples)."""
    given = len(grads) if isinstance(grads, (tuple, list)) else 1
    data = isinstance(layer, Loss) or all(leaf.dtype.kind != "f" for _, leaf in leaves(inputs[given:]))
    if data and given < len(inputs):  # by what is left, labels or a target, no gradient is needed
        return _unlike(inputs[:given] if isinstance(grads, tuple) else inputs[0], grads), grads
    x = inputs if len(inputs) > 1 else inputs[0]
    return _unlike(x, grads), _as_tuples(grads) if isinstance(x, tuple) else grads


def _unlike(x: Any, grads: Any) -> str:
    """What backward returned instead of a gradient for each array of x, in the nesting of x; "" where it did not."""
    if grads is None:
        return ""  # then a gradient is missing, which is said elsewhere
    if not isinstance(x, tuple):
        return "" if isinstance(grads, (np.ndarray, np.generic, int, float, complex)) else _what(grads)
    if not isinstance(grads, tuple) or len(grads) != len(x):
        return f"{_what(grads)} for {len(x)} inputs"
    parts = ((i, _unlike(each, grad)) for i, (each, grad) in enumerate(zip(x, grads, strict=True)))
    return next((f"{found} in place {i} of its tuple" for i, found in parts if found), "")


def _what(thing: Any) -> str:
    if isinstance(thing, np.ndarray):
        return f"one array of shape {thing.shape}"
    name = type(thing).__name__
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"{article} {name}{f' of {len(thing)}' if isinstance(thing, (tuple, list, dict)) else ''}"


def _as_tuples(tree: Any) -> Any:
    return tuple(map(_as_tuples, tree)) if isinstance(tree, (tuple, list)) else tree


def as_gradient(thing: Any) -> Array:
    """A copy of what backward gave as an array; what is no array of numbers becomes one of objects."""
    try:
        return np.array(thing)
    except ValueError:  # lists of several lengths
        return np.array(None)


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
                gradient = gradient[key] if isinstance(gradient, tuple) and key < len(gradient) else None
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
