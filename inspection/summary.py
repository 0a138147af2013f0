"""The layer table: which layers a model is made of, what they give, learn and keep."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.layers.base import Layer, members
from backhand.layers.parameter import Array, Parameter


@dataclass
class SummaryRow:
    """One layer of the table.

    number : its place, from 1
    name : its name in the layer that holds it, "" for the model itself
    kind : its class
    depth : how many layers it stands inside
    shape : of its output, "?" where forward did not pass through it; "(2, 4) x3" where it did three times
    parameters : how many numbers it holds itself that no row above has counted; None: it has none
    arrays : (name, shape, size, where it was counted before, or "") of each of its own parameters
    cached : bytes that it keeps for backward and no layer has kept before it
    same_as : the number of the row that shows this very layer already, or None
    """

    number: int
    name: str
    kind: str
    depth: int
    shape: str = "?"
    parameters: int | None = None
    arrays: list[tuple[str, tuple[int, ...], int, str]] = field(default_factory=list)
    cached: int = 0
    same_as: int | None = None


@dataclass(repr=False)
class Summary:
    """What `summary` found; prints as a table, and is plain data.

    parameters, trainable : numbers, each counted once; trainable are those with requires_grad
    parameter_bytes : the memory of the parameters, without their gradients
    cached_bytes : the memory that one forward keeps alive until its backward, each array once
    kept_twice : whether some array is kept by several layers
    """

    rows: list[SummaryRow]
    parameters: int
    trainable: int
    parameter_bytes: int
    cached_bytes: int | None
    kept_twice: bool = False
    show_parameters: bool = False

    def __repr__(self) -> str:
        cells = [("#", "Layer (type)", "Output shape", "Param #", "Cached bytes")]
        for row in self.rows:
            cells += self._lines(row)
        widths = [max(len(line[i]) for line in cells) for i in range(5)]
        aligned = [
            f"{n:>{widths[0]}}  {layer:<{widths[1]}}  {shape:<{widths[2]}}  {count:>{widths[3]}}  {kept:>{widths[4]}}"
            for n, layer, shape, count, kept in cells
        ]
        rule = "-" * len(aligned[0])
        totals = [
            ("parameters", f"{self.parameters:,}"),
            ("trainable", f"{self.trainable:,}"),
            ("parameter bytes", f"{self.parameter_bytes:,}"),
            ("bytes cached for backward", "?" if self.cached_bytes is None else f"{self.cached_bytes:,}"),
        ]
        width = max(len(value) for _, value in totals)
        tail = [f"{name:<26}{value:>{width}}" for name, value in totals]
        if self.kept_twice:
            tail.append("(what several layers keep is counted at the first of them)")
        return "\n".join([aligned[0].rstrip(), rule, *(line.rstrip() for line in aligned[1:]), rule, *tail])

    def _lines(self, row: SummaryRow) -> Iterator[tuple[str, str, str, str, str]]:
        indent = "  " * row.depth
        layer = f"{indent}{row.name} ({row.kind})" if row.name else row.kind
        if row.same_as is not None:
            yield str(row.number), layer, row.shape, f"as #{row.same_as}", ""
            return
        kept = "?" if self.cached_bytes is None else f"{row.cached:,}"
        yield str(row.number), layer, row.shape, "-" if row.parameters is None else f"{row.parameters:,}", kept
        if self.show_parameters:
            for name, shape, size, before in row.arrays:
                yield "", f"{indent}  {name} {shape}", "", f"as {before}" if before else f"{size:,}", ""


def summary(model: Layer, input_shape: Any = None, *, params: bool = False) -> Summary:
    """The table of a model's layers, with what one forward of an input of this shape does; print it.

    input_shape : with the batch, (32, 1, 28, 28); several inputs are a tuple of shapes; an array stands for itself
        (give one where the model wants integers). None: nothing is run, and what is not known prints as "?"
    params : a line for each weight and bias as well

    A layer inside others counts what is its own, so the columns add up to the totals; an array that is shared counts
    where it comes first. The model is not touched: a copy of it runs, in the model's own mode, with caches.
    """
    numbers: dict[int, int] = {}  # id of a layer -> its row
    arrays: dict[int, str] = {}  # id of a parameter -> where it was counted
    copied = _copy(model)
    rows: list[SummaryRow] = []
    layers: list[Layer] = []
    for depth, name, layer in _walk(copied, 0, ""):
        row = SummaryRow(len(rows) + 1, name, type(layer).__name__, depth, same_as=numbers.get(id(layer)))
        if row.same_as is None:
            numbers[id(layer)] = row.number
            _count(row, layer, arrays)
        rows.append(row)
        layers.append(layer)
    cached, twice = None, False
    if input_shape is not None:
        calls, inputs = _run(copied, input_shape)
        bytes_kept, twice = _cached_bytes(copied, inputs)
        for row, layer in zip(rows, layers, strict=True):
            row.shape = _shapes(calls.get(id(layer), []))
            row.cached = 0 if row.same_as else bytes_kept.get(id(layer), 0)
        cached = sum(bytes_kept.values())
    parameters = list(model.parameters())
    return Summary(
        rows,
        sum(p.size for p in parameters),
        sum(p.size for p in parameters if p.requires_grad),
        sum(p.data.nbytes for p in parameters),
        cached,
        twice,
        params,
    )


def _copy(model: Layer) -> Layer:
    """A copy with empty stacks and caching on; what the model has on its own stacks is not even copied."""
    memo: dict[int, Any] = {}
    for layer in model.modules():
        stack = vars(layer).get("_stack")
        if stack is not None:
            memo[id(stack)] = []
    copied = copy.deepcopy(model, memo)
    for layer in copied.modules():
        layer.caching = True
    return copied


def _walk(layer: Layer, depth: int, name: str) -> Iterator[tuple[int, str, Layer]]:
    yield depth, name, layer
    for inner, child in layer.named_children():
        yield from _walk(child, depth + 1, inner)


def _count(row: SummaryRow, layer: Layer, counted: dict[int, str]) -> None:
    """Fill in the layer's own parameters, those of the layers inside it left out."""
    for name, parameter in members(layer, Parameter):
        before = counted.get(id(parameter), "")
        row.arrays.append((name, parameter.shape, parameter.size, before))
        row.parameters = (row.parameters or 0) + (0 if before else parameter.size)
        counted.setdefault(id(parameter), f"#{row.number} {name}")


def _run(model: Layer, input_shape: Any) -> tuple[dict[int, list[str]], Any]:
    """One forward; the shapes of the output at each call, by the id of the layer, and the inputs."""
    calls: dict[int, list[str]] = {}

    def watch(layer: Layer, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def watched(*inputs: Any, **options: Any) -> Any:
            y = forward(*inputs, **options)
            calls.setdefault(id(layer), []).append(_shape(y))
            return y

        return watched

    for layer in model.modules():
        layer.forward = watch(layer, layer.forward)  # type: ignore[method-assign]
    kinds = [parameter.dtype for parameter in model.parameters()]
    inputs = _inputs(input_shape, kinds[0] if kinds else np.dtype(np.float32))
    if _is_shape(input_shape) or isinstance(input_shape, np.ndarray):
        inputs = (inputs,)
    with np.errstate(all="ignore"):
        model(*inputs)
    return calls, inputs


def _is_shape(spec: Any) -> bool:
    return isinstance(spec, (tuple, list)) and all(isinstance(n, (int, np.integer)) for n in spec)


def _inputs(spec: Any, dtype: np.dtype[Any]) -> Any:
    """The array of that shape (one half everywhere: no function here dislikes it), or the tuple of them."""
    if isinstance(spec, np.ndarray):
        return spec
    if _is_shape(spec):
        return np.full(tuple(spec), 0.5, dtype)
    if isinstance(spec, (tuple, list)):
        return tuple(_inputs(each, dtype) for each in spec)
    raise TypeError(f"summary: expected a shape, a tuple of shapes, or an array, got {spec!r}")


def _shape(y: Any) -> str:
    if isinstance(y, (tuple, list)):
        return f"({', '.join(_shape(each) for each in y)}{',' if len(y) == 1 else ''})"
    return "?" if y is None else str(np.shape(y))


def _shapes(calls: list[str]) -> str:
    """One shape, how often it came, or the different ones."""
    different = list(dict.fromkeys(calls))
    if len(different) == 1 and len(calls) > 1:
        return f"{calls[0]} x{len(calls)}"
    return " | ".join(different) or "?"


def _cached_bytes(model: Layer, inputs: Any) -> tuple[dict[int, int], bool]:
    """The bytes that each layer keeps and none has kept before it, by the id of the layer; and if some keep the same.

    What counts is the memory that stays alive: of a view, the array that it looks into. Parameters live anyway, and
    so does what an input that the caller gave is a part of.
    """
    given = {id(_owner(array)): array.nbytes for array in _arrays(inputs)}
    parameters = {id(_owner(parameter.data)) for parameter in model.parameters()}
    stacks = [(saved, layer) for layer in model.modules() for saved in vars(layer).get("_stack") or []]
    kept: dict[int, int] = {}
    first: dict[int, int] = {}  # id of the memory -> id of the layer
    twice = False
    for saved, layer in sorted(stacks, key=lambda each: each[0][0]):
        for array in _arrays(saved[1]):
            owner = _owner(array)
            if id(owner) in parameters:
                continue
            if id(owner) not in first:
                kept[id(layer)] = kept.get(id(layer), 0) + given.get(id(owner), owner.nbytes)
            twice |= first.setdefault(id(owner), id(layer)) != id(layer)
    return kept, twice


def _owner(array: Array) -> Array:
    owner: Any = array
    while getattr(owner, "base", None) is not None:
        owner = owner.base
        if isinstance(owner, np.ndarray):
            array = owner
    return array


def _arrays(value: Any) -> Iterator[Array]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _arrays(each)
