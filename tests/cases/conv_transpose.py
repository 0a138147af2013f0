"""Transposed convolutions, Unfold and Fold."""

import itertools

from backhand.layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Fold, Unfold
from tests.cases import Case, grid

ALL = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)

CASES = [
    Case(ConvTranspose1d, (2, 4, 3), [(2, 2, 4)], kwargs={"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    Case(ConvTranspose1d, (2, 3, 2), [(2, 3)], kwargs={"dilation": 3, "output_padding": 2}),
    Case(ConvTranspose2d, (3, 2, (3, 2)), [(2, 3, 2, 3)], kwargs={"stride": (2, 1), "padding": (0, 1)}),
    Case(ConvTranspose2d, (4, 8, 2), [(2, 4, 2, 2)], kwargs={"groups": 4, "bias": False}),
    Case(ConvTranspose2d, (2, 9, 2), [(2, 2, 2, 2)]),  # more than a few channels
    Case(ConvTranspose3d, (2, 2, 2), [(1, 2, 2, 2, 3)], kwargs={"stride": (1, 2, 1), "padding": (0, 1, 0)}),
    Case(Unfold, (2,), [(2, 2, 3, 4)]),
    Case(Unfold, ((2, 3), (1, 2), (1, 2), (2, 1)), [(2, 4, 3)]),
    Case(Fold, ((3, 4), 2), [(2, 8, 6)]),
    Case(Fold, ((4, 3), (2, 3), (1, 2), (1, 2), (2, 1)), [(12, 9)]),
]

GRID = [
    # every argument of ConvTranspose1d with every other
    *grid(
        ConvTranspose1d,
        [(2, 4, 5)],
        4,
        4,
        kernel_size=[1, 2, 3],
        stride=[1, 2, (3,)],
        padding=[0, 1],
        groups=[1, 2, 4],
        bias=[True, False],
        dilation=[1, 2],
    ),
    *(
        Case(ConvTranspose1d, (2, 3, k, s, p, extra), [(1, 2, 4)], kwargs={"dilation": d, "padding_mode": "zeros"})
        for k, s, p, d, extra in itertools.product((1, 2, 4), (1, 2, 3), (0, 1, 2), (1, 2, 4), (0, 1, 2, 3))
        if extra < max(s, d) and 3 * s - 2 * p + d * (k - 1) + extra + 1 > 0
    ),
    *grid(
        ConvTranspose2d,
        [(2, 6, 4, 3)],
        6,
        6,
        kernel_size=[3, (2, 3)],
        stride=[(2, 3), (3, 2)],
        padding=[0, (2, 1)],
        output_padding=[0, 1, (1, 0)],
        groups=[1, 2, 3, 6],
        dilation=[1, (2, 1)],
    ),
    *grid(
        ConvTranspose3d,
        [(2, 2, 3, 2, 4)],
        2,
        4,
        kernel_size=[2, (1, 2, 3)],
        stride=[2, (2, 3, 2)],
        padding=[0, (0, 1, 1)],
        output_padding=[0, (1, 0, 1)],
        groups=[1, 2],
        dilation=[1, (2, 1, 1)],
    ),
    # one pixel in, one pixel out, one sample, many channels, more than one chunk of columns
    *(Case(cls, (3, 2, 3), [(2, 3, *(1,) * n)]) for n, cls in enumerate(ALL, 1)),
    *(Case(cls, (3, 2, 3, 1, 1), [(3, *(1,) * n)]) for n, cls in enumerate(ALL, 1)),
    Case(ConvTranspose2d, (3, 2, (4, 1), 1, (3, 0)), [(2, 3, 5, 2)]),  # more is cut off than a window paints
    Case(ConvTranspose2d, (12, 10, 3), [(3, 12, 4, 4)], kwargs={"stride": 2, "padding": 1}),
    Case(ConvTranspose2d, (3, 4, 5), [(8, 3, 28, 28)]),
    *grid(
        Unfold,
        [(2, 2, 5, 6)],
        kernel_size=[1, 2, (3, 2), (1, 3)],
        dilation=[1, (1, 2)],
        padding=[0, 1, (2, 3)],
        stride=[1, 2, (3, 1)],
    ),
    Case(Unfold, (4,), [(1, 2, 2)], kwargs={"padding": 1}),  # larger than the image
    Case(Unfold, ([2, 2], [1, 1], [0, 1], [2, 1]), [(3, 4, 4)]),
    *(
        Case(Fold, (size, k, d, p, s), [(*lead, 2 * k[0] * k[1], windows)])
        for lead in [(), (3,)]
        for size, k, d, p, s in itertools.product(
            [(5, 6), (4, 4)], [(1, 1), (2, 2), (3, 2)], [(1, 1), (1, 2)], [(0, 0), (1, 2)], [(1, 1), (2, 1), (3, 2)]
        )
        for windows in [
            int((size[0] + 2 * p[0] - d[0] * (k[0] - 1) - 1) // s[0] + 1)
            * int((size[1] + 2 * p[1] - d[1] * (k[1] - 1) - 1) // s[1] + 1)
        ]
    ),
    Case(Fold, (4, 3), [(18, 4)]),
]
