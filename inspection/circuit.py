"""A circuit of gates as a lecture draws it: wires that carry values forward and gradients back.

The toolkit has no graph, and needs none to train. For a picture one is read off the containers: Sequential, Parallel,
Repeat, Sum and Residual say by themselves which wire goes where. Any other layer is a gate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from backhand.inspection.gradient_check import as_float64, map_leaves, title
from backhand.layers import Add, Copy, Identity, Max, Multiply
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.models.containers import Parallel, Repeat, Residual, Sequential, Sum

SYMBOLS = {
    "Add": "+",
    "Copy": "copy",
    "Multiply": "*",
    "Max": "max",
    "Exp": "exp",
    "Reciprocal": "1/x",
    "Negate": "-1*",
}
PATTERNS = {Add: "add: distributes", Copy: "copy: adds", Multiply: "multiply: swaps", Max: "max: routes"}


class Wire:
    """What flows from one gate to the next.

    value, gradient : of one shape; the gradient is None where no backward has come by yet
    source : the gate that it comes from, None for an input      target : where it goes, None for an output
    name : of an input      step : after how many backward steps its gradient was there
    """

    def __init__(self, value: Array, source: Gate | None = None, name: str = "") -> None:
        self.value = value
        self.gradient: Array | None = None
        self.source = source
        self.target: Gate | None = None
        self.name = name
        self.step = 0


class Gate:
    """One use of one layer.

    layer : a copy of it      inputs, outputs : its wires, in order
    local : the gradient of its output by each input, taken with an upstream of ones
    """

    def __init__(self, layer: Layer, inputs: list[Wire]) -> None:
        self.layer = layer
        self.inputs = inputs
        self.outputs: list[Wire] = []
        self.local: list[Array] = []
        self.depth: int = 1 + max((wire.source.depth for wire in inputs if wire.source), default=0)
        for wire in inputs:
            wire.target = self

    @property
    def label(self) -> str:
        """What is written on it."""
        kind = type(self.layer).__name__
        if kind == "AddConstant":
            return f"{vars(self.layer)['constant']:+g}"
        if kind == "MultiplyConstant":
            return f"*{vars(self.layer)['constant']:g}"
        return SYMBOLS.get(kind, kind)

    @property
    def pattern(self) -> str:
        """What it does to a gradient, for the four gates that have a name for it."""
        return PATTERNS.get(type(self.layer), "")


class Circuit:
    """The gates and wires of a layer, once forward and once backward.

    gates : in the order of the forward      inputs, outputs : the wires at the ends
    wires : all of them      steps : how many gates the backward has gone through

    print(circuit) lists every gate with values and gradients; `plot_circuit` draws it, `to_dot` writes it for graphviz.
    """

    def __init__(self, layer: Layer, *inputs: Any, names: Sequence[str] | None = None, dout: Any = None) -> None:
        """Run `layer` (a float64 copy of it) on `inputs`, forward and then backward from `dout`, by default ones."""
        self.gates: list[Gate] = []
        self.wires: list[Wire] = []
        self.inputs: list[Wire] = []
        tree = map_leaves(tuple(inputs), lambda x: self._input(as_float64(x)))
        if names is not None:
            if len(names) != len(self.inputs):
                raise ValueError(f"Circuit: expected {len(self.inputs)} names, one for each input, got {len(names)}")
            for wire, name in zip(self.inputs, names, strict=True):
                wire.name = name
        layer = copy.deepcopy(layer).astype(np.float64)
        for each in layer.modules():
            each.caching = True
        out = self._through(layer, tree)
        self.outputs = list(_wires(out))
        self._backward(self.outputs, dout)

    # ------------------------------------------------------------------ forward: which wire goes where

    def _input(self, value: Array) -> Wire:
        wire = self._wire(value, None)
        wire.name = f"x{len(self.inputs)}"
        self.inputs.append(wire)
        return wire

    def _wire(self, value: Array, source: Gate | None) -> Wire:
        wire = Wire(value, source)
        self.wires.append(wire)
        return wire

    def _through(self, layer: Layer, x: tuple[Any, ...]) -> Any:
        """The wires that come out where the wires x go in, nested as the layer nests them."""
        if isinstance(layer, Sequential):
            for inner in layer:
                y = self._through(inner, x)
                x = y if type(y) is tuple else (y,)
            return x[0] if len(x) == 1 else x
        if isinstance(layer, Parallel):
            pairs = zip(layer.branches, x, strict=True)
            return tuple(self._through(each, part if type(part) is tuple else (part,)) for each, part in pairs)
        if isinstance(layer, Repeat):
            return self._through(Sequential(*[layer.body] * layer.times), x)
        if isinstance(layer, Sum):
            return self._fork(list(layer.branches), x)
        if isinstance(layer, Residual):
            return self._fork([layer.body, layer.shortcut or Identity()], x)
        if isinstance(layer, Identity):
            return x[0]
        return self._gate(layer, x)

    def _fork(self, branches: list[Layer], x: tuple[Any, ...]) -> Any:
        """Every branch gets a copy, and what they give is added."""
        copies = [self._through(Copy(len(branches)), (wire,)) if len(branches) > 1 else (wire,) for wire in _wires(x)]
        return self._through(
            Add(), tuple(self._through(b, part) for b, part in zip(branches, zip(*copies, strict=True), strict=True))
        )

    def _gate(self, layer: Layer, x: tuple[Any, ...]) -> Any:
        gate = Gate(layer, list(_wires(x)))
        for wire in gate.inputs:
            if wire.source is None and wire not in self.inputs:
                raise ValueError(f"{title(layer)}: this input does not come from the circuit")
        values = map_leaves(x, lambda wire: wire.value)
        # the local gradient is what comes back for an upstream of one
        alone = copy.deepcopy(layer)
        back = alone.backward(map_leaves(alone.forward(*values), np.ones_like))
        gate.local = [np.asarray(d) for d in _wires(back)]
        y = layer.forward(*values)
        out = map_leaves(y, lambda value: self._wire(np.asarray(value), gate))
        gate.outputs = list(_wires(out))
        self.gates.append(gate)
        return out

    # ------------------------------------------------------------------ backward, in reverse

    def _backward(self, outputs: list[Wire], dout: Any) -> None:
        douts = [None] * len(outputs) if dout is None else list(_wires(dout))
        if len(douts) != len(outputs):
            raise ValueError(f"Circuit: expected {len(outputs)} arrays in dout, one for each output, got {len(douts)}")
        for wire, each in zip(outputs, douts, strict=True):
            wire.gradient = np.ones_like(wire.value) if each is None else np.asarray(each, wire.value.dtype)
            if wire.gradient.shape != wire.value.shape:
                raise ValueError(f"Circuit: expected dout of shape {wire.value.shape}, got {wire.gradient.shape}")
        for step, gate in enumerate(reversed(self.gates), 1):
            grads = [wire.gradient for wire in gate.outputs]
            back = gate.layer.backward(tuple(grads) if len(grads) > 1 else grads[0])
            for wire, gradient in zip(gate.inputs, _wires(back), strict=True):
                wire.gradient = np.asarray(gradient)
                wire.step = step
        self.steps = len(self.gates)

    # ------------------------------------------------------------------ as text

    def __str__(self) -> str:
        lines = []
        for gate in self.gates:
            values = ", ".join(shown(wire.value) for wire in gate.inputs)
            results = ", ".join(shown(wire.value) for wire in gate.outputs)
            up = ", ".join(shown(wire.gradient) for wire in gate.outputs)
            down = ", ".join(shown(wire.gradient) for wire in gate.inputs)
            lines.append((gate.label, f"{values} -> {results}", f"{down} <- {up}", gate.pattern))
        head = ("gate", "values", "gradients", "")
        widths = [max(len(row[i]) for row in (head, *lines)) for i in range(4)]
        return "\n".join(
            "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in (head, *lines)
        )

    def to_dot(self) -> str:
        """The circuit in graphviz's language, as text: `dot -Tsvg` draws it, where somebody has it."""
        number = {gate: f"g{i}" for i, gate in enumerate(self.gates)}
        ends = {wire: f"in{i}" for i, wire in enumerate(self.inputs)} | {
            w: f"out{i}" for i, w in enumerate(self.outputs)
        }
        lines = ["digraph circuit {", "  rankdir=LR;"]
        lines += [f'  {name} [label="{wire.name or "out"}", shape=plaintext];' for wire, name in ends.items()]
        lines += [f'  {name} [label="{gate.label}", shape=circle];' for gate, name in number.items()]
        for wire in self.wires:
            tail = number[wire.source] if wire.source else ends[wire]
            head = number[wire.target] if wire.target else ends.get(wire)
            if head is not None and head != tail:
                lines.append(f'  {tail} -> {head} [label="{shown(wire.value)}\\n{shown(wire.gradient)}"];')
        return "\n".join([*lines, "}"])


def shown(value: Array | None, decimals: int = 2) -> str:
    """A number; the entries of a small array; the shape of a large one; nothing for None."""
    if value is None:
        return ""
    if value.ndim == 0 or value.size == 1:
        return f"{float(value.reshape(())):.{decimals}f}"
    if value.size <= 6:
        return np.array2string(value, precision=decimals, separator=", ", suppress_small=True).replace("\n", "")
    return "x".join(map(str, value.shape))


def _wires(tree: Any) -> Iterator[Any]:
    """What stands at the ends of nested tuples."""
    if isinstance(tree, tuple):
        for item in tree:
            yield from _wires(item)
    else:
        yield tree
