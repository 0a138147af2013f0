"""Where a matrix of derivatives is zero, and what that is called."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from backhand.layers.parameter import Array


@dataclass
class Structure:
    """What a Jacobian looks like.

    kind : "zero", "identity", "diagonal", "block-diagonal", "selection", "triangular" (in blocks: it is causal),
        "sparse" or "dense"
    axes : those along which one index does not see another: y[i] depends on x[i] alone
    causal : those along which an index sees only itself and earlier ones
    zeros : the share of entries that are zero
    blocks : the blocks on the diagonal, (how many, rows, columns)
    """

    kind: str
    axes: tuple[int, ...]
    causal: tuple[int, ...]
    zeros: float
    blocks: Array

    def __str__(self) -> str:
        words = self.kind
        n, rows, columns = self.blocks.shape
        if self.kind == "block-diagonal":
            equal = n > 1 and np.allclose(self.blocks, self.blocks[0], 1e-6, 1e-12)
            which = "one per sample" if self.axes == (0,) else f"one for each index of {_list(self.axes)}"
            words += f": {n} blocks of {rows} x {columns}, {which}{', all equal' if equal else ''}"
        elif self.kind == "selection":
            words += ": every output is a copy of one input"
        if self.causal:
            words += f"; causal along {_list(self.causal)}"
        return f"{words}; {share(self.zeros)} zeros"


def structure_of(
    matrix: Array, out_shape: tuple[int, ...], in_shape: tuple[int, ...], aligned: bool = True
) -> Structure:
    """The structure of a matrix whose rows are the numbers of an array, and its columns those of another one.

    aligned : whether equal axes of the two mean the same, as those of a layer's input and output do

    An entry counts as zero where rounding alone could have made it.
    """
    tiny = 16 * np.finfo(matrix.dtype).eps * np.abs(matrix).max(initial=0.0)
    rows, columns = np.nonzero(~(np.abs(matrix) <= tiny))  # nan is not zero
    zeros = 1 - len(rows) / max(matrix.size, 1)
    common = _common(out_shape, in_shape) if aligned else []
    of_rows, of_columns = np.unravel_index(rows, out_shape), np.unravel_index(columns, in_shape)
    axes = tuple(i for i in common if np.array_equal(of_rows[i], of_columns[i]))
    blocks = _blocks(matrix, out_shape, in_shape, axes)
    causal = tuple(
        i for i in common if i not in axes and (out_shape[i] == in_shape[i]) and (of_rows[i] >= of_columns[i]).all()
    )
    values = matrix[rows, columns]
    alone = len(set(rows.tolist())) == len(rows)  # at most one in each row
    if not len(rows):
        kind, causal = "zero", ()
    elif out_shape == in_shape and alone and np.array_equal(rows, columns):
        kind = "identity" if len(rows) == len(matrix) and np.allclose(values, 1, 1e-6) else "diagonal"
    elif alone and len(rows) == len(matrix) and np.allclose(values, 1, 1e-6):
        kind = "identity" if np.array_equal(rows, columns) else "selection"
    elif axes:
        kind = "block-diagonal"
    elif causal:
        kind = "triangular"
    else:
        kind = "sparse" if zeros > 0.5 else "dense"
    return Structure(kind, axes, causal, zeros, blocks)


def _common(out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> list[int]:
    """The axes that mean the same in both, of more than one index."""
    if len(out_shape) == len(in_shape):
        pairs = list(zip(out_shape, in_shape, strict=True))
        return [i for i, (a, b) in enumerate(pairs) if a == b > 1]
    axes = []
    for i, (a, b) in enumerate(zip(out_shape, in_shape, strict=False)):
        if a != b:
            break
        if a > 1:
            axes.append(i)
    return axes


def _blocks(matrix: Array, out_shape: tuple[int, ...], in_shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """The blocks on the diagonal when the indices along `axes` are put first."""
    n = math.prod(out_shape[i] for i in axes)
    tall = [*axes, *(i for i in range(len(out_shape)) if i not in axes)]
    wide = [len(out_shape) + i for i in (*axes, *(i for i in range(len(in_shape)) if i not in axes))]
    sorted_ = matrix.reshape(*out_shape, *in_shape).transpose(*tall, *wide)
    square = sorted_.reshape(n, math.prod(out_shape) // n, n, math.prod(in_shape) // n)
    each = np.arange(n)
    return square[each, :, each, :]


def share(part: float) -> str:
    """A share in percent that does not say 100 % of something that is not all."""
    digits = 0 if part in (0, 1) or 0.005 <= part < 0.995 else 2
    return f"{min(part, 0.9999) if part < 1 else part:.{digits}%}"


def size_in_words(n_bytes: float) -> str:
    """So many bytes, KiB, MiB, GiB, ..."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if n_bytes < 1024 or unit == "TiB":
            break
        n_bytes /= 1024
    return f"{n_bytes:,.0f} {unit}" if n_bytes == int(n_bytes) else f"{n_bytes:,.1f} {unit}"


def _list(axes: tuple[int, ...]) -> str:
    return f"ax{'i' if len(axes) == 1 else 'e'}s {', '.join(map(str, axes))}"
