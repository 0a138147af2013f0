"""Padding layers and Upsample."""

import itertools

import numpy as np

from backhand.layers import (
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    Upsample,
    UpsamplingBilinear2d,
    UpsamplingNearest2d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
)
from tests.cases import Case

CONSTANT = (ConstantPad1d, ConstantPad2d, ConstantPad3d)
ZERO = (ZeroPad1d, ZeroPad2d, ZeroPad3d)
PADS = (
    (ReflectionPad1d, ReflectionPad2d, ReflectionPad3d),
    (ReplicationPad1d, ReplicationPad2d, ReplicationPad3d),
    (CircularPad1d, CircularPad2d, CircularPad3d),
)
SIZES = (4, 5, 3)
AMOUNTS = [0, 1, 2, (2, 1, 1, 0, 0, 2), (0, 0, 0, 1, 1, 0), (-1, 1, 2, -1, 1, -1), (-1, -1, 0, -2, -1, 0)]
SMOOTH = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}


def amounts(amount, n):
    return amount[: 2 * n] if isinstance(amount, tuple) else amount


CASES = [
    *(Case(cls, ((1, 2, 0, 1, 2, 0)[: 2 * n], 1.5), [(2, 2, *SIZES[:n])]) for n, cls in enumerate(CONSTANT, 1)),
    *(
        Case(cls, ((1, 2, 0, 1, 2, 0)[: 2 * n],), [(2, *SIZES[:n])])
        for family in (ZERO, *PADS)
        for n, cls in enumerate(family, 1)
    ),
    *(Case(family[1], ((-1, 2, 1, -1),), [(2, 4, 4)]) for family in (ZERO, *PADS)),
    Case(Upsample, (), [(2, 2, 3)], kwargs={"size": 5}),
    Case(Upsample, (), [(1, 2, 3, 4)], kwargs={"scale_factor": (1.7, 0.6), "mode": "nearest-exact"}),
    Case(Upsample, (), [(2, 2, 4)], kwargs={"scale_factor": 1.7, "mode": "linear"}),
    Case(Upsample, (), [(1, 2, 3, 2)], kwargs={"size": (2, 5), "mode": "bilinear", "align_corners": True}),
    Case(Upsample, (), [(1, 2, 3, 4)], kwargs={"scale_factor": 2.3, "mode": "bicubic"}),
    Case(Upsample, (), [(1, 1, 3, 2, 2)], kwargs={"size": (2, 3, 5), "mode": "trilinear"}),
    Case(Upsample, (), [(1, 2, 5, 3)], kwargs={"size": (2, 4), "mode": "area"}),
    Case(UpsamplingNearest2d, (), [(1, 2, 2, 3)], kwargs={"scale_factor": 2}),
    Case(UpsamplingBilinear2d, (), [(1, 2, 2, 3)], kwargs={"size": (3, 5)}),
]

GRID = [
    *(
        Case(cls, (amounts(amount, n), *value), [shape])
        for family, values in ((CONSTANT, [(0.0,), (-3,), (float("inf"),)]), (ZERO, [()]))
        for n, cls in enumerate(family, 1)
        for amount in AMOUNTS
        for value in values
        for shape in [(2, 3, *SIZES[:n]), SIZES[:n], (2, *SIZES[:n]), (1, 2, 1, *SIZES[:n])]
    ),
    *(
        Case(cls, (amounts(amount, n),), [(*lead, *SIZES[:n])])
        for family in PADS
        for n, cls in enumerate(family, 1)
        for amount in AMOUNTS
        for lead in [(2, 3), (1, 2), (3,)]
    ),
    *(
        Case(ReplicationPad2d, (amount,), [(2, 2, *shape)])
        for amount in [5, (3, 0, 4, 7)]
        for shape in [(1, 1), (2, 3)]
    ),
    *(Case(CircularPad2d, ((3, 3, 2, 1),), [(2, 2, *shape)]) for shape in [(2, 3), (3, 4)]),  # all the way round
    *(
        Case(Upsample, (), [(2, 2, *(old, 4, 3)[:n])], kwargs={"size": size, "mode": mode})
        for n in (1, 2, 3)
        for mode in ("nearest", "nearest-exact", "area", *SMOOTH[n])
        for old in (1, 2, 5)
        for size in (1, 2, 5, 7, (8, 3, 1)[:n])
    ),
    *(
        Case(
            Upsample,
            (),
            [(1, 2, *(old, 4, 3)[:n])],
            kwargs={"scale_factor": factor, "mode": mode, "recompute_scale_factor": recompute},
        )
        for n in (1, 2, 3)
        for mode in ("nearest", "nearest-exact", *SMOOTH[n])
        for old in (3, 6)
        for factor in (0.5, 0.75, 1, 1.4, 1.7, 2, 3.3, (1.7, 0.6, 2.5)[:n])
        for recompute in (None, True, False)
    ),
    *(
        Case(Upsample, (), [(1, 2, *(old, 4, 3)[:n])], kwargs={**size, "mode": mode, "align_corners": align})
        for n in (1, 2, 3)
        for mode in SMOOTH[n]
        for old in (1, 4)
        for size in ({"size": 1}, {"size": 6}, {"scale_factor": 1.7}, {"scale_factor": 3}, {"size": [4, 4, 3][:n]})
        for align in (True, False)
    ),
    *(
        Case(cls, (), [(2, 3, 3, 4)], kwargs=size)
        for cls, size in itertools.product(
            (UpsamplingNearest2d, UpsamplingBilinear2d),
            ({"size": 5}, {"size": (2, 7)}, {"scale_factor": 2}, {"scale_factor": (0.5, 1.5)}),
        )
    ),
    Case(Upsample, (3,), [np.array([[[1.0, float("nan")]]])]),
    Case(Upsample, (4, None, "linear"), [np.array([[[1.0, 2.0, float("inf")]]])]),
    # a factor from which two rows become four, or three remain three: for images torch goes by those sizes
    *(
        Case(Upsample, (), [(1, 2, old, 4)], kwargs={"scale_factor": factor, "mode": mode})
        for mode in ("nearest", "nearest-exact", "bilinear")
        for old, factor in [(2, (2.3, 1.7)), (3, (1.3, 0.8)), (2, (2.4, 2.2))]
    ),
]
