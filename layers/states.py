"""A state_dict beside the layer that it is for: what can be copied, what only one side has, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backhand.layers.parameter import Array

if TYPE_CHECKING:
    from backhand.layers.base import Layer

Shape = tuple[int, ...]


class Comparison(NamedTuple):
    """What a layer and a state_dict have in common, and what not.

    own : the layer's arrays by name      arrays : what can be copied into them, by the same names
    missing, unexpected : names that the layer alone has, and the state alone
    misshapen : the shape in the layer and that in the state, where they differ
    excused : names that are not in the state and need not be, and why
    wrong : what is not to be loaded in any case, in words
    """

    own: dict[str, Array]
    arrays: dict[str, Array]
    missing: list[str]
    unexpected: list[str]
    misshapen: dict[str, tuple[Shape, Shape]]
    excused: dict[str, str]
    wrong: list[str]

    def problems(self, strict: bool, misshapen: bool = False) -> str:
        """All that stands against loading, or ""; `misshapen` lets shapes differ, as long as nothing else is wrong."""
        strange = f"missing: {', '.join(self.missing)}" * (strict and bool(self.missing))
        more = f"unexpected: {', '.join(self.unexpected)}" * (strict and bool(self.unexpected))
        shapes = ""
        if self.misshapen and (not misshapen or strange or more):
            each = (f"{name} should be {own} and is {got}" for name, (own, got) in sorted(self.misshapen.items()))
            shapes = f"misshapen: {', '.join(each)}"
        return "; ".join(filter(None, [shapes, strange, more, *self.wrong]))

    def copy(self) -> None:
        """Copy what fits into the layer, in place."""
        for name, array in self.arrays.items():
            self.own[name][...] = array


def compare(layer: Layer, state: Mapping[str, Any]) -> Comparison:
    """Lay a state_dict beside a layer; nothing is changed.

    What stands in the layer under several names is one array: it is there when one of them is in the state, as in a
    file of safetensors.torch's `save_model`, and where several are they must agree (torch takes the last).
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        layer.reject("a state_dict, which maps names to arrays", f"a {type(state).__name__}")
    own = dict(layer._named_state())
    versions = getattr(state, "_metadata", None) or {}
    state = {name: _array(value) for name, value in state.items()}
    wrong: list[str] = []
    refused: list[str] = []  # where what stands inside would say the same again
    for prefix, each in layer._walk():
        dot = f"{prefix}." if prefix else ""
        if not dot.startswith(tuple(refused)):
            problems = each._adapt_state(state, dot, versions.get(prefix, {}).get("version"))
            wrong += problems
            refused += [dot] * bool(problems)

    arrays: dict[str, Array] = {}
    numbers: dict[str, Array] = {}
    misshapen, excused = {}, {}
    for name, array in own.items():
        if name not in state:
            continue
        value = state[name]
        if value is array:  # put there by _adapt_state
            excused[name] = "older files have none; left as it was"
            continue
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            wrong.append(f"{name} should be numbers and is {getattr(value, 'dtype', f'a {type(value).__name__}')}")
            continue
        if array.shape == () and value.shape == (1,):  # torch before 0.4 had no arrays without axes
            value = value.reshape(())
        numbers[name] = value
        if value.shape != array.shape:
            misshapen[name] = (array.shape, value.shape)
        elif array.dtype.kind in "iu" and not _same(value, _cast(value, array.dtype)):
            wrong.append(f"{name} should be whole numbers and is {value}")
        else:
            arrays[name] = value

    first: dict[Any, str] = {}  # of the names of one array the first that is in the state
    for name in numbers:
        other = first.setdefault(_place(own[name]), name)
        if other != name and not _same(*(_cast(numbers[each], own[name].dtype) for each in (other, name))):
            wrong.append(f"{other} and {name} are one array here, and come with different values")
    for name, array in own.items():
        if name not in numbers and _place(array) in first:
            excused[name] = f"is {first[_place(array)]}"
    missing = [name for name in own if name not in state and name not in excused]
    unexpected = [name for name in state if name not in own]
    return Comparison(own, arrays, missing, unexpected, misshapen, excused, wrong)


def _array(value: Any) -> Any:
    """The value as an array, or as it is where it is none: torch's bfloat16, or lists of different lengths."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return value


def _place(array: Array) -> Any:
    """What two names of one array have in common, and no two other arrays."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype


def _cast(value: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        return value.astype(dtype, copy=False)


def _same(a: Array, b: Array) -> bool:
    return a is b or np.array_equal(a, b, equal_nan=True)
