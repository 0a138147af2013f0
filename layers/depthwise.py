"""Depthwise convolution: every channel has a kernel of its own, so there is no matrix product in it.

    y[o] = sum over k of w[k] * x[o s + k d - p]        dx[o s + k d - p] += w[k] * dout[o]
    dw[k] = sum over o of dout[o] * x[o s + k d - p]

with vectors over the channels and products number by number. That is one multiplication and one addition of whole
images for each element of the kernel. Images lie channels-last here, so that an image moved by an element of the kernel
is still made of long runs in memory; the weights are repeated along a line of the output to meet them. Some lines are
finished before the next ones are begun, while they are in the cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backhand.layers.blocks import BLOCK, WORTH, scratch
from backhand.layers.memory import empty
from backhand.layers.padding import Pads, pad, unpad
from backhand.layers.parameter import Array
from backhand.layers.threads import in_parts
from backhand.layers.windows import Index, Sizes, Windows


class Depthwise(NamedTuple):
    """The convolution of images (N, *sizes, C), in any memory order, to (N, *outputs, C * m).

    weight : (K, C * m), for all elements of the kernel in order      pads, mode : of the image's spatial axes
    """

    weight: Array
    windows: Windows
    outputs: Sizes
    pads: Pads
    mode: str

    def forward(self, images: Array, bias: Array | None) -> Array:
        """y, channels-last in memory too."""
        y = empty((len(images), *self.outputs, self.weight.shape[1]), images.dtype)
        bands, weight = self._bands(), self._repeated(self.weight)
        shift = None if bias is None else self._repeated(bias[None])[0]

        def part(samples: slice) -> None:
            products = scratch(1, y[0, bands[0][0]].shape, y.dtype)
            for x, to in zip(self._padded(images[samples]), y[samples], strict=True):
                for rows, positions in bands:
                    band = to[rows]
                    width = band.shape[-2]
                    np.multiply(x[positions[0]], weight[0, :width], out=band)
                    product = products[: len(band)]
                    for position, w in zip(positions[1:], weight[1:], strict=True):
                        band += np.multiply(x[position], w[:width], out=product)
                    if shift is not None:
                        band += shift[:width]

        in_parts(part, len(y), self._fewest())
        return y

    def backward(self, images: Array, dout: Array, with_dx: bool = True) -> tuple[Array, Array | None]:
        """dweight, and dx of the shape of the images; None where nobody wants it."""
        dx = empty(images.shape, images.dtype) if with_dx else None
        bands, weight = self._bands(), self._repeated(self.weight)

        def part(samples: slice) -> list[Array]:
            dweights = []
            upstream = scratch(2, dout.shape[1:], dout.dtype)
            products = scratch(1, upstream[bands[0][0]].shape, dout.dtype)
            dpadded = None
            for n, x in zip(range(samples.start, samples.stop), self._padded(images[samples]), strict=True):
                _copy(dout[n], upstream[..., None])
                # the sums of the first axes; that along a line comes at the end
                sums = np.zeros((len(weight), math.prod(upstream.shape[1:][-2:])), x.dtype)
                if dx is not None:
                    dpadded = scratch(3, x.shape, x.dtype) if dpadded is None else dpadded
                    dpadded.fill(0)
                for rows, positions in bands:
                    band = upstream[rows]
                    product = products[: len(band)]
                    lines = product.reshape(-1, sums.shape[1])
                    ones = np.ones(len(lines), x.dtype)
                    for position, w, total in zip(positions, weight, sums, strict=True):
                        np.multiply(x[position], band, out=product)
                        total += ones @ lines
                        if dpadded is not None:
                            dpadded[position] += np.multiply(band, w[: band.shape[-2]], out=product)
                dweights.append(sums.reshape(len(weight), -1, band.shape[-1]).sum(axis=1))
                if dx is not None and dpadded is not None:
                    inside = unpad(dpadded, (*self.pads, (0, 0)), self.mode)
                    _add_copies(inside, dx[n])
            return dweights

        dweights = [each for several in in_parts(part, len(dout), self._fewest()) for each in several]
        return np.sum(dweights, axis=0), dx

    def _padded(self, images: Array) -> Iterator[Array]:
        """Sample by sample with its border, channels-last in memory, each channel as often as it has kernels."""
        *sizes, channels = images.shape[1:]
        pads = (*self.pads, (0, 0))
        shape = (*sizes, self.weight.shape[1])
        if self.mode == "zeros":
            padded = scratch(0, tuple(n + sum(both) for n, both in zip(shape, pads, strict=True)), images.dtype)
            padded.fill(0)
            inside = unpad(padded, pads)
        else:
            inside = empty(shape, images.dtype)
        for image in images:
            _copy(image, inside.reshape(*sizes, channels, -1))
            yield padded if self.mode == "zeros" else pad(inside, pads, self.mode)

    def _bands(self) -> list[tuple[slice, list[Index]]]:
        """The output in bands along its first axis: the rows, and where each element of the kernel finds its x."""
        line = math.prod(self.outputs[1:]) * self.weight.shape[1]
        w, bands = self.windows, []
        for rows in _pieces(self.outputs[0], max(1, BLOCK // line)):
            starts = (rows.start, *(0 for _ in self.outputs[1:]))
            counts = (rows.stop - rows.start, *self.outputs[1:])
            places = [
                [slice(o * s + k * d, (o + n - 1) * s + k * d + 1, s) for k in range(kernel)]
                for o, n, kernel, s, d in zip(starts, counts, w.kernel, w.stride, w.dilation, strict=True)
            ]
            bands.append((rows, list(itertools.product(*places))))
        return bands

    def _repeated(self, vectors: Array) -> Array:
        """Each vector over the channels, repeated along a line of the output: (number, line, C * m)."""
        n, channels = vectors.shape
        return np.repeat(vectors, self.outputs[-1], axis=0).reshape(n, self.outputs[-1], channels)

    def _fewest(self) -> int:
        """How many samples are worth a thread."""
        return max(1, WORTH * BLOCK // (math.prod(self.outputs) * self.weight.size))


def _copy(image: Array, to: Array) -> None:
    """Write each channel to all its copies on the last axis of `to`.

    A few channels at a time: of a channels-first image, more would be too many places in memory for the cache.
    """
    for group in _pieces(image.shape[-1], 16 if image.strides[-1] > image.itemsize else image.shape[-1]):
        to[..., group, :] = image[..., group, None]


def _pieces(length: int, step: int) -> list[slice]:
    """Slices of so many, at most, that cover range(length)."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _add_copies(dcopies: Array, dx: Array) -> None:
    """The adjoint of repeating each channel."""
    if dcopies.shape == dx.shape:
        dx[...] = dcopies
    else:
        np.sum(dcopies.reshape(*dx.shape, -1), axis=-1, out=dx)
