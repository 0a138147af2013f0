"""Dropout: in training the masks are our own generator's, so only eval and the two certain chances have a twin."""

from backhand.layers import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout
from tests.cases import Case

KINDS = (Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout)
SHAPES = {  # what each takes in any mode; the others take everything
    Dropout1d: [(2, 3), (2, 3, 4)],
    Dropout2d: [(2, 3), (2, 3, 4), (2, 3, 4, 2), (2, 3, 2, 2, 2)],
    Dropout3d: [(3,), (2, 3), (3, 4, 2), (2, 3, 4, 2), (2, 3, 2, 2, 2), (2, 1, 3, 2, 2, 2)],
    FeatureAlphaDropout: [(2, 3), (2, 3, 4), (2, 3, 4, 2)],
}
ANY = [(), (5,), (2, 3), (2, 3, 4, 2)]

CASES = [
    *(Case(cls, (0.4,), [shape], torch=False) for cls in KINDS for shape in SHAPES.get(cls, ANY)),
    Case(Dropout, (), [(3, 4)], torch=False),
    Case(Dropout, (0.0,), [(3, 4)]),
    Case(Dropout, (1.0,), [(3, 4)]),
    Case(Dropout, (), [(3, 4)], eval=True),
]

GRID = [
    *(
        Case(cls, (p,), [shape], eval=p not in (0.0, 1.0))
        for cls in KINDS
        for p in (0.0, 0.3, 0.9, 1.0)
        for shape in SHAPES.get(cls, ANY)
    ),
    *(
        Case(cls, (p,), [shape], eval=p == 0.5)
        for cls in (Dropout2d, Dropout3d, FeatureAlphaDropout)
        for p in (0.0, 0.5, 1.0)
        for shape in [(), (5,)]
    ),
]
