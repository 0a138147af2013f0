"""What a user may hand over by mistake: bad inputs made from good ones, and bad upstream gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from backhand.layers import LayerError

Named = Iterator[tuple[str, Any]]
RAGGED = [[1.0, 2.0], [3.0]]


def bad_inputs(x: Any) -> Named:
    """(what it is, the bad thing) for one input, an array or a tuple of arrays; some of them may be taken after all."""
    if isinstance(x, tuple):
        yield from _no_arrays()
        yield "a tuple of one", x[:1]
        yield "a tuple with one too many", (*x, x[0])
        yield "no tuple", x[0]
        for i, part in enumerate(x):
            for name, bad in bad_inputs(part):
                yield f"{name} as part {i}", (*x[:i], bad, *x[i + 1 :])
        return
    yield from _misshapen(x)
    yield from _mistyped(x)
    yield from _no_arrays()
    yield "a tuple of arrays", (x, x)
    yield "a list of arrays", [x, x]
    yield "a tuple of one array", (x,)
    if x.dtype.kind in "iu":
        for name, value in (("-1", -1), ("a huge one", 2**40), ("the least one", np.iinfo(np.int64).min)):
            yield f"labels with {name}", _with(x, value)
        yield "labels of uint64, a huge one", _with(np.abs(x).astype(np.uint64), 2**64 - 1)
        yield "labels of nan", np.full(x.shape, np.nan)
        yield "labels with a fraction", x + 0.5
        yield "labels as floats", x.astype(np.float64)
        yield "labels as uint64", np.abs(x).astype(np.uint64)
    else:
        yield "integers", np.ones(x.shape, np.int64)
        yield "uint64", np.ones(x.shape, np.uint64)


def bad_douts(y: Any) -> Named:
    """(what it is, the bad thing) for the upstream gradient of an output y; refused, each of them."""
    if isinstance(y, tuple):
        yield "no tuple", np.ones(3)
        yield "a tuple that is too short", tuple(_ones(part) for part in y[:-1])
        yield "a tuple that is too long", tuple(_ones(part) for part in (*y, y[0]))
        yield "a text", "text"
        for i, part in enumerate(y):
            if isinstance(part, tuple) or np.asarray(part).dtype.kind == "f":
                for name, bad in bad_douts(part):
                    yield f"{name} as part {i}", tuple(bad if j == i else _ones(each) for j, each in enumerate(y))
        return
    good = np.ones(np.shape(y))
    for name, bad in _misshapen(good):
        if np.shape(bad) != good.shape and np.shape(bad):  # a number is the same for all
            yield name, bad
    if good.ndim:
        yield "a list that is too long", [*good, good[0]]
    for name, bad in _mistyped(good):
        if name != "bool":
            yield name, bad
    yield "a tuple of arrays", (good, good)
    yield "a tuple of one array", (good,)
    for name, bad in _no_arrays():
        if bad is not None:
            yield name, bad


def complaint(error: Exception) -> str:
    """What is wrong with an error; "" where it is the project's own and names what was expected and what came."""
    text = str(error)
    own = isinstance(error, LayerError) or (type(error) is ValueError and ": expected " in text)
    if not own:
        return f"raw {type(error).__name__}: {text}"
    return "" if "expected" in text and "got" in text else f"unclear: {text}"


def _misshapen(x: np.ndarray) -> Named:
    yield "without axes", x.reshape(-1)[0]
    yield "with one more axis in front", x[None]
    yield "with one more axis behind", x[..., None]
    yield "with three more axes", x[None, None, None]
    if x.ndim:
        yield "without its first axis", x[0]
        yield "without its last axis", x[..., 0]
        yield "flat", x.reshape(-1)
        yield "turned round", x.T
    for axis, size in enumerate(x.shape):
        yield f"one more along axis {axis}", np.concatenate([x, x.take([0], axis)], axis)
        yield f"nothing along axis {axis}", x.take([], axis)
        if size > 1:
            yield f"one less along axis {axis}", x.take(range(size - 1), axis)
            yield f"one along axis {axis}", x.take([0], axis)


def _mistyped(x: np.ndarray) -> Named:
    yield "texts", x.astype(str)
    yield "bytes", x.astype("S")
    yield "objects", x.astype(object)
    yield "objects that are nothing", np.full(x.shape, None)
    yield "complex", np.asarray(x + 1j)
    yield "bool", np.asarray(x > 0)
    yield "dates", np.zeros(x.shape, "datetime64[s]")
    yield "records", np.zeros(x.shape, [("a", float), ("b", float)])


def _no_arrays() -> Named:
    yield "None", None
    yield "a text", "text"
    yield "a number as text", "1.5"
    yield "bytes", b"1"
    yield "a dict", {"x": 1}
    yield "a set", {1, 2}
    yield "an object", object()
    yield "a function", len
    yield "a complex number", 1j
    yield "an empty list", []
    yield "an empty tuple", ()
    yield "a ragged list", RAGGED
    yield "a ragged tuple", tuple(RAGGED)
    yield "a list of texts", ["a", "b"]
    yield "a list with None", [1.0, None]
    yield "a list of arrays of two shapes", [np.ones(2), np.ones(3)]
    yield "a tuple of arrays of two shapes", (np.ones((2, 2)), np.ones((2, 3)))


OPTIONS = {
    "a text": "text",
    "an object": object(),
    "a complex number": 1j,
    "a number": 1,
    "less than nothing": -1,
    "a fraction": 2.5,
    "nan": float("nan"),
    "a huge number": 2**40,
    "an array without axes": np.array(1.0),
    "a vector": np.ones(2),
    "a table": np.ones((7, 7)),
    "a box": np.ones((3, 3, 3)),
    "a mask": np.ones((2, 3), bool),
    "a mask of nothing": np.ones(0, bool),
    "texts": np.array(["a", "b"]),
    "objects": np.array([None, None]),
    "complex numbers": np.ones((2, 2)) + 1j,
    "negative numbers": np.array([-1, -2]),
    "huge numbers": np.array([2**64 - 1, 3], np.uint64),
    "fractions": np.array([1.5, 2.0]),
    "nans": np.full(2, np.nan),
    "a tuple": (1, 2),
    "a tuple of arrays": (np.ones((2, 2)), np.ones((2, 2))),
    "a tuple of nothing": (None, None),
    "an empty list": [],
    "a ragged list": RAGGED,
    "a dict": {},
}


def _with(x: np.ndarray, value: int) -> np.ndarray:
    changed = np.array(x, x.dtype if x.dtype.kind == "u" else np.int64)
    changed[(0,) * x.ndim] = value
    return changed


def _ones(y: Any) -> Any:
    return tuple(_ones(part) for part in y) if isinstance(y, tuple) else np.ones(np.shape(y))
