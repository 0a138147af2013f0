"""Pictures changed in ways that leave what they show: shifted, mirrored, cut out, in other colours.

Every function takes pictures x (N, C, H, W) and a generator, and returns new ones; each picture is changed in its own
way. `Augmented` makes fresh batches of them in every epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from backhand.datasets.base import Array, count, reject

Change = Callable[[Array, np.random.Generator], Array]


class Augmented:
    """Batches for training, shuffled and changed anew in each epoch.

        for x, y in Augmented(x, y, 128, crop_and_flip): ...

    x : (N, ...)      y : (N, ...), or None: then the batches are what `views` makes of x alone
    batch : samples in each; a single one left over joins the batch before it, as BatchNorm cannot take it
    change : what is done to the pictures of a batch, change(x, rng); or None
    views : 2 gives two versions of each picture, ((x1, x2), y): what SimCLR learns from
    rng : of the order and of the changes
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        batch: int,
        change: Change | None = None,
        views: int = 1,
        rng: np.random.Generator | int | None = 0,
    ) -> None:
        if len(x) != len(y) or not len(x):
            reject("x and y", "as many samples in both, at least one", f"{len(x)} and {len(y)}")
        self.x, self.y = x, y
        self.batch, self.views = count("batch", batch, 1), count("views", views, 1)
        self.change = change
        self.rng = np.random.default_rng(rng)

    def __len__(self) -> int:
        return len(self._begins())

    def __iter__(self) -> Iterator[tuple[Any, Array]]:
        order = self.rng.permutation(len(self.x))
        begins = self._begins()
        for a, b in zip(begins, [*begins[1:], len(order)], strict=True):
            rows = order[a:b]
            pictures = self.x[rows]
            seen = [pictures if self.change is None else self.change(pictures, self.rng) for _ in range(self.views)]
            yield (seen[0] if self.views == 1 else tuple(seen)), self.y[rows]

    def _begins(self) -> list[int]:
        begins = list(range(0, len(self.x), self.batch))
        if self.batch > 1 and len(self.x) > 1 and len(self.x) % self.batch == 1:
            begins.pop()
        return begins


def random_shift(x: Array, rng: np.random.Generator, most: int = 4) -> Array:
    """Each picture padded by `most` zeros on every side, and cut out again somewhere ("random crop with padding 4")."""
    n, _, height, width = _pictures(x).shape
    wide = np.pad(x, ((0, 0), (0, 0), (most, most), (most, most)))
    y = np.empty_like(x)
    for i, (top, left) in enumerate(rng.integers(0, 2 * most + 1, (n, 2)).tolist()):
        y[i] = wide[i, :, top : top + height, left : left + width]
    return y


def random_flip(x: Array, rng: np.random.Generator, chance: float = 0.5) -> Array:
    """Each picture mirrored left to right, or not."""
    y = _pictures(x).copy()
    flipped = rng.random(len(x)) < chance
    y[flipped] = y[flipped, :, :, ::-1]
    return y


def crop_and_flip(x: Array, rng: np.random.Generator) -> Array:
    """What residual networks are trained with on CIFAR-10: shifted by up to 4 pixels, and mirrored."""
    return random_flip(random_shift(x, rng), rng)


def random_resized_crop(x: Array, rng: np.random.Generator, least: float = 0.2, aspect: float = 4 / 3) -> Array:
    """A rectangle out of each picture, stretched to the whole size (between its pixels linearly).

    least : the smallest share of the area      aspect : the largest ratio of its sides, either way
    """
    n, _, height, width = _pictures(x).shape
    area = rng.uniform(least, 1, n)
    ratio = np.exp(rng.uniform(-np.log(aspect), np.log(aspect), n))
    tall = np.minimum(np.sqrt(area / ratio), 1) * height
    broad = np.minimum(np.sqrt(area * ratio), 1) * width
    top, left = rng.uniform(0, height - tall), rng.uniform(0, width - broad)
    return _between(_between(x, 2, top, tall), 3, left, broad)


def color_jitter(x: Array, rng: np.random.Generator, strength: float = 0.4) -> Array:
    """Brightness, contrast and saturation of each picture times numbers from 1 - strength to 1 + strength.

    x : from 0 to 1, and so is what comes back
    """
    shape = (3, len(_pictures(x)), 1, 1, 1)
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, shape).astype(x.dtype)
    y = x * brightness
    mean = y.mean(axis=(1, 2, 3), keepdims=True)
    y = mean + (y - mean) * contrast
    grey = y.mean(axis=1, keepdims=True)
    return np.asarray(np.clip(grey + (y - grey) * saturation, 0, 1))


def random_grey(x: Array, rng: np.random.Generator, chance: float = 0.2) -> Array:
    """Each picture without its colours, or not."""
    grey = (rng.random(len(_pictures(x))) < chance)[:, None, None, None]
    return np.where(grey, x.mean(axis=1, keepdims=True), x)


def simclr_views(x: Array, rng: np.random.Generator) -> Array:
    """What SimCLR does to a picture, without the blur, which pictures this small do not need: cut out, mirrored where
    it has colours (a digit would become another sign), in other colours.

    Chen et al. 2020, arXiv:2002.05709, appendix A
    """
    y = random_resized_crop(x, rng, 0.3)
    if x.shape[1] == 3:
        y = random_grey(color_jitter(random_flip(y, rng), rng), rng)
    else:
        y = color_jitter(y, rng)
    return y


def _pictures(x: Array) -> Array:
    if x.ndim != 4 or x.dtype.kind != "f":
        reject("x", "pictures (N, C, H, W) of a float dtype", f"{x.dtype} of shape {x.shape}")
    return x


def _between(x: Array, axis: int, start: Array, length: Array) -> Array:
    """x along one axis at as many places as it has, evenly from `start` over `length`, for each sample its own."""
    size = x.shape[axis]
    places = start[:, None] + (np.arange(size) + 0.5) * (length / size)[:, None] - 0.5
    places = places.clip(0, size - 1)
    low = np.minimum(places.astype(np.intp), max(0, size - 2))
    shape = [len(x), 1, 1, 1]
    shape[axis] = size
    weight = (places - low).astype(x.dtype).reshape(shape)
    low = low.reshape(shape)
    a = np.take_along_axis(x, low, axis)
    b = np.take_along_axis(x, np.minimum(low + 1, size - 1), axis)
    return np.asarray(a + (b - a) * weight)
