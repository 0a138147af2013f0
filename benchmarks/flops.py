"""How many floating-point operations a step has to do in matrix products, convolutions counted as the direct sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backhand.layers import Layer
from backhand.layers.parameter import Array

# layer, inputs, output -> the multiply-adds of forward, of backward, and the part of backward that only gives the
# gradient by the data
Counted = tuple[float, float, float]
Count = Callable[[Any, tuple[Array, ...], Array], Counted]


def _linear(layer: Any, x: tuple[Array, ...], y: Array) -> Counted:
    n = y.size * layer.in_features
    return n, 2 * n, n  # dW and dx cost what y costs


def _conv(layer: Any, x: tuple[Array, ...], y: Array) -> Counted:
    n = y.size * layer.weight.data[0].size
    return n, 2 * n, n


def _lstm(layer: Any, x: tuple[Array, ...], y: Array) -> Counted:
    steps = x[0].size / x[0].shape[-1]
    n = steps * sum(p.size for p in layer.parameters() if p.data.ndim == 2)
    return n, 2 * n, steps * layer.weight_ih_l0.size


def _attention(layer: Any, x: tuple[Array, ...], y: Array) -> Counted:
    n = y.size * x[1].shape[-2] * 2.0  # q k^T and P v, the half that a causal mask hides counted too
    return n, 2 * n, 0  # each product has two factors to differentiate


def _multihead(layer: Any, x: tuple[Array, ...], y: Array) -> Counted:
    n = float(layer.embed_dim * sum(each.size for each in x[:3]))
    return n, 2 * n, n  # the projections into heads; what is inside counts itself


COUNTS: dict[str, Count] = {
    "Linear": _linear,
    "Conv2d": _conv,
    "LSTM": _lstm,
    "ScaledDotProductAttention": _attention,
    "MultiheadAttention": _multihead,
}


def flops(model: Layer, inputs: tuple[Array, ...], **options: Any) -> dict[str, float]:
    """The operations (two a multiply-add) of forward, of backward, and of a training step.

    In a step nobody needs the gradient by the data: the first layer's part that gives it is left out.
    """
    calls: list[Counted] = []

    def watch(layer: Layer, count: Count) -> None:
        forward = layer.forward

        def watched(*x: Any, **more: Any) -> Any:
            y = forward(*x, **more)
            calls.append(count(layer, x, y))
            return y

        layer.forward = watched  # type: ignore[method-assign]

    watched = [layer for layer in model.modules() if type(layer).__name__ in COUNTS]
    for layer in watched:
        watch(layer, COUNTS[type(layer).__name__])
    try:
        model.forward(*inputs, **options)
    finally:
        for layer in watched:
            del layer.__dict__["forward"]
        model.zero_grad()
    forward = 2 * sum(call[0] for call in calls)
    backward = 2 * sum(call[1] for call in calls)
    unused = 2 * calls[0][2] if calls and inputs[0].dtype.kind == "f" else 0
    return {"forward": forward, "backward": backward, "step": forward + backward - unused}
