"""Losses."""

from backhand.losses import L1Loss, MSELoss
from tests.cases import Case

REDUCTIONS = ("mean", "sum", "none")

CASES = [
    *(Case(MSELoss, (), [(3, 4), (3, 4)], kwargs={"reduction": r}) for r in REDUCTIONS),
    *(Case(L1Loss, (), [(3, 4), (3, 4)], kwargs={"reduction": r}) for r in REDUCTIONS),
]

GRID = [
    Case(cls, (), [s, s], kwargs={"reduction": r})
    for cls in (MSELoss, L1Loss)
    for s in [(), (3,), (2, 3, 4)]
    for r in REDUCTIONS
]
