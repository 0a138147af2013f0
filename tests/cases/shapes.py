"""Layers that move numbers, that compare vectors, and Bilinear."""

import numpy as np

from backhand.layers import (
    Bilinear,
    ChannelShuffle,
    CosineSimilarity,
    PairwiseDistance,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Reshape,
    Unflatten,
)
from tests.cases import Case, grid

CASES = [
    Case(Unflatten, (1, (2, 3)), [(2, 6)]),
    Case(Unflatten, (-2, (3, -1)), [(2, 6, 2)]),
    Case(Reshape, (-1, 2, 3), [(4, 6)], torch=False),
    Case(Reshape, (), [(1,)], torch=False),
    Case(Permute, (0, 2, 3, 1), [(2, 3, 4, 2)], torch=False),
    Case(Permute, (-1, 0, 1), [(2, 3, 4)], torch=False),
    Case(PixelShuffle, (2,), [(2, 8, 2, 3)]),
    Case(PixelUnshuffle, (2,), [(2, 3, 4, 6)]),
    Case(ChannelShuffle, (2,), [(2, 6, 3)]),
    Case(CosineSimilarity, (), [(3, 4), (3, 4)]),
    Case(CosineSimilarity, (-1,), [(2, 1, 3), (4, 3)]),
    Case(CosineSimilarity, (0,), [(), ()]),
    Case(PairwiseDistance, (), [(3, 4), (3, 4)]),
    Case(PairwiseDistance, (3.5,), [(2, 1, 3), (4, 3)]),
    Case(PairwiseDistance, (np.inf, 1e-3, True), [(3, 4), (4,)]),
    Case(PairwiseDistance, (-1.5,), [(3, 4), (3, 4)]),
    Case(PairwiseDistance, (), [(), ()]),
    Case(Bilinear, (2, 3, 4), [(5, 2), (5, 3)]),
    Case(Bilinear, (2, 3, 4, False), [(2, 3, 2), (2, 3, 3)]),
    Case(Bilinear, (2, 3, 1), [(2,), (3,)]),
]

ZERO = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, -2.0]])
TIES = np.array([[1.0, -1.0, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0], [2.0, 2.0, -2.0, 2.0], [0.0, 2.0, -1.0, 0.0]])
NORMS = [2, 1, 0, 0.5, 1.5, 3.0, -1.0, -2, np.inf, -np.inf]

GRID = [
    *(Case(Unflatten, (dim, sizes), [(2, 12, 3)]) for dim in (1, -2) for sizes in ((3, 4), [2, -1, 2], (-1,), (12, 1))),
    *(Case(Unflatten, (0, (-1, 2)), [shape]) for shape in [(4,), (6, 1), (2, 3, 2)]),
    *(Case(PixelShuffle, (r,), [(*batch, 2 * r * r, 2, 3)]) for r in (1, 2, 3) for batch in ((), (1,), (2,), (2, 3))),
    *(Case(PixelUnshuffle, (r,), [(*batch, 2, 2 * r, 3 * r)]) for r in (1, 2, 3) for batch in ((), (1,), (2,), (2, 3))),
    *(
        Case(ChannelShuffle, (g,), [(2, 12, *rest)])
        for g in (1, 2, 3, 4, 6, 12)
        for rest in ((1,), (3,), (2, 3), (2, 1, 2))
    ),
    *grid(CosineSimilarity, [(2, 3, 4), (2, 3, 4)], dim=[0, 1, 2, -1, -3], eps=[1e-8, 1e-2, 3.0, 0.0]),
    *(Case(CosineSimilarity, (d,), [(1, 2, 3), (2, 1, 3)]) for d in (0, 1, 2, -1, -2)),
    *(Case(CosineSimilarity, (d,), [(2, 3), (2, 1, 3)]) for d in (0, 1, -1)),
    *(Case(CosineSimilarity, (0,), [shape, other]) for shape in [(), (1,), (3,)] for other in [(), (3,)]),
    *(Case(CosineSimilarity, (1, eps), [ZERO, (2, 3)]) for eps in (1e-8, 0.5)),
    *(Case(CosineSimilarity, (1,), [ZERO, ZERO * scale]) for scale in (1.0, -1e4, 1e-12, 1e-15)),
    *grid(PairwiseDistance, [(2, 3), (2, 3)], p=NORMS, eps=[1e-6, 0.0, 0.5], keepdim=[False, True]),
    *(
        Case(PairwiseDistance, (p,), shapes, kwargs={"keepdim": keepdim})
        for p in (2, 1, np.inf, 3)
        for keepdim in (False, True)
        for shapes in ([(3,), (3,)], [(2, 3), (3,)], [(2, 1), (2, 3)], [(5, 1, 3), (4, 3)], [(), ()], [(3,), ()])
    ),
    *(Case(PairwiseDistance, (p, eps), [TIES, 0 * TIES]) for p in NORMS for eps in (0.0, 0.25)),
    *grid(Bilinear, [(3, 2), (3, 5)], 2, 5, 4, bias=[True, False]),
    *(Case(Bilinear, (2, 5, n), [(*b, 2), (*b, 5)]) for n in (1, 3) for b in ((), (1,), (4,), (2, 3), (2, 1, 3))),
]
