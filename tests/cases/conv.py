"""Convolutions."""

import itertools

from backhand.layers import Conv1d, Conv2d, Conv3d
from tests.cases import Case, grid

MODES = ["zeros", "reflect", "replicate", "circular"]

CASES = [
    Case(Conv1d, (2, 4, 3), [(2, 2, 7)], kwargs={"stride": 2, "padding": 1, "dilation": 2, "groups": 2}),
    Case(Conv1d, (2, 3, 2), [(2, 6)], kwargs={"padding": "same", "padding_mode": "reflect"}),
    Case(Conv2d, (2, 3, 3), [(2, 2, 5, 4)]),
    Case(Conv2d, (2, 3, (3, 2)), [(2, 2, 5, 5)], kwargs={"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}),
    Case(Conv2d, (9, 2, 2), [(2, 9, 3, 3)], kwargs={"bias": False}),  # more than a few channels
    Case(Conv2d, (4, 8, 2), [(2, 4, 4, 4)], kwargs={"groups": 4}),  # depthwise, two filters each
    Case(Conv2d, (1, 2, 4), [(1, 5, 5)], kwargs={"padding": "same"}),
    Case(Conv2d, (2, 2, 3), [(2, 2, 4, 3)], kwargs={"padding": 2, "padding_mode": "circular"}),
    Case(Conv2d, (2, 2, 3), [(2, 2, 4, 3)], kwargs={"padding": (3, 1), "padding_mode": "replicate"}),
    Case(Conv3d, (2, 2, 2), [(2, 2, 3, 3, 3)], kwargs={"padding": (1, 0, 1), "stride": (1, 1, 2)}),
    Case(Conv3d, (1, 2, (1, 2, 3)), [(1, 3, 3, 4)], kwargs={"padding": 1, "padding_mode": "reflect"}),
]

GRID = [
    # every argument of Conv1d with every other, odd and even sizes
    *itertools.chain.from_iterable(
        grid(
            Conv1d,
            [(2, 4, size)],
            4,
            4,
            kernel_size=[1, 2, 3],
            stride=[1, 2, 3],
            padding=[0, 1, 3],
            dilation=[1, 2],
            groups=[1, 2, 4],
            bias=[True, False],
        )
        for size in (7, 8)
    ),
    # padding by name and by number, in every mode
    *grid(
        Conv1d,
        [(2, 2, 9)],
        2,
        3,
        kernel_size=[1, 2, 3, 4, (5,)],
        padding=["same", "valid", 0, 1, (3,)],
        dilation=[1, 2],
        padding_mode=MODES,
    ),
    *grid(
        Conv2d,
        [(2, 2, 6, 7)],
        2,
        2,
        kernel_size=[2, (3, 2), (1, 4)],
        padding=["same", "valid", 1, (2, 0)],
        dilation=[1, (1, 2)],
        padding_mode=MODES,
    ),
    *grid(
        Conv3d,
        [(1, 2, 4, 5, 6)],
        2,
        2,
        kernel_size=[2, (3, 1, 2)],
        padding=["same", "valid", (1, 0, 2)],
        padding_mode=MODES,
    ),
    # asymmetric everything
    *itertools.chain.from_iterable(
        grid(
            Conv2d,
            [shape],
            6,
            6,
            kernel_size=[3, (2, 3)],
            stride=[1, 2, (1, 3)],
            padding=[0, (2, 1)],
            dilation=[1, (2, 1)],
            groups=[1, 2, 3, 6],
        )
        for shape in [(2, 6, 7, 6), (6, 8, 7), (1, 6, 5, 5)]
    ),
    *grid(
        Conv3d,
        [(2, 2, 5, 4, 6)],
        2,
        4,
        kernel_size=[2, (1, 2, 3)],
        stride=[1, (2, 1, 3)],
        padding=[0, (0, 1, 2)],
        dilation=[1, (2, 1, 1)],
        groups=[1, 2],
    ),
    # the kernel as large as the image; one pixel; many channels; single samples of each kind
    Case(Conv1d, (3, 2, 5), [(2, 3, 5)]),
    Case(Conv2d, (3, 2, (4, 5)), [(2, 3, 4, 5)]),
    Case(Conv2d, (3, 2, 3), [(2, 3, 1, 1)], kwargs={"padding": 1}),
    Case(Conv2d, (3, 5, 1), [(2, 3, 4, 5)]),
    Case(Conv2d, (12, 7, 3), [(3, 12, 6, 6)], kwargs={"padding": 1}),
    Case(Conv3d, (2, 2, (2, 3, 4)), [(2, 2, 2, 3, 4)]),
    *(
        Case(cls, (2, 3, 2), [(2, *(5, 4, 3)[:n])], kwargs={"padding": 1, "padding_mode": mode})
        for n, cls in enumerate((Conv1d, Conv2d, Conv3d), 1)
        for mode in MODES
    ),
    *(Case(cls, (2, 3, 2), [(1, 2, *(5, 4, 3)[:n])]) for n, cls in enumerate((Conv1d, Conv2d, Conv3d), 1)),
    # more samples than one chunk of columns holds
    Case(Conv2d, (4, 3, 5), [(8, 4, 28, 28)]),
    Case(Conv2d, (18, 4, 5), [(4, 18, 18, 18)], kwargs={"groups": 2, "padding": 2}),
]
