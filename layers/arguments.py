"""Constructor arguments: checking them, and reading them back for the repr.

Each check returns the argument as a plain int, float, bool or str, or raises the one error that there is for it, a
ValueError that says whose argument it is, what was expected and what came: `Dropout: expected p in [0, 1], got 2`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from backhand.layers.parameter import Parameter


def refuse(layer: object, expected: str, got: object, hint: str = "") -> NoReturn:
    """Raise the error about an argument; `got` is shown by its repr."""
    raise ValueError(f"{type(layer).__name__}: expected {expected}, got {got!r}{f'; {hint}' if hint else ''}")


def whole(layer: object, name: str, value: Any, least: float = 1) -> int:
    """`value` as an int of at least `least` (-inf: any), or the error that says so."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        known = {0: "an integer, 0 or more", 1: "a positive integer", -np.inf: "an integer"}
        kind = known.get(least, f"an integer >= {least}")
        refuse(layer, f"{name} to be {kind}", value)
    return int(value)


def whole_tuple(layer: object, name: str, value: Any, n: int, least: float = 1) -> tuple[int, ...]:
    """`value`, an int or `n` of them, as a tuple of n ints of at least `least`, or the error that says so."""
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
    if len(items) == 1:
        items = items * n
    if len(items) != n:
        refuse(layer, f"{name} to be an integer or {n} of them", value)
    return tuple(whole(layer, name, item, least) for item in items)


def given_size(layer: object, value: Any, n: int, ndim: int) -> tuple[int, ...]:
    """The n sizes of an output, given as such or in the place of the last n of a shape of `ndim`, or the error."""
    items = tuple(value) if isinstance(value, (tuple, list)) or np.ndim(value) == 1 else value
    return whole_tuple(
        layer, "output_size", items[-n:] if isinstance(items, tuple) and len(items) == ndim else items, n
    )


def within(layer: object, name: str, value: Any, low: float, high: float) -> float:
    """`value` as a number in [low, high], or the error that says so."""
    if not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        refuse(layer, f"{name} in [{low:g}, {high:g}]", value)
    return float(value)


def number(layer: object, name: str, value: Any, but: float | None = None) -> float:
    """`value` as any number (not nan) other than `but`, or the error that says so."""
    if not isinstance(value, (int, float, np.number)) or value != value or value == but:
        refuse(layer, f"{name} to be a number" if but is None else f"{name} other than {but:g}", value)
    return float(value)


def positive(layer: object, name: str, value: Any) -> float:
    """`value` as a number above 0, or the error that says so."""
    if not isinstance(value, (int, float, np.number)) or not value > 0:
        refuse(layer, f"{name} above 0", value)
    return float(value)


def flag(layer: object, name: str, value: Any) -> bool:
    """`value` as a bool, or the error that says so: RNNCell(10, 20, "relu") would else be a bias."""
    if not isinstance(value, (bool, np.bool_)):
        refuse(layer, f"{name} to be True or False", value)
    return bool(value)


def one_of(layer: object, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value` if it is one of the words, or the error that lists them."""
    if not isinstance(value, str) or value not in choices:
        *others, last = map(repr, choices)
        refuse(layer, f"{name} to be {', '.join(others)} or {last}", value)
    return value


def constructor_arguments(layer: Any) -> Iterator[str]:
    """The arguments of the constructor call, read back from the attributes of the same names."""
    for argument in inspect.signature(type(layer)).parameters.values():
        if argument.name == "dtype":
            kinds = [p.dtype for p in layer.parameters()]
            if kinds and kinds[0] != np.float32:
                yield f"dtype={str(kinds[0])!r}"
            continue
        if argument.name == "rng" or not hasattr(layer, argument.name):
            continue
        value = getattr(layer, argument.name)
        if isinstance(argument.default, bool) and (value is None or isinstance(value, Parameter)):
            value = value is not None  # bias=True became a Parameter
        shown = value.__name__ if isinstance(value, type) else repr(value)
        if argument.kind is argument.VAR_POSITIONAL:
            yield from map(repr, value)
        elif argument.default is argument.empty:
            yield shown
        elif not _same(value, argument.default):
            yield f"{argument.name}={shown}"


def _same(value: object, default: object) -> bool:
    try:
        return bool(value == default)
    except ValueError:  # an array against None
        return False
