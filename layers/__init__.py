"""The atoms: one idea per file, forward and backward side by side. The import list is the registry."""

from backhand.layers.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from backhand.layers.adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from backhand.layers.base import Layer, LayerError, Parameter
from backhand.layers.batch_norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from backhand.layers.cells import GRUCell, LSTMCell, RNNCell
from backhand.layers.conv import Conv1d, Conv2d, Conv3d
from backhand.layers.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from backhand.layers.dropout import Dropout
from backhand.layers.fold import Fold, Unfold
from backhand.layers.gates import Add, AddConstant, Copy, Exp, Max, Multiply, MultiplyConstant, Negate, Reciprocal
from backhand.layers.linear import Linear
from backhand.layers.local_response_norm import LocalResponseNorm
from backhand.layers.lp_pooling import LPPool1d, LPPool2d, LPPool3d
from backhand.layers.normalization import GroupNorm, LayerNorm, RMSNorm
from backhand.layers.pads import (
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
)
from backhand.layers.pooling import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from backhand.layers.recurrent import GRU, LSTM, RNN
from backhand.layers.shape import Flatten, Identity
from backhand.layers.unpooling import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d
from backhand.layers.upsample import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "Add",
    "AddConstant",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
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
    "GroupNorm",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSTMCell",
    "Layer",
    "LayerError",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "Max",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "Multiply",
    "MultiplyConstant",
    "Negate",
    "Parameter",
    "RMSNorm",
    "RNNCell",
    "ReLU",
    "Reciprocal",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Unfold",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]
