"""What benchmarks/growth.py says of its measurements: how fast cost grows, where it jumps, a table and a picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from backhand.inspection import style
from benchmarks.growth_sizes import AXES, FAMILIES, Point, doubled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLIFF = 1.5  # a step from one size to the next where a unit costs so many times more is pointed out


def exponent(points: list[Point], what: str) -> float:
    """p of cost = c * size^p, fitted to the larger half of the sizes: below them, what is constant counts."""
    half = points[min(len(points) // 2, len(points) - 2) :]
    if len(half) < 2:
        return float("nan")
    x, y = (np.log([float(getattr(p, name)) for p in half]) for name in ("value", what))
    return float(np.polyfit(x, y, 1)[0])


def cliffs(points: list[Point], square: bool) -> list[str]:
    """The sizes at which a multiply-add takes, or a unit of size holds, CLIFF times as much as at the size before."""
    found = []
    for a, b in itertools.pairwise(points):
        slower = (b.seconds / b.work) / (a.seconds / a.work)
        growth = (b.value / a.value) ** (2 if square else 1)
        larger = b.bytes / a.bytes / growth
        if slower > CLIFF:
            found.append(f"time x{slower:.1f} at {b.value}")
        if larger > CLIFF:
            found.append(f"memory x{larger:.1f} at {b.value}")
    return found


def table(found: dict[str, dict[str, list[Point]]]) -> Iterator[str]:
    """A line for each curve, and one for each cliff."""
    yield f"{'network':<9}{'by':<8}{'sizes':<13}{'ms':>16}{'~ size^':>9}{'MB':>16}{'~ size^':>9}  cliffs"
    for name, curves in found.items():
        for axis, points in curves.items():
            first, last = points[0], points[-1]
            yield (
                f"{name:<9}{axis:<8}{f'{first.value} to {last.value}':<13}"
                f"{f'{1e3 * first.seconds:.3g} to {1e3 * last.seconds:.3g}':>16}{exponent(points, 'seconds'):>9.2f}"
                f"{f'{first.bytes / 1e6:.3g} to {last.bytes / 1e6:.3g}':>16}{exponent(points, 'bytes'):>9.2f}"
                f"  {', '.join(cliffs(points, axis in FAMILIES[name].square)) or 'none'}"
            )


def draw(found: dict[str, dict[str, list[Point]]], path: str) -> None:
    """Time above, memory below, a column for each size, both axes logarithmic; grey lines have slope 1 and 2."""
    columns = [axis for axis in AXES if any(axis in curves for curves in found.values())]
    figure = style.new_figure(3.0 * len(columns) + 0.6, 6.0)
    panels = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False)
    for row, (what, scale, unit) in enumerate([("seconds", 1e3, "ms a step"), ("bytes", 1e-6, "MB at most in a step")]):
        panels[row][0].set_ylabel(unit)
        every = [scale * getattr(p, what) for curves in found.values() for points in curves.values() for p in points]
        for column, axis in enumerate(columns):
            curves = {name: curves[axis] for name, curves in found.items() if axis in curves}
            values = [p.value for points in curves.values() for p in points]
            first, last = min(values), max(values)
            ax = panels[row][column]
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.set_xlim(first / 1.3, last * max(last / first, 2) ** 0.3)  # room for the names
            ax.set_ylim(min(every) / 2, max(every) * 2)
            ticks = doubled(first, last)[:: 2 if len(doubled(first, last)) < 9 else 3]
            ax.set_xticks(ticks, [str(n) for n in ticks])
            ax.minorticks_off()
            ax.grid(True, color="0.92", linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            ends: list[tuple[float, float, str, str]] = []
            for name, points in curves.items():
                colour, marker = (choice[list(FAMILIES).index(name)] for choice in (style.RUNS, style.MARKERS))
                y = [scale * float(getattr(p, what)) for p in points]
                ax.plot([p.value for p in points], y, color=colour, marker=marker, markersize=3.5, linewidth=1.4)
                ends.append((y[-1], points[-1].value, name, colour))
            _label(ax, ends, "left" if axis == "width" else "right")
            steepest = 2 if any(axis in FAMILIES[name].square for name in curves) else 1
            for slope in range(1, steepest + 1):
                _guide(ax, slope, last / max(last / first, 2) ** 0.35, last)
            if row:
                ax.set_xlabel(AXES[axis])
    figure.savefig(path, format="png", dpi=68, metadata={"Software": None}, pil_kwargs={"optimize": True})


def _label(ax: Axes, ends: list[tuple[float, float, str, str]], side: str) -> None:
    """The name of each curve beside its end, those that end close together moved apart."""
    low, high = np.log(ax.get_ylim())
    left = side == "left"
    below: dict[float, float] = {}  # where a curve ends -> the height of the last name there
    for y, x, name, colour in sorted(ends):
        below[x] = at = max(np.log(y), below.get(x, -np.inf) + 0.06 * (high - low))
        ax.annotate(
            name,
            (x, np.exp(at)),
            xytext=(-6, 3) if left else (6, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8,
            ha="right" if left else "left",
            va="center",
        )


def _guide(ax: Axes, slope: int, first: float, last: float) -> None:
    """A straight line of this slope between two sizes, in the lower right corner, where the curves leave room."""
    low, high = ax.get_ylim()
    start = low * (high / low) ** 0.04
    last = min(last, first * (0.5 * high / start) ** (1 / slope))
    end = start * (last / first) ** slope
    ax.plot([first, last], [start, end], color=style.NEUTRAL, linewidth=1, linestyle="--" if slope == 1 else ":")
    ax.annotate(
        f"slope {slope}", (last, end), xytext=(4, 0), textcoords="offset points", color="0.4", fontsize=7, va="center"
    )
