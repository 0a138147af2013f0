"""Loss curves: what a training run did, epoch by epoch.

A history is plain data, in either of two forms:

    {"loss": [2.1, 0.9], "val_loss": [1.8, 1.0]}     lists, one number for each epoch
    history.records                                 dicts with "step", "epoch" and whatever was measured there

`val_loss` is drawn beside `loss`, and `batch_loss`, one number for each step, behind it; so is `accuracy`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backhand.inspection import style
from backhand.layers.parameter import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Curve(NamedTuple):
    """One measured quantity; y is NaN where there is a gap, `broken` where it was measured and not finite."""

    name: str
    unit: str  # of x: "epoch", or "step" where epochs are not known
    x: Array
    y: Array
    steps: Array  # NaN where the step is not known
    broken: Array

    @property
    def per_step(self) -> bool:
        return self.name.startswith("batch_")

    @property
    def validation(self) -> bool:
        return self.name.startswith("val_")


_Run = dict[str, _Curve]


def plot_history(
    history: Any,
    *,
    metrics: str | Sequence[str] | None = None,
    smooth: float = 0.0,
    log: bool = False,
    skip: float = 0,
    best: str | None = "val_loss",
    labels: Sequence[str] | None = None,
    chance: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the curves of one run, or of several together: training solid, validation dashed with markers.

    history : a dict of lists, an object with `.records`, or a list of those, one for each run
    metrics : "loss" (the default), "accuracy", ...; each is drawn with its `val_` and `batch_` companions
    smooth : a in [0, 1) of the moving average s = a s + (1 - a) y, shown as s / (1 - a^t), which has no bias
        towards the 0 it starts from. It is taken of what was measured at each step, else of what was measured once
        an epoch; the raw curve stays behind it, faint
    log : a logarithmic y axis; ValueError if anything drawn is not positive
    skip : leave out this many epochs at the start
    best : the curve whose best epoch is marked: the largest of an accuracy, else the smallest; None marks nothing
    labels : a name for each run
    chance : the value that guessing would have; log(C) is the loss for C classes

    None and NaN are gaps. The first value that is not finite is marked, and named with its step; in a list None was
    not measured, in a record it is a NaN that was written as JSON.
    """
    runs = [_after(_read(run), skip) for run in _as_runs(history)]
    names = [metrics] if isinstance(metrics, str) else list(metrics or ["loss"])
    if labels is None:
        labels = [f"run {i + 1}" for i in range(len(runs))]
    elif len(labels) != len(runs):
        raise ValueError(f"plot_history: expected {len(runs)} labels, one for each run, got {len(labels)}")
    if not 0 <= smooth < 1:
        raise ValueError(f"plot_history: expected smooth in [0, 1), got {smooth!r}")
    for name in names:
        if any(runs) and not any(_drawn(run, name) for run in runs):
            known = sorted({curve.removeprefix("val_").removeprefix("batch_") for run in runs for curve in run})
            raise ValueError(f"plot_history: expected metrics to be some of {', '.join(known)}, got {name!r}")
    if log:
        _refuse_log([_drawn(run, name) for run in runs for name in names], chance)

    ax = style.axes_or_new(ax)
    groups = [(run, name, label) for run, label in zip(runs, labels, strict=True) for name in names]
    several = len(groups) > 1
    for i, (run, name, label) in enumerate(groups):
        title = ", ".join([label] * (len(runs) > 1) + [name] * (len(names) > 1))
        _draw_group(ax, run, name, smooth, best, i if several else None, title)
        _mark_broken(ax, _drawn(run, name), title, style.RUNS[i % len(style.RUNS)] if several else "black")
    if len(runs) == 1 and "early_stop" in runs[0]:
        for x in runs[0]["early_stop"].x[runs[0]["early_stop"].y > 0]:
            ax.axvline(x, color=style.NEUTRAL, linestyle="--", linewidth=1.2, label=f"stopped early, {x:g}")
    if chance is not None:
        ax.axhline(chance, color=style.NEUTRAL, linestyle=":", linewidth=1.5, label=f"chance {chance:.4g}")
    if log:
        ax.set_yscale("log")
    _finish(ax, [curve for run, name, _ in groups for curve in _drawn(run, name)], names, several)
    return ax


def plot_loss_and_accuracy(
    history: Any, *, classes: int | None = None, axes: Any = None, **options: Any
) -> np.ndarray[Any, Any]:
    """Draw the loss, and the accuracy beside it where there is one; returns the array of Axes.

    classes : C, to draw what guessing gives: a loss of log(C), an accuracy of 1/C
    axes : as many Axes as there are panels; by default those of a new figure
    options : go to `plot_history`; a logarithmic axis and smoothing are for the loss
    """
    panels = _panels(history)
    if axes is None:
        import matplotlib.pyplot as plt

        axes = plt.subplots(1, len(panels), figsize=_size(panels), layout="constrained", squeeze=False)[1]
    array: np.ndarray[Any, Any] = np.array(axes, dtype=object).reshape(-1)
    if len(array) != len(panels):
        raise ValueError(f"plot_loss_and_accuracy: expected {len(panels)} axes, one for each panel, got {len(array)}")
    for ax, name in zip(array, panels, strict=True):
        chance = None if classes is None else float(np.log(classes) if name == "loss" else 1 / classes)
        only_loss = {} if name == "loss" else {"log": False, "smooth": 0.0}
        plot_history(history, metrics=name, chance=chance, ax=ax, **{**options, **only_loss})
    return array


def save_loss_curve(
    history: Any, path: str | os.PathLike[str], *, classes: int | None = None, title: str = "", **options: Any
) -> None:
    """Write the picture of `plot_loss_and_accuracy` to a PNG file; no window, and no figure is left open.

    title : stands above both panels
    """
    panels = _panels(history)
    figure = style.new_figure(*_size(panels))
    plot_loss_and_accuracy(history, classes=classes, axes=figure.subplots(1, len(panels), squeeze=False), **options)
    if title:
        figure.suptitle(title)
    style.save_png(figure, path)


# ---------------------------------------------------------------------- reading


def _as_runs(history: Any) -> list[Any]:
    runs = list(history) if isinstance(history, (list, tuple)) else [history]
    for run in runs:
        if not isinstance(run, Mapping) and not hasattr(run, "records"):
            raise TypeError(
                f"expected a history as a dict of lists or an object with .records, got a {type(run).__name__}"
            )
    return runs


def _read(history: Any) -> _Run:
    """Every curve of one run."""
    run = {}
    for name, unit, x, values, steps in _lists(history) if isinstance(history, Mapping) else _records(history.records):
        y = _floats(values)
        broken = np.array([value is not None for value in values], dtype=bool) & ~np.isfinite(y)
        run[name] = _Curve(name, unit, _floats(x), np.where(np.isfinite(y), y, np.nan), _floats(steps), broken)
    return run


def _records(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, Any, Any, Any]]:
    """(name, unit, x, values, steps) for every number that stands in the records."""
    for name in {name: None for record in records for name in record if name not in ("epoch", "step")}:
        rows = [record for record in records if isinstance(record.get(name, ""), (int, float, np.number, type(None)))]
        if not rows:
            continue  # no number: why training was broken off, say
        steps = [row.get("step") for row in rows]
        epochs = [row.get("epoch") for row in rows]
        unit = "step" if None in epochs else "epoch"
        # what was not measured is not in a record: None is a NaN that was written as JSON
        values = [np.nan if row[name] is None else row[name] for row in rows]
        yield name, unit, epochs if unit == "epoch" else steps, values, steps


def _lists(history: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Any, Any]]:
    """The same for a dict of lists: one number at the end of each epoch, those of the steps evenly within."""
    plain = {name: list(values) for name, values in history.items() if name not in ("epoch", "step")}
    epochs = max((len(values) for name, values in plain.items() if not name.startswith("batch_")), default=0)
    for name, values in plain.items():
        n = len(values)
        per_step = name.startswith("batch_")
        x, steps = history.get("epoch"), history.get("step")
        if x is None or len(x) != n:
            x = np.arange(1, n + 1) * (epochs / n if per_step and epochs and n else 1.0)
            unit = "step" if per_step and not epochs else "epoch"
        else:
            unit = "epoch"
        if steps is None or len(steps) != n:
            steps = range(1, n + 1) if per_step else [None] * n
        yield name, unit, x, values, steps


def _floats(values: Any) -> Array:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _after(run: _Run, skip: float) -> _Run:
    kept = {}
    for name, curve in run.items():
        late = curve.x > skip
        kept[name] = _Curve(name, curve.unit, *(array[late] for array in curve[2:]))
    return kept


def _drawn(run: _Run, metric: str) -> list[_Curve]:
    return [run[name] for name in (f"batch_{metric}", metric, f"val_{metric}") if name in run]


def _refuse_log(groups: list[list[_Curve]], chance: float | None) -> None:
    for curve in (curve for group in groups for curve in group):
        if (curve.y <= 0).any():
            value, at = np.nanmin(curve.y), curve.x[np.nanargmin(curve.y)]
            raise ValueError(
                f"a logarithmic axis needs positive values, {curve.name} is {value:.4g} at {curve.unit} {at:.4g}"
            )
    if chance is not None and chance <= 0:
        raise ValueError(f"a logarithmic axis needs positive values, chance is {chance!r}")


def smoothed(y: Array, a: float) -> Array:
    """The moving average of y without bias: s = a s + (1 - a) y over what is finite, shown as s / (1 - a^t)."""
    shown = np.full(len(y), np.nan)
    s, weight = 0.0, 0.0
    for i, value in enumerate(y):
        if np.isfinite(value):
            s, weight = a * s + (1 - a) * value, a * weight + (1 - a)  # the weight is 1 - a^t
            shown[i] = s / weight
    return shown


# ---------------------------------------------------------------------- drawing


def _draw_group(ax: Axes, run: _Run, metric: str, smooth: float, best: str | None, i: int | None, title: str) -> None:
    """One metric of one run; `i` numbers the groups where there are several, each in its own colour."""
    train = style.TRAIN if i is None else style.RUNS[i % len(style.RUNS)]
    validation = style.VALIDATION if i is None else train
    marker = style.MARKERS[(i or 0) % len(style.MARKERS)]
    curves = [curve for curve in _drawn(run, metric) if len(curve.x)]
    by_step = any(curve.per_step for curve in curves)
    for curve in curves:
        colour = validation if curve.validation else train
        # what is measured once an epoch is a mean already: only the finest curve is smoothed
        average = smooth > 0 and (curve.per_step or not by_step)
        if curve.per_step or average:
            faint = ax.plot(curve.x, curve.y, color=colour, linewidth=0.7, alpha=0.4 if i is None else 0.2, zorder=1.5)[
                0
            ]
            if i is None and not average:
                faint.set_label("single batches")
        if (curve.per_step and not average) or (by_step and smooth > 0 and curve.name == metric):
            continue
        marked = _marked(curve.y, 15 if curve.validation else 8 if i is not None else 0)
        (line,) = ax.plot(
            curve.x,
            smoothed(curve.y, smooth) if average else curve.y,
            color=colour,
            linewidth=2,
            linestyle="--" if curve.validation else "-",
            marker=marker if marked else "",
            markersize=5,
            markerfacecolor="white" if curve.validation else colour,
            markevery=marked,
        )
        if i is None:
            line.set_label("validation" if curve.validation else "train")
    mark = _best(run, metric, best)
    note = ""
    if mark:
        curve, x, value = mark
        edge = "black" if i is None else train
        ring = ax.plot([x], [value], "o", markersize=11, markerfacecolor="none", markeredgecolor=edge, zorder=4)[0]
        note = f"best epoch {x:g}: {value:.4g}" if curve.name == best else f"at best {best}: {value:.4g}"
        if i is None:
            ring.set_label(note)
    if i is not None and curves:
        ax.plot([], [], color=train, marker=marker, markersize=5, label=f"{title}, {note}" if note else title)


def _marked(y: Array, most: int) -> list[int]:
    """Which points get a marker: about `most` of them, and each between two gaps, where no line shows it."""
    finite = np.concatenate([[False], np.isfinite(y), [False]])
    alone = np.flatnonzero(finite[1:-1] & ~finite[:-2] & ~finite[2:])
    spread = range(0, len(y), max(1, len(y) // most)) if most else []
    return sorted({*spread, *(int(i) for i in alone)})


def _best(run: _Run, metric: str, best: str | None) -> tuple[_Curve, float, float] | None:
    """(the curve to mark, its epoch, its value there) for the epoch at which `best` was best."""
    judge = run.get(best or "")
    if judge is None or not np.isfinite(judge.y).any():
        return None
    at = judge.x[np.nanargmax(judge.y) if judge.name.endswith("accuracy") else np.nanargmin(judge.y)]
    own = [name for name in (f"val_{metric}", metric) if name in run]
    for name in sorted(own, key=lambda name: name != best):
        curve = run[name]
        same = np.flatnonzero((curve.x == at) & np.isfinite(curve.y))
        if len(same):
            return curve, float(at), float(curve.y[same[0]])
    return None


def _mark_broken(ax: Axes, curves: list[_Curve], title: str, colour: str) -> None:
    """A line where the first value that is not finite was measured, and its name in the legend."""
    first = [
        (float(curve.x[k]), float(curve.steps[k]), curve) for curve in curves for k in np.flatnonzero(curve.broken)[:1]
    ]
    if first:
        x, step, curve = min(first, key=lambda each: each[0])
        where = f"{curve.unit} {x:.4g}" if np.isnan(step) else f"step {step:.0f}"
        text = f"{curve.name} not finite at {where}"
        ax.axvline(x, color=colour, linestyle="-.", linewidth=1.2, label=f"{title}: {text}" if title else text)


def _finish(ax: Axes, drawn: list[_Curve], names: list[str], several: bool) -> None:
    """Labels where there are none, whole epochs as ticks, and a legend of all that is drawn."""
    if not any(len(curve.x) for curve in drawn):
        ax.text(0.5, 0.5, "nothing recorded yet", transform=ax.transAxes, ha="center", color=style.NEUTRAL)
    elif several and any(curve.validation for curve in drawn):
        # here the legend names the runs; what the two kinds of line mean, it says once
        grey: dict[str, Any] = {"color": style.NEUTRAL, "marker": "o", "markersize": 5}
        if any(not curve.validation for curve in drawn):
            ax.plot([], [], linestyle="-", label="train", **grey)
        ax.plot([], [], linestyle="--", markerfacecolor="white", label="validation", **grey)
    if not ax.get_xlabel():
        from matplotlib.ticker import MaxNLocator

        ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    units = {curve.unit for curve in drawn}
    style.label_empty(ax, x="step" if units == {"step"} else "epoch", y=", ".join(names))
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", fontsize="small", handlelength=2.5)


def _panels(history: Any) -> list[str]:
    runs = [_read(run) for run in _as_runs(history)]
    return ["loss"] + ["accuracy"] * any(_drawn(run, "accuracy") for run in runs)


def _size(panels: list[str]) -> tuple[float, float]:
    return (4.6 * len(panels), 3.4) if len(panels) > 1 else (6.0, 3.8)
