"""Drawing the next token from scores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.layers.softmax import softmax


def sampled(scores: Array, temperature: float, top_k: int | None, rng: np.random.Generator) -> Array:
    """One token (N,) for each row of scores (N, V), from softmax(scores / temperature).

    temperature : 0 takes the largest score      top_k : only the largest so many may be drawn
    Raises ValueError for a temperature below 0, and a top_k below 1.
    """
    if not temperature >= 0:
        raise ValueError(f"expected a temperature of 0 or more, got {temperature!r}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"expected top_k of 1 or more, got {top_k!r}")
    if temperature == 0:
        return scores.argmax(axis=1)
    z = scores.astype(np.float64) / temperature
    if top_k is not None and top_k < z.shape[1]:
        least = np.partition(z, -top_k, axis=1)[:, -top_k, None]
        z = np.where(z < least, -np.inf, z)
    # the first token at which the running sum of the probabilities passes a number drawn evenly
    running = softmax(z, 1).cumsum(axis=1)
    drawn = rng.random((len(z), 1)) * running[:, -1:]
    return np.asarray((running <= drawn).sum(axis=1).clip(max=z.shape[1] - 1))


@contextlib.contextmanager
def undisturbed(model: Layer) -> Iterator[None]:
    """Put a model in eval mode for a while; each of its layers goes back to the mode that it was in."""
    modes = [(layer, layer.training, layer.caching) for layer in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for layer, training, caching in modes:
            layer.training, layer.caching = training, caching
