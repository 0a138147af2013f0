"""python -m benchmarks.overhead: what a call costs beyond the NumPy calls that do its work.

Each row sets a layer's forward and backward against the same NumPy calls written bare, with `out=` where the layer has
a place of its own for the result (the gradients). Both are called in turn, one call timed at a time, and the
difference of the medians is printed: checks, the cache, reductions to a number, Python.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from backhand import layers, losses
from backhand.layers import Layer
from backhand.layers.parameter import Array
from backhand.models import Sequential
from backhand.training.optimizers import SGD, Adam


class Row(NamedTuple):
    """A layer beside its bare arithmetic; `bare_backward` is None where there is nothing to undo."""

    name: str
    forward: Callable[[], Any]
    bare_forward: Callable[[], Any]
    backward: Callable[[], Any] | None = None
    bare_backward: Callable[[], Any] | None = None


def rows(batch: int = 64) -> list[Row]:
    """The layers of a small classifier."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 128), np.float32)
    dout = rng.standard_normal((batch, 128), np.float32)
    return [
        linear(x, dout),
        relu(x, dout),
        sequential(x, dout),
        cross_entropy(x[:, :10].copy(), rng.integers(0, 10, batch)),
        squares(x, dout),
        adam(rng),
        sgd(rng),
    ]


def linear(x: Array, dout: Array) -> Row:
    """Two products forward and back, the third the gradient by the input; the bias added and summed."""
    layer = layers.Linear(128, 128, rng=0)
    weight, bias = layer.weight.data, layer.bias.data  # type: ignore[union-attr]
    dweight, dbias = np.zeros_like(weight), np.zeros_like(bias)

    def forward() -> Array:
        y = np.matmul(x, weight.T)
        y += bias
        return y

    def backward() -> Array:
        np.matmul(dout.T, x, out=dweight)
        np.add.reduce(dout, 0, out=dbias)
        return np.matmul(dout, weight)

    def ours() -> Any:
        layer.zero_grad()  # it forgets what the forward saved too
        layer.forward(x)
        start = time.perf_counter()
        layer.backward(dout)
        return time.perf_counter() - start

    return Row("Linear", _forward(layer, x), _timed(forward), ours, _timed(backward))


def relu(x: Array, dout: Array) -> Row:
    """A maximum, and a product with a mask."""
    y = np.maximum(x, 0)
    return Row(
        "ReLU",
        _forward(layers.ReLU(), x),
        _timed(lambda: np.maximum(x, 0)),
        _backward(layers.ReLU(), dout, x),
        _timed(lambda: dout * (y > 0)),
    )


def sequential(x: Array, dout: Array) -> Row:
    """Four layers that do nothing, in a Sequential and called by hand."""
    inner = [layers.Identity() for _ in range(4)]
    model = Sequential(*(layers.Identity() for _ in range(4)))

    def forward() -> Any:
        a, b, c, d = inner
        return d.forward(c.forward(b.forward(a.forward(x))))

    def backward() -> Any:
        a, b, c, d = inner
        return a.backward(b.backward(c.backward(d.backward(dout))))

    def bare_forward() -> float:
        for layer in inner:
            layer.forget()
        return _timed(forward)()

    def bare_backward() -> float:
        bare_forward()
        return _timed(backward)()

    return Row("Sequential of 4", _forward(model, x), bare_forward, _backward(model, dout, x), bare_backward)


def cross_entropy(x: Array, labels: Array) -> Row:
    """The largest label, a softmax in place, the logarithm at the labels, their sum."""
    n, classes = x.shape

    def forward() -> tuple[Array, ...]:
        np.maximum.reduce(labels.view(np.uintp))
        p = x - x.T.copy().max(0)[:, None]
        places = np.arange(0, n * classes, classes)
        places += labels
        own = p.reshape(-1)[places]
        np.exp(p, out=p)
        total = p.dot(np.ones(classes, x.dtype))
        losses = np.log(total)
        losses -= own
        return p, total, places, np.add.reduce(losses)

    kept = forward()

    def backward() -> Array:
        p, total, places, _ = kept
        p *= (1 / total)[:, None]
        p.reshape(-1)[places] -= 1 / len(x)
        return p

    loss = losses.CrossEntropyLoss()
    return Row(
        "CrossEntropyLoss",
        _forward(loss, x, labels),
        _timed(forward),
        _backward(loss, None, x, labels),
        _timed(backward),
    )


def squares(x: Array, target: Array) -> Row:
    """A difference, its square, their sum."""
    difference = x - target

    def forward() -> Any:
        d = x - target
        return d, np.add.reduce(d * d, axis=None)

    loss = losses.MSELoss()
    return Row(
        "MSELoss",
        _forward(loss, x, target),
        _timed(forward),
        _backward(loss, None, x, target),
        _timed(lambda: difference * 0.1),
    )


def adam(rng: np.random.Generator) -> Row:
    """Twelve passes over ten thousand numbers."""
    parameters = [layers.Parameter(rng.standard_normal(shape, np.float32)) for shape in ((128, 64), (128,), (10, 128))]
    optimizer = Adam(parameters)
    g = rng.standard_normal(sum(p.size for p in parameters), np.float32)
    w, m, v, a = g.copy(), g.copy(), g * g, g.copy()

    def step() -> None:
        nonlocal w, m, v, a
        np.subtract(g, m, out=a)
        a *= 0.1
        m += a
        v *= 0.999
        np.multiply(g, g, out=a)
        a *= 0.001
        v += a
        np.sqrt(v, out=a)
        a += 1e-8
        np.divide(m, a, out=a)
        a *= 1e-3
        w -= a

    return Row("Adam.step", _timed(optimizer.step), _timed(step))


def sgd(rng: np.random.Generator) -> Row:
    """Two passes over ten thousand numbers."""
    parameters = [layers.Parameter(rng.standard_normal(shape, np.float32)) for shape in ((128, 64), (128,), (10, 128))]
    optimizer = SGD(parameters)
    g = rng.standard_normal(sum(p.size for p in parameters), np.float32)
    w, a = g.copy(), g.copy()

    def step() -> None:
        nonlocal w
        np.multiply(g, 1e-3, out=a)
        w -= a

    return Row("SGD.step", _timed(optimizer.step), _timed(step))


def _timed(call: Callable[[], Any]) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return timed


def _forward(layer: Layer, *inputs: Any) -> Callable[[], float]:
    def timed() -> float:
        for each in layer.modules():
            each.forget()
        start = time.perf_counter()
        layer.forward(*inputs)
        return time.perf_counter() - start

    return timed


def _backward(layer: Layer, dout: Any, *inputs: Any) -> Callable[[], float]:
    def timed() -> float:
        layer.forward(*inputs)
        start = time.perf_counter()
        layer.backward(dout)
        return time.perf_counter() - start

    return timed


def difference(ours: Callable[[], float], bare: Callable[[], float], times: int) -> tuple[float, float]:
    """(what ours takes, how much more than bare that is), in microseconds: medians of calls in turn."""
    pairs = np.array([(ours(), bare()) for _ in range(times)])
    first, second = 1e6 * np.median(pairs[times // 10 :], axis=0)
    return float(first), float(first - second)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--times", type=int, default=3000, help="how often each is called (default: 3000)")
    parser.add_argument("--batch", type=int, default=64, help="rows of the input (default: 64)")
    options = parser.parse_args()
    print(f"{'microseconds':<20}{'forward':>9}{'beyond NumPy':>14}{'backward':>10}{'beyond NumPy':>14}")
    for row in rows(options.batch):
        line = "{:>9.2f}{:>14.2f}".format(*difference(row.forward, row.bare_forward, options.times))
        if row.backward and row.bare_backward:
            line += "{:>10.2f}{:>14.2f}".format(*difference(row.backward, row.bare_backward, options.times))
        print(f"{row.name:<20}{line}", flush=True)


if __name__ == "__main__":
    main()
