"""Where in the plane a classifier changes its mind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.inspection import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_decision_boundary(
    predict: Callable[[Any], Any],
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    grid: int = 200,
    pad: float = 0.5,
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw what a classifier of points in the plane says at every point, and the points themselves.

    predict : takes (M, 2) float32 points and gives scores (M, classes), or (M,) or (M, 1) scores of the class 1
        above 0, or integer labels (M,); `Trainer.predict`, or `model.eval()`
    x : (N, 2), the points      y : (N,) labels from 0; each class has a colour and a marker
    grid : predict is asked at grid x grid points      pad : so much room around the points
    options : go to `Axes.scatter`
    """
    points = np.asarray(x, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"plot_decision_boundary: expected points of shape (N, 2), got {points.shape}")
    labels = np.zeros(len(points), int) if y is None else np.asarray(y).reshape(-1)
    if len(labels) != len(points) or labels.dtype.kind not in "iub":
        raise ValueError(
            f"plot_decision_boundary: expected {len(points)} integer labels, got {labels.dtype} of shape {labels.shape}"
        )
    low, high = points.min(axis=0) - pad, points.max(axis=0) + pad
    u, v = (np.linspace(low[i], high[i], grid, dtype=np.float32) for i in range(2))
    plane = np.stack(np.meshgrid(u, v), axis=-1)
    decided = _labels(np.asarray(predict(plane.reshape(-1, 2)))).reshape(grid, grid)
    ax = style.axes_or_new(ax)
    classes = int(max(decided.max(), labels.max())) + 1
    colours = [style.RUNS[i % len(style.RUNS)] for i in range(classes)]
    ax.contourf(u, v, decided, levels=np.arange(classes + 1) - 0.5, colors=colours, alpha=0.25)
    if len(np.unique(decided)) > 1:
        ax.contour(u, v, decided, levels=np.arange(1, classes) - 0.5, colors="black", linewidths=1)
    for label in np.unique(labels):
        chosen = points[labels == label]
        marker = style.MARKERS[int(label) % len(style.MARKERS)]
        ax.scatter(
            chosen[:, 0],
            chosen[:, 1],
            **{"c": colours[int(label)] if y is not None else "black", "marker": marker, "s": 24, **options},
            edgecolors="white",
            linewidths=0.5,
            label=f"class {label}" if y is not None else None,
        )
    if y is not None and classes <= len(style.RUNS):
        ax.legend(fontsize="small")
    style.label_empty(ax, "x0", "x1")
    return ax


def _labels(said: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scores as labels."""
    if said.ndim == 2 and said.shape[1] > 1:
        return said.argmax(axis=1)
    flat = said.reshape(-1)
    return flat if flat.dtype.kind in "iu" else (flat > 0).astype(int)
