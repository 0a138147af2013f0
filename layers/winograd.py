"""Winograd's convolution: 3 x 3 windows, four outputs by four at a time, with a quarter of the multiplications.

Four neighbouring outputs of a filter with three taps, y = (y0 ... y3), are bilinear in the filter g and the six inputs
d that they see. The plain sums take 12 products of the two; but as a convolution multiplies polynomials, 6 products of
their values, at the points 0, 1, -1, 2, -2 and infinity, are enough:

    y = A^T ((G g) * (B^T d))          and in two dimensions          Y = A^T ((G g G^T) * (B^T D B)) A

for a tile Y of 4 x 4 outputs that sees D, 6 x 6 inputs. 36 products take the place of 144. Between several channels
the * becomes a matrix product over the channels, one for each of the 36. The gradients are the adjoints of these maps.
Written over the 36 (or 16, or 9) numbers of a tile in a row, A, B and G are one matrix each (a Kronecker product), and
so the transforms are matrix products as well.

Lavin & Gray 2015, arXiv:1509.09308
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from backhand.layers.memory import empty, zeros
from backhand.layers.padding import Pads, padded_samples
from backhand.layers.parameter import Array
from backhand.layers.threads import in_parts
from backhand.layers.windows import Sizes

_A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).T
_B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
).T
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
A, B, G = (np.kron(m, m).astype(np.float32) for m in (_A, _B, _G))  # (36, 16), (36, 36), (36, 9)

# Tiles of about so many bytes at a time stay in the cache when they are transformed.
TILE_BYTES = 1 << 22
# A part of the batch that is worth a thread of its own, in multiplications and additions.
THREAD_WORK = 5e7


def tiles(outputs: Sizes) -> Sizes:
    """How many tiles of 4 x 4 cover so many outputs."""
    return tuple(-(-size // 4) for size in outputs)


def pays(samples: int, outputs: Sizes, channels: int, filters: int) -> bool:
    """Whether it is faster than columns: an estimate of both times in ns, for products at 190 GFLOP/s."""
    if min(channels, filters) < 16:
        return False
    number, pixels = samples * math.prod(tiles(outputs)), samples * math.prod(outputs)
    products = 2 * number * (36 * channels * filters + 36 * 36 * channels + 36 * 16 * filters) / 190
    moves = 6 * number * (channels + filters) + 36 * channels * filters
    direct = pixels * (18 * channels * (filters + 4) / 190 + channels / 2 + 6)
    return products + moves < direct


def correlate(
    images: Array,
    pads: Pads,
    weight: Array,
    rows: Array | None = None,
    bias: Array | None = None,
    drows: Array | None = None,
) -> Array | None:
    """Write the rows (+ bias), or return dW from drows, or both, as `Correlation.run` does.

    images : (N, H, W, C)      rows, drows : (N, *outputs, F)
    weight : (3, 3, C, F)      dW : (1, 3, 3, C, F); all of float32
    """
    outputs = (drows if rows is None else rows).shape[1:3]  # type: ignore[union-attr]
    high, wide = tiles(outputs)
    *_, channels, filters = weight.shape
    # with enough zeros for whole tiles
    pads = tuple(
        (before, 4 * count + 2 - size - before)
        for (before, _), count, size in zip(pads, (high, wide), images.shape[1:3], strict=True)
    )
    # at least as many rows as the weights have: products have to fetch these each time
    most = max((channels + filters) // 2, TILE_BYTES // (36 * 4 * (channels + filters)))
    spread = None
    if rows is not None:
        spread = empty((36, channels, filters), np.float32)
        np.matmul(G, weight.reshape(9, -1), out=spread.reshape(36, -1))

    def work(part: slice) -> Array | None:
        dspread = None
        for samples, lines, windows in _tiles_of(images[part], pads, (high, wide), most):
            number = math.prod(windows.shape[:3])
            inputs = empty((number, 36, channels), np.float32)
            np.copyto(np.ndarray(windows.shape, windows.dtype, inputs), windows)
            inputs = np.matmul(B.T, inputs, out=empty(inputs.shape, np.float32))
            place = samples, slice(lines.start * 4, lines.stop * 4)
            if rows is not None and spread is not None:
                found = empty((number, 36, filters), np.float32)
                np.matmul(inputs.swapaxes(0, 1), spread, out=found.swapaxes(0, 1))
                found = np.matmul(A.T, found, out=empty((number, 16, filters), np.float32))
                _assemble(found.reshape(*windows.shape[:3], 4, 4, filters), rows[part][place], bias)
            if drows is not None:
                given = _disassemble(drows[part][place], windows.shape[1], wide).reshape(number, 16, filters)
                given = np.matmul(A, given, out=empty((number, 36, filters), np.float32))
                product = empty((36, channels, filters), np.float32)
                np.matmul(inputs.transpose(1, 2, 0), given.swapaxes(0, 1), out=product)
                if dspread is None:
                    dspread = product
                else:
                    dspread += product
        return dspread

    operations = 72 * channels * filters * high * wide
    first, *others = in_parts(work, len(images), math.ceil(THREAD_WORK / operations))
    if first is None:
        return None
    for other in others:
        first += other
    return (G.T @ first.reshape(36, -1)).reshape(1, 3, 3, channels, filters)


def _tiles_of(images: Array, pads: Pads, counts: Sizes, most: int) -> Iterator[tuple[slice, slice, Array]]:
    """(samples, lines of tiles, a view of their (samples, lines, columns of tiles, 6) runs of 6 C numbers)."""
    high, wide = counts
    lines = min(high, max(1, most // wide))
    samples = min(len(images), max(1, most // (high * wide)))
    for first, padded in padded_samples(images, pads, samples):
        batch, _, down, across, _ = padded.strides
        run = np.dtype((np.void, 6 * images.shape[-1] * images.itemsize))
        windows = np.ndarray((len(padded), high, wide, 6), run, padded, 0, (batch, 4 * down, 4 * across, down))
        for start in range(0, high, lines):
            stop = min(start + lines, high)
            yield slice(first, first + len(padded)), slice(start, stop), windows[:, start:stop]


def _assemble(found: Array, rows: Array, bias: Array | None) -> None:
    """Write tiles (N, lines, columns, 4, 4, F) to their places in rows (N, H, W, F), of which they may hang over."""
    n, high, wide, _, _, filters = found.shape
    exact = rows.shape[1:3] == (4 * high, 4 * wide)
    whole = rows if exact else empty((n, 4 * high, 4 * wide, filters), np.float32)
    # splitting axes is a view, whatever the strides are
    target = whole.reshape(n, high, 4, wide, 4, filters).swapaxes(2, 3)
    if bias is None:
        target[...] = found
    else:
        np.add(found, bias, out=target)
    if not exact:
        rows[...] = whole[:, : rows.shape[1], : rows.shape[2]]


def _disassemble(drows: Array, high: int, wide: int) -> Array:
    """The tiles (N, high, wide, 4, 4, F) of (N, H, W, F), with zeros where they hang over."""
    n, *sizes, filters = drows.shape
    if sizes != [4 * high, 4 * wide] or drows.strides[-1] != 4:
        whole = zeros((n, 4 * high, 4 * wide, filters), np.float32)
        whole[:, : sizes[0], : sizes[1]] = drows
        drows = whole
    given = empty((n, high, wide, 4, 4, filters), np.float32)
    given[...] = drows.reshape(n, high, 4, wide, 4, filters).swapaxes(2, 3)
    return given
