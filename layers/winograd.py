"""Winograd's convolution: many fewer multiplications for 3 x 3 and 5 x 5 windows with stride 1.

Tiles of m x m outputs see (m + r - 1) x (m + r - 1) inputs through windows of r x r; here that is always 6 x 6, so m is
4 for r = 3, and 2 for r = 5. In one dimension a convolution multiplies polynomials, and a product of polynomials is
known by its values at as many points as it has coefficients: at 6 points, 6 products take the place of the m r plain
ones. G gives the values of the filter's polynomial there; and as a correlation is the transposed of a convolution, A^T
and B^T stand where the transposed of evaluating and of interpolating does:

    y = A^T ((G g) * (B^T d))          and in two dimensions          Y = A^T ((G g G^T) * (B^T D B)) A

Instead of 144 (m = 4) or 100 (m = 2) products there are 36. Between several channels the * becomes a matrix product
over the channels, one for each of the 36; and the gradients are the adjoints of these maps. Written over the numbers
of a tile in one row, A, B and G are one matrix each (a Kronecker product), so the transforms are products as well.

Lavin & Gray 2015, arXiv:1509.09308
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from backhand.layers.memory import empty, zeros
from backhand.layers.padding import Pads, padded_samples
from backhand.layers.parameter import Array
from backhand.layers.threads import in_parts
from backhand.layers.windows import Sizes, copy_runs

# With infinity, which reads the highest coefficient. As products, the transforms cost the same for any points, and
# these round off least: half as much as 0, 1, -1, 2, -2, the usual ones.
POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))


@functools.cache
def transforms(r: int) -> tuple[Array, Array, Array]:
    """A (36, m m), B (36, 36) and G (36, r r) for windows of r x r."""
    m = 7 - r
    a, g, b = np.zeros((6, m)), np.zeros((6, r)), np.zeros((6, 6))
    a[5, -1] = g[5, -1] = 1
    b[:, 5] = np.poly(POINTS)[::-1]
    for i, point in enumerate(POINTS):
        others = np.poly([other for other in POINTS if other != point])[::-1]  # the polynomial with these zeros
        a[i] = [point**k for k in range(m)]
        g[i] = [point**k for k in range(r)] / np.polyval(others[::-1], point)
        b[:5, i] = others
    first, second, third = (np.kron(matrix, matrix).astype(np.float32) for matrix in (a, b, g))
    return first, second, third


# Tiles of about so many bytes at a time stay in the cache when they are transformed.
TILE_BYTES = 1 << 21
# A part of the batch that is worth a thread of its own, in multiplications and additions; and into how many parts it is
# cut at the most.
THREAD_WORK = 5e7
GROUPS = 4


def pays(r: int, samples: int, outputs: Sizes, channels: int, filters: int) -> bool:
    """Whether it is faster than columns: an estimate of both times in ns, for products at 190 GFLOP/s."""
    if min(channels, filters) < 16:
        return False
    m = 7 - r
    number, pixels = samples * math.prod(-(-size // m) for size in outputs), samples * math.prod(outputs)
    products = 2 * number * (36 * channels * filters + 36 * 36 * channels + 36 * m * m * filters) / 190
    moves = 6 * number * (channels + filters) + 36 * channels * filters
    direct = pixels * (2 * r * r * channels * (filters + 4) / 190 + r * r / 16 * channels + 2 * r)
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
    weight : (r, r, C, F)      dW : (1, r, r, C, F); all of float32
    """
    r, _, channels, filters = weight.shape
    m = 7 - r
    a, b, g = transforms(r)
    outputs = (drows if rows is None else rows).shape[1:3]  # type: ignore[union-attr]
    high, wide = (-(-size // m) for size in outputs)
    # with enough zeros for whole tiles
    pads = tuple(
        (before, m * count + r - 1 - size - before)
        for (before, _), count, size in zip(pads, (high, wide), images.shape[1:3], strict=True)
    )
    # and no fewer tiles at a time than the weights have rows: a product has to fetch these, and dW is added, each time
    most = max((channels + filters) // (2 if drows is None else 1), TILE_BYTES // (36 * 4 * (channels + filters)))
    spread = None
    if rows is not None:
        spread = empty((36, channels, filters), np.float32)
        np.matmul(g, weight.reshape(r * r, -1), out=spread.reshape(36, -1))

    def work(groups: slice) -> list[Array]:
        sums: list[Array] = []
        for group in range(groups.start, groups.stop):
            for each in group_of(edges[group : group + 2]):
                if groups.start == 0 and sums:  # the first ones can be added at once, in the order of them all
                    sums[0] += each
                else:
                    sums.append(each)
        return sums

    def group_of(edge: list[int]) -> list[Array]:
        part = slice(*edge)
        dspread = None
        for (samples, lines), windows in _tiles(images[part], pads, (high, wide), m, most):
            number = math.prod(windows.shape[:3])
            inputs = empty((number, 36, channels), np.float32)
            copy_runs(windows, inputs)
            inputs = np.matmul(b.T, inputs, out=empty(inputs.shape, np.float32))
            place = samples, slice(lines.start * m, lines.stop * m)
            if rows is not None and spread is not None:
                found = empty((number, 36, filters), np.float32)
                np.matmul(inputs.swapaxes(0, 1), spread, out=found.swapaxes(0, 1))
                found = np.matmul(a.T, found, out=empty((number, m * m, filters), np.float32))
                _assemble(found.reshape(*windows.shape[:3], m, m, filters), rows[part][place], bias)
            if drows is not None:
                given = _disassemble(drows[part][place], windows.shape[1], wide, m)
                given = np.matmul(a, given, out=empty((number, 36, filters), np.float32))
                product = empty((36, channels, filters), np.float32)
                np.matmul(inputs.transpose(1, 2, 0), given.swapaxes(0, 1), out=product)
                if dspread is None:
                    dspread = product
                else:
                    dspread += product
        return [] if dspread is None else [dspread]

    # dW is added up in the same order whatever the threads are: group by group, then the groups
    work_of_all = 72 * channels * filters * high * wide * len(images)
    count = max(1, min(GROUPS, len(images), int(work_of_all / THREAD_WORK)))
    edges = [len(images) * i // count for i in range(count + 1)]
    sums = [each for part in in_parts(work, count) for each in part]
    if not sums:
        return None
    for other in sums[1:]:
        sums[0] += other
    return (g.T @ sums[0].reshape(36, -1)).reshape(1, r, r, channels, filters)


def _tiles(images: Array, pads: Pads, counts: Sizes, m: int, most: int) -> Iterator[tuple[tuple[slice, slice], Array]]:
    """((samples, lines of tiles), a view of what they see: (samples, lines, tiles in a line, 6, 6 C))."""
    high, wide = counts
    lines = min(high, max(1, most // wide))
    samples = min(len(images), max(1, most // (high * wide)))
    for first, padded in padded_samples(images, pads, samples):
        n, _, _, _, channels = padded.shape
        batch, _, down, across, _ = padded.strides
        strides = (batch, m * down, m * across, down, padded.itemsize)
        windows = np.ndarray((n, high, wide, 6, 6 * channels), padded.dtype, padded, 0, strides)
        for start in range(0, high, lines):
            stop = min(start + lines, high)
            yield (slice(first, first + n), slice(start, stop)), windows[:, start:stop]


def _assemble(found: Array, rows: Array, bias: Array | None) -> None:
    """Write tiles (N, high, wide, m, m, F) to their places in rows (N, H, W, F), of which they may hang over."""
    n, high, wide, m, _, filters = found.shape
    exact = rows.shape[1:3] == (m * high, m * wide)
    whole = rows if exact else empty((n, m * high, m * wide, filters), np.float32)
    # splitting axes is a view, whatever the strides are
    target = whole.reshape(n, high, m, wide, m, filters).swapaxes(2, 3)
    if bias is None:
        target[...] = found
    else:
        np.add(found, bias, out=target)
    if not exact:
        rows[...] = whole[:, : rows.shape[1], : rows.shape[2]]


def _disassemble(drows: Array, high: int, wide: int, m: int) -> Array:
    """The tiles (N * high * wide, m m, F) of (N, H, W, F), with zeros where they hang over."""
    n, *sizes, filters = drows.shape
    if sizes != [m * high, m * wide]:
        whole = zeros((n, m * high, m * wide, filters), np.float32)
        whole[:, : sizes[0], : sizes[1]] = drows
        drows = whole
    given = empty((n, high, wide, m, m, filters), np.float32)
    given[...] = drows.reshape(n, high, m, wide, m, filters).swapaxes(2, 3)
    return given.reshape(-1, m * m, filters)
