"""Pictures of pictures: filters and feature maps in a grid, and which pixels a score depends on."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backhand.inspection import style
from backhand.layers.base import Layer
from backhand.layers.parameter import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAYOUTS = ("NCHW", "NHWC", "NHW")


def image_grid(
    images: ArrayLike,
    *,
    layout: str = "NCHW",
    columns: int | None = None,
    pad: int = 1,
    normalize: str | None = "all",
    fill: float = 1.0,
) -> Array:
    """Many images as one, row by row: filters, feature maps, samples.

    images : (N, C, H, W) with C of 1 or 3, (N, H, W, C), or (N, H, W), as `layout` says: "NCHW", "NHWC", "NHW".
        For the feature maps of one sample, (C, H, W), or the filters of one channel take "NHW"
    columns : how many stand in a row; by default about as many as there are rows
    pad : so many pixels of `fill` between two images
    normalize : what is stretched to [0, 1]: "each" image, "all" of them together, or None: then numbers are taken as
        they are. An image without contrast becomes 0.5

    Returns (H', W') or (H', W', 3), floats. Raises ValueError where the shape does not fit the layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"image_grid: expected layout to be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if normalize not in ("each", "all", None):
        raise ValueError(f"image_grid: expected normalize to be 'each', 'all' or None, got {normalize!r}")
    batch = np.asarray(images, dtype=np.float64)
    if batch.ndim != len(layout) or not batch.size:
        raise ValueError(f"image_grid: expected images of shape ({', '.join(layout)}), got {batch.shape}")
    if layout == "NCHW":
        batch = np.moveaxis(batch, 1, -1)
    elif layout == "NHW":
        batch = batch[..., None]
    n, height, width, channels = batch.shape
    if channels not in (1, 3):
        raise ValueError(
            f"image_grid: expected 1 or 3 channels, got {channels} (shape {np.shape(images)}, layout {layout!r}); for "
            "feature maps, take one sample and layout='NHW'"
        )
    if normalize is not None:
        batch = _stretched(batch, axes=(1, 2, 3) if normalize == "each" else (0, 1, 2, 3))
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    grid = np.full((rows * (height + pad) - pad, columns * (width + pad) - pad, channels), float(fill))
    for i, image in enumerate(batch):
        top, left = i // columns * (height + pad), i % columns * (width + pad)
        grid[top : top + height, left : left + width] = image
    return grid[..., 0] if channels == 1 else grid


def _stretched(batch: Array, axes: tuple[int, ...]) -> Array:
    """The finite numbers from 0 to 1; what is not finite, and what has no contrast, is in the middle."""
    finite = np.isfinite(batch)
    low = np.where(finite, batch, np.inf).min(axis=axes, keepdims=True)
    span = np.where(finite, batch, -np.inf).max(axis=axes, keepdims=True) - low
    with np.errstate(invalid="ignore", divide="ignore"):
        stretched = (batch - low) / span
    return np.where(finite & (span > 0), stretched, 0.5)


def plot_image_grid(
    images: ArrayLike,
    *,
    layout: str = "NCHW",
    columns: int | None = None,
    pad: int = 1,
    normalize: str | None = "all",
    title: str = "",
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw `image_grid`; grey where there is one channel.

    options : go to `Axes.imshow` (cmap="RdBu_r" for signed weights)
    """
    grid = image_grid(images, layout=layout, columns=columns, pad=pad, normalize=normalize)
    ax = style.axes_or_new(ax)
    ax.imshow(np.clip(grid, 0, 1), **{"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest", **options})
    ax.set_axis_off()
    style.label_empty(ax, title=title)
    return ax


class Saliency(NamedTuple):
    """How strongly one score depends on each pixel.

    x : (C, H, W), the image      y : the class whose score it is      score : its value
    gradient : (C, H, W), dscore/dx      map : (H, W), the largest |gradient| of a pixel's channels
    """

    x: Array
    y: int
    score: float
    gradient: Array
    map: Array


def saliency(model: Layer, x: ArrayLike, y: int | None = None) -> Saliency:
    """The gradient of one class's score by the image: which pixels would move it most.

        map = max over channels of |dscore_y / dx|

    x : one image (C, H, W), or a batch of one      y : the class; by default the one with the largest score

    Taken in eval mode, on a copy of the model: nothing of its own changes.
    Simonyan, Vedaldi & Zisserman 2013, arXiv:1312.6034
    """
    image = np.asarray(x)
    batch = image if image.ndim == 4 else image[None]
    if batch.ndim != 4 or len(batch) != 1:
        raise ValueError(f"saliency: expected one image (C, H, W), got shape {image.shape}")
    if batch.dtype.kind != "f":
        batch = batch.astype(np.float32)
    # a copy: the model's own modes, gradients and caches are not touched
    looked_at = copy.deepcopy(model).eval(caching=True)
    scores = looked_at.forward(batch)
    if scores.ndim != 2:
        raise ValueError(f"saliency: expected a model that gives scores (N, classes), got {scores.shape}")
    label = int(scores[0].argmax() if y is None else y)
    if not 0 <= label < scores.shape[1]:
        raise ValueError(f"saliency: expected a class from 0 to {scores.shape[1] - 1}, got {y!r}")
    dout = np.zeros_like(scores)
    dout[0, label] = 1
    gradient = np.array(looked_at.input_requires_grad_().backward(dout)[0])
    return Saliency(batch[0].copy(), label, float(scores[0, label]), gradient, np.abs(gradient).max(axis=0))


def plot_saliency(found: Saliency, *, axes: Any = None) -> np.ndarray[Any, Any]:
    """Draw the image, its saliency map, and both over each other; returns the array of the three Axes."""
    if axes is None:
        import matplotlib.pyplot as plt

        axes = plt.subplots(1, 3, figsize=(7.5, 2.8), layout="constrained")[1]
    array: np.ndarray[Any, Any] = np.array(axes, dtype=object).reshape(-1)
    if len(array) != 3:
        raise ValueError(f"plot_saliency: expected 3 axes, got {len(array)}")
    shown = image_grid(found.x[None] if len(found.x) == 3 else found.x[:1][None])
    grey = shown if shown.ndim == 2 else shown.mean(axis=-1)
    array[0].imshow(shown, cmap="gray", vmin=0, vmax=1)
    array[1].imshow(found.map, cmap="viridis")
    array[2].imshow(grey, cmap="gray", vmin=0, vmax=1)
    array[2].imshow(found.map, cmap="viridis", alpha=0.6)
    titles = ("image", f"|dscore/dx|, at most {found.map.max():.2g}", "both")
    for ax, title in zip(array, titles, strict=True):
        ax.set_axis_off()
        style.label_empty(ax, title=title)
    return array
