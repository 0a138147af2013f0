"""How much a model has to multiply: the multiply-adds of its matrix products and convolutions.

They are what the mathematics asks for, whatever way a layer takes: a convolution counts as its direct sum. Everything
else (activations, normalisation, pooling, embeddings) is left out: it is bound by memory, not by arithmetic.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from backhand.layers.base import Layer
from backhand.layers.parameter import Array


class Counted(NamedTuple):
    """The multiply-adds of one call of a layer.

    forward : n. backward : 2 n, for each product has two factors to differentiate
    by_data : the part of backward that only gives the gradient by the input, which the first layer can leave out
    """

    forward: int
    backward: int
    by_data: int


Inputs = tuple[Any, ...]
Count = Callable[[Any, Inputs, Array], "tuple[int, int]"]  # layer, inputs, output -> forward, by_data


def multiply_adds(model: Layer, *inputs: Any, **options: Any) -> dict[str, int]:
    """The multiply-adds of "forward", of "backward", and of a training "step".

    inputs, options : what forward takes; the model runs once on them, and is as it was when that is done (but for
        what a forward changes: running statistics, generators)

    In a step nobody needs the gradient by the data: the first layer's part that gives it is left out. What counts:

        Linear                  N in out, for N vectors
        Bilinear                N in1 in2 out
        convolutions            pixels of y * out * in / groups * kernel; transposed: pixels of x
        RNN, LSTM, GRU, cells   vectors of x * all the weight matrices; padding counts as well
        attention               L S (E + F) for each head, what a causal mask hides counts as well
        MultiheadAttention      its projections, and the attention in it
        NTM                     the products of its controller and its heads with their matrices; N M for each head to
                                look for its key, N for each of its shifts, N M to read, 2 N M to erase and add
    """
    with counting(model) as calls:
        try:
            model.forward(*inputs, **options)
        finally:
            for layer in model.modules():
                layer.forget()
    forward, backward = (sum(getattr(call, part) for _, call in calls) for part in ("forward", "backward"))
    is_data = bool(inputs) and np.asarray(inputs[0]).dtype.kind == "f"
    unused = calls[0][1].by_data if calls and is_data else 0
    return {"forward": forward, "backward": backward, "step": forward + backward - unused}


@contextmanager
def counting(model: Layer) -> Iterator[list[tuple[Layer, Counted]]]:
    """A list that every call of a layer in the model is added to, for as long as it lasts."""
    calls: list[tuple[Layer, Counted]] = []
    watched = [(layer, vars(layer).get("forward")) for layer in model.modules() if counts(layer)]
    for layer, _ in watched:
        _watch(layer, calls)
    try:
        yield calls
    finally:
        for layer, before in watched:
            del layer.__dict__["forward"]
            if before is not None:
                layer.forward = before  # type: ignore[method-assign]


def counts(layer: Layer) -> bool:
    """Whether products of this layer are counted."""
    return _count_of(layer) is not None


def _watch(layer: Layer, calls: list[tuple[Layer, Counted]]) -> None:
    forward, count = layer.forward, _count_of(layer)
    assert count is not None

    def watched(*inputs: Any, **options: Any) -> Any:
        place = len(calls)  # before what the layers inside it add
        y = forward(*inputs, **options)
        first = y[0] if isinstance(y, tuple) else y
        given = inspect.signature(forward).bind(*inputs, **options).arguments.values()
        n, by_data = count(layer, tuple(given), first)
        calls.insert(place, (layer, Counted(n, 2 * n, by_data)))
        return y

    layer.forward = watched  # type: ignore[method-assign]


def _count_of(layer: Layer) -> Count | None:
    return next((COUNTS[cls.__name__] for cls in type(layer).__mro__ if cls.__name__ in COUNTS), None)


# ---------------------------------------------------------------------- layer by layer


def _linear(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    n = y.size * layer.in_features
    return n, n


def _bilinear(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    n = y.size * layer.in1_features * layer.in2_features
    return n, n


def _conv(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    n = y.size * layer.weight.data[0].size
    return n, n


def _conv_transpose(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    n = np.size(inputs[0]) * layer.weight.data[0].size
    return n, n


def _recurrent(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    vectors = math.prod(np.shape(inputs[0])[:-1])
    matrices = {name: p.size for name, p in layer.named_parameters() if p.data.ndim == 2}
    first = sum(n for name, n in matrices.items() if name == "weight_ih" or name.startswith("weight_ih_l0"))
    return vectors * sum(matrices.values()), vectors * first


def _attention(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    keys, width = np.shape(inputs[1])[-2:]
    return math.prod(y.shape[:-1]) * keys * (width + y.shape[-1]), 0


def _multihead(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    n = layer.embed_dim * sum(map(np.size, inputs[:3]))
    return n, 0  # the projections into heads; the attention and the projection after it count themselves


def _ntm(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    matrices = (p for part in (layer.controller, layer.heads) for p in part.parameters() if p.data.ndim == 2)
    vectors = math.prod(y.shape[:-1])
    gates = 4 if layer.kind == "lstm" else 1
    by_data = vectors * layer.input_size * layer.hidden_size * gates
    return vectors * sum(p.size for p in matrices), by_data  # its output, a Linear, and the memory count themselves


def _addressing(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    return y.size * (np.shape(inputs[0])[-1] + np.shape(inputs[3])[-1]), 0


def _content(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    return y.size * np.shape(inputs[0])[-1], 0


def _shift(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    return y.size * np.shape(inputs[1])[-1], 0


def _memory_read(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    return y.size * np.shape(inputs[0])[-1], 0


def _memory_write(layer: Any, inputs: Inputs, y: Array) -> tuple[int, int]:
    return 2 * y.size * np.shape(inputs[1])[1], 0


COUNTS: dict[str, Count] = {
    "Linear": _linear,
    "Bilinear": _bilinear,
    **{f"Conv{axes}d": _conv for axes in (1, 2, 3)},
    **{f"ConvTranspose{axes}d": _conv_transpose for axes in (1, 2, 3)},
    **dict.fromkeys(("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"), _recurrent),
    "ScaledDotProductAttention": _attention,
    "MultiheadAttention": _multihead,
    "NTM": _ntm,
    "Addressing": _addressing,
    "ContentAddressing": _content,
    "CircularShift": _shift,
    "MemoryRead": _memory_read,
    "MemoryWrite": _memory_write,
}
