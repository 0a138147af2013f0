"""What benchmarks/growth.py measures: networks in all sizes, and the time and the memory of a training step of each."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backhand.inspection import multiply_adds
from backhand.inspection.step_memory import pool_apart
from backhand.layers import LSTM, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Layer, Linear, ReLU, memory
from backhand.layers.parameter import Array
from backhand.layers.threads import get_num_threads
from backhand.losses import CrossEntropyLoss
from backhand.models import Residual, Sequential
from backhand.training.optimizers import Adam
from benchmarks import networks
from benchmarks.backhand_nn import Backhand

CLASSES = 10
Sizes = dict[str, int]


class Family(NamedTuple):
    """Networks of one kind in all sizes.

    build, batch : make the network, and its inputs, from the sizes
    usual : the sizes that stay while one is varied      axes : the values of the one that is varied
    square : the sizes that the memory may grow with the square of
    """

    build: Callable[[Sizes], Layer]
    batch: Callable[[Sizes, np.random.Generator], Array]
    usual: Sizes
    axes: dict[str, tuple[int, ...]]
    square: tuple[str, ...] = ("width",)


class Point(NamedTuple):
    """One size: the seconds and the bytes of a step, and the multiply-adds that it has to do."""

    value: int
    seconds: float
    bytes: int
    work: int


def doubled(first: int, last: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ... last."""
    return tuple(itertools.takewhile(lambda n: n <= last, (first << i for i in range(64))))


# ---------------------------------------------------------------------- the networks


def mlp(sizes: Sizes) -> Layer:
    """Linear and ReLU, `depth` times, and a Linear."""
    width = sizes["width"]
    layers: list[Layer] = []
    for i in range(sizes["depth"]):
        linear = Linear(width, width, rng=i)
        linear.weight.data *= np.float32(np.sqrt(6))  # He's start: else a deep one computes with denormal numbers
        layers += [linear, ReLU()]
    return Sequential(*layers, Linear(width, CLASSES, rng=0))


def convnet(sizes: Sizes) -> Layer:
    """Convolution 3x3, normalisation and ReLU, `depth` times, and the mean over the image."""
    channels = [3, *(sizes["width"] for _ in range(sizes["depth"]))]
    layers: list[Layer] = []
    for i, (a, b) in enumerate(itertools.pairwise(channels)):
        layers += [Conv2d(a, b, 3, padding=1, bias=False, rng=i), BatchNorm2d(b), ReLU()]
    return Sequential(*layers, AdaptiveAvgPool2d(1), Flatten(), Linear(channels[-1], CLASSES, rng=0))


def lstm(sizes: Sizes) -> Layer:
    """LSTM layers with a way around each, and a Linear at every step."""
    width = sizes["width"]
    layers = [Residual(LSTM(width, width, rng=i)) for i in range(sizes["depth"])]
    return Sequential(*layers, Linear(width, CLASSES, rng=0), Flatten(0, 1))


def gpt(sizes: Sizes) -> Layer:
    """The blocks of nanoGPT, four heads each."""
    return networks.gpt(Backhand(), CLASSES, sizes["length"], sizes["depth"], 4, sizes["width"])


def normal(*names: str) -> Callable[[Sizes, np.random.Generator], Array]:
    """Inputs of normal numbers, of the shape that these sizes make."""
    return lambda sizes, rng: rng.standard_normal([sizes[name] for name in names], np.float32)


FAMILIES = {
    "MLP": Family(
        mlp,
        normal("batch", "width"),
        {"batch": 64, "depth": 4, "width": 256},
        {"batch": doubled(1, 1024), "depth": doubled(2, 64), "width": doubled(16, 2048)},
    ),
    "ConvNet": Family(
        convnet,
        lambda sizes, rng: rng.standard_normal((sizes["batch"], 3, sizes["length"] // 8, 8), np.float32),
        {"batch": 16, "depth": 4, "width": 16, "length": 256},
        {
            "batch": doubled(1, 1024),
            "depth": doubled(2, 64),
            "width": doubled(4, 128),
            "length": doubled(64, 8192),
        },
    ),
    "LSTM": Family(
        lstm,
        normal("length", "batch", "width"),
        {"batch": 16, "depth": 2, "width": 64, "length": 32},
        {
            "batch": doubled(1, 1024),
            "depth": doubled(2, 64),
            "width": doubled(16, 512),
            "length": doubled(8, 1024),
        },
    ),
    "GPT": Family(
        gpt,
        lambda sizes, rng: rng.integers(0, CLASSES, (sizes["batch"], sizes["length"])),
        {"batch": 8, "depth": 2, "width": 64, "length": 32},
        {
            "batch": doubled(1, 1024),
            "depth": doubled(2, 64),
            "width": doubled(16, 512),
            "length": doubled(8, 1024),
        },
        square=("width", "length"),
    ),
}
AXES = {
    "batch": "batch size",
    "depth": "depth, layers or blocks",
    "width": "width, units or channels",
    "length": "length: steps, tokens, pixels",
}


# ---------------------------------------------------------------------- measuring


class Trained:
    """A network with its batch, loss and optimizer."""

    def __init__(self, family: Family, sizes: Sizes) -> None:
        rng = np.random.default_rng(0)
        self.model = family.build(sizes).input_requires_grad_(False)
        self.x = family.batch(sizes, rng)
        rows = self.x.size if self.x.dtype.kind == "i" else len(self.x)
        if family.build is lstm:
            rows = sizes["length"] * sizes["batch"]
        self.target = rng.integers(0, CLASSES, rows)
        self.loss = CrossEntropyLoss()
        self.optimizer = Adam(self.model.parameters(), lr=1e-4)

    def step(self) -> None:
        """One step of training."""
        self.optimizer.zero_grad()
        self.loss(self.model(self.x), self.target)
        self.model.backward(self.loss.backward())
        self.optimizer.step()


def measured(family: Family, sizes: Sizes, seconds: float) -> tuple[float, int, int]:
    """The fewest seconds of a step, the most bytes in it, its multiply-adds."""
    return (
        fastest(Trained(family, sizes).step, seconds),
        most_bytes(lambda: Trained(family, sizes)),
        _work(family, sizes),
    )


def _work(family: Family, sizes: Sizes) -> int:
    trained = Trained(family, sizes)
    return multiply_adds(trained.model, trained.x)["step"]


def fastest(run: Callable[[], Any], seconds: float) -> float:
    """The shortest time of a run, of three at least: what else the machine did can only have made one longer.

    With one thread it is the processor's time, which does not count when others had the core.
    """
    clock = time.process_time if get_num_threads() == 1 else time.perf_counter
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def most_bytes(build: Callable[[], Any]) -> int:
    """The most that Python and NumPy hold in the third step of what is built, itself included."""
    tracemalloc.start()
    try:
        with pool_apart(memory.Pool()):
            trained = build()
            for _ in range(3):
                tracemalloc.reset_peak()
                trained.step()
            return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
