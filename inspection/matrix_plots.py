"""Matrices as pictures: Jacobians, attention maps, memory over time, confusion between classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.inspection import style
from backhand.layers.parameter import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NUMBERS = 12  # rows or columns up to which every cell has its number written in it


def plot_matrix(
    matrix: ArrayLike,
    *,
    signed: bool | None = None,
    numbers: bool | None = None,
    decimals: int = 2,
    rows: Sequence[object] | None = None,
    columns: Sequence[object] | None = None,
    x: str = "",
    y: str = "",
    title: str = "",
    colorbar: bool = True,
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw a matrix of numbers, the first row on top.

    matrix : (rows, columns); what is not finite stays white
    signed : with a map whose middle is 0, as far to both sides; by default where some number is negative
    numbers : write each into its cell; by default where there are at most 12 rows and columns
    rows, columns : labels of the ticks      x, y : labels of the axes      options : go to `Axes.imshow`
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"plot_matrix: expected a matrix (rows, columns), got shape {values.shape}")
    for name, labels, size in (("rows", rows, values.shape[0]), ("columns", columns, values.shape[1])):
        if labels is not None and len(labels) != size:
            raise ValueError(f"plot_matrix: expected {size} labels for the {name}, got {len(labels)}")
    ax = style.axes_or_new(ax)
    finite = values[np.isfinite(values)]
    if signed is None:
        signed = bool((finite < 0).any())
    if signed:
        most = float(np.abs(finite).max(initial=0)) or 1.0
        options = {"cmap": "RdBu_r", "vmin": -most, "vmax": most, **options}
    image = ax.imshow(values, **{"cmap": "viridis", "interpolation": "nearest", "aspect": "auto", **options})
    if numbers is None:
        numbers = max(values.shape) <= MOST_NUMBERS
    if numbers:
        _write_numbers(ax, image, values, decimals)
    for axis, labels in ((ax.yaxis, rows), (ax.xaxis, columns)):
        if labels is not None:
            axis.set_ticks(range(len(labels)), [str(label) for label in labels])
        else:
            from matplotlib.ticker import MaxNLocator

            axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if colorbar and ax.figure is not None:
        ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.02)
    style.label_empty(ax, x, y, title)
    return ax


def _write_numbers(ax: Axes, image: Any, values: Array, decimals: int) -> None:
    """Black on light cells, white on dark ones."""
    for (i, j), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 or not np.isfinite(value)
        text = f"{value:.{decimals}f}" if value != int(value or 0) else f"{value:.0f}"
        ax.text(j, i, text, ha="center", va="center", fontsize="small", color="black" if light else "white")


def plot_jacobian(matrix: ArrayLike, *, title: str = "", ax: Axes | None = None, **options: Any) -> Axes:
    """Draw a Jacobian dy/dx, a row for each output and a column for each input; zeros are white.

    matrix : (outputs, inputs), or what `jacobian` returns      options : go to `plot_matrix`
    """
    values = np.asarray(getattr(matrix, "matrix", matrix), dtype=np.float64)
    if values.ndim == 2 and not title:
        title = f"Jacobian {values.shape[0]} x {values.shape[1]}, {np.mean(values == 0):.0%} zeros"
    return plot_matrix(values, signed=True, x="input", y="output", title=title, ax=ax, **{"aspect": "equal", **options})


def plot_attention(
    weights: ArrayLike,
    *,
    queries: Sequence[object] | None = None,
    keys: Sequence[object] | None = None,
    axes: Any = None,
    **options: Any,
) -> np.ndarray[Any, Any]:
    """Draw attention maps: which query looks at which key, a panel for each head; returns the array of Axes.

    weights : (L, S), or (heads, L, S): the `attention_map` of a MultiheadAttention, of one sample
    queries, keys : their names, tokens say      axes : as many as there are maps      options : go to `plot_matrix`
    """
    maps = np.asarray(weights, dtype=np.float64)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3:
        hint = "; take one sample of it" if maps.ndim == 4 else ""
        raise ValueError(f"plot_attention: expected (L, S) or (heads, L, S), got {np.shape(weights)}{hint}")
    if axes is None:
        import matplotlib.pyplot as plt

        axes = plt.subplots(1, len(maps), figsize=(2.4 * len(maps) + 1.2, 2.9), layout="constrained", squeeze=False)[1]
    array: np.ndarray[Any, Any] = np.array(axes, dtype=object).reshape(-1)
    if len(array) != len(maps):
        raise ValueError(f"plot_attention: expected {len(maps)} axes, one for each map, got {len(array)}")
    for i, (ax, values) in enumerate(zip(array, maps, strict=True)):
        plot_matrix(
            values,
            **{"rows": queries, "columns": keys, "vmin": 0, "vmax": 1, "colorbar": i == len(maps) - 1, **options},
            x="key",
            y="query" if i == 0 else "",
            title=f"head {i}" if len(maps) > 1 else "attention",
            ax=ax,
        )
        if keys is not None and max(len(str(key)) for key in keys) > 2:
            ax.tick_params(axis="x", rotation=90)
    return array


def confusion_matrix(target: ArrayLike, predicted: ArrayLike, classes: int | None = None) -> Array:
    """How often each class was taken for each other one: (classes, classes), a row for each true class.

    target, predicted : integer labels of one shape; or predicted as scores (N, classes), whose largest counts
    """
    truth, guess = np.asarray(target), np.asarray(predicted)
    if guess.ndim == truth.ndim + 1:
        classes = guess.shape[1] if classes is None else classes
        guess = guess.argmax(axis=1)
    if truth.shape != guess.shape or truth.dtype.kind not in "iu" or guess.dtype.kind not in "iu":
        got = f"{truth.dtype} {truth.shape} and {guess.dtype} {guess.shape}"
        raise ValueError(f"confusion_matrix: expected integer labels of one shape, got {got}")
    most = int(max(truth.max(initial=-1), guess.max(initial=-1))) + 1
    classes = most if classes is None else classes
    if most > classes or min(truth.min(initial=0), guess.min(initial=0)) < 0:
        raise ValueError(f"confusion_matrix: expected labels from 0 to {classes - 1}, got some beyond")
    counts = np.bincount(truth.reshape(-1) * classes + guess.reshape(-1), minlength=classes * classes)
    return counts.reshape(classes, classes)


def plot_confusion_matrix(
    counts: ArrayLike, *, names: Sequence[object] | None = None, ax: Axes | None = None, **options: Any
) -> Axes:
    """Draw a `confusion_matrix`: the colour is the share of the true class, the number how many; right is diagonal.

    names : of the classes      options : go to `plot_matrix`
    """
    array = np.asarray(counts)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"plot_confusion_matrix: expected (classes, classes), got {array.shape}")
    total = array.sum(axis=1, keepdims=True)
    share = np.divide(array, total, out=np.zeros(array.shape), where=total > 0)
    ax = plot_matrix(
        share,
        **{"rows": names, "columns": names, "numbers": False, "vmin": 0, "vmax": 1, "cmap": "Blues", **options},
        x="predicted",
        y="true",
        title=f"{np.trace(array) / max(array.sum(), 1):.1%} of {array.sum():,} right",
        ax=ax,
    )
    if len(array) <= 2 * MOST_NUMBERS:
        for (i, j), count in np.ndenumerate(array):
            if count:
                color = "white" if share[i, j] > 0.5 else "black"
                ax.text(j, i, f"{count:g}", ha="center", va="center", fontsize="small", color=color)
    return ax
