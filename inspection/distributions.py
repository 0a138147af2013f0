"""How numbers are spread, layer by layer: activations, gradients, and the size of the updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.inspection import style
from backhand.inspection.trace import Trace
from backhand.layers.parameter import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SATURATED = 0.97  # |tanh| beyond which its gradient is below 0.06
HEALTHY_RATIO = 1e-3  # of update to weight, of the CS231n notes


def plot_distributions(
    arrays: Mapping[str, ArrayLike],
    *,
    bins: int = 50,
    color: str = style.NEUTRAL,
    columns: int = 4,
    log: bool = False,
    axes: Any = None,
    **options: Any,
) -> np.ndarray[Any, Any]:
    """Draw a histogram of each array, all on one x axis, with its mean, deviation and share of zeros.

    arrays : name -> numbers; what is not finite is counted in the title and left out
    log : a logarithmic count axis      columns : panels in a row      options : go to `Axes.hist`

    Returns the array of Axes, one for each array.
    """
    if not arrays:
        raise ValueError("plot_distributions: expected at least one array, got none")
    flat = {name: np.asarray(array, dtype=np.float64).reshape(-1) for name, array in arrays.items()}
    finite = {name: values[np.isfinite(values)] for name, values in flat.items()}
    panels = _panels(len(flat), columns, axes)
    everything = np.concatenate([values for values in finite.values() if values.size] or [np.zeros(1)])
    low, high = float(everything.min()), float(everything.max())
    for ax, (name, values) in zip(panels, finite.items(), strict=True):
        span = (low, high) if low < high else (low - 0.5, high + 0.5)
        ax.hist(values, **{"bins": bins, "range": span, "color": color, "log": log, **options})
        ax.set_yticks([])
        ax.minorticks_off()
        ax.tick_params(labelsize=8)
        broken = flat[name].size - values.size
        note = _note(values) if values.size else "nothing finite"
        ax.set_title(f"{name}\n{note}" + (f"\n{broken} not finite" if broken else ""), fontsize=8)
    return panels


def _note(values: Array) -> str:
    note = f"mean {values.mean():.2g}, std {values.std():.2g}"
    zeros = float(np.mean(values == 0))
    if zeros:
        note += f", {zeros:.0%} zero"
    if values.size > 1 and np.abs(values).max() <= 1 and (values < 0).any():
        flat = float(np.mean(np.abs(values) > SATURATED))
        if flat > 0.01:
            note += f", {flat:.0%} at +-1"
    return note


def plot_update_ratio(
    ratios: Mapping[str, Sequence[float]], *, steps: ArrayLike | None = None, ax: Axes | None = None, **options: Any
) -> Axes:
    """Draw how large the updates are beside the weights, for each parameter: log10 of std(update) / std(weight).

    ratios : name -> one ratio for each step that was looked at      steps : which these were, by default 1, 2, ...
    options : go to `Axes.plot`

    A line at 1e-3 marks what is healthy as a rule: far above it the rate is too high, far below nothing is learned.
    """
    ax = style.axes_or_new(ax)
    for i, (name, values) in enumerate(ratios.items()):
        y = np.asarray(values, dtype=np.float64)
        x = np.arange(1, len(y) + 1) if steps is None else np.asarray(steps)
        if x.shape != y.shape:
            raise ValueError(f"plot_update_ratio: expected {len(y)} steps, one for each ratio of {name}, got {x.shape}")
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.where(np.isfinite(y) & (y > 0), np.log10(y), np.nan)
        ax.plot(
            x,
            y,
            **{
                "color": style.RUNS[i % len(style.RUNS)],
                "linestyle": ("-", "--", "-.", ":")[i // len(style.RUNS) % 4],
                "marker": style.MARKERS[i % len(style.MARKERS)],
                "markevery": max(1, len(y) // 8),
                "markersize": 4,
                "label": name,
                **options,
            },
        )
    ax.axhline(math.log10(HEALTHY_RATIO), color=style.NEUTRAL, linestyle=":", label="1e-3")
    style.label_empty(ax, "step", "log10 of update / weight")
    ax.legend(fontsize="x-small", ncols=1 + len(ratios) // 8)
    return ax


def _panels(count: int, columns: int, axes: Any) -> np.ndarray[Any, Any]:
    """As many Axes as there are panels: the caller's, or those of a new figure."""
    if axes is None:
        import matplotlib.pyplot as plt

        columns = min(columns, count)
        rows = math.ceil(count / columns)
        grid = plt.subplots(rows, columns, figsize=(2.3 * columns, 2.0 * rows), layout="constrained", squeeze=False)[1]
        for unused in grid.reshape(-1)[count:]:
            unused.set_axis_off()
        return np.asarray(grid.reshape(-1)[:count])
    array: np.ndarray[Any, Any] = np.array(axes, dtype=object).reshape(-1)
    if len(array) != count:
        raise ValueError(f"expected {count} axes, one for each panel, got {len(array)}")
    return array


def plot_activations(trace: Trace, **options: Any) -> np.ndarray[Any, Any]:
    """Draw how the outputs of each layer are spread, from what `record` returned; see `plot_distributions`."""
    return plot_distributions(_of_layers(trace, "output"), **{"color": style.FORWARD, **options})


def plot_gradients(trace: Trace, **options: Any) -> np.ndarray[Any, Any]:
    """Draw how the gradients by the output of each layer are spread; see `plot_distributions`."""
    return plot_distributions(_of_layers(trace, "upstream"), **{"color": style.GRADIENT, **options})


def _of_layers(trace: Trace, what: str) -> dict[str, Array]:
    """The arrays of one kind, one for each call of a layer inside which nothing else is called."""
    found: dict[str, Array] = {}
    for call in trace.leaves():
        value = getattr(call, what)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 1:
            turn = f" ({call.turn + 1})" if call.turns > 1 else ""
            found[f"{call.name or call.kind} {call.kind}{turn}" if call.name else call.kind] = value
    return found
