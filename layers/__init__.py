"""The atoms: one idea per file, forward and backward side by side. The import list is the registry."""

from backhand.layers.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from backhand.layers.adaptive import AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d
from backhand.layers.base import Layer, LayerError, Parameter
from backhand.layers.cells import GRUCell, LSTMCell, RNNCell
from backhand.layers.conv import Conv1d, Conv2d, Conv3d
from backhand.layers.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from backhand.layers.dropout import Dropout
from backhand.layers.fold import Fold, Unfold
from backhand.layers.gates import Add, AddConstant, Copy, Exp, Max, Multiply, MultiplyConstant, Negate, Reciprocal
from backhand.layers.linear import Linear
from backhand.layers.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, LayerNorm
from backhand.layers.pooling import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from backhand.layers.recurrent import GRU, LSTM, RNN
from backhand.layers.shape import Flatten, Identity

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "Add",
    "AddConstant",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Copy",
    "Dropout",
    "Exp",
    "Flatten",
    "Fold",
    "GRUCell",
    "Identity",
    "LSTMCell",
    "Layer",
    "LayerError",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Max",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Multiply",
    "MultiplyConstant",
    "Negate",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Reciprocal",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Unfold",
]
