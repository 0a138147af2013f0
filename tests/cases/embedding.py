"""Embedding and EmbeddingBag. With max_norm forward changes the weight, which central differences cannot follow."""

import numpy as np

from backhand.layers import Embedding, EmbeddingBag
from tests.cases import Case, grid, labels

INDICES = [labels(6, 3, 4), labels(6, 5), np.array(3), np.array([[2, 2, 2]]), labels(6, 2, 3, 2).astype(np.int32)]
FLAT, BAGS = np.array([0, 1, 1, 5, 2, 2, 2, 0, 4, 3]), labels(6, 4, 5, seed=3)
# ordinary bags, empty ones at the start, in the middle and at the end, and one bag of everything
OFFSETS = [np.array(o) for o in ([0, 3, 7], [0, 0, 4, 4, 10], [0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])]

CASES = [
    Case(Embedding, (6, 3), [INDICES[0]]),
    Case(Embedding, (6, 3), [INDICES[2]]),
    Case(EmbeddingBag, (6, 3), [BAGS]),
    Case(EmbeddingBag, (6, 3), [BAGS], kwargs={"mode": "max"}),
    Case(EmbeddingBag, (6, 3), [FLAT, OFFSETS[1], FLAT.shape], kwargs={"mode": "sum", "padding_idx": 2}, torch=False),
]

GRID = [
    *(
        case
        for index in INDICES
        for case in grid(
            Embedding,
            [index],
            6,
            3,
            padding_idx=[None, 0, 2, -1, -6],
            max_norm=[None, 0.7, 0.0],
            norm_type=[2.0, 1.0],
            scale_grad_by_freq=[False, True],
        )
    ),
    *grid(Embedding, [INDICES[0]], 6, 3, max_norm=[1.1], norm_type=[0.0, 0.5, 3, np.inf, -np.inf, -1.0]),
    Case(Embedding, (1, 1), [np.array([0, 0])]),
    *(
        Case(EmbeddingBag, (6, 3), inputs, kwargs=case.kwargs)
        for inputs in [[BAGS], *([FLAT, offsets] for offsets in OFFSETS)]
        for case in grid(
            EmbeddingBag,
            [],
            mode=["sum", "mean", "max"],
            padding_idx=[None, 2, -6],
            max_norm=[None, 1.1],
            norm_type=[2.0, 1.0],
        )
    ),
    *grid(
        EmbeddingBag,
        [FLAT, np.array([0, 0, 4, 10])],
        6,
        3,
        mode=["sum", "mean", "max"],
        include_last_offset=[True],
        padding_idx=[None, 0],
    ),
    # where rows repeat, torch on a CPU divides by the count of another row (the docstring says so)
    *grid(EmbeddingBag, [np.array([[3, 1], [0, 5]])], 6, 3, mode=["sum", "mean"], scale_grad_by_freq=[True]),
    *grid(EmbeddingBag, [np.full((3, 2), 4)], 6, 3, mode=["sum", "mean"], scale_grad_by_freq=[True]),
]
