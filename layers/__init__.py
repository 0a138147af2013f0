"""The atoms: one idea per file, forward and backward side by side. The import list is the registry."""

from backhand.layers.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from backhand.layers.base import Layer, LayerError, Parameter
from backhand.layers.dropout import Dropout
from backhand.layers.gates import (
    Add,
    AddConstant,
    Copy,
    Exp,
    Max,
    Multiply,
    MultiplyConstant,
    Negate,
    Reciprocal,
)
from backhand.layers.linear import Linear
from backhand.layers.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, LayerNorm
from backhand.layers.shape import Flatten, Identity

__all__ = [
    "Add",
    "AddConstant",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Copy",
    "Dropout",
    "Exp",
    "Flatten",
    "Identity",
    "Layer",
    "LayerError",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Max",
    "Multiply",
    "MultiplyConstant",
    "Negate",
    "Parameter",
    "ReLU",
    "Reciprocal",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
