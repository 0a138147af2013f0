"""The layer table: which layers a model is made of, what they give, learn, compute and keep."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.inspection.kept import arrays_of, owner_of
from backhand.inspection.multiply_adds import counting, counts
from backhand.inspection.step_memory import step_memory
from backhand.layers.base import Layer, members
from backhand.layers.parameter import Parameter


@dataclass
class SummaryRow:
    """One layer of the table.

    number : its place, from 1
    name : its name in the layer that holds it, "" for the model itself
    kind : its class
    depth : how many layers it stands inside
    shape : of its output, "?" where forward did not pass through it; "(2, 4) x3" where it did three times
    parameters : how many numbers it holds itself that no row above has counted; None: it has none
    multiply_adds : of its forward, all calls together, what the layers inside it do left out; None: not counted
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
    multiply_adds: int | None = None
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
    multiply_adds : of one forward
    optimizer_bytes : what the optimizer remembers, where one was given
    peak_bytes : the most memory that a training step has in use at one time; None: not known, `problem` says why
    """

    rows: list[SummaryRow]
    parameters: int
    trainable: int
    parameter_bytes: int
    cached_bytes: int | None
    kept_twice: bool = False
    show_parameters: bool = False
    multiply_adds: int | None = None
    optimizer_bytes: int | None = None
    peak_bytes: int | None = None
    problem: str = ""

    @property
    def gradient_bytes(self) -> int:
        """The memory of the gradients: each has the shape and dtype of its parameter."""
        return self.parameter_bytes

    @property
    def working_bytes(self) -> int | None:
        """What the peak has beside parameters, gradients, optimizer and caches: gradients on their way, columns."""
        if self.peak_bytes is None or self.cached_bytes is None:
            return None
        rest = self.peak_bytes - self.parameter_bytes - self.gradient_bytes - (self.optimizer_bytes or 0)
        return max(0, rest - self.cached_bytes)

    def __repr__(self) -> str:
        cells: list[tuple[str, ...]] = [("#", "Layer (type)", "Output shape", "Param #", "Mult-adds", "Cached bytes")]
        for row in self.rows:
            cells += self._lines(row)
        widths = [max(len(line[i]) for line in cells) for i in range(6)]
        aligned = [
            "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, "><<>>>", widths, strict=True))
            for line in cells
        ]
        rule = "-" * len(aligned[0])
        totals = [
            ("parameters", f"{self.parameters:,}"),
            ("trainable", f"{self.trainable:,}"),
            ("multiply-adds of a forward", _number(self.multiply_adds)),
            ("parameter bytes", f"{self.parameter_bytes:,}"),
            ("gradient bytes", f"{self.gradient_bytes:,}"),
            *([] if self.optimizer_bytes is None else [("optimizer bytes", f"{self.optimizer_bytes:,}")]),
            ("bytes cached for backward", _number(self.cached_bytes)),
            ("working bytes, about", _number(self.working_bytes, 3)),
            ("peak of a training step", _number(self.peak_bytes, 3)),
        ]
        width = max(len(value) for _, value in totals)
        tail = [f"{name:<28}{value:>{width}}" for name, value in totals]
        if self.problem:
            tail.append(f"(no peak: {self.problem})")
        if self.kept_twice:
            tail.append("(what several layers keep is counted at the first of them)")
        return "\n".join([aligned[0].rstrip(), rule, *(line.rstrip() for line in aligned[1:]), rule, *tail])

    def _lines(self, row: SummaryRow) -> Iterator[tuple[str, ...]]:
        indent = "  " * row.depth
        layer = f"{indent}{row.name} ({row.kind})" if row.name else row.kind
        if row.same_as is not None:
            yield str(row.number), layer, row.shape, f"as #{row.same_as}", "", ""
            return
        held, work = ("-" if n is None else f"{n:,}" for n in (row.parameters, row.multiply_adds))
        kept = f"{row.cached:,}"
        if self.cached_bytes is None:
            work, kept = "?", "?"
        yield str(row.number), layer, row.shape, held, work, kept
        if self.show_parameters:
            for name, shape, size, before in row.arrays:
                yield "", f"{indent}  {name} {shape}", "", f"as {before}" if before else f"{size:,}", "", ""


def summary(
    model: Layer,
    input_shape: Any = None,
    *,
    params: bool = False,
    optimizer: Callable[[Iterator[Parameter]], Any] | None = None,
) -> Summary:
    """The table of a model's layers, with what one forward of an input of this shape does; print it.

    input_shape : with the batch, (32, 1, 28, 28); several inputs are a tuple of shapes; an array stands for itself
        (give one where the model wants integers). None: nothing is run, and what is not known prints as "?"
    params : a line for each weight and bias as well
    optimizer : what makes one from parameters, `Adam` or `lambda p: SGD(p, momentum=0.9)`: its memory counts as well

    A layer inside others counts what is its own, so the columns add up to the totals; an array that is shared counts
    where it comes first. The model is not touched: a copy of it runs, in the model's own mode, with caches.

    Multiply-adds are those of products and convolutions, as `multiply_adds` counts them. The peak is what a step of
    training has in use at most, the batch included, the interpreter and libraries left out: see step_memory.py.
    """
    inputs = None if input_shape is None else _inputs_of(model, input_shape)
    found = _table(model, inputs)
    found.show_parameters = params
    if inputs is not None:
        try:
            found.peak_bytes, found.optimizer_bytes = step_memory(model, inputs, optimizer)
        except Exception as error:
            # whoever looks at shapes may not have written the backward yet
            if optimizer is not None:
                raise
            found.problem = f"{type(error).__name__}: {error}"
    return found


def _table(model: Layer, inputs: tuple[Any, ...] | None) -> Summary:
    """All but the memory of a step."""
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
    parameters = list(model.parameters())
    found = Summary(
        rows,
        sum(p.size for p in parameters),
        sum(p.size for p in parameters if p.requires_grad),
        sum(p.data.nbytes for p in parameters),
        cached_bytes=None,
    )
    if inputs is None:
        return found
    with counting(copied) as work:
        calls = _run(copied, inputs)
    bytes_kept, found.kept_twice = _cached_bytes(copied, inputs)
    for row, layer in zip(rows, layers, strict=True):
        row.shape = _shapes(calls.get(id(layer), []))
        if row.same_as is None:
            row.cached = bytes_kept.get(id(layer), 0)
            if counts(layer):
                row.multiply_adds = sum(call.forward for each, call in work if each is layer)
    found.cached_bytes = sum(bytes_kept.values())
    found.multiply_adds = sum(call.forward for _, call in work)
    return found


def _copy(model: Layer) -> Layer:
    """A copy with empty stacks and caching on."""
    copied = copy.deepcopy(model)
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


def _run(model: Layer, inputs: Any) -> dict[int, list[str]]:
    """One forward; the shapes of the output at each call, by the id of the layer."""
    calls: dict[int, list[str]] = {}

    def watch(layer: Layer, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def watched(*inputs: Any, **options: Any) -> Any:
            y = forward(*inputs, **options)
            calls.setdefault(id(layer), []).append(_shape(y))
            return y

        return watched

    before = {id(layer): vars(layer).get("forward") for layer in model.modules()}
    for layer in model.modules():
        layer.forward = watch(layer, layer.forward)  # type: ignore[method-assign]
    with np.errstate(all="ignore"):
        model(*inputs)
    for layer in model.modules():
        del layer.__dict__["forward"]
        if before[id(layer)] is not None:
            layer.forward = before[id(layer)]  # type: ignore[assignment,method-assign]
    return calls


def _inputs_of(model: Layer, spec: Any) -> tuple[Any, ...]:
    """What forward is called with, in the dtype of the parameters."""
    kinds = [parameter.dtype for parameter in model.parameters()]
    inputs = _inputs(spec, kinds[0] if kinds else np.dtype(np.float32))
    return (inputs,) if _is_shape(spec) or isinstance(spec, np.ndarray) else inputs


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


def _number(n: int | None, digits: int | None = None) -> str:
    """With commas, rounded to so many digits; "?" where it is not known."""
    if n is None:
        return "?"
    return f"{n:,}" if digits is None or n < 10**digits else f"{round(n, digits - len(str(n))):,}"


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
    given = {id(owner_of(array)): array.nbytes for array in arrays_of(inputs)}
    parameters = {id(owner_of(parameter.data)) for parameter in model.parameters()}
    stacks = [(saved, layer) for layer in model.modules() for saved in vars(layer).get("_stack") or []]
    kept: dict[int, int] = {}
    first: dict[int, int] = {}  # id of the memory -> id of the layer
    twice = False
    for saved, layer in sorted(stacks, key=lambda each: each[0][0]):
        for array in arrays_of(saved[1]):
            owner = owner_of(array)
            if id(owner) in parameters:
                continue
            if id(owner) not in first:
                kept[id(layer)] = kept.get(id(layer), 0) + given.get(id(owner), owner.nbytes)
            twice |= first.setdefault(id(owner), id(layer)) != id(layer)
    return kept, twice
