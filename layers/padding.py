"""Padding: every position of the padded array copies one position of the array, or is a constant.

What was copied, adds: the adjoint of a copy is a sum, so where the border repeats x, its gradient goes back to the
place that was repeated. This serves convolutions of any dimension, and whatever else pads.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backhand.layers.base import Layer
from backhand.layers.memory import zeros
from backhand.layers.parameter import Array

MODES = ("zeros", "reflect", "replicate", "circular")
Pads = tuple[tuple[int, int], ...]  # (before, after) for each axis; a negative amount crops


def check_pads(layer: Layer, shape: tuple[int, ...], pads: Pads, mode: str) -> None:
    """Raise the layer's error where x of `shape` is too small to be padded by so much, or nothing would remain.

    pads : for the last axes of the shape
    """
    sizes = shape[len(shape) - len(pads) :]
    for size, (before, after) in zip(sizes, pads, strict=True):
        most = max(before, after)
        if mode == "reflect" and most >= size:
            layer.reject(f"x larger than its reflected padding of {most} on every padded axis", f"shape {shape}")
        if mode == "circular" and most > size + min(before, after, 0):
            layer.reject(
                f"x at least as large as its circular padding of {most} on every padded axis", f"shape {shape}"
            )
        if size + before + after < 1:
            layer.reject(f"x that is not cropped away by a padding of {(before, after)}", f"shape {shape}")


def pad(x: Array, pads: Pads, mode: str = "zeros", value: float = 0.0) -> Array:
    """A padded copy of x (x itself where all amounts are zero).

    pads : (before, after) for every axis of x
    mode : "zeros" fills with `value`; "reflect" mirrors without repeating the edge, "replicate" repeats the edge,
        "circular" goes on at the other end
    """
    if not any(before or after for before, after in pads):
        return x
    if mode == "zeros":
        shape = tuple(size + before + after for size, (before, after) in zip(x.shape, pads, strict=True))
        y = np.full_like(x, value, shape=shape) if value else np.zeros_like(x, shape=shape)
        y[inside(x.shape, pads, padded=True)] = x[inside(x.shape, pads)]
        return y
    for axis, (before, after) in enumerate(pads):
        if before or after:
            x = x.take(_sources(x.shape[axis], before, after, mode), axis)
    return x


def padded_samples(
    images: Array, pads: Pads, samples: int, mode: str = "zeros", groups: int = 1
) -> Iterator[tuple[int, Array]]:
    """A channels-last batch, some samples at a time: (number of the first, (samples, groups, *sizes, C / groups)).

    pads : for the spatial axes. What comes is contiguous, and its memory is used again for the next samples.
    """
    if groups == 1 and images.flags.c_contiguous and not any(map(any, pads)):
        for first in range(0, len(images), samples):
            yield first, images[first : first + samples, None]
        return
    pads = ((0, 0), *pads, (0, 0))
    shape = [size + before + after for size, (before, after) in zip(images.shape, pads, strict=True)]
    # where there is a border of zeros, it is not written again
    padded = zeros((samples, groups, *shape[1:-1], shape[-1] // groups), images.dtype)
    of = slice(None), *inside(images.shape, pads)[1:]
    to = slice(None), *inside(images.shape, pads, padded=True)[1:-1]
    for first in range(0, len(images), samples):
        some = images[first : first + samples]
        target = np.moveaxis(padded[: len(some)], 1, -2)
        if mode == "zeros":
            some, target = some[of], target[to]
        else:
            some = pad(some, pads, mode)
        _copy(some.reshape(*some.shape[:-1], *target.shape[-2:]), target)
        yield first, padded[: len(some)]


def _copy(images: Array, target: Array) -> None:
    """NumPy's innermost loop runs along the last axis of the target; over a few channels that would be very short."""
    if images.strides[-1] == images.itemsize or images.shape[-1] > 16:
        target[...] = images
    else:
        for channel in range(images.shape[-1]):
            target[..., channel] = images[..., channel]


def unpad(dy: Array, pads: Pads, mode: str = "zeros") -> Array:
    """The adjoint of `pad`: dx from the gradient by the padded array. It may be a view of dy."""
    shape = tuple(size - before - after for size, (before, after) in zip(dy.shape, pads, strict=True))
    if mode == "zeros" and all(before >= 0 and after >= 0 for before, after in pads):
        return dy[inside(shape, pads, padded=True)]
    if mode == "zeros":
        dx = np.zeros_like(dy, shape=shape)
        dx[inside(shape, pads)] = dy[inside(shape, pads, padded=True)]
        return dx
    for axis, (before, after) in reversed(list(enumerate(pads))):
        if before or after:
            dy = _fold(dy, axis, before, after, mode)
    return dy


def _fold(dy: Array, axis: int, before: int, after: int, mode: str) -> Array:
    """One axis of `unpad`: the part inside is copied, then every line of the border adds to the line it repeated."""
    size = dy.shape[axis] - before - after
    one = tuple((before, after) if i == axis else (0, 0) for i in range(dy.ndim))
    shape = (*dy.shape[:axis], size, *dy.shape[axis + 1 :])
    dx = np.zeros_like(dy, shape=shape)
    dx[inside(shape, one)] = dy[inside(shape, one, padded=True)]
    to, of = np.moveaxis(dx, axis, 0), np.moveaxis(dy, axis, 0)
    sources = _sources(size, before, after, mode)
    for line in (*range(max(before, 0)), *range(len(sources) - max(after, 0), len(sources))):
        to[sources[line]] += of[line]
    return dx


def _sources(size: int, before: int, after: int, mode: str) -> Array:
    """For every position along a padded axis, the position that it copies."""
    at = np.arange(-before, size + after)
    if mode == "reflect":
        return size - 1 - abs(size - 1 - abs(at))
    if mode == "replicate":
        return at.clip(0, size - 1)
    first, end = max(0, -before), min(size, size + after)
    return first + (at - first) % (end - first)  # round what is not cropped


def inside(shape: tuple[int, ...], pads: Pads, padded: bool = False) -> tuple[slice, ...]:
    """Where the part of x that is neither border nor cropped stands: in x, or in the padded array."""
    return tuple(
        slice(max(0, -before) + before * padded, min(size, size + after) + before * padded)
        for size, (before, after) in zip(shape, pads, strict=True)
    )
