"""Anybody's class with forward and backward, or a pair of functions, seen as a Layer.

    forward(x, ...) -> y            backward(dout) -> dx, or a tuple (dx, ...)
    f(x, ...) -> y or (y, cache)    df(dout), df(dout, cache) or df(dout, x, ...) -> dx, or a tuple

Parameters are found by their gradients: a float array `W` is one where there is a `dW` (or `W_grad`, `grad_W`, also in
a dict `grads` beside a dict `params`), after a backward has run. Objects in lists and attributes are looked into too.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from backhand.inspection.evidence import flat, global_state
from backhand.inspection.gradient_check import map_leaves
from backhand.layers.base import Layer
from backhand.layers.parameter import Array, Parameter

Path = tuple[Any, ...]  # attribute names, dict keys and list positions, from the owner to an array
DEPTH = 4


class Borrowed(Layer):
    """A Layer made of somebody's object, or of two functions; `name` is how the report calls it."""

    def __init__(self, thing: Any) -> None:
        if isinstance(thing, tuple):
            self.owner, self.pair = None, thing
            self.name = getattr(thing[0], "__name__", "f")
        else:
            self.owner = copy.deepcopy(thing)
            self.pair = ("forward" if hasattr(thing, "forward") else "__call__", "backward")
            self.name = type(thing).__name__
            to_float64(self.owner)
        self.extras: tuple[Any, ...] = ()  # what backward returns after the gradients of the inputs
        self.owned: dict[str, Parameter] = {}
        self.paths: dict[str, tuple[Path, Path]] = {}
        self.state: dict[Path, Array] = {}
        self.generators: list[np.random.Generator] = []
        self._calls: list[Any] = []
        self._inputs: tuple[Any, ...] = ()
        self._pristine: Any = copy.deepcopy(self.owner)

    def fresh(self) -> Borrowed:
        """The same, as if nothing had ever been run."""
        return Borrowed(self.pair if self.owner is None else self._pristine).meet(self._inputs)

    def meet(self, inputs: tuple[Any, ...]) -> Borrowed:
        """Find the parameters, on a copy that runs once; returns the Borrowed itself."""
        self._inputs = inputs
        drawn = global_state()
        if self.owner is not None:
            trial = copy.deepcopy(self)
            y = trial.forward(*map_leaves(inputs, np.array))
            with contextlib.suppress(Exception):  # the check comes to it, and says so
                trial.backward(map_leaves(y, lambda each: np.ones(np.shape(each))))
            before = dict(arrays_in(self.owner))  # what only a forward leaves is no parameter
            self.paths = {name: ways for name, ways in parameter_paths(trial.owner).items() if ways[0] in before}
            for i, extra in enumerate(trial.extras):
                taken = [path for path, _ in self.paths.values()]
                alike = [p for p, array in before.items() if array.shape == np.shape(extra) and p not in taken]
                if alike:
                    self.paths[".".join(map(str, alike[0]))] = (alike[0], (EXTRA, i))
        global_state(drawn)
        for name, (path, _) in self.paths.items():
            array = fetch(self.owner, path)
            self.owned[name] = Parameter(array)
            self.owned[name].data = array
        mine = {id(p.data) for p in self.owned.values()}
        self.state = {path: value.copy() for path, value in arrays_in(self.owner) if id(value) not in mine}
        self.generators = [g for _, g in members_of(self.owner, np.random.Generator)]
        return self

    def unchecked(self, inputs: tuple[Any, ...]) -> list[str]:
        """The float arrays that y depends on and for which no gradient was found: a note for each."""
        found, drawn = [], global_state()
        with np.errstate(all="ignore"), contextlib.suppress(Exception):
            here = flat(self.forward(*map_leaves(inputs, np.array)))
            for path, value in self.state.items():
                if value.dtype.kind == "f" and value.size:
                    self.state[path] = value + 0.01
                    global_state(drawn)
                    if not np.array_equal(here, flat(self.forward(*map_leaves(inputs, np.array))), equal_nan=True):
                        found.append(".".join(map(str, path)))
                    self.state[path] = value
        self.forget()
        return [
            f"{name} is not checked: y depends on it, but backward leaves no gradient of it (like dW for W)"
            for name in found
        ]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield from self.owned.items()

    def forward(self, *inputs: Any) -> Any:
        for path, value in self.state.items():
            put(self.owner, path, value.copy())
        y = self._method(0)(*inputs)
        cache: Any = ()
        if self._backward_takes() > 1:
            if isinstance(y, tuple) and len(y) == 2:
                y, cache = y[0], (y[1],)
            else:
                cache = inputs
        self._calls.append((cache, len(inputs)))
        return y

    def backward(self, dout: Any) -> Any:
        cache, count = self._calls.pop()
        for _, path in self.paths.values():
            gradient = fetch(self.owner, path)
            if isinstance(gradient, np.ndarray) and gradient.dtype.kind == "f" and gradient.flags.writeable:
                gradient[...] = 0  # some classes add to it
        alone = self._backward_takes() == 0  # a loss, whose backward starts from 1
        result = self._method(1)() if alone else self._method(1)(dout, *cache)
        scale = np.sum(dout) if alone else 1.0
        if isinstance(result, dict):
            result = self._from_dict(result)
        if isinstance(result, list):
            result = tuple(result)
        if isinstance(result, tuple) and self.owner is not None:
            self.extras = result[count:]
            result = result[:count]
        for name, (_, path) in self.paths.items():
            extra = self.extras[path[1]] if path[0] == EXTRA and path[1] < len(self.extras) else None
            gradient = fetch(self.owner, path, extra)
            parameter = self.owned[name]
            if gradient is not None and np.shape(gradient) == parameter.shape:
                parameter.grad = parameter.grad + np.asarray(gradient) * scale
            else:
                wrong: Any = None if gradient is None else np.array(gradient)
                parameter.grad = wrong
        if isinstance(result, tuple) and result and count == 1 and not isinstance(self._inputs[0], tuple):
            result = result[0]
        return map_leaves(result, lambda dx: None if dx is None else dx * scale) if alone else result

    def forget(self, since: int = 0) -> None:
        self._calls.clear()

    def _method(self, which: int) -> Callable[..., Any]:
        method = self.pair[which] if self.owner is None else getattr(self.owner, self.pair[which])
        return method

    def _backward_takes(self) -> int:
        """How many arguments backward has to be given."""
        try:
            parameters = inspect.signature(self._method(1)).parameters.values()
        except (TypeError, ValueError):
            return 1
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return 1
        return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)

    def _from_dict(self, result: dict[Any, Any]) -> Any:
        """Gradients by name, in the order of forward's arguments."""
        names = list(inspect.signature(self._method(0)).parameters)
        named = {str(key).removeprefix("d").removeprefix("_"): value for key, value in result.items()}
        found = tuple(named.get(name) for name in names)
        return found if len(found) > 1 else found[0]

    def __repr__(self) -> str:
        return self.name


# ---------------------------------------------------------------------- looking into objects


def members_of(owner: Any, kind: type, path: Path = (), seen: set[int] | None = None) -> Iterator[tuple[Path, Any]]:
    """(path, object) for everything of a kind in the attributes of an object, in its lists, dicts and objects too."""
    seen = set() if seen is None else seen
    if isinstance(owner, kind):
        yield path, owner
        return
    if id(owner) in seen or len(path) > DEPTH:
        return
    seen.add(id(owner))
    for key, value in children_of(owner):
        yield from members_of(value, kind, (*path, key), seen)


def arrays_in(owner: Any) -> Iterator[tuple[Path, Array]]:
    """(path, array) for every array of numbers in an object."""
    for path, array in members_of(owner, np.ndarray):
        if array.dtype.kind in "fiu":
            yield path, array


def children_of(owner: Any) -> list[tuple[Any, Any]]:
    """(key, object) for what a dict, a list or an object holds directly."""
    if isinstance(owner, dict):
        return list(owner.items())
    if isinstance(owner, (list, tuple)):
        return list(enumerate(owner))
    if isinstance(owner, type) or callable(getattr(owner, "__get__", None)):
        return []
    own = list(vars(owner).items()) if hasattr(owner, "__dict__") else []
    slots = [name for cls in type(owner).__mro__ for name in getattr(cls, "__slots__", ())]
    return own + [(name, getattr(owner, name)) for name in slots if hasattr(owner, name) and name != "__dict__"]


NOTHING = object()
EXTRA = "what backward returns besides"


def fetch(owner: Any, path: Path, default: Any = None) -> Any:
    """What stands at the end of a path, or the default."""
    for key in path:
        try:
            owner = owner[key] if isinstance(owner, (dict, list, tuple)) else getattr(owner, key)
        except (KeyError, IndexError, AttributeError, TypeError):
            return default
    return owner


def put(owner: Any, path: Path, value: Any) -> None:
    """Set what stands at the end of a path; what cannot be set stays."""
    *way, last = path
    owner = fetch(owner, tuple(way))
    if isinstance(owner, (dict, list)):
        owner[last] = value
    elif owner is not None and not isinstance(owner, tuple):
        setattr(owner, last, value)


def to_float64(owner: Any) -> None:
    """Turn every float array in an object into float64, once however often it stands there; numbers with a gradient
    attribute become arrays, so that they can be moved.
    """
    new: dict[int, Array] = {}
    for path, array in list(members_of(owner, np.ndarray)):
        if array.dtype.kind == "f" and array.dtype != np.float64:
            put(owner, path, new.setdefault(id(array), array.astype(np.float64)))
    for path, number in list(members_of(owner, float)) + list(members_of(owner, np.floating)):
        if len(path) == 1 and any(hasattr(owner, name) for name in gradient_names(path[0])):
            put(owner, path, np.array(float(number)))


def parameter_paths(owner: Any) -> dict[str, tuple[Path, Path]]:
    """Name -> (where the parameter is, where its gradient is)."""
    arrays = dict(arrays_in(owner))
    found: dict[str, tuple[Path, Path]] = {}
    taken: set[int] = set()
    for path, array in arrays.items():
        if array.dtype.kind != "f" or id(array) in taken:
            continue
        gradient = next(
            (p for p in gradient_paths(path) if p != path and fetch(owner, p, NOTHING) is not NOTHING), None
        )
        if gradient is not None:
            taken |= {id(array), id(fetch(owner, gradient))}
            name = ".".join(map(str, path))
            found[name if name[7:].isdigit() else name.removeprefix("params.")] = (path, gradient)
    return found


def gradient_paths(path: Path) -> Iterator[Path]:
    """Where the gradient of the array at `path` may be."""
    *way, name = path
    if name in ("data", "value", "val", "w", "W", "params", "param"):
        yield from ((*way, gradient) for gradient in ("grad", "gradient"))
    if isinstance(name, str):
        yield from ((*way, gradient) for gradient in gradient_names(name))
    if way:
        *above, holder = way
        for beside in ("grads", "gradients", "grad", "dparams", "d" + str(holder)):
            yield (*above, beside, name)
            if isinstance(name, str):
                yield from ((*above, beside, gradient) for gradient in gradient_names(name))
                yield from ((*above, gradient) for gradient in gradient_names(name))
    for beside in ("grads", "gradients"):
        yield (*way, beside, name)
        if isinstance(name, str):
            yield from ((*way, beside, gradient) for gradient in gradient_names(name))


def gradient_names(name: Any) -> tuple[str, ...]:
    """How people call the gradient of `name`."""
    name = str(name)
    each = (f"d{name}", f"d_{name}", f"{name}_grad", f"grad_{name}", f"{name}grad", f"grad{name}")
    other = name.lower() if name != name.lower() else name.upper()
    return (*each, f"d{other}", f"d_{other}", f"grad_{other}", f"{other}_grad", f"d{name.lstrip('_')}")
