"""Containers, and the named architectures built with them."""

from backhand.models.containers import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll
from backhand.models.convnet import ConvNet
from backhand.models.lenet import LeNet5
from backhand.models.mlp import MLP

__all__ = [
    "MLP",
    "Concat",
    "ConvNet",
    "LeNet5",
    "Parallel",
    "Repeat",
    "Residual",
    "Sequential",
    "Sum",
    "Unroll",
]
