"""Activations: elementwise, gated and over vectors."""

import numpy as np

from backhand.layers import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU6,
    RReLU,
    SiLU,
    Softmax2d,
    Softmin,
    Softplus,
    Softshrink,
    Softsign,
    Tanhshrink,
    Threshold,
)
from tests.cases import Case, grid

EXTREMES = np.array([-1e4, -800.0, -100.0, -1.0, 0.0, 1.0, 25.0, 100.0, 800.0, 1e4])
CORNERS = np.array([-6.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 6.0, 20.0])
WIDE = np.linspace(-8, 8, 321) + 1e-3  # off every corner, on both sides of it
SHAPES = [(), (3,), (2, 3), (2, 3, 4, 2)]

SIMPLE = (ELU, CELU, SELU, GELU, SiLU, Mish, LogSigmoid, Softplus, Softsign, Tanhshrink)
STRAIGHT = (ReLU6, Hardtanh, Hardsigmoid, Hardswish, Hardshrink, Softshrink)

CASES = [
    *(Case(cls, (), [(3, 4)]) for cls in SIMPLE),
    *(Case(cls, (), [WIDE[::8]]) for cls in STRAIGHT),
    *(Case(cls, (), [()]) for cls in (*SIMPLE, *STRAIGHT)),
    Case(ELU, (-1.5,), [(3, 4)]),
    Case(CELU, (-1.5,), [(3, 4)]),
    Case(GELU, ("tanh",), [(3, 4)]),
    Case(Softplus, (3.0, 1.0), [(3, 4)]),
    Case(Threshold, (0.05, 2.0), [(3, 4)]),
    Case(PReLU, (), [(3, 4)]),
    Case(PReLU, (4, -0.3), [(3, 4, 2)]),
    Case(PReLU, (), [()]),
    Case(RReLU, (), [(3, 4)], torch=False),
    Case(RReLU, (0.5, 0.5), [(3, 4)]),
    Case(RReLU, (), [(3, 4)], eval=True),
    Case(GLU, (), [(3, 4)]),
    Case(GLU, (0,), [(4, 3)], torch=True),
    Case(Softmin, (1,), [(3, 4)]),
    Case(LogSoftmax, (1,), [(3, 4)]),
    Case(Softmax2d, (), [(2, 3, 2, 2)]),
]

GRID = [
    *(Case(cls, (), [shape]) for cls in (*SIMPLE, *STRAIGHT, PReLU) for shape in SHAPES),
    *(Case(cls, (), [x]) for cls in (*SIMPLE, *STRAIGHT, PReLU) for x in (EXTREMES, CORNERS, WIDE)),
    *(Case(cls, (alpha,), [x]) for cls in (ELU, CELU) for alpha in (0.3, 1, 2.0) for x in (CORNERS, WIDE)),
    *(Case(cls, (-0.7,), [CORNERS]) for cls in (ELU, CELU)),
    *(Case(ELU, (0.0,), [x]) for x in (CORNERS, WIDE, EXTREMES)),
    *(Case(GELU, ("tanh",), [x]) for x in (EXTREMES, CORNERS, WIDE, (), (2, 3))),
    *(Case(GELU, (approximate,), [np.linspace(-40, 40, 801)]) for approximate in ("none", "tanh")),
    *grid(Softplus, [WIDE], beta=[1, 0.2, 3.0, -1.0], threshold=[20, 5.0, 0.0, -2.0, np.inf]),
    *(Case(Softplus, (), [x], kwargs={"beta": 2.0}) for x in (EXTREMES, CORNERS)),
    *(
        Case(Hardtanh, ends, [x])
        for ends in ((-2, 2), (0.5, 0.75), (-np.inf, 1.0), (0, np.inf))
        for x in (CORNERS, WIDE)
    ),
    *(Case(Hardshrink, (lambd,), [x]) for lambd in (0, 1, 3.0, -1.0) for x in (CORNERS, WIDE)),
    *(Case(Softshrink, (lambd,), [x]) for lambd in (0, 1, 3.0) for x in (CORNERS, WIDE)),
    *(
        Case(Threshold, (at, to), [x])
        for at in (0, 0.5, -1)
        for to in (0, 7.5, -3.0)
        for x in (CORNERS, WIDE, EXTREMES)
    ),
    Case(Threshold, (0.5, 1.0), [()]),
    *grid(PReLU, [(2, 3, 4)], num_parameters=[1, 3], init=[0.25, 0, -0.5, 1.0, 2.0]),
    *(Case(PReLU, (3,), [shape]) for shape in [(1, 3), (5, 3), (2, 3, 4, 2), (2, 3, 1, 2, 2)]),
    *(Case(RReLU, (), [x], eval=True) for x in (*SHAPES, CORNERS, WIDE, EXTREMES)),
    *(Case(RReLU, ends, [WIDE], eval=True) for ends in ((0.1, 0.9), (-1.0, 0.5), (0, 0), (2, 3))),
    *(Case(RReLU, (slope, slope), [WIDE]) for slope in (0.0, 0.3, 1.0, -0.5)),
    *(Case(GLU, (dim,), [(2, 4, 6, 2)]) for dim in (0, 1, 2, 3, -1, -2, -3, -4)),
    *(Case(GLU, (), [x]) for x in ((2,), (3, 4), EXTREMES, CORNERS[1:])),
    *(Case(cls, (dim,), [(2, 3, 4)]) for cls in (Softmin, LogSoftmax) for dim in (0, 1, 2, -1, -3)),
    *(Case(cls, (0,), [x]) for cls in (Softmin, LogSoftmax) for x in ((), (1,), (5,), EXTREMES, CORNERS)),
    *(Case(cls, (), [shape]) for cls in (Softmin, LogSoftmax) for shape in [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 2)]),
    *(Case(Softmax2d, (), [shape]) for shape in [(3, 2, 4), (1, 3, 2, 4), (2, 1, 3, 3)]),
]
