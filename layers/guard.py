"""What stands around every `forward` and `backward`, so that no layer has to see to it.

`Layer` puts it there when a class is made. It knows three things:

1. All or nothing. When a forward fails, each layer that it called is as it was, caches and buffers alike, and the
   error learns where in the container the layer stands that raised it.
2. float16. Squares, sums and an eps are lost in it, so `Layer.input` hands float16 on as float32, the layer computes in
   float32, and what it returns is made float16 again here.
3. Forwards that nobody undoes. Where SEVERAL wait, those are dropped for which the gradients were set to zero twice
   since (once may come between a forward and its backward); where much is held, a warning says so.
"""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from backhand.layers import parameter
from backhand.layers.parameter import Array, clock

if TYPE_CHECKING:
    from backhand.layers.base import Layer

HALF = np.dtype(np.float16)

# So many forwards of a layer may wait, however often its gradients are set to zero meanwhile; and so many where nobody
# sets them to zero, for it has no parameters, or none that are trained: there it cannot be known who will undo them.
SEVERAL = 8
SEVERAL_OF_NOBODY = 64

# Forwards that wait to be undone are looked at when there are 16 of them, 32, 64, ...; a warning comes when they hold
# so many bytes, or when there are so many. Weights that are shared over time wait too, so neither is small.
MUCH = 1 << 26
MANY = 1 << 12


class _Running(threading.local):
    """In this thread, the forward that is running and was called by no other layer."""

    layer: Layer | None = None


_running = _Running()

# Layers in whose running forward `Layer.input` has made float32 out of float16; and whether there ever was one.
_from_half: set[Layer] = set()
_half_is_used = False


def stand_around(cls: type[Layer]) -> None:
    """Put the guard around the methods of a new class of layers.

    What the guard does around a backward is to make float16 of its result. So it is put there, around all backwards,
    only when the first layer meets float16.
    """
    own = vars(cls)
    if "forward" in own:
        cls.forward = _around_forward(own["forward"])  # type: ignore[method-assign]
    if "backward" in own and _half_is_used:
        cls.backward = _around_backward(own["backward"])  # type: ignore[method-assign]


def _around_forward(forward: Callable[..., Any]) -> Callable[..., Any]:

    def outermost(self: Layer, *inputs: Any, **options: Any) -> Any:
        tick = next(clock)
        try:
            _running.layer = self
            first = self._first or self
            if first._stack and len(first._stack) >= SEVERAL:
                _look_after(self, first._stack)
            y = forward(self, *inputs, **options)
        except BaseException as error:
            _take_back(self, tick, error)
            raise
        finally:
            _running.layer = None
        if _from_half and self in _from_half:
            y = _halved(self, y)
        if not first._stack and self.caching:
            _remember_first(self, tick)
        return y

    # The same four times: to pack and unpack arguments of any number takes longer than all the rest. What most
    # layers and losses take is therefore written out.
    match _arguments(forward):
        case ["x"]:

            def guarded(self: Layer, x: Any) -> Any:
                if _running.layer is None:
                    return outermost(self, x)
                try:
                    y = forward(self, x)
                except BaseException:
                    _from_half.discard(self)
                    raise
                return _halved(self, y) if _from_half and self in _from_half else y

        case ["x", "target"]:

            def guarded(self: Layer, x: Any, target: Any) -> Any:  # type: ignore[misc]
                if _running.layer is None:
                    return outermost(self, x, target)
                try:
                    y = forward(self, x, target)
                except BaseException:
                    _from_half.discard(self)
                    raise
                return _halved(self, y) if _from_half and self in _from_half else y

        case ["*x"]:

            def guarded(self: Layer, *x: Any) -> Any:  # type: ignore[misc]
                if _running.layer is None:
                    return outermost(self, *x)
                try:
                    y = forward(self, *x)
                except BaseException:
                    _from_half.discard(self)
                    raise
                return _halved(self, y) if _from_half and self in _from_half else y

        case _:

            def guarded(self: Layer, *inputs: Any, **options: Any) -> Any:  # type: ignore[misc]
                if _running.layer is None:
                    return outermost(self, *inputs, **options)
                try:
                    y = forward(self, *inputs, **options)
                except BaseException:
                    _from_half.discard(self)
                    raise
                return _halved(self, y) if _from_half and self in _from_half else y

    return functools.wraps(forward)(guarded)


def _around_backward(backward: Callable[..., Any]) -> Callable[..., Any]:
    if _arguments(backward) != ["dout"]:
        return backward
    default = inspect.signature(backward).parameters["dout"].default
    given = () if default is inspect.Parameter.empty else (default,)

    def guarded(self: Layer, dout: Any) -> Any:
        half = self._halves and (not self._stack or len(self._stack[-1]) > 3)  # marked by `_halved`
        dx = backward(self, dout)
        return narrowed(dx) if half else dx

    guarded.__defaults__ = given
    return functools.wraps(backward)(guarded)


def _arguments(method: Callable[..., Any]) -> list[str]:
    """The names of the arguments of a method, without self; of other kinds than the usual ones with a star."""
    arguments = list(inspect.signature(method).parameters.values())[1:]
    usual = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [each.name if each.kind == usual else f"*{each.name}" for each in arguments]


def _halved(layer: Layer, y: Any) -> Any:
    """The output in float16; what was saved for it is marked, so that the gradient will be float16 too."""
    _from_half.discard(layer)
    if layer.caching:
        layer._halves = True
        if layer._stack:
            layer._stack[-1] = (*layer._stack[-1][:3], True)
    return narrowed(y)


def from_half(layer: Layer, base: type[Layer]) -> None:
    """Let what this layer's running forward returns be made float16; `base` is what all layers derive from."""
    global _half_is_used
    _from_half.add(layer)
    if not _half_is_used:
        _half_is_used = True
        classes = {base}
        while below := {sub for cls in classes for sub in cls.__subclasses__()} - classes:
            classes |= below
        for cls in classes - {base}:
            if "backward" in vars(cls):
                cls.backward = _around_backward(vars(cls)["backward"])  # type: ignore[method-assign]


def is_from_half(layer: Layer) -> bool:
    """Whether `from_half` was called for it."""
    return layer in _from_half


def not_from_half(layer: Layer) -> None:
    """Take `from_half` back."""
    _from_half.discard(layer)


def narrowed(values: Any) -> Any:
    """Arrays of float32 in float16 (in tuples of tuples, too); all else as it is."""
    if isinstance(values, tuple):
        return tuple(narrowed(each) for each in values)
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        with np.errstate(over="ignore"):  # what float16 cannot hold is inf
            return values.astype(HALF)
    return values


def widened(x: Array) -> Array:
    """An array of float16 in float32, to sum or to square; any other as it is."""
    return x.astype(np.float32) if x.dtype == HALF else x


def signature(out: Any) -> Any:
    """(shape, dtype) of an array, a list of these for a tuple, None where there is anything else."""
    if type(out) is tuple:
        parts = [signature(each) for each in out]
        return None if None in parts else parts
    return (out.shape, out.dtype) if isinstance(out, np.ndarray) else None


def _take_back(layer: Layer, tick: int, error: BaseException) -> None:
    """Drop what was saved since this tick, and let the error know where in the container the layer stands."""
    for name, each in layer.named_modules():
        each.undo(tick)
        _from_half.discard(each)
        if getattr(error, "layer", None) is each and hasattr(error, "where"):
            error.where = name


# ---------------------------------------------------------------------- forwards that wait for their backward


def _remember_first(layer: Layer, tick: int) -> None:
    """Keep at hand which inner layer was the first to save since this tick: it undoes last, so its stack tells all."""
    inner = list(layer.modules())[1:]
    saved = [(entry[0], i) for i, each in enumerate(inner) for entry in each._stack or () if entry[0] >= tick]
    layer._first = inner[min(saved)[1]] if saved else None


def _look_after(layer: Layer, stack: list[Any]) -> None:
    """Before a forward: drop those that were abandoned, or warn where very much is kept.

    stack : of the layer that is the first to save, so there is an entry for each forward that waits
    """
    if stack[0][0] < parameter.zeroed_before():
        trained = [p.zeroed_before for p in layer.parameters() if p.zeroed >= 0]
        nobodys = parameter.zeroed_before() if len(stack) >= SEVERAL_OF_NOBODY else -1
        since = max(trained) if trained else nobodys  # a loss, a frozen network
        for each in layer.modules():
            each.forget_before(since)
    n = len(stack)
    if n >= 16 and not n & (n - 1) and not layer._warned:
        held = _bytes_held(layer)
        if held >= MUCH or n >= MANY:
            layer._warned = True
            warnings.warn(
                f"{type(layer).__name__}: {n} forwards in training mode have not been undone by a backward; what they "
                f"keep for it takes {held / 1e6:.0f} MB. Where no gradient is wanted, use eval(); its zero_grad() "
                "drops what was abandoned",
                RuntimeWarning,
                stacklevel=3,
            )


def _bytes_held(layer: Layer) -> int:
    """What the stacks of a layer and its inner layers hold, each array once, those of the parameters left out."""
    held: dict[int, int] = {}
    own = {id(_owner(p.data)) for p in layer.parameters()}

    def look(value: Any) -> None:
        if isinstance(value, np.ndarray):
            owner = _owner(value)
            held[id(owner)] = owner.nbytes
        elif isinstance(value, (tuple, list)):
            for each in value:
                look(each)

    for each in layer.modules():
        for entry in each._stack or ():
            look(entry[1])
    return sum(size for name, size in held.items() if name not in own)


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
