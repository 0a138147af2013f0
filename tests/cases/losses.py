"""Losses."""

import itertools

import numpy as np

from backhand.losses import BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MSELoss, MultiMarginLoss, NLLLoss
from tests.cases import Case, grid, labels, uniform

REDUCTIONS = ("mean", "sum", "none")
C = 4
WEIGHT = uniform(C, low=0.2, high=2.0, seed=5)
EXTREME = np.array([[1e4, -1e4, 0.0, 5.0], [-1e4, -1e4, -1e4, 1e4], [1e4, 1e4, 1e4, 1e4], [-1e4, 0.0, 0.0, 1e4]])
POSITIONS = [(), (3,), (1,), (2, 5), (2, 2, 3), (1, 2, 1, 2)]  # what is left of x's shape without its class axis


def scores(positions: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the scores: the classes are the second axis, or the only one."""
    return (*positions[:1], C, *positions[1:])


def probabilities(positions: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random probabilities that sum to 1 over the class axis."""
    q = uniform(*scores(positions), seed=seed)
    return q / q.sum(min(len(positions), 1), keepdims=True)


def some_ignored(positions: tuple[int, ...], ignored: int = -100) -> np.ndarray:
    """Labels of which every third one, from the second on, is to be ignored."""
    target = labels(C, *positions)
    target.reshape(-1)[1::3] = ignored
    return target


CASES = [
    *(
        Case(cls, (), [(3, 4), target], kwargs={"reduction": r})
        for cls, target in ((MSELoss, (3, 4)), (L1Loss, (3, 4)), (BCEWithLogitsLoss, uniform(3, 4)))
        for r in REDUCTIONS
    ),
    *(
        Case(cls, (), [(5, C), labels(C, 5)], kwargs={"reduction": r})
        for cls in (CrossEntropyLoss, NLLLoss, MultiMarginLoss)
        for r in REDUCTIONS
    ),
    *(Case(cls, (), [(C,), labels(C)]) for cls in (CrossEntropyLoss, NLLLoss, MultiMarginLoss)),
    *(
        Case(cls, (), [scores((2, 3)), some_ignored((2, 3))], kwargs={"weight": WEIGHT})
        for cls in (CrossEntropyLoss, NLLLoss)
    ),
    Case(CrossEntropyLoss, (), [(5, C), some_ignored((5,))], kwargs={"weight": WEIGHT, "label_smoothing": 0.2}),
    Case(CrossEntropyLoss, (), [(5, C), probabilities((5,))]),
    Case(
        CrossEntropyLoss,
        (),
        [scores((2, 3)), probabilities((2, 3))],
        kwargs={"weight": WEIGHT, "label_smoothing": 0.2, "reduction": "none"},
    ),
    Case(CrossEntropyLoss, (), [(5, C), labels(C, 5)], eval=True),
    Case(MultiMarginLoss, (2, 0.7, WEIGHT), [(5, C), labels(C, 5)]),
    Case(BCEWithLogitsLoss, (), [(3, 4), uniform(3, 4)], kwargs={"weight": WEIGHT, "pos_weight": np.array(2.5)}),
]

GRID = [
    *(
        Case(cls, (), [s, s], kwargs={"reduction": r})
        for cls in (MSELoss, L1Loss)
        for s in [(), (3,), (2, 3, 4)]
        for r in REDUCTIONS
    ),
    *(
        case
        for positions in POSITIONS
        for target in (labels(C, *positions), some_ignored(positions), probabilities(positions))
        for case in grid(
            CrossEntropyLoss,
            [scores(positions), target],
            reduction=REDUCTIONS,
            weight=[None, WEIGHT],
            label_smoothing=[0.0, 0.1, 1.0],
        )
    ),
    *(
        case
        for positions in POSITIONS
        for ignored in (-100, -1, 2, C)
        for cls in (CrossEntropyLoss, NLLLoss)
        for case in grid(
            cls,
            [scores(positions), some_ignored(positions, ignored)],
            reduction=REDUCTIONS,
            weight=[None, WEIGHT],
            ignore_index=[ignored],
        )
    ),
    *(  # nothing to count: the mean is nan, the gradient 0
        Case(cls, (), [scores(positions), np.full(positions, 1)], kwargs={"ignore_index": 1, "reduction": r, **more})
        for positions in ((), (3,), (2, 3))
        for r in REDUCTIONS
        for cls, more in (
            (NLLLoss, {}),
            (CrossEntropyLoss, {}),
            (CrossEntropyLoss, {"label_smoothing": 0.1, "weight": WEIGHT}),
        )
    ),
    *(
        Case(cls, (), [EXTREME, labels(C, 4, seed=seed)], kwargs={"reduction": r})
        for cls in (CrossEntropyLoss, NLLLoss, MultiMarginLoss)
        for seed in (0, 1)
        for r in REDUCTIONS
    ),
    *(Case(CrossEntropyLoss, (), [EXTREME, probabilities((4,))], kwargs={"reduction": r}) for r in REDUCTIONS),
    *(Case(cls, (), [(3, 1), np.zeros(3, int)]) for cls in (CrossEntropyLoss, NLLLoss, MultiMarginLoss)),
    *(Case(cls, (WEIGHT,), [(3, C), labels(C, 3).astype("u1")]) for cls in (CrossEntropyLoss, NLLLoss)),
    *(
        case
        for positions in ((), (1,), (5,))
        for case in grid(
            MultiMarginLoss,
            [scores(positions), labels(C, *positions)],
            p=[1, 2],
            margin=[1.0, 0.0, 2.5, -0.5],
            weight=[None, WEIGHT],
            reduction=REDUCTIONS,
        )
    ),
    *(
        Case(BCEWithLogitsLoss, (), [shape, target(*shape)], kwargs={"reduction": r})
        for shape in [(), (1,), (3,), (2, 3, 4)]
        for target in (uniform, lambda *s: labels(2, *s).astype(float), lambda *s: np.ones(s))
        for r in REDUCTIONS
    ),
    *(
        Case(
            BCEWithLogitsLoss,
            (),
            [(2, 3, 4), uniform(2, 3, 4)],
            kwargs={
                "reduction": r,
                "weight": None if w is None else uniform(*w, low=0.2, high=3.0, seed=3),
                "pos_weight": None if v is None else uniform(*v, low=0.2, high=3.0, seed=4),
            },
        )
        for w, v in itertools.product([None, (), (4,), (3, 1), (2, 1, 1), (2, 3, 4)], repeat=2)
        for r in REDUCTIONS
    ),
    *(
        Case(BCEWithLogitsLoss, (), [EXTREME, labels(2, 4, 4).astype(float)], kwargs={"reduction": r, "pos_weight": v})
        for r in REDUCTIONS
        for v in (None, WEIGHT)
    ),
]
