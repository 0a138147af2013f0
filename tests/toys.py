"""Small data, nets and a Trainer for the tests of training."""

import numpy as np

from backhand.layers import Layer, Linear, ReLU
from backhand.layers.softmax import log_softmax
from backhand.losses import Loss
from backhand.models import Sequential
from backhand.training import (
    Adam,
    Trainer,
)


class CrossEntropy(Loss):
    """Enough of a cross-entropy for these tests."""

    def forward(self, x, target):
        x = self.input(x)
        if target.min() < 0 or target.max() >= x.shape[1]:
            self.reject(f"labels in [0, {x.shape[1]})", target.max())
        logs = log_softmax(x, 1)
        losses = -logs[np.arange(len(x)), target]
        self.save(logs, target, out=losses)
        return self.reduce(losses)

    def backward(self, dout=None):
        dl = self.upstream(dout)
        logs, target = self.saved()
        dx = np.exp(logs)
        dx[np.arange(len(dx)), target] -= 1
        return dx * dl[:, None]


class Watcher(Layer):
    """Hands everything on, keeps running statistics as BatchNorm does, and remembers what it saw."""

    buffer_names = ("mean", "count")

    def __init__(self, on_step=None):
        self.mean = np.zeros(1)
        self.count = np.array(0)
        self.seen = []
        self.modes = []
        self.on_step = on_step

    def forward(self, x):
        self.modes.append(self.training)
        if self.training:
            self.seen.append(np.array(x))
            self.mean[...] = 0.9 * self.mean + 0.1 * x.mean()
            self.count += 1
            if self.on_step:
                self.on_step(len(self.seen))
        self.save(out=x)
        return x + 0

    def backward(self, dout):
        dout = self.upstream(dout)
        self.saved()
        return dout


class BadGradient(Layer):
    """The identity, with a derivative that breaks at a given call."""

    def __init__(self, at, value=np.nan):
        self.at, self.value, self.calls = at, value, 0

    def forward(self, x):
        self.save(out=x)
        return x + 0

    def backward(self, dout):
        dout = self.upstream(dout)
        self.saved()
        self.calls += 1
        return dout * self.value if self.calls == self.at else dout


def blobs(n=120, classes=3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = 3 * np.random.default_rng(9).standard_normal((classes, 4))
    return (centres[y] + rng.standard_normal((n, 4))).astype(dtype), y


def net(*first, seed=0, dtype=np.float32):
    layers = [Linear(4, 8, rng=seed, dtype=dtype), ReLU(), Linear(8, 3, rng=seed + 1, dtype=dtype)]
    return Sequential(*first, *layers)


def trainer(model=None, loss=None, lr=0.01, **options):
    model = net() if model is None else model
    options.setdefault("progress", False)
    return Trainer(model, loss or CrossEntropy(), Adam(model.parameters(), lr), **options)


def kept(model):
    return [name for name, layer in model.named_modules() if vars(layer).get("_stack")]


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


class Loader:
    """A re-iterable of batches that does not know its length."""

    def __init__(self, x, y, size=32):
        self.x, self.y, self.size = x, y, size

    def __iter__(self):
        for a in range(0, len(self.x), self.size):
            yield self.x[a : a + self.size], self.y[a : a + self.size]
