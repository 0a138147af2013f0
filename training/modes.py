"""What is put back as it was: the modes of layers after an evaluation, buffers and generators after a failed step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from backhand.inspection.gradient_check import generators_of
from backhand.layers.base import Layer
from backhand.layers.parameter import Array


@contextlib.contextmanager
def evaluating(*layers: Layer) -> Iterator[None]:
    """Put layers in eval mode for a while; each inner layer goes back to the mode that it was in, come what may."""
    with modes_kept(*layers):
        for layer in layers:
            layer.eval()
        yield


@contextlib.contextmanager
def modes_kept(*layers: Layer) -> Iterator[None]:
    """Whatever mode layers are put in meanwhile, each inner layer goes back to its own."""
    modes = [
        (each, each.training, each.caching, each.input_requires_grad) for layer in layers for each in layer.modules()
    ]
    try:
        yield
    finally:
        for each, training, caching, input_requires_grad in modes:
            each.training, each.caching, each.input_requires_grad = training, caching, input_requires_grad


class Buffers:
    """The buffers of a model (running statistics) and its generators as they were before a step."""

    def __init__(self, model: Layer) -> None:
        self._kept: list[tuple[Layer, str, Array]] = []
        for layer in model.modules():
            for name in layer.buffer_names:
                if getattr(layer, name, None) is not None:
                    self._kept.append((layer, name, np.array(getattr(layer, name))))

        self._generators = generators_of(model)
        self._states: list[Any] = []

    def remember(self) -> None:
        """Take them as they are now."""
        self._states = [generator.bit_generator.state for generator in self._generators]
        for layer, name, kept in self._kept:
            np.copyto(kept, getattr(layer, name))

    def restore(self) -> None:
        """Put them back."""
        for layer, name, kept in self._kept:
            getattr(layer, name)[...] = kept
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.bit_generator.state = state
