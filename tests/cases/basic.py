"""Linear, shapes, activations and gates."""

import numpy as np

from backhand.layers import (
    Add,
    AddConstant,
    Copy,
    Exp,
    Flatten,
    Identity,
    LeakyReLU,
    Linear,
    Max,
    Multiply,
    MultiplyConstant,
    Negate,
    Reciprocal,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from tests.cases import Case, grid

EXTREMES = np.array([-1e4, -100.0, -1.0, 1.0, 100.0, 1e4])

CASES = [
    Case(Linear, (4, 3), [(2, 5, 4)]),
    Case(Linear, (4, 3), [(4,)]),
    Case(Linear, (4, 3), [(5, 4)], kwargs={"bias": False}),
    Case(Identity, (), [(2, 3)]),
    Case(Flatten, (), [(2, 3, 4)]),
    Case(Flatten, (0, 1), [(2, 3, 4)]),
    Case(ReLU, (), [(3, 4)]),
    Case(LeakyReLU, (0.2,), [(3, 4)]),
    Case(LeakyReLU, (-0.5,), [(3, 4)]),
    Case(Sigmoid, (), [(3, 4)]),
    Case(Tanh, (), [(3, 4)]),
    Case(Softmax, (1,), [(3, 4)]),
    Case(Softmax, (), [(3, 4, 2)]),
    Case(Softmax, (), [()]),
    Case(Add, (), [(3, 4), (4,), ()]),
    Case(Copy, (3,), [(3, 4)]),
    Case(Multiply, (), [(3, 4), (3, 1), (4,)]),
    Case(Max, (), [(3, 4), (3, 4), (4,)]),
    Case(Exp, (), [(3, 4)]),
    Case(Reciprocal, (), [(3, 4)]),
    Case(Negate, (), [(3, 4)]),
    Case(AddConstant, (1.5,), [(3, 4)]),
    Case(MultiplyConstant, (-2.5,), [(3, 4)]),
]

GRID = [
    *grid(Linear, [(3, 5)], 5, 2, bias=[True, False]),
    *(Case(Linear, (5, 2), [shape]) for shape in [(5,), (1, 5), (2, 3, 5), (2, 1, 3, 5)]),
    *(Case(cls, (), [shape]) for cls in (ReLU, Sigmoid, Tanh, Identity) for shape in [(), (3,), (2, 3), (2, 3, 4, 2)]),
    *(Case(cls, (), [EXTREMES]) for cls in (ReLU, LeakyReLU, Sigmoid, Tanh)),
    Case(Softmax, (0,), [EXTREMES]),
    *grid(LeakyReLU, [(3, 4)], negative_slope=[0.01, 0.0, 1.0, -0.3, 2.0]),
    *(Case(Softmax, (dim,), [(2, 3, 4)]) for dim in (0, 1, 2, -1, -3)),
    *(Case(Flatten, dims, [(2, 3, 4, 2)]) for dims in [(), (0,), (2,), (1, 2), (0, -1), (-2, -1), (3, 3)]),
    Case(Flatten, (0,), [()]),
]
