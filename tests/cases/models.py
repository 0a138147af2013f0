"""Architectures: small ones, since every entry of every weight is nudged."""

from backhand.layers import Tanh
from backhand.models import MLP, ConvNet, LeNet5
from tests.cases import Case

CASES = [
    Case(MLP, (6, 5, 3), [(2, 6)]),
    Case(MLP, (12, 5, 4, 3), [(2, 3, 2, 2)], kwargs={"activation": Tanh, "dropout": 0.3}),
    Case(LeNet5, (3,), [(1, 1, 28, 28)]),
    Case(ConvNet, (3, (2, 8, 8), (3, 4)), [(2, 2, 8, 8)]),
    Case(ConvNet, (3, (2, 8, 8), (3, 4)), [(2, 2, 8, 8)], eval=True),
]
