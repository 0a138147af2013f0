"""Draw a circuit: values in green above each wire, gradients in red below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backhand.inspection import style
from backhand.inspection.circuit import Circuit, Gate, Wire, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = ("patterns", "local", None)
Point = tuple[float, float]


def plot_circuit(
    circuit: Circuit,
    *,
    decimals: int = 2,
    labels: str | None = None,
    step: int | None = None,
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw a `Circuit` from left to right, as CS231n's notes draw it.

    labels : "patterns" writes under each gate what it does to gradients (adds distribute, ...), "local" the local
        gradient at each of its inputs, in brackets
    step : show the gradients after so many gates of the backward; by default all of them, 0 shows the forward alone
    options : go to the text of the wires (fontsize)

        circuit = Circuit(Sequential(Parallel(Add(), Identity()), Multiply()), (-2, 5), -4, names="xyz")
        plot_circuit(circuit, labels="patterns")
    """
    if labels not in LABELS:
        raise ValueError(f"plot_circuit: expected labels to be 'patterns', 'local' or None, got {labels!r}")
    if not isinstance(circuit, Circuit):
        raise TypeError(f"plot_circuit: expected a Circuit(layer, *inputs), got a {type(circuit).__name__}")
    places, starts, ends = _layout(circuit)
    width = max(x for x, _ in [*places.values(), *ends.values()]) + 0.5
    rows = [y for _, y in [*places.values(), *starts.values(), *ends.values()]]
    height = max(rows) - min(rows) + 1.2
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(min(1.3 * width + 0.6, 10), min(0.85 * height + 0.5, 8)), layout="constrained")[1]
    text = {"fontsize": 10, "ha": "center", **options}
    last = circuit.steps if step is None else step
    for wire in circuit.wires:
        tail = places[wire.source] if wire.source else starts[wire]
        head = places[wire.target] if wire.target else ends.get(wire)
        if head is None:
            continue
        line, (x, y) = _route(tail, head, forked=wire.source is not None and len(wire.source.outputs) > 1)
        ax.plot(*line, color="black", linewidth=1, zorder=1)
        ax.text(x, y + 0.06, shown(wire.value, decimals), color=style.FORWARD, va="bottom", **text)
        if wire.gradient is not None and wire.step <= last:
            ax.text(x, y - 0.06, shown(wire.gradient, decimals), color=style.GRADIENT, va="top", **text)
    for wire, (x, y) in starts.items():
        ax.text(x - 0.08, y, wire.name, ha="right", va="center", fontsize=11, fontweight="bold")
    for gate, place in places.items():
        _draw_gate(ax, gate, place, labels, decimals)
    ax.set_xlim(-0.45, width - 0.3)
    ax.set_ylim(min(rows) - 0.62, max(rows) + 0.62)
    ax.set_axis_off()
    style.label_empty(ax, title="green above: value      red below: gradient")
    ax.title.set_fontsize(9)
    return ax


def _draw_gate(ax: Axes, gate: Gate, place: Point, labels: str | None, decimals: int) -> None:
    box = {"boxstyle": "circle,pad=0.35" if len(gate.label) < 4 else "round,pad=0.4", "facecolor": "white"}
    ax.text(*place, gate.label, ha="center", va="center", fontsize=11, bbox=box, zorder=3)
    note = gate.pattern if labels == "patterns" else ""
    if labels == "local" and gate.local:
        note = f"[local {', '.join(shown(local, decimals) for local in gate.local)}]"
    if note:  # on white: a wire may come in there
        paper: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        where: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": 8, "style": "italic", "zorder": 2}
        ax.text(place[0] - 0.08, place[1] - 0.34, note, bbox=paper, **where)


def _layout(circuit: Circuit) -> tuple[dict[Gate, Point], dict[Wire, Point], dict[Wire, Point]]:
    """Where gates stand, where input wires begin and output wires end.

    A gate's column is the longest way to it from an input; inputs begin one column before the gate that takes them. Its
    row is the mean of the rows where its wires come from.
    """
    starts: dict[Wire, Point] = {}
    places: dict[Gate, Point] = {}
    rows = {wire: float(-i) for i, wire in enumerate(circuit.inputs)}
    taken: dict[int, list[float]] = {}
    for gate in circuit.gates:
        wanted = float(np.mean([places[w.source][1] if w.source else rows[w] for w in gate.inputs]))
        others = taken.setdefault(gate.depth, [])
        # beside a gate that stands there already
        while any(abs(wanted - other) < 1 for other in others):
            wanted -= 0.5
        others.append(wanted)
        places[gate] = (1.0 * gate.depth, wanted)
    for wire in circuit.inputs:
        starts[wire] = (0.0 if wire.target is None else wire.target.depth - 1.0, rows[wire])
        # not on top of a gate that stands in that column
        while wire.target and any(p == starts[wire] for p in places.values()):
            starts[wire] = (starts[wire][0], starts[wire][1] - 0.5)
    right = max((x for x, _ in places.values()), default=0.0) + 1
    ends: dict[Wire, Point] = {}
    for wire in circuit.outputs:
        if wire.source is None:
            ends[wire] = (right, starts[wire][1])
            continue
        spread = (len(wire.source.outputs) - 1) / 2 - wire.source.outputs.index(wire)
        ends[wire] = (right, places[wire.source][1] + (spread if len(wire.source.outputs) > 1 else 0))
    return places, starts, ends


def _route(tail: Point, head: Point, forked: bool) -> tuple[tuple[list[float], list[float]], Point]:
    """The x and y of a wire, and the middle of its level part, where the numbers stand.

    It leaves level and bends just before the gate, so that the numbers cross no line; those that leave one gate
    together bend first.
    """
    level = head[1] if forked else tail[1]
    bend = tail[0] + 0.3 if forked else head[0] - 0.3
    middle = (bend + head[0]) / 2 if forked else (tail[0] + bend) / 2
    return ([tail[0], bend, head[0]], [tail[1], level, head[1]]), (middle + (0.0 if forked else 0.08), level)
