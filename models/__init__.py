"""Containers, and the named architectures built with them."""

from backhand.models.containers import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll
from backhand.models.convnet import ConvNet
from backhand.models.lenet import LeNet5
from backhand.models.mlp import MLP
from backhand.models.ntm import NTM, HeadParameters

__all__ = [
    "MLP",
    "NTM",
    "Concat",
    "ConvNet",
    "HeadParameters",
    "LeNet5",
    "Parallel",
    "Repeat",
    "Residual",
    "Sequential",
    "Sum",
    "Unroll",
]
