"""How every figure of this project looks: one meaning for each colour, and a second cue beside it.

The colours are those of Okabe & Ito, "Color Universal Design" (2008), which colour-blind readers can tell apart.
matplotlib is imported where a figure is drawn, and nowhere else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORWARD = "#009E73"  # values, above the wire
GRADIENT = "#D55E00"  # gradients, below the wire
TRAIN = "#0072B2"  # solid lines
VALIDATION = "#E69F00"  # dashed lines with markers
NEUTRAL = "#999999"

# Several runs in one panel: a colour and a marker each. The yellow of the palette is missing, it fades on white.
RUNS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def axes_or_new(ax: Axes | None) -> Axes:
    """The Axes that the caller gave, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def label_empty(ax: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Write the axis labels and the title, each only where the caller has left it empty."""
    if x and not ax.get_xlabel():
        ax.set_xlabel(x)
    if y and not ax.get_ylabel():
        ax.set_ylabel(y)
    if title and not ax.get_title():
        ax.set_title(title)


def new_figure(width: float, height: float) -> Figure:
    """A figure that pyplot does not know: it opens no window, and nobody has to close it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure; the same figure gives the same bytes (no name of the program that wrote it)."""
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})
