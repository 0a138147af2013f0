"""Dropout: in training the masks are our own generator's, so only eval and the two certain chances have a twin."""

from backhand.layers import Dropout
from tests.cases import Case

CASES = [
    Case(Dropout, (), [(3, 4)], torch=False),
    Case(Dropout, (0.2,), [(2, 3, 4)], torch=False),
    Case(Dropout, (), [()], torch=False),
    Case(Dropout, (0.0,), [(3, 4)]),
    Case(Dropout, (1.0,), [(3, 4)]),
    Case(Dropout, (), [(3, 4)], eval=True),
]

GRID = [
    Case(Dropout, (p,), [shape], eval=p not in (0.0, 1.0))
    for p in (0.0, 0.3, 0.9, 1.0)
    for shape in [(), (5,), (2, 3), (2, 3, 4, 2)]
]
