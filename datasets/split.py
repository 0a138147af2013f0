"""Parts of a data set that share no sample."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from backhand.datasets.base import Array, Data, count, reject


def stratified(y: ArrayLike, sizes: Sequence[int], rng: np.random.Generator | int | None = 0) -> list[Array]:
    """Indices of disjoint parts, each with the classes in the proportions of the whole.

        key_i = (rank_i + u_i) / n_c        u_i ~ U(0, 1)

    n_c is the size of i's class c and rank_i is i's place in a random order of it. Sorted by their keys, the first
    m of N samples hold m n_c / N of class c, give or take less than one for every class: so cutting this sequence
    gives parts of exactly the sizes asked for, and the start of a part is as balanced as the part.

    y : (N,)      sizes : of the parts, with a sum of at most N
    rng : a Generator, a seed, or None for a split that is different every time
    """
    y = np.asarray(y)
    if y.ndim != 1 or y.size == 0:
        reject("y", "labels of shape (N,), at least one", f"shape {y.shape}")
    sizes = [count("sizes", size, 0) for size in sizes]
    if sum(sizes) > y.size:
        reject("sizes", f"parts of {y.size} samples in all at the most", f"{sizes} (that is {sum(sizes)})")
    generator = np.random.default_rng(rng)
    key = np.empty(y.size)
    for c in np.unique(y):
        members = np.flatnonzero(y == c)
        # Only random() and sorting: NumPy may change the stream of permutation() from one version to the next.
        shuffled = members[np.argsort(generator.random(members.size), kind="stable")]
        key[shuffled] = (np.arange(members.size) + generator.random(members.size)) / members.size
    order = np.argsort(key, kind="stable")
    ends = np.cumsum([0, *sizes])
    return [order[start:end] for start, end in itertools.pairwise(ends)]


def hold_out(x: Array, y: Array, validation: int) -> tuple[Data, Data]:
    """All but the last `validation` samples, and those; views, nothing is copied."""
    kept = len(x) - count("validation", validation, 0, len(x) - 1)
    return Data(x[:kept], y[:kept]), Data(x[kept:], y[kept:])
