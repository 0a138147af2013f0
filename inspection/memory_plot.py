"""A sequence and its answer over time; of a Neural Turing Machine also what its heads did to the memory meanwhile."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backhand.inspection.matrix_plots import plot_matrix
from backhand.layers.activations import sigmoid
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.models.ntm import NTM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEN = 0.1  # a slot counts as used where some head put at least this share of the largest weight on it


class _Panel(NamedTuple):
    """One panel: its name, its rows over time, and the number of the first row.

    most : the upper end of a scale that begins at 0; None: the scale is that of the numbers, which may be negative
    """

    name: str
    values: Array  # (rows, T)
    first: int = 0
    most: float | None = None


def plot_answer(
    model: Layer, x: ArrayLike, y: ArrayLike | None = None, *, sample: int = 0, figure: Figure | None = None
) -> np.ndarray[Any, Any]:
    """Draw one sequence over time: what was given, what was wanted, what the model said; returns the array of Axes.

    model : gives the logits of bits, (T, B, C) -> (T, B, O)      sample : which sequence of the batch
    x : (T, B, C)      y : (S, B, O), what is wanted in the last S steps; then the others of the answer stay white
    figure : where to draw; by default a new one, as high as the panels need

    A copy of the model runs, in evaluation mode: its own mode, caches, gradients and maps stay as they are.
    """
    return _draw(_answer("plot_answer", model, x, y, sample)[0], figure)


def plot_memory(
    model: NTM, x: ArrayLike, y: ArrayLike | None = None, *, sample: int = 0, figure: Figure | None = None
) -> np.ndarray[Any, Any]:
    """Draw `plot_answer`, and below it what each head of an NTM did; returns the array of Axes.

    For each write head the vectors that it added, and where it looked; for each read head what it read, and where.
    Shown are the slots from the first to the last on which some head put weight, in one scale for all heads, up to the
    largest weight there is: 1 where a head looks at one slot alone.

    model, x, y, sample, figure : as in plot_answer
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, figure 6
    """
    if not isinstance(model, NTM):
        hint = "; plot_answer draws what any model says" if isinstance(model, Layer) else ""
        raise TypeError(f"plot_memory: expected model to be an NTM, got {type(model).__name__}{hint}")
    panels, ran = _answer("plot_memory", model, x, y, sample)
    maps = {"write": ran.write_map[:, 0], "read": ran.read_map[:, 0]}
    every = np.concatenate([each.reshape(-1, each.shape[2]) for each in maps.values()])
    slots, most = _used(every), float(every.max())
    for kind, vectors, did in (("write", ran.added[:, 0], "added"), ("read", ran.read[:, 0], "read")):
        heads = maps[kind].shape[1]
        for i in range(heads):
            number = f" {i + 1}" if heads > 1 else ""
            panels.append(_Panel(f"{did}{number}", vectors[:, i].T))
            panels.append(_Panel(f"{kind} head{number}\nslot", maps[kind][:, i, slots].T, slots.start, most))
    return _draw(panels, figure)


def _answer(name: str, model: Layer, x: ArrayLike, y: ArrayLike | None, sample: int) -> tuple[list[_Panel], Any]:
    """The panels of the answer, and the copy of the model that ran."""
    if not isinstance(model, Layer):
        raise TypeError(f"{name}: expected model to be a Layer, got {type(model).__name__}")
    given = np.asarray(x)
    if given.ndim != 3 or not given.size:
        raise ValueError(f"{name}: expected x of shape (T, B, C), got {given.shape}")
    if not -given.shape[1] <= sample < given.shape[1]:
        raise ValueError(f"{name}: expected sample to be one of the {given.shape[1]} in the batch, got {sample}")
    ran = copy.deepcopy(model).eval()
    scores = np.asarray(ran.forward(given[:, sample][:, None]))
    if scores.ndim != 3 or scores.shape[:2] != (len(given), 1):
        raise ValueError(f"{name}: expected a model that gives (T, B, O), got {scores.shape} from {given.shape}")
    said = sigmoid(scores[:, 0])
    panels = [_Panel("given", given[:, sample].T)]
    if y is not None:
        wanted = np.asarray(y)
        steps = wanted.shape[0] if wanted.ndim == 3 else 0
        if not 0 < steps <= len(said) or wanted.shape[1:] != (given.shape[1], said.shape[1]):
            expected = f"(up to {len(said)}, {given.shape[1]}, {said.shape[1]})"
            raise ValueError(f"{name}: expected y of shape {expected}, got {wanted.shape}")
        before = np.full((len(said) - steps, said.shape[1]), np.nan)
        said = np.concatenate([before, said[len(before) :]])
        panels.append(_Panel("wanted", np.concatenate([before, wanted[:, sample]]).T, most=1))
    return [*panels, _Panel("said", said.T, most=1)], ran


def _used(weights: Array) -> slice:
    """From the first to the last slot on which some weighting (a row) put weight, and one to both sides."""
    most = weights.max(axis=0)
    used = np.flatnonzero(~(most < SEEN * most.max()))  # all of them where there are nans
    return slice(max(0, int(used[0]) - 1), min(len(most), int(used[-1]) + 2))


def _draw(panels: list[_Panel], figure: Figure | None) -> np.ndarray[Any, Any]:
    """The panels below each other, over one axis of time."""
    from matplotlib.ticker import MaxNLocator

    heights = [0.45 + 0.11 * min(len(panel.values), 12) for panel in panels]
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=(6.4, sum(heights) + 0.4), layout="constrained")
    axes: np.ndarray[Any, Any] = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)
    for ax, panel in zip(axes[:, 0], panels, strict=True):
        rows, steps = panel.values.shape
        limits: dict[str, Any] = (
            {} if panel.most is None or not np.isfinite(panel.most) else {"vmin": 0, "vmax": panel.most}
        )
        extent = (-0.5, steps - 0.5, panel.first + rows - 0.5, panel.first - 0.5)
        plot_matrix(panel.values, numbers=False, y=panel.name, ax=ax, extent=extent, **limits)
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))  # a panel is low: more numbers would overlap
    axes[-1, 0].set_xlabel("time step")
    return axes[:, 0]
