"""What is measured: a row for each model, a row for each layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backhand.datasets import CopyTask
from backhand.layers.parameter import Array
from benchmarks import networks

Rng = np.random.Generator


class Model(NamedTuple):
    """A network whose whole training steps are measured.

    build : makes it from the library that it is given, `nn`
    batch : makes inputs and labels from a generator
    optimizer, options : the class's name and arguments, the same in both libraries
    std : of the normal numbers that the matrices start from, where the layers' own start is not what is wanted
    jax : the name of the network in benchmarks.jax_nn, where there is one
    loss, loss_options : the same of the loss
    tolerance : how far losses and gradients may differ in the first steps, relative, in float32
    """

    build: Callable[[Any], Any]
    batch: Callable[[Rng], tuple[Array, Array]]
    optimizer: str
    options: dict[str, Any]
    loss: str = "CrossEntropyLoss"
    loss_options: dict[str, Any] = {}
    std: float | None = None
    jax: str | None = None
    tolerance: float = 1e-4


class Single(NamedTuple):
    """A layer whose forward and backward are measured apart.

    build : makes it from the library that it is given
    shape : of its input (of each of its `inputs`, which differ)
    options : keyword arguments of forward
    tolerance : how far results may differ, relative, in float32
    """

    build: Callable[[Any], Any]
    shape: tuple[int, ...]
    inputs: int = 1
    options: dict[str, Any] = {}
    tolerance: float = 1e-4


def labelled(shape: tuple[int, ...], classes: int) -> Callable[[Rng], tuple[Array, Array]]:
    """Batches of normal numbers, with labels drawn evenly."""
    return lambda rng: (rng.standard_normal(shape, np.float32), rng.integers(0, classes, shape[0]))


def text(steps: int, batch: int, vocabulary: int, *, one_hot: bool) -> Callable[[Rng], tuple[Array, Array]]:
    """Batches of characters with the next ones as labels: (T, N, V) one-hot, or (N, T) integers."""

    def draw(rng: Rng) -> tuple[Array, Array]:
        x = rng.integers(0, vocabulary, (steps, batch) if one_hot else (batch, steps))
        y = rng.integers(0, vocabulary, x.size)
        return (np.eye(vocabulary, dtype=np.float32)[x] if one_hot else x), y

    return draw


def copied(length: int, batch: int) -> Callable[[Rng], tuple[Array, Array]]:
    """Sequences of the copy task; nothing is to be said while they are being told."""

    def draw(rng: Rng) -> tuple[Array, Array]:
        x, said = CopyTask().draw(rng, batch, length)
        return x, np.concatenate([np.zeros((length + 1, *said.shape[1:]), said.dtype), said])

    return draw


ADAM: tuple[str, dict[str, Any]] = ("Adam", {"lr": 1e-3})
SGD: tuple[str, dict[str, Any]] = ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4})
RMSPROP: tuple[str, dict[str, Any]] = ("RMSprop", {"lr": 2e-3, "alpha": 0.95})
CENTRED: tuple[str, dict[str, Any]] = (
    "RMSprop",
    {"lr": 1e-4, "alpha": 0.95, "eps": 1e-4, "momentum": 0.9, "centered": True},
)
SUMMED: dict[str, Any] = {"loss": "BCEWithLogitsLoss", "loss_options": {"reduction": "sum"}}
ADAMW: tuple[str, dict[str, Any]] = ("AdamW", {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1})

MODELS: dict[str, Model] = {
    "digits-mlp": Model(lambda nn: networks.mlp(nn, 64, 128, 10), labelled((64, 64), 10), *ADAM, jax="mlp"),
    "mnist-mlp": Model(lambda nn: networks.mlp(nn, 784, 256, 128, 10), labelled((64, 784), 10), *ADAM, jax="mlp"),
    "wide-mlp": Model(lambda nn: networks.mlp(nn, 784, 1024, 1024, 10), labelled((256, 784), 10), *ADAM, jax="mlp"),
    "lenet": Model(networks.lenet, labelled((64, 1, 28, 28), 10), *SGD),
    # In deep networks of ReLUs and max-pooling, rounding decides on which side of 0, or of its neighbour, a few numbers
    # fall: from the float64 gradients PyTorch's own float32 ones differ by up to 6e-3 in ResNet-20 and 2e-3 in AlexNet,
    # ours, with Winograd's convolutions, by up to 1e-2 and 8e-3. With Tanh and average pooling ours differ by 2e-5 and
    # 2e-6. In float64, which takes the plain products, both sides agree to 1e-12 (tests/test_benchmarks.py).
    "convnet": Model(networks.convnet, labelled((64, 3, 32, 32), 10), *SGD, tolerance=2e-2),
    "resnet20": Model(networks.resnet20, labelled((64, 3, 32, 32), 10), *SGD, tolerance=2e-2),
    "alexnet": Model(networks.alexnet, labelled((16, 3, 224, 224), 1000), *SGD, tolerance=2e-2),
    **{
        f"char-lstm{name}": Model(
            lambda nn: networks.char_lstm(nn, 65, 128, 2), text(50, n, 65, one_hot=True), *RMSPROP, jax="char_lstm"
        )
        for name, n in {"": 50, "-batch1": 1}.items()
    },
    **{
        f"gpt{name}": Model(
            lambda nn: networks.gpt(nn, 65, 64, 4, 4, 128),
            text(64, n, 65, one_hot=False),
            *ADAMW,
            std=0.02,
            jax="gpt",
        )
        for name, n in {"": 12, "-batch1": 1}.items()
    },
    # one sequence at a time, of the mean length: the paper's way to train it
    "ntm": Model(lambda nn: nn.NTM(9, 8), copied(10, 1), *CENTRED, **SUMMED),
    "ntm-lstm": Model(lambda nn: nn.NTM(9, 8, controller="lstm"), copied(10, 1), *CENTRED, **SUMMED),
    "ntm-batch16": Model(lambda nn: nn.NTM(9, 8), copied(10, 16), *CENTRED, **SUMMED),
}

SINGLES: dict[str, Single] = {
    "conv3x3-64": Single(lambda nn: nn.Conv2d(64, 64, 3, padding=1), (16, 64, 32, 32)),
    "conv3x3-128": Single(lambda nn: nn.Conv2d(128, 128, 3, padding=1), (16, 128, 16, 16)),
    "conv3x3-256": Single(lambda nn: nn.Conv2d(256, 256, 3, padding=1), (16, 256, 8, 8)),
    "conv5x5": Single(lambda nn: nn.Conv2d(64, 192, 5, padding=2), (4, 64, 27, 27)),
    "conv11x11-stride4": Single(lambda nn: nn.Conv2d(3, 64, 11, 4, 2), (8, 3, 224, 224)),
    "conv3x3-depthwise": Single(lambda nn: nn.Conv2d(128, 128, 3, padding=1, groups=128), (16, 128, 32, 32)),
    "batchnorm2d": Single(lambda nn: nn.BatchNorm2d(64), (64, 64, 16, 16)),
    "maxpool2d": Single(lambda nn: nn.MaxPool2d(2), (64, 32, 32, 32)),
    "layernorm": Single(lambda nn: nn.LayerNorm(512), (64, 64, 512)),
    "softmax": Single(lambda nn: nn.Softmax(-1), (64, 64, 512)),
    "lstm": Single(lambda nn: nn.LSTM(128, 128), (50, 50, 128)),
    "multihead-attention": Single(
        lambda nn: nn.MultiheadAttention(256, 8), (64, 16, 256), inputs=3, options={"need_weights": False}
    ),
}

WORKLOADS: dict[str, Model | Single] = {**MODELS, **SINGLES}
