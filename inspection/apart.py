"""Work on a copy: what looks at a model must not change it, and must see the same thing twice."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from backhand.inspection.gradient_check import generators_of, leaves, map_leaves
from backhand.layers.base import Layer
from backhand.layers.parameter import Array


def apart(model: Layer, loss: Layer | None = None) -> tuple[Layer, Any]:
    """Copies of a model and its loss (what they share stays shared), ready to be differentiated in their own modes.

    They keep what backward needs, compute the gradient by the data too, and start from gradients of zero.
    """
    for name, layer in (("model", model), ("loss", loss)):
        if not isinstance(layer, Layer) and not (name == "loss" and layer is None):
            hint = f"; did you mean {layer.__name__}()?" if isinstance(layer, type) else ""
            raise TypeError(f"expected {name} to be a Layer, got {layer!r}{hint}")
    model, loss = copy.deepcopy((model, loss))
    for each in (model, loss):
        for layer in each.modules() if each is not None else ():
            layer.caching = True
            layer.input_requires_grad = True
            for parameter in layer.parameters():
                parameter.zero_grad()
    return model, loss


class Again:
    """The generators and the buffers of layers as they are now, to be put back before each forward."""

    def __init__(self, *layers: Layer | None) -> None:
        some = [layer for layer in layers if layer is not None]
        self._generators = [(g, g.bit_generator.state) for layer in some for g in generators_of(layer)]
        self._buffers = [(b, b.copy()) for layer in some for _, b in layer.named_buffers()]

    def __call__(self) -> None:
        for generator, state in self._generators:
            generator.bit_generator.state = state
        for buffer, value in self._buffers:
            buffer[...] = value


def as_inputs(x: Any) -> tuple[Any, ...]:
    """The arguments of forward, as copies: a tuple is several inputs; Python's numbers stay what they are."""
    return tuple(map_leaves(each, copied) for each in (x if isinstance(x, tuple) else (x,)))


def copied(x: Any) -> Any:
    """A copy of an array (of a list: the array of it); a number as it is."""
    return x if isinstance(x, (int, float)) or x is None else np.array(x)


def with_target(outputs: Any, target: Any) -> tuple[Any, ...]:
    """The arguments of a loss: what the model gave, and the target (a tuple: several; None: no target)."""
    scores = outputs if isinstance(outputs, tuple) else (outputs,)
    return (*scores, *(as_inputs(target) if target is not None else ()))


def start_backward(loss: Any, outputs: Any) -> Any:
    """The gradient by the model's outputs, in their nesting: what the loss gives by its targets is left out."""
    dscores = loss.backward()
    if not isinstance(outputs, tuple):
        return dscores[0] if isinstance(dscores, tuple) else dscores
    return tuple(dscores[: len(outputs)]) if isinstance(dscores, tuple) else (dscores,)


def floats(tree: Any) -> list[Array]:
    """The float arrays in nested tuples."""
    found = [np.asarray(leaf) for _, leaf in leaves(tree) if leaf is not None]
    return [array for array in found if array.dtype.kind == "f"]
