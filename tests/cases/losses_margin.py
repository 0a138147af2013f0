"""Hinges and embeddings."""

import itertools

import numpy as np

from backhand.losses import (
    CosineEmbeddingLoss,
    HingeEmbeddingLoss,
    InfoNCELoss,
    MarginRankingLoss,
    MultiLabelMarginLoss,
    MultiMarginLoss,
    NTXentLoss,
    TripletMarginLoss,
)
from tests.cases import Case, grid, labels
from tests.cases.losses import EXTREME, REDUCTIONS, C
from tests.cases.losses_pointwise import SHAPES, SPECIAL, signs

N, D = 4, 5
MARGINS = [-0.5, 0.0, 0.3, 1.0, 7.0]
NAMED = np.array([[2, 0, -1, 1], [-1, 3, 3, 3], [1, 1, 2, -1], [3, 2, 1, 0]])  # -1 ends; twice counts twice
TIED = np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0], [-2.0, 2.0, 2.0], [3.0, -3.0, 3.0]])
NORMS = [-np.inf, -1.0, 0.0, 0.5, 1, 1.5, 2.0, 3, 10.0, np.inf]

CASES = [
    *(Case(MultiLabelMarginLoss, (), [(4, C), NAMED], kwargs={"reduction": r}) for r in REDUCTIONS),
    Case(MultiLabelMarginLoss, (), [(C,), NAMED[0]]),
    *(Case(HingeEmbeddingLoss, (0.7,), [(3, C), signs(3, C).astype(int)], kwargs={"reduction": r}) for r in REDUCTIONS),
    *(Case(MarginRankingLoss, (0.5,), [(3, C), (3, C), signs(3, C)], kwargs={"reduction": r}) for r in REDUCTIONS),
    Case(MarginRankingLoss, (), [(C,), (C,), signs(C).astype(int)]),
    *(
        Case(CosineEmbeddingLoss, (0.1,), [(N, D), (N, D), signs(N).astype(int)], kwargs={"reduction": r})
        for r in REDUCTIONS
    ),
    Case(CosineEmbeddingLoss, (-0.9,), [(D,), (D,), np.array(-1)]),
    *(
        Case(TripletMarginLoss, (3.0, p), [(N, D)] * 3, kwargs={"reduction": r, "swap": swap})
        for p, swap, r in [(2.0, False, "mean"), (2.0, True, "none"), (1, True, "sum"), (3.5, False, "mean")]
    ),
    Case(TripletMarginLoss, (3.0, np.inf), [(2, N, D), (2, 1, D), (1, N, D)], kwargs={"swap": True}),
    *(Case(InfoNCELoss, (0.3,), [(3, D), (3, D)], kwargs={"reduction": r}) for r in REDUCTIONS),
    Case(InfoNCELoss, (), [(3, D), (7, D)]),
    *(Case(NTXentLoss, (0.3,), [(3, D), (3, D)], kwargs={"reduction": r}) for r in REDUCTIONS),
]

GRID = [
    *(Case(MultiMarginLoss, (p,), [(), labels(1)], kwargs={"reduction": r}) for p in (1, 2) for r in REDUCTIONS),
    *(
        Case(MultiMarginLoss, (), [x, t], kwargs={"reduction": r})
        for x, t in [((C,), np.array([2])), ((1, C), 1)]
        for r in REDUCTIONS
    ),
    *(
        Case(MultiLabelMarginLoss, (), [x, t], kwargs={"reduction": r})
        for x, t in [
            *(((4, C), np.roll(NAMED, i, axis=1)) for i in range(4)),
            (EXTREME, NAMED),
            (np.zeros((4, C)), NAMED),
            ((C,), np.full(C, -1)),
            ((2, C), np.full((2, C), -1)),
            ((1, 1), np.array([[0]])),
            *itertools.product([(), (1,)], [np.array(0), np.array([0]), np.array(-1), np.array([-1])]),
        ]
        for r in REDUCTIONS
    ),
    *(
        Case(HingeEmbeddingLoss, (margin,), [x, t], kwargs={"reduction": r})
        for margin in MARGINS
        for x, t in [
            *((s, signs(*s)) for s in SHAPES),
            (np.full(3, margin), np.array([-1.0, 1.0, -1.0])),
            (SPECIAL, np.full(9, -1.0)),
            (SPECIAL, np.ones(9)),
        ]
        for r in REDUCTIONS
    ),
    *(
        Case(MarginRankingLoss, (margin,), [x1, x2, t], kwargs={"reduction": r})
        for margin in MARGINS
        for x1, x2, t in [
            *((s, s, signs(*s)) for s in SHAPES),
            ((3, C), (3, C), labels(3, 3, C) - 1),
            (np.zeros(3), np.zeros(3), np.array([1, -1, 0])),  # ties
            (SPECIAL, np.zeros(9), np.ones(9)),
        ]
        for r in REDUCTIONS
    ),
    *(
        Case(CosineEmbeddingLoss, (margin,), [x1, x2, t], kwargs={"reduction": r})
        for margin in MARGINS
        for x1, x2, t in [
            ((N, D), (N, D), signs(N)),
            ((N, D), (N, D), np.array([1, 0, -1, 1])),
            ((D,), (D,), 1),
            ((D,), (D,), -1),
            ((1, 1), (1, 1), np.array([-1])),
            (TIED, TIED, signs(4)),  # one vector is 0
            (TIED, -TIED, np.ones(4)),
            (1e4 * TIED, 1e-4 * TIED, -np.ones(4)),
        ]
        for r in REDUCTIONS
    ),
    *(
        case
        for inputs in [[(N, D)] * 3, [(D,)] * 3, [(2, 3, D), (1, 3, D), (2, 1, D)], [(N, 1)] * 3]
        for case in grid(TripletMarginLoss, inputs, 2.0, p=NORMS, swap=[False, True], reduction=REDUCTIONS)
    ),
    *(
        case
        for inputs in [
            [TIED, TIED, TIED],
            [TIED, np.roll(TIED, 1, 0), TIED],
            [TIED, TIED, -TIED],
            [1e4 * TIED, TIED, TIED],
        ]
        for case in grid(
            TripletMarginLoss, inputs, p=[0.0, 1, 1.5, 2.0, 3, np.inf], eps=[1e-6, 0.0], swap=[False, True]
        )
    ),
    *grid(TripletMarginLoss, [(N, D)] * 3, margin=[1e-6, 1.0, 10], eps=[1e-6, 0.0, 0.1]),
]
