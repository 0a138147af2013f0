"""Losses that set number against number: regression, yes or no, distributions."""

import itertools

import numpy as np

from backhand.losses import (
    BCELoss,
    GaussianNLLLoss,
    HuberLoss,
    KLDivLoss,
    MultiLabelSoftMarginLoss,
    PoissonNLLLoss,
    SmoothL1Loss,
    SoftMarginLoss,
)
from tests.cases import Case, grid, labels, uniform
from tests.cases.losses import REDUCTIONS, WEIGHT, C

SHAPES = [(), (1,), (3,), (3, C), (2, 3, C)]
INF, NAN = np.inf, np.nan
SPECIAL = np.array([0.0, -0.0, 1e-310, -1e-310, 1e4, -1e4, INF, -INF, NAN])
COUNTS = np.array([0.0, 1.0, 2.0, 0.5, 1e4, 1e-310, 0.0, 3.0, NAN])


def signs(*shape: int) -> np.ndarray:
    """Labels -1 and 1."""
    return labels(2, *shape) * 2.0 - 1


def log_uniform(*shape: int, seed: int = 0) -> np.ndarray:
    """Logarithms of probabilities."""
    return np.log(uniform(*shape, seed=seed))


CASES = [
    *(Case(HuberLoss, (), [(3, 4), (3, 4)], kwargs={"reduction": r, "delta": 0.7}) for r in REDUCTIONS),
    *(Case(SmoothL1Loss, (), [(3, 4), (3, 4)], kwargs={"reduction": r, "beta": 0.7}) for r in REDUCTIONS),
    Case(SmoothL1Loss, (), [(3, 4), (3, 4)], kwargs={"beta": 0}),
    *(
        Case(
            KLDivLoss,
            (),
            [(3, C), log_uniform(3, C) if log else uniform(3, C)],
            kwargs={"reduction": r, "log_target": log},
        )
        for r in KLDivLoss.reductions
        for log in (False, True)
    ),
    *(Case(BCELoss, (), [uniform(3, C), uniform(3, C, seed=1)], kwargs={"reduction": r}) for r in REDUCTIONS),
    Case(BCELoss, (WEIGHT,), [uniform(3, C), uniform(3, C, seed=1)], kwargs={"reduction": "none"}),
    *(Case(MultiLabelSoftMarginLoss, (), [(3, C), labels(2, 3, C)], kwargs={"reduction": r}) for r in REDUCTIONS),
    Case(MultiLabelSoftMarginLoss, (WEIGHT,), [(3, C), uniform(3, C)]),
    Case(MultiLabelSoftMarginLoss, (), [(C,), uniform(C)]),
    *(Case(SoftMarginLoss, (), [(3, C), signs(3, C)], kwargs={"reduction": r}) for r in REDUCTIONS),
    *(
        Case(PoissonNLLLoss, (log, full), [uniform(3, C), uniform(3, C, high=4)], kwargs={"reduction": r})
        for log, full, r in [(True, False, "mean"), (True, True, "none"), (False, False, "sum"), (False, True, "mean")]
    ),
    *(
        Case(GaussianNLLLoss, (), [(3, C), (3, C), uniform(*v)], kwargs={"reduction": r, "full": r == "none"})
        for r, v in zip(REDUCTIONS, [(3, C), (3, 1), (3,)], strict=True)
    ),
    Case(GaussianNLLLoss, (), [(3, C), (3, C), uniform(1, C)]),
]

GRID = [
    *(
        Case(cls, (), [s, s], kwargs={"reduction": r, name: width})
        for cls, name, widths in ((HuberLoss, "delta", [0.01, 0.5, 1, 3.0]), (SmoothL1Loss, "beta", [0, 0.01, 1, 3.0]))
        for width in widths
        for s in SHAPES
        for r in REDUCTIONS
    ),
    # on the seams, and where there is no number
    *(
        Case(cls, (), [np.append(SPECIAL, [1.0, -1.0, 2.0]), np.zeros(12)], kwargs={"reduction": "none", **more})
        for cls, more in ((HuberLoss, {}), (SmoothL1Loss, {}), (HuberLoss, {"delta": 2}))
    ),
    Case(HuberLoss, ("sum", 0.3), [(3,), (3,)]),
    *(
        Case(KLDivLoss, (), [x, y], kwargs={"reduction": r, "log_target": log})
        for r in KLDivLoss.reductions
        for log, make in ((False, uniform), (True, log_uniform))
        for x, y in [(s, make(*s)) for s in SHAPES]
    ),
    *(
        Case(KLDivLoss, (), [x, y], kwargs={"reduction": "none", "log_target": log})
        for log in (False, True)
        for x, y in [(np.zeros(9), SPECIAL), (SPECIAL, np.zeros(9)), (SPECIAL, np.full(9, 0.3)), (SPECIAL, SPECIAL)]
    ),
    *(
        Case(BCELoss, (None if w is None else uniform(*w, high=3.0),), [x, y], kwargs={"reduction": r})
        for w in (None, (), (C,), (3, 1), (3, C))
        for x, y in [(uniform(3, C), uniform(3, C, seed=1)), (uniform(3, C), labels(2, 3, C).astype(float))]
        for r in REDUCTIONS
    ),
    *(
        Case(BCELoss, (), [uniform(*s), uniform(*s, seed=1)], kwargs={"reduction": r})
        for s in SHAPES
        for r in REDUCTIONS
    ),
    *(  # certain and right, certain and wrong
        Case(BCELoss, (), [np.array([0.0, 0, 1, 1, 1e-310, 1e-50, 1 - 1e-16] * 2), y], kwargs={"reduction": r})
        for y in (np.array([0.0, 1, 0, 1, 1, 1, 0] * 2), np.full(14, 0.5))
        for r in REDUCTIONS
    ),
    *(
        Case(MultiLabelSoftMarginLoss, (None if w is None else uniform(*w, high=3.0),), [x, y], kwargs={"reduction": r})
        for x, w, y in itertools.product([(2, 3, C)], [None, (), (C,), (3, 1), (2, 3, C)], [labels(2, 2, 3, C)])
        for r in REDUCTIONS
    ),
    *(
        Case(MultiLabelSoftMarginLoss, (), [x, uniform(*s)], kwargs={"reduction": r})
        for s in SHAPES[1:]
        for x in (s, np.full(s, 1e4), np.full(s, -1e4))
        for r in REDUCTIONS
    ),
    *(
        Case(SoftMarginLoss, (), [x, y], kwargs={"reduction": r})
        for x, y in [
            *((s, signs(*s)) for s in SHAPES),
            ((3, C), uniform(3, C)),
            (np.array([0.0, -0.0, 1e-310, 500, -500, 1e4]), np.array([1.0, 1, -1, 1, 1, 1])),
        ]
        for r in REDUCTIONS
    ),
    *(
        Case(PoissonNLLLoss, (log, full), [x, y], kwargs={"reduction": r, "eps": eps})
        for log, full, eps, r in itertools.product((True, False), (True, False), (1e-8, 0.1), REDUCTIONS)
        for x, y in [(uniform(*s, high=3.0), labels(5, *s) * 1.0) for s in SHAPES]
    ),
    *(
        Case(PoissonNLLLoss, (log, full), [x, COUNTS], kwargs={"reduction": "none"})
        for log, full in itertools.product((True, False), repeat=2)
        for x in (SPECIAL, np.zeros(9), np.ones(9), np.full(9, -1.0))
    ),
    *(
        case
        for x, y, v in [
            *((s, s, s) for s in SHAPES),
            *(((2, 3, C), (2, 3, C), v) for v in [(2, 3, 1), (2, 1, C), (1, 3, C), (2, 3)]),
            *(((3, C), (3, C), v) for v in [(3, C), (3, 1), (3,)]),
            ((C,), (C,), ()),
        ]
        for case in grid(
            GaussianNLLLoss,
            [x, y, uniform(*v, high=3.0)],
            reduction=REDUCTIONS,
            full=[False, True],
            eps=[1e-6, 0.5, -1],
        )
    ),
    *(
        Case(GaussianNLLLoss, (), [x, np.zeros(9), v], kwargs={"reduction": "none", "eps": eps})
        for x in (SPECIAL, np.ones(9))
        for v in (np.zeros(9), np.ones(9), np.abs(SPECIAL))
        for eps in (1e-100, 1e-6)
    ),
]
