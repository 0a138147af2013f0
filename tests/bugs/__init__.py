"""Bugs put on purpose into the toolkit's own layers, each with its right diagnosis: what the doctor is scored on.

A bug is a subclass, made on the spot, that overrides forward or backward of a right layer with a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from backhand.layers import Layer
from tests.bugs.patients import PATIENTS


@dataclass
class Bug:
    """One bug in one layer.

    kind : the right diagnosis, the `kind` of a Fault
    what : the bug itself, in a word or two
    patient : which layer of PATIENTS it is put into
    infect : makes a right layer a wrong one
    also : other diagnoses that are as right, because nobody could tell the two apart from outside
    """

    kind: str
    what: str
    patient: str
    infect: Callable[[Layer], Layer]
    also: tuple[str, ...] = ()

    def build(self) -> tuple[Layer, tuple[Any, ...]]:
        make, inputs = PATIENTS[self.patient]
        return self.infect(make()), inputs

    def __str__(self) -> str:
        return f"{self.patient}: {self.what}".replace(" ", "-")


def wrong(layer: Layer, **methods: Any) -> Layer:
    """The layer with some of its methods replaced."""
    cls = type(layer)
    layer.__class__ = type(cls.__name__, (cls,), methods)
    return layer


def tree(f: Callable[[Any], Any], grads: Any) -> Any:
    """F of every array of what backward returned."""
    if isinstance(grads, tuple):
        return tuple(tree(f, each) for each in grads)
    return None if grads is None else f(grads)


def changed(dx: Any = None, dw: Any = None) -> Callable[[Layer], Layer]:
    """A backward whose right gradients are changed afterwards: those by inputs by `dx`, by parameters by `dw`.

    Each is a function of a right gradient (and of the layer, if it takes two arguments).
    """

    def infect(layer: Layer) -> Layer:
        right = type(layer).backward

        def backward(self: Layer, dout: Any = None) -> Any:
            before = [p.grad.copy() for p in self.parameters()]
            grads = right(self, dout)
            if dw is not None:
                for p, grad in zip(self.parameters(), before, strict=True):
                    p.grad[...] = grad + dw(p.grad - grad)
            return grads if dx is None else tree(dx, grads)

        return wrong(layer, backward=backward)

    return infect


def remembering(layer: Layer, backward: Callable[[Layer, Any, tuple[Any, ...], Any], Any]) -> Layer:
    """A layer whose new backward(self, right, inputs, dout) also sees what went in; `right` is the right backward."""
    cls = type(layer)

    def forward(self: Layer, *inputs: Any) -> Any:
        self.__dict__.setdefault("seen", []).append(tuple(np.array(x) for x in inputs))
        return cls.forward(self, *inputs)

    def wrong_backward(self: Layer, dout: Any = None) -> Any:
        return backward(self, cls.backward, self.__dict__["seen"].pop(), dout)

    def forget(self: Layer, since: int = 0) -> None:
        self.__dict__["seen"] = []
        cls.forget(self, since)

    return wrong(layer, forward=forward, backward=wrong_backward, forget=forget)


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """The attribute has another value for a while."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def in_backward(which: Callable[[Layer], Any], name: str, change: Callable[[Any], Any]) -> Callable[[Layer], Layer]:
    """A backward during which `name` of `which(layer)` is changed: a parameter's data, say, or the padding."""

    def infect(layer: Layer) -> Layer:
        right = type(layer).backward

        def backward(self: Layer, dout: Any = None) -> Any:
            owner = which(self)
            with swapped(owner, name, change(getattr(owner, name))):
                return right(self, dout)

        return wrong(layer, backward=backward)

    return infect
