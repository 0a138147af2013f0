"""Layers at sizes where the fast paths are taken: threads, pooled memory, all that is only done for large arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backhand import layers, losses, models
from backhand.layers import Layer
from benchmarks import networks
from benchmarks.backhand_nn import Backhand
from benchmarks.workloads import labelled, text

IMAGES = (16, 32, 24, 24)
TOKENS = (16, 64, 64)

# name -> the layer, the shapes of its inputs; drawn from one seed, in float32
LAYERS: dict[str, tuple[Callable[[], Layer], list[tuple[int, ...]]]] = {
    "Linear": (lambda: layers.Linear(256, 512, rng=0), [(256, 256)]),
    "Bilinear": (lambda: layers.Bilinear(32, 32, 16, rng=0), [(512, 32), (512, 32)]),
    "Conv1d": (lambda: layers.Conv1d(32, 32, 5, padding=2, rng=0), [(16, 32, 200)]),
    "Conv2d 3x3": (lambda: layers.Conv2d(32, 32, 3, padding=1, rng=0), [IMAGES]),
    "Conv2d 3x3 of many samples": (lambda: layers.Conv2d(32, 32, 3, padding=1, rng=0), [(64, 32, 32, 32)]),
    "Conv2d 3x3 of many channels": (lambda: layers.Conv2d(128, 128, 3, padding=1, rng=0), [(8, 128, 12, 12)]),
    "Conv2d 3x3 stride 2": (lambda: layers.Conv2d(32, 64, 3, 2, 1, rng=0), [IMAGES]),
    "Conv2d 1x1": (lambda: layers.Conv2d(32, 64, 1, rng=0), [IMAGES]),
    "Conv2d 5x5 of one channel": (lambda: layers.Conv2d(1, 6, 5, padding=2, rng=0), [(64, 1, 28, 28)]),
    "Conv2d 11x11 stride 4": (lambda: layers.Conv2d(3, 32, 11, 4, 2, rng=0), [(4, 3, 96, 96)]),
    "Conv2d depthwise": (lambda: layers.Conv2d(32, 32, 3, padding=1, groups=32, rng=0), [IMAGES]),
    "Conv2d in groups": (lambda: layers.Conv2d(32, 32, 3, padding=1, groups=4, rng=0), [IMAGES]),
    "Conv3d": (lambda: layers.Conv3d(8, 8, 3, padding=1, rng=0), [(4, 8, 12, 12, 12)]),
    "ConvTranspose2d": (lambda: layers.ConvTranspose2d(32, 16, 4, 2, 1, rng=0), [(8, 32, 16, 16)]),
    "BatchNorm1d": (lambda: layers.BatchNorm1d(256), [(512, 256)]),
    "BatchNorm2d": (lambda: layers.BatchNorm2d(32), [IMAGES]),
    "GroupNorm": (lambda: layers.GroupNorm(4, 32), [IMAGES]),
    "InstanceNorm2d": (lambda: layers.InstanceNorm2d(32), [IMAGES]),
    "LayerNorm": (lambda: layers.LayerNorm(256), [(32, 32, 256)]),
    "RMSNorm": (lambda: layers.RMSNorm(256), [(32, 32, 256)]),
    "LocalResponseNorm": (lambda: layers.LocalResponseNorm(5), [IMAGES]),
    "MaxPool2d": (lambda: layers.MaxPool2d(2), [IMAGES]),
    "MaxPool2d that overlaps": (lambda: layers.MaxPool2d(3, 2), [IMAGES]),
    "AvgPool2d": (lambda: layers.AvgPool2d(2), [IMAGES]),
    "AdaptiveAvgPool2d": (lambda: layers.AdaptiveAvgPool2d(5), [IMAGES]),
    "Upsample": (lambda: layers.Upsample(scale_factor=2), [(8, 16, 16, 16)]),
    **{
        name: (lambda name=name: getattr(layers, name)(), [IMAGES])
        for name in ("ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Sigmoid", "Tanh", "Softplus", "Hardswish")
    },
    "PReLU": (lambda: layers.PReLU(32), [IMAGES]),
    "Softmax": (lambda: layers.Softmax(-1), [(32, 32, 256)]),
    "LogSoftmax": (lambda: layers.LogSoftmax(-1), [(32, 32, 256)]),
    "Dropout": (lambda: layers.Dropout(0.5, rng=0), [IMAGES]),
    "RNN": (lambda: layers.RNN(64, 128, rng=0), [(8, 48, 64)]),
    "GRU": (lambda: layers.GRU(64, 128, rng=0), [(8, 48, 64)]),
    "LSTM": (lambda: layers.LSTM(64, 128, 2, rng=0), [(8, 48, 64)]),
    "LSTM both ways": (lambda: layers.LSTM(64, 64, bidirectional=True, rng=0), [(8, 48, 64)]),
    "ScaledDotProductAttention": (lambda: layers.ScaledDotProductAttention(is_causal=True), [(16, 4, 48, 32)] * 3),
    "MultiheadAttention": (lambda: layers.MultiheadAttention(64, 4, batch_first=True, rng=0), [TOKENS] * 3),
    "TransformerEncoderLayer": (
        lambda: layers.TransformerEncoderLayer(64, 4, 256, 0.0, batch_first=True, rng=0),
        [TOKENS],
    ),
    "Residual": (lambda: models.Residual(layers.Conv2d(32, 32, 3, padding=1, rng=0)), [IMAGES]),
    "MSELoss": (lambda: losses.MSELoss(), [(512, 512), (512, 512)]),
}


# name -> the network, a batch of inputs and labels
class Smooth:
    """A library whose networks have no kinks: Tanh in the place of ReLU, average pooling of max-pooling."""

    def __init__(self, nn):
        self.nn = nn

    def __getattr__(self, name):
        if name == "ReLU":
            return lambda inplace=False: self.nn.Tanh()
        return getattr(self.nn, name.replace("MaxPool", "AvgPool"))


MODELS: dict[str, tuple[Callable[[Any], Layer], Callable[[np.random.Generator], Any]]] = {
    "mlp": (lambda nn: networks.mlp(nn, 784, 256, 128, 10), labelled((64, 784), 10)),
    "lenet": (networks.lenet, labelled((32, 1, 28, 28), 10)),
    # without kinks: there the last bit of a product, which may differ with the threads of the BLAS, decides for a whole
    # number where its gradient goes
    "convnet": (lambda nn: networks.convnet(Smooth(nn)), labelled((12, 3, 32, 32), 10)),
    "char-lstm": (lambda nn: networks.char_lstm(nn, 65, 128, 2), text(6, 48, 65, one_hot=True)),
    "gpt": (lambda nn: networks.gpt(nn, 65, 64, 2, 4, 128), text(48, 8, 65, one_hot=False)),
}


def layer(name: str) -> tuple[Layer, tuple[np.ndarray, ...]]:
    """A new layer of that name, and its inputs, read-only."""
    build, shapes = LAYERS[name]
    rng = np.random.default_rng(1)
    return build(), tuple(frozen(rng.standard_normal(shape, np.float32)) for shape in shapes)


def model(name: str) -> tuple[Layer, np.ndarray, np.ndarray]:
    """A new network of that name, with a batch and its labels, read-only."""
    build, batch = MODELS[name]
    x, target = batch(np.random.default_rng(1))
    return build(Backhand()), frozen(x), frozen(target)


def frozen(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x
