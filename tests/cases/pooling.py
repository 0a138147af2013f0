"""Pooling."""

import itertools

import numpy as np

from backhand.layers import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
)
from tests.cases import Case, grid

MAX, AVG = (MaxPool1d, MaxPool2d, MaxPool3d), (AvgPool1d, AvgPool2d, AvgPool3d)
ADAPTIVE = (AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d)
ADAPTIVE_MAX = (AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d)
LP, UNPOOL = (LPPool1d, LPPool2d, LPPool3d), (MaxUnpool1d, MaxUnpool2d, MaxUnpool3d)


def distinct(*shape):
    """Numbers no two of which are closer than 0.1, so that no central difference changes which is the largest."""
    size = int(np.prod(shape))
    return (np.random.default_rng(0).permutation(size) - size / 2 + 0.25).reshape(shape) / 10


def positive(*shape):
    """Numbers in (0.1, 2): what has a power and a root of any degree."""
    return np.random.default_rng(0).uniform(0.1, 2, shape)


def places(shape, volume):
    """For each plane of `shape`, indices in [0, volume) no two of which are equal."""
    rng, n = np.random.default_rng(0), len(shape) - 2 if len(shape) != 3 or volume < 10 else 2
    lead, plane = shape[: len(shape) - n], shape[len(shape) - n :]
    rows = [rng.choice(volume, int(np.prod(plane)), replace=False) for _ in range(int(np.prod(lead)))]
    return np.array(rows).reshape(shape)


NAN, INF = float("nan"), float("inf")
SPECIAL = [
    np.array([[[1.0, NAN, 3.0, NAN, 0.0, 2.0, 5.0]]]),
    np.array([[[-INF, -INF, -INF, -INF, 1.0, -INF, INF]]]),
    np.array([[[2.0, 2.0, 1.0, 2.0, 2.0, 0.0, 0.0]]]),  # ties
]

CASES = [
    Case(MaxPool1d, (2,), [distinct(2, 3, 7)]),
    Case(MaxPool1d, (3, 2, 1), [distinct(2, 3, 7)], kwargs={"return_indices": True}),
    Case(MaxPool2d, (2,), [distinct(2, 3, 4, 5)]),
    Case(MaxPool2d, (3, (2, 1), 1), [distinct(2, 5, 4)], kwargs={"ceil_mode": True, "dilation": (1, 2)}),
    Case(MaxPool2d, (2, 1), [distinct(2, 2, 4, 3)], kwargs={"return_indices": True}),
    Case(MaxPool3d, (2,), [distinct(2, 2, 4, 2, 3)]),
    Case(MaxPool3d, ((1, 2, 3), 1, (0, 1, 1)), [distinct(2, 3, 2, 4)], kwargs={"return_indices": True}),
    Case(AvgPool1d, (2,), [(2, 3, 7)]),
    Case(AvgPool1d, (3, 2, 1), [(3, 8)], kwargs={"ceil_mode": True}),
    Case(AvgPool2d, (2,), [(2, 3, 4, 5)]),
    Case(AvgPool2d, ((3, 2), (2, 1), 1), [(2, 2, 5, 4)], kwargs={"ceil_mode": True, "count_include_pad": False}),
    Case(AvgPool2d, (2, 1), [(2, 4, 3)], kwargs={"divisor_override": 3}),
    Case(AvgPool3d, (2,), [(2, 2, 4, 2, 3)]),
    Case(AvgPool3d, ((1, 2, 3), 1, (0, 1, 1)), [(2, 3, 2, 4)]),
    Case(AdaptiveAvgPool1d, (3,), [(2, 2, 7)]),
    Case(AdaptiveAvgPool2d, ((2, None),), [(2, 2, 5, 3)]),
    Case(AdaptiveAvgPool2d, (1,), [(2, 5, 3)]),
    Case(AdaptiveAvgPool2d, ((None, None),), [(2, 5, 3)]),
    Case(AdaptiveAvgPool3d, ((2, 5, 1),), [(2, 2, 3, 4, 2)]),
    Case(AdaptiveMaxPool1d, (3,), [distinct(2, 2, 7)], kwargs={"return_indices": True}),
    Case(AdaptiveMaxPool2d, ((2, None),), [distinct(2, 2, 5, 3)]),
    Case(AdaptiveMaxPool2d, (4,), [distinct(2, 5, 3)], kwargs={"return_indices": True}),
    Case(AdaptiveMaxPool2d, ((None, None),), [distinct(2, 5, 3)]),
    Case(AdaptiveMaxPool3d, ((2, 5, 1),), [distinct(2, 2, 3, 4, 2)]),
    Case(LPPool1d, (2, 3), [(2, 2, 7)]),
    Case(LPPool1d, (float("inf"), 2), [distinct(2, 7)], kwargs={"ceil_mode": True}),
    Case(LPPool2d, (3, (2, 3), 1), [positive(2, 2, 4, 4)]),
    Case(LPPool2d, (1.5, 2), [positive(2, 4, 3)], kwargs={"ceil_mode": True}),
    Case(LPPool3d, (4, 2), [(1, 2, 3, 2, 4)]),
    Case(MaxUnpool1d, (2,), [(2, 2, 3), places((2, 2, 3), 6)]),
    Case(MaxUnpool2d, ((3, 2), (2, 2), (1, 0)), [(2, 3, 2), places((2, 3, 2), 20)]),
    Case(MaxUnpool3d, (2,), [(1, 2, 2, 1, 2), places((1, 2, 2, 1, 2), 32)]),
]


def shapes(n):
    """Odd and even sizes, one sample, and a single sample without the batch axis."""
    return [(2, 3, *(7, 6, 5)[:n]), (1, 2, *(8, 7, 6)[:n]), (3, *(6, 7, 6)[:n])]


GRID = [
    *(
        Case(cls, (), [distinct(*shape)], kwargs=kwargs)
        for n, cls in enumerate(MAX, 1)
        for shape in shapes(n)
        for padding, dilation, ceil_mode, return_indices in itertools.product(
            (0, 1), (1, 2), (False, True), (False, True)
        )
        for kernel_size, stride in [(2, None), (2, 1), (3, 2), (3, 3)]
        for kwargs in [
            {
                "kernel_size": kernel_size,
                "stride": stride,
                "padding": padding,
                "dilation": dilation,
                "ceil_mode": ceil_mode,
                "return_indices": return_indices,
            }
        ]
        if dilation == 1 or n < 3
    ),
    *itertools.chain.from_iterable(
        grid(
            MaxPool2d,
            [distinct(*shape)],
            kernel_size=[(2, 3), (3, 1)],
            stride=[None, (1, 2), (3, 1)],
            padding=[0, (1, 0)],
            dilation=[1, (1, 2)],
            return_indices=[True],
            ceil_mode=[False, True],
        )
        for shape in [(2, 2, 7, 6), (2, 5, 8)]
    ),
    *grid(
        MaxPool3d,
        [distinct(2, 2, 4, 5, 6)],
        kernel_size=[(1, 2, 3)],
        stride=[None, (1, 2, 2)],
        padding=[0, (0, 1, 1)],
        dilation=[1, (2, 1, 2)],
        return_indices=[True],
        ceil_mode=[False, True],
    ),
    *(
        Case(cls, (kernel, 1, padding), [x.reshape(1, 1, *(1,) * (n - 1), -1)], kwargs={"return_indices": True})
        for n, cls in enumerate(MAX, 1)
        for x in SPECIAL
        for kernel, padding in [((*(1,) * (n - 1), 3), 0), ((*(1,) * (n - 1), 3), (*(0,) * (n - 1), 1))]
    ),
    *itertools.chain.from_iterable(
        grid(
            cls,
            [shape],
            kernel_size=[2, 3],
            stride=[None, 1, 2, 4],
            padding=[0, 1],
            ceil_mode=[False, True],
            count_include_pad=[True, False],
        )
        for n, cls in enumerate(AVG, 1)
        for shape in shapes(n)
    ),
    *itertools.chain.from_iterable(
        grid(
            cls,
            [(2, 2, *(7, 6, 5)[:n])],
            kernel_size=[(2, 3, 1)[:n]],
            stride=[None, (1, 3, 2)[:n]],
            padding=[0, (1, 1, 0)[:n]],
            ceil_mode=[False, True],
            count_include_pad=[True, False],
            divisor_override=[None, 1, 5, -2],
        )
        for n, cls in enumerate(AVG, 1)
        if n > 1
    ),
    *(Case(cls, (3, 1, 1), [x]) for cls in (AvgPool1d,) for x in SPECIAL),
    # the kernel as large as the image, or larger with ceil_mode
    *(Case(cls, (4,), [distinct(2, 2, *(4, 4, 4)[:n])]) for c in (MAX, AVG) for n, cls in enumerate(c, 1)),
    *(
        Case(cls, (4, 3), [distinct(2, 2, *(3, 3, 3)[:n])], kwargs={"ceil_mode": True})
        for c in (MAX, AVG[:2])  # torch's AvgPool3d alone refuses it
        for n, cls in enumerate(c, 1)
    ),
    *(
        Case(cls, (size,), [(*lead, *(7, 4, 5)[:n])])
        for n, cls in enumerate(ADAPTIVE, 1)
        for lead in [(2, 3), (1, 2), (3,)]
        for size in (1, 2, 3, 4, 7, 9)
    ),
    *(Case(AdaptiveAvgPool2d, (size,), [(2, 2, 5, 6)]) for size in itertools.product((None, 1, 3, 8), (None, 4, 5))),
    *(Case(AdaptiveAvgPool3d, (size,), [(2, 3, 4, 5)]) for size in [(None, 2, 3), (2, None, None), (4, 1, None)]),
    *(Case(AdaptiveAvgPool1d, (3,), [x]) for x in SPECIAL[:2]),
    *(
        Case(cls, (size,), [distinct(*lead, *(7, 4, 5)[:n])], kwargs={"return_indices": both})
        for n, cls in enumerate(ADAPTIVE_MAX, 1)
        for lead in [(2, 3), (1, 2), (3,)]
        for size in (1, 2, 3, 4, 7, 9)
        for both in (False, True)
    ),
    *(
        Case(AdaptiveMaxPool2d, (size, True), [distinct(2, 2, 5, 6)])
        for size in itertools.product((None, 1, 3, 8), (None, 4, 5))
    ),
    *(
        Case(AdaptiveMaxPool3d, (size, True), [distinct(2, 3, 4, 5)])
        for size in [(None, 2, 3), (2, None, None), (4, 1, None)]
    ),
    *(Case(AdaptiveMaxPool1d, (size, True), [x]) for x in SPECIAL for size in (1, 3, 5)),
    *(Case(AdaptiveMaxPool2d, ((2, 3), True), [np.tile(x[:, :, None], (1, 1, 3, 1))]) for x in SPECIAL),  # ties
    *(
        Case(cls, (norm, kernel, stride), [make(*shape)], kwargs={"ceil_mode": ceil_mode})
        for n, cls in enumerate(LP, 1)
        for norm, make in [(1, distinct), (2.0, distinct), (4, distinct), *((p, positive) for p in (1.5, 3, 0.5, -2))]
        for kernel, stride in [(2, None), (3, 2), (2, 3), ((2, 3, 1)[:n], (1, 3, 2)[:n])]
        for ceil_mode in (False, True)
        for shape in [(2, 3, *(7, 6, 5)[:n]), (3, *(8, 7, 6)[:n])]
        if n > 1 or not isinstance(kernel, tuple)
    ),
    *(
        Case(cls, (norm, kernel, stride, ceil_mode), [distinct(2, *(7, 6, 5)[:n])])
        for n, cls in enumerate(LP, 1)
        for norm in (INF, -INF)
        for kernel, stride in [(2, None), (3, 2)]
        for ceil_mode in (False, True)
    ),
    # sums of 0, and negative ones under a root
    *(Case(LPPool1d, (p, 2), [np.array([[0.0, 0.0, 1.0, 0.0, -1.0, 0.0]])]) for p in (1, 2, 3, 0.5, -1, INF, -INF)),
    *(
        Case(cls, (kernel, stride, padding), [(*lead, *plane), places((*lead, *plane), volume)])
        for n, cls in enumerate(UNPOOL, 1)
        for lead in [(2, 2), (1, 2)]
        for plane, kernel, stride, padding, volume in [
            ((3, 2, 2)[:n], 2, None, 0, (6, 24, 96)[n - 1]),
            ((3, 2, 2)[:n], 3, 2, 1, (5, 15, 45)[n - 1]),
            ((3, 2, 2)[:n], (3, 2, 1)[:n], (2, 1, 3)[:n], (0, 1, 0)[:n], (7, 7, 28)[n - 1]),
        ]
    ),
    # an index that stands twice
    Case(MaxUnpool1d, (2,), [np.array([[1.0, 1.0, 2.0]]), np.array([[1, 1, 4]])]),
]
