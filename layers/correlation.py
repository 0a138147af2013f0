"""Sums over windows as matrix products: what every convolution, its gradients and its transpose are made of.

Inside, images are channels-last, (N, *spatial, C) in memory. Then the part of a window that lies in one line of the
image is one contiguous run, and the windows, copied side by side as the rows of a matrix ("columns", from im2col), meet
the weights in one product. That is done for a few lines or samples at a time, so that the columns stay in the cache.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backhand.layers import winograd
from backhand.layers.memory import empty
from backhand.layers.padding import Pads, padded_samples, unpad
from backhand.layers.parameter import Array
from backhand.layers.threads import in_parts
from backhand.layers.windows import Sizes, Windows, copy_runs

# Columns are made for so many bytes at a time, which stay in a core's cache, ...
CHUNK_BYTES = 1 << 19
# ... but for no fewer rows: the product also has to fetch the weights each time.
CHUNK_ROWS = 512
# A part of the batch that is worth a thread of its own, in operations: about half a millisecond.
THREAD_WORK = 5e7

# The windows that Winograd's convolution takes.
_SQUARES = [Windows((k, k), (1, 1), (1, 1)) for k in (3, 5)]


@dataclass(frozen=True)
class Correlation:
    """Windows over padded images, each multiplied by the same weights.

        rows[o] = sum over k of images[o s + k d - p] W[k]                    that is    rows = columns(images) W
        dW[k] = sum over o of images[o s + k d - p]^T drows[o]                           dW = columns(images)^T drows

    images : (N, *spatial, C)      rows : (N, *outputs, F)      W : (groups, *kernel, C / groups, F / groups)
    pads : (before, after) for each spatial axis; a negative amount crops
    """

    windows: Windows
    pads: Pads
    outputs: Sizes
    mode: str = "zeros"

    def run(
        self,
        images: Array,
        weight: Array,
        rows: Array | None = None,
        bias: Array | None = None,
        drows: Array | None = None,
    ) -> Array | None:
        """Write the rows (+ bias), or return dW from drows; both at once for one set of columns.

        rows : contiguous
        """
        if self._suits_winograd(images, weight):
            return winograd.correlate(images, self.pads, weight[0], rows, bias, drows)
        groups, channels, filters = len(weight), images.shape[-1], weight.shape[0] * weight.shape[-1]
        band = 1
        if groups == 1:
            stretch = (self.windows.kernel[-1], self.windows.stride[-1], self.windows.dilation[-1])
            band = best_band(channels, filters, self.outputs[-1], *stretch)
        wide = self._widened(band)
        along = band if len(self.outputs) == 1 else 1  # of a sequence, lines are outputs
        shape = (groups, -1, band * filters // groups)
        matrix = None if rows is None else _banded(weight, band, self.windows.stride[-1]).reshape(shape)
        # added to whole lines where it can be, for longer loops
        tiled = None if bias is None else np.tile(bias, self.outputs[-1] if len(self.outputs) > 1 else 1)

        def work(part: slice) -> Array | None:
            dmatrix = None
            for (samples, lines), columns in wide._blocks(images[part], groups):
                place = samples, slice(lines.start * along, lines.stop * along)
                number = columns.shape[1]
                if rows is not None and matrix is not None:
                    block = rows[part][place]  # contiguous: whole samples, or lines of one
                    np.matmul(columns, matrix, out=block.reshape(number, groups, -1).swapaxes(0, 1))
                    if tiled is not None:
                        block = block.reshape(-1, len(tiled))
                        block += tiled
                if drows is not None:
                    block = np.ascontiguousarray(drows[part][place]).reshape(number, groups, -1).swapaxes(0, 1)
                    found = empty((groups, columns.shape[2], shape[2]), images.dtype)
                    np.matmul(columns.swapaxes(1, 2), block, out=found)
                    if dmatrix is None:
                        dmatrix = found
                    else:
                        dmatrix += found
            return dmatrix

        operations = 2 * math.prod(self.outputs) * weight.size
        first, *others = in_parts(work, len(images), math.ceil(THREAD_WORK / operations))
        if first is None:
            return None
        for other in others:
            first += other
        return _unbanded(first, weight.shape, band, self.windows.stride[-1])

    def spread(self, rows: Array, weight: Array, images: Array) -> None:
        """The adjoint: images[o s + k d - p] += rows[o] W[k]^T, written to images.

        dcolumns = rows W^T        and images is dcolumns put back to where the columns are taken from
        """
        groups, channels, filters = len(weight), images.shape[-1], weight.shape[0] * weight.shape[-1]
        band = 1
        if groups == 1:
            stretch = (self.windows.kernel[-1], self.windows.stride[-1], self.windows.dilation[-1])
            band = best_band(channels, filters, self.outputs[-1], *stretch, True)
        wide = self._widened(band)
        along = band if len(self.outputs) == 1 else 1
        shape = (groups, -1, band * filters // groups)
        matrix = _banded(weight, band, self.windows.stride[-1]).reshape(shape).swapaxes(1, 2)
        pads: Pads = ((0, 0), *self.pads, (0, 0))
        sizes = [size + before + after for size, (before, after) in zip(images.shape, pads, strict=True)][1:-1]
        samples, lines = wide._block(matrix.shape[2] * groups, images.itemsize, len(images))

        def work(part: slice) -> None:
            dpadded = empty((samples, groups, *sizes, channels // groups), images.dtype)
            for first in range(part.start, part.stop, samples):
                some = slice(first, min(first + samples, part.stop))
                dpadded.fill(0)
                windows = wide._runs(dpadded[: some.stop - some.start])
                *elements, run = windows.shape[2 + len(self.outputs) :]
                # so many windows of a line overlap
                turns = -(-run * groups // channels // wide.windows.stride[-1])
                for start in range(0, wide.outputs[0], lines):
                    block = np.ascontiguousarray(rows[some, start * along : (start + lines) * along])
                    block = block.reshape(-1, groups, shape[2]).swapaxes(0, 1)
                    target = windows[:, :, start : start + lines]
                    dcolumns = empty(target.shape, images.dtype)
                    np.matmul(block, matrix, out=dcolumns.reshape(*block.shape[:2], -1))
                    for element in np.ndindex(*elements):
                        for turn in range(turns):
                            at = (*(slice(None),) * (1 + len(self.outputs)), slice(turn, None, turns), *element)
                            target[at] += dcolumns[at]
                summed = np.moveaxis(dpadded[: some.stop - some.start], 1, -2).reshape(-1, *sizes, channels)
                images[some] = unpad(summed, pads, self.mode)

        operations = 2 * math.prod(self.outputs) * weight.size
        in_parts(work, len(images), math.ceil(THREAD_WORK / operations))

    def _suits_winograd(self, images: Array, weight: Array) -> bool:
        return (
            self.windows in _SQUARES
            and images.dtype == np.float32
            and len(weight) == 1
            and self.mode == "zeros"
            and winograd.pays(self.windows.kernel[0], len(images), self.outputs, *weight.shape[-2:])
        )

    def _widened(self, band: int) -> Correlation:
        """The same with a window for `band` neighbouring outputs at a time, which are then neighbours in one row."""
        if band == 1:
            return self
        *kernel, k = self.windows.kernel
        *stride, s = self.windows.stride
        windows = Windows((*kernel, k + (band - 1) * s), (*stride, s * band), (*self.windows.dilation[:-1], 1))
        return Correlation(windows, self.pads, (*self.outputs[:-1], self.outputs[-1] // band), self.mode)

    def _blocks(self, images: Array, groups: int) -> Iterator[tuple[tuple[slice, slice], Array]]:
        """(samples and lines of the outputs, the columns for them), until all outputs have had theirs.

        columns : (groups, samples * lines * ..., kernel * C / groups), in memory that the next block uses again
        """
        length = images.shape[-1] * math.prod(self.windows.kernel)
        line = math.prod(self.outputs[1:])
        samples, lines = self._block(length, images.itemsize, len(images))
        memory = None
        for first, padded in padded_samples(images, self.pads, samples, self.mode, groups):
            windows = self._runs(padded)
            for start in range(0, self.outputs[0], lines):
                block = windows[:, :, start : start + lines]
                shape = (groups, math.prod(block.shape[1 : 2 + len(self.outputs)]), length // groups)
                if block.flags.c_contiguous:  # a kernel of one element: the image is its own columns
                    columns = block.reshape(shape)
                else:
                    if memory is None:
                        memory = empty((groups * samples * lines * line * length // groups,), images.dtype)
                    columns = memory[: math.prod(shape)].reshape(shape)
                    copy_runs(block, columns)
                yield (slice(first, first + len(padded)), slice(start, start + lines)), columns

    def _block(self, length: int, itemsize: int, batch: int) -> tuple[int, int]:
        """How many samples, and how many lines of outputs of each, have their columns made at a time."""
        most = max(CHUNK_ROWS, CHUNK_BYTES // (length * itemsize))  # rows
        line = math.prod(self.outputs[1:])
        return min(batch, max(1, most // (line * self.outputs[0]))), min(self.outputs[0], max(1, most // line))

    def _runs(self, padded: Array) -> Array:
        """A view of all windows as contiguous runs: (groups, N, *outputs, *what is left of the kernel, run)."""
        kernel, inner = self.windows.kernel, self.windows.dilation
        batch, group, *axes, _ = padded.strides
        run = padded.shape[-1]
        if inner[-1] == 1 or kernel[-1] == 1:
            run *= kernel[-1]
            kernel, inner = kernel[:-1], inner[:-1]
        outer = [step * s for step, s in zip(axes, self.windows.stride, strict=True)]
        within = [step * d for step, d in zip(axes, inner, strict=False)]
        shape = (padded.shape[1], len(padded), *self.outputs, *kernel, run)
        return np.ndarray(shape, padded.dtype, padded, 0, (group, batch, *outer, *within, padded.itemsize))


# ------------------------------------------------------------------ bands


@functools.lru_cache(maxsize=1024)
def best_band(
    channels: int, filters: int, outputs: int, kernel: int, stride: int, dilation: int, spread: bool = False
) -> int:
    """How many neighbouring outputs one row of columns should serve.

    With few channels the runs are too short to be copied fast, and with few filters the product is too narrow to fill
    the vector units. A row for several neighbouring outputs has longer runs and gives more numbers, and is multiplied
    by a banded matrix, where the zeros are wasted work. The least estimated time for each output wins, in ns:
    """
    if dilation > 1 and kernel > 1:
        return 1

    def time(band: int) -> float:
        run = channels * (kernel + (band - 1) * stride)
        if spread:
            return (8 + run / 4) / band + 2 * run * filters / 200  # adding, and the product
        copy = 2 + 4 * run / 70  # a call of memcpy, then 70 GB/s
        product = 2 * run * 16 * -(-band * filters // 16) / 200  # 200 GFLOP/s, for 16 filters at a time
        return (copy + product) / band

    return min((band for band in range(1, min(outputs, 32) + 1) if outputs % band == 0), key=time)


def _banded(weight: Array, band: int, stride: int) -> Array:
    """(groups, *kernel, C, F) to (groups, *wider kernel, C, band, F): the filters of output j stand j strides on."""
    if band == 1:
        return weight
    *outer, kernel, channels, filters = weight.shape
    wide = np.zeros((*outer, kernel + (band - 1) * stride, channels, band, filters), weight.dtype)
    for j in range(band):
        wide[..., j * stride : j * stride + kernel, :, j, :] = weight
    return wide


def _unbanded(dmatrix: Array, shape: Sizes, band: int, stride: int) -> Array:
    """The adjoint of `_banded`."""
    *outer, kernel, channels, filters = shape
    wide = dmatrix.reshape(*outer, kernel + (band - 1) * stride, channels, band, filters)
    dweight = wide[..., :kernel, :, 0, :]
    for j in range(1, band):
        dweight = dweight + wide[..., j * stride : j * stride + kernel, :, j, :]
    return dweight
