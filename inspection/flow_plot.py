"""Draw what went through a network: values to the right, gradients back to the left."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from backhand.inspection import style
from backhand.inspection.calls import Call, Numbers
from backhand.inspection.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOX, GAP, ROW = 1.7, 1.25, 1.9  # widths of a box and of an arrow, height of a row, in one unit


def plot_flow(trace: Trace, *, columns: int = 4, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw a trace as a row of boxes, one for each layer: green arrows forward, red ones back.

    Above each arrow stands in green the shape of the values and their mean size, below it in red the shape of the
    gradient (which is the same, or MISMATCH is said) and its norm; under each box its parameters, with the norms of
    their gradients.

    trace : what `record(model, x, loss=..., target=...)` returned
    columns : so many boxes in a line; the next ones go on below      options : go to the text (fontsize)
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"plot_flow: expected what record(model, x) returns, got a {type(trace).__name__}")
    calls = trace.leaves()
    columns = max(1, min(columns, len(calls)))
    rows = math.ceil(len(calls) / columns)
    if ax is None:
        import matplotlib.pyplot as plt

        size = (1.02 * columns * (BOX + GAP) + 1.0, 1.15 * rows * ROW)
        ax = plt.subplots(figsize=(min(size[0], 13), size[1]), layout="constrained")[1]
    text = {"fontsize": 8, **options}
    for i, call in enumerate(calls):
        x, y = i % columns * (BOX + GAP), -(i // columns) * ROW
        _draw_arrows(ax, x - GAP, x, y, call.stats["inputs"], call.stats.get("downstream"), call.back is not None, text)
        _draw_box(ax, x, y, call, text)
    last = calls[-1]
    x, y = (len(calls) - 1) % columns * (BOX + GAP) + BOX, -((len(calls) - 1) // columns) * ROW
    _draw_arrows(ax, x, x + GAP, y, last.stats["output"], last.stats.get("upstream"), last.back is not None, text)
    ax.set_xlim(-GAP - 0.1, columns * (BOX + GAP) + 0.1)
    ax.set_ylim(-rows * ROW + 0.75, 0.8)
    ax.set_axis_off()
    style.label_empty(ax, title="green above: values, mean size      red below: gradients, norm")
    ax.title.set_fontsize(9)
    return ax


def _draw_box(ax: Axes, x: float, y: float, call: Call, text: dict[str, Any]) -> None:
    from matplotlib.patches import FancyBboxPatch

    ax.add_patch(
        FancyBboxPatch((x, y - 0.28), BOX, 0.56, boxstyle="round,pad=0.02", facecolor="white", edgecolor="black")
    )
    ax.text(x + BOX / 2, y, _short(call), ha="center", va="center", **{**text, "fontsize": text["fontsize"] + 0.5})
    if call.name and call.name != "loss":
        ax.text(x + BOX / 2, y + 0.34, call.name, ha="center", va="bottom", color=style.NEUTRAL, **text)
    for i, each in enumerate(call.parameters[:3]):
        below = y - 0.42 - 0.36 * i
        ax.text(x, below, f"{each.name} {each.shape}", color=style.FORWARD, va="center", **text)
        if call.back is not None:
            found = f"d {_size(each.grad_norm)}" if each.match else f"MISMATCH {each.grad_shape}"
            ax.text(x + 0.15, below - 0.17, found, color=style.GRADIENT, va="center", **text)
    if len(call.parameters) > 3:
        ax.text(x, y - 0.42 - 0.36 * 3, f"and {len(call.parameters) - 3} more", va="center", **text)


def _draw_arrows(
    ax: Axes, a: float, b: float, y: float, values: Numbers, gradients: Numbers | None, back: bool, text: dict[str, Any]
) -> None:
    """One arrow there, and one back where a gradient came."""
    line = {"linewidth": 1.4, "shrinkA": 2, "shrinkB": 2}
    ax.annotate("", (b, y + 0.07), (a, y + 0.07), arrowprops={"arrowstyle": "->", "color": style.FORWARD, **line})
    middle = (a + b) / 2
    ax.text(middle, y + 0.14, _said(values, "magnitude"), color=style.FORWARD, ha="center", va="bottom", **text)
    if back and gradients is not None and gradients.shape is not None:
        ax.annotate("", (a, y - 0.07), (b, y - 0.07), arrowprops={"arrowstyle": "->", "color": style.GRADIENT, **line})
        ax.text(middle, y - 0.14, _said(gradients, "norm"), color=style.GRADIENT, ha="center", va="top", **text)


def _said(found: Numbers, what: str) -> str:
    shape = found.shape
    while isinstance(shape, tuple) and len(shape) == 1 and isinstance(shape[0], tuple):
        shape = shape[0]
    if found.value is not None and not shape:
        return _size(found.value)
    nested = isinstance(shape, tuple) and any(isinstance(each, tuple) or each is None for each in shape)
    shapes = "\n".join(str(each) for each in shape if each is not None) if nested else str(shape)
    return f"{shapes}\n{_size(getattr(found, what))}"


def _size(number: float) -> str:
    return f"{number:.3g}"


def _short(call: Call) -> str:
    """The layer in at most two lines."""
    name = repr(call.layer)
    if len(name) > 22 or "\n" in name:
        kind, _, arguments = name.partition("(")
        arguments = arguments.rstrip(")")
        return kind if "\n" in name or len(arguments) > 24 else f"{kind}\n({arguments})"
    return name
