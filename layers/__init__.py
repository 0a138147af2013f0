"""The atoms: one idea per file, forward and backward side by side. The import list is the registry."""

from backhand.layers.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from backhand.layers.base import Layer, LayerError, Parameter
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
from backhand.layers.shape import Flatten, Identity

__all__ = [
    "Add",
    "AddConstant",
    "Copy",
    "Exp",
    "Flatten",
    "Identity",
    "Layer",
    "LayerError",
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
