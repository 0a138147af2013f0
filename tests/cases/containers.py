"""Containers."""

from backhand.layers import Add, Copy, Identity, Linear, Multiply, ReLU, Sigmoid, Tanh
from backhand.models import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll
from tests.cases import Case


def linear(m: int, n: int) -> Linear:
    return Linear(m, n, rng=0)


def cell(d: int, h: int) -> Sequential:
    """h_t = tanh(W x_t + U h_{t-1}), of containers alone."""
    return Sequential(Parallel(linear(d, h), linear(h, h)), Add(), Tanh())


def shared() -> tuple[Sequential]:
    one = linear(4, 4)
    return (Sequential(one, Tanh(), one),)


def between_branches(n: int) -> tuple[Sequential, Sequential]:
    one = linear(n, n)
    return Sequential(one, Tanh()), Sequential(Sigmoid(), one)


CASES = [
    Case(Sequential, lambda: (linear(4, 5), ReLU(), linear(5, 3)), [(2, 4)]),
    Case(Sequential, lambda: ({"in": linear(4, 5), "out": Sigmoid()},), [(2, 4)], torch=False),
    Case(Sequential, lambda: (Parallel(Add(), Identity()), Multiply()), [[(3,), (3,)], (3,)], torch=False),
    Case(Sequential, lambda: (Copy(), Multiply()), [(3,)], torch=False),
    Case(Sequential, shared, [(2, 4)], torch=False),
    # one layer in several branches: its stack is only right when the branches go back in reverse
    Case(Sum, lambda: between_branches(4), [(2, 4)], torch=False),
    Case(Concat, lambda: between_branches(4), [(2, 4)], torch=False),
    Case(Parallel, lambda: between_branches(4), [(2, 4), (2, 4)], torch=False),
    Case(Residual, lambda: between_branches(4), [(2, 4)], torch=False),
    Case(Sequential, lambda: (Copy(), Repeat(Parallel(Tanh(), Sigmoid()), 2), Add()), [(3,)], torch=False),
    Case(Residual, lambda: (linear(4, 4),), [(2, 4)]),
    Case(Residual, lambda: (linear(4, 3), linear(4, 3)), [(2, 4)]),
    Case(Sum, lambda: (linear(4, 3), Sequential(Tanh(), linear(4, 3))), [(2, 4)]),
    Case(Concat, lambda: (linear(4, 3), Tanh(), linear(4, 1)), [(2, 4)]),
    Case(Concat, lambda: (Tanh(), Sigmoid()), [(2, 4, 3)], kwargs={"axis": -1}),
    Case(Parallel, lambda: (linear(4, 3), Sigmoid()), [(2, 4), (2,)]),
    Case(Repeat, lambda: (Sequential(linear(4, 4), Tanh()), 3), [(2, 4)]),
    Case(Unroll, lambda: (cell(3, 4),), [(5, 2, 3), (2, 4)]),
    Case(Unroll, lambda: (cell(3, 4),), [(2, 5, 3), (2, 4)], kwargs={"batch_first": True}),
    Case(Unroll, lambda: (cell(3, 4),), [(5, 2, 3), (2, 4)], kwargs={"return_state": True}),
]
