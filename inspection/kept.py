"""What layers keep for backward: the arrays in what they saved, and the memory behind each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from backhand.layers.parameter import Array


def arrays_of(value: Any) -> Iterator[Array]:
    """Every array in nested tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from arrays_of(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from arrays_of(each)


def owner_of(array: Array) -> Array:
    """The array whose memory this one looks into; itself, where it is no view of another."""
    owner: Any = array
    while getattr(owner, "base", None) is not None:
        owner = owner.base
        if isinstance(owner, np.ndarray):
            array = owner
    return array
