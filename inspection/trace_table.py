"""A trace as text: one line for each call, and one for each parameter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backhand.inspection.calls import Call
    from backhand.inspection.trace import Trace

HEADS = (
    "#",
    "Layer",
    "in -> out",
    "|out|",
    "std",
    "zeros",
    "upstream",
    "local",
    "downstream",
    "shapes",
    "ms",
    "cached",
)
LEFT = (1, 2, 9)  # columns of words
NOTE = (
    "|out|, upstream, downstream: norms (single numbers as they are), weights and their gradients in the same columns\n"
    "local: mean |dy/dx| where the layer is elementwise; shapes ok: every gradient has the shape of its variable"
)


def table(trace: Trace) -> str:
    """What `print(trace)` shows."""
    cells: list[tuple[str, ...]] = [HEADS]
    shown: set[int] = set()
    for call in trace.calls:
        cells.append(_call(call))
        if id(call.layer) not in shown:
            shown.add(id(call.layer))
            cells += _parameters(call)
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADS))]
    lines = [
        "  ".join(
            f"{cell:<{w}}" if i in LEFT else f"{cell:>{w}}"
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    rule = "-" * max(len(line.rstrip()) for line in lines)
    tail = [NOTE]
    if trace.loss is not None:
        tail.insert(0, f"loss {trace.loss}")
    return "\n".join([lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), rule, *tail])


def _call(call: Call) -> tuple[str, ...]:
    stats = call.stats
    out = stats["output"]
    name = f"{call.name} ({call.kind})" if call.name else call.kind
    turn = f" {call.turn + 1}/{call.turns}" if call.turns > 1 else ""
    match = call.shapes_match
    return (
        str(call.number),
        "  " * call.depth + name + turn,
        f"{_shapes(stats['inputs'].shape)} -> {_shape(out.shape)}",
        _size(call, "output"),
        "-" if out.value is not None else f"{out.std:.3g}",
        "-" if out.value is not None else f"{out.zeros:.0%}",
        _size(call, "upstream"),
        _local(call),
        _size(call, "downstream"),
        "" if match is None else "ok" if match else "MISMATCH",
        f"{1e3 * sum(call.seconds):.2f}",
        f"{call.cached:,}",
    )


def _parameters(call: Call) -> Iterator[tuple[str, ...]]:
    """The shape rule where it can be seen: d weight has the shape of weight."""
    for each in call.parameters:
        match = "ok" if each.match else "MISMATCH"
        grown = f"d{each.name} {each.grad_shape}"
        line = [""] * len(HEADS)
        line[1] = "  " * call.depth + f"  {each.name} {each.shape}"
        line[2] = grown
        line[3] = f"{each.norm:.3g}"
        line[8] = f"{each.grad_norm:.3g}"
        line[9] = match
        yield tuple(line)


def _size(call: Call, what: str) -> str:
    """The norm, or the numbers themselves where each array is only one; "!" where they are not all finite."""
    numbers = call.stats.get(what)
    if numbers is None or numbers.shape is None:
        return "-"
    return f"{_numbers(getattr(call, what)) or f'{numbers.norm:.4g}'}{'' if numbers.finite else ' !'}"


def _local(call: Call) -> str:
    numbers = call.stats.get("local")
    return "-" if numbers is None else _numbers(call.local) or f"{numbers.magnitude:.4g}"


def _numbers(tree: Any) -> str:
    """Single numbers written out, in the nesting that they have; "" where there are larger arrays."""
    if isinstance(tree, tuple):
        each = [_numbers(item) or "-" * (item is None) for item in tree]
        return f"({', '.join(each)})" if all(each) else ""
    return f"{tree.reshape(-1)[0]:.4g}" if tree is not None and tree.size == 1 else ""


def _shapes(inputs: Any) -> str:
    return _shape(inputs[0]) if len(inputs) == 1 else ", ".join(_shape(each) for each in inputs)


def _shape(shape: Any) -> str:
    if shape is None:
        return "-"
    if isinstance(shape, tuple) and shape and all(isinstance(each, (tuple, type(None))) for each in shape):
        return f"[{', '.join(_shape(each) for each in shape)}]"
    return str(shape)
