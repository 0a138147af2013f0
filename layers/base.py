"""What every layer is: `forward`, `backward`, parameters, and a stack that remembers.

In this whole project `dz` means "the gradient of the loss by z", and it always has z's shape. `backward` takes
`dout`, the gradient by the output (the upstream), applies the layer's own derivative (the local), and returns
the gradient by the input (the downstream).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers import guard
from backhand.layers.arguments import constructor_arguments
from backhand.layers.guard import HALF, signature
from backhand.layers.parameter import Array, Parameter, clock, zero_grads
from backhand.layers.states import compare

L = TypeVar("L", bound="Layer")


class LayerError(ValueError):
    """Something that a layer cannot take: says which layer, where it stands, what it expected and what it got."""

    def __init__(self, layer: Layer, problem: str) -> None:
        super().__init__(problem)
        self.layer = layer
        self.problem = problem
        self.where = ""

    def __str__(self) -> str:
        name = repr(self.layer)
        if "\n" in name:
            name = type(self.layer).__name__
        return f"{name}{f' at {self.where!r}' if self.where else ''}: {self.problem}"


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(..., strict=False)` found on one side only."""

    missing_keys: list[str]
    unexpected_keys: list[str]


# What stands on the stack: the tick, the values, and the signature of the output. That is (shape, dtype), or a list
# (of lists ...) of these where the output is a tuple, or None. A plain tuple, for it is made in every call. The guard
# adds a fourth where the output was made float16.
_Saved = tuple[Any, ...]
# What belongs to the forwards that wait for their backward, not to the layer.
_PASSING = frozenset(("_stack", "_first", "_halves", "_warned"))
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class Layer:
    """A function with its derivative: `y = forward(x)`, then `dx = backward(dout)`.

        dx = dout * dy/dx          and for every parameter   parameter.grad += dout * dy/dparameter

    Several inputs are several arguments of `forward`, and `backward` returns their gradients as a tuple in the
    same order (None for an integer input). Several outputs are a tuple, and `dout` is then a tuple too (None
    where nothing flows back).

    A subclass writes the two methods, calls `self.save(...)` in forward and `... = self.saved()` in backward, and
    assigns its `Parameter`s and inner layers as plain attributes: they are found by walking the attributes
    (lists, tuples and dicts of them too), so `super().__init__()` is not needed. Buffers (arrays that are saved
    with the model but not learned) are plain arrays whose names stand in `buffer_names`.

    What is saved goes on a stack, so a layer may be called any number of times before the backwards come, in
    reverse order: that is weight sharing, over time or anywhere, with no further code. Where 8 or more forwards wait
    for a backward, those are dropped for which the gradients have been set to zero twice since: they were abandoned.

    Around both methods stands a guard (layers/guard.py): a forward that fails leaves every layer as it was, and of
    float16 all is computed in float32.

    training : whether Dropout drops and BatchNorm takes the statistics of the batch
    caching : whether forward saves what backward needs
    input_requires_grad : whether backward computes dx; see `input_requires_grad_`
    """

    training: bool = True
    caching: bool = True
    input_requires_grad: bool = True
    buffer_names: tuple[str, ...] = ()
    _stack: list[_Saved] | None = None
    _first: Any = None  # an inner layer, see layers/guard.py
    _halves: bool = False
    _warned: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Put the guard around the two methods of the class (layers/guard.py)."""
        super().__init_subclass__(**options)
        guard.stand_around(cls)

    # ------------------------------------------------------------------ the two methods

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """y, and save what backward needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def backward(self, dout: Any) -> Any:
        """dx from dout; adds to the gradient of every parameter."""
        raise NotImplementedError(f"{type(self).__name__} has no backward()")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The same as `forward`."""
        return self.forward(*inputs, **options)

    # ------------------------------------------------------------------ the cache

    def save(self, *values: Any, out: Any = None) -> None:
        """Push what backward will need; `out` is the output (or the tuple of them), whose shape dout must have."""
        if self.caching:
            if out is not None:
                out = (out.shape, out.dtype) if type(out) is not tuple else signature(out)
            stack = self._stack
            if stack is None:
                stack = self._stack = []
            stack.append((next(clock), values, out))

    def saved(self) -> tuple[Any, ...]:
        """Pop what the last forward saved that has not been undone yet."""
        stack = self._stack
        if not stack:
            self._nothing_saved()
        return stack.pop()[1]

    def upstream(self, dout: Any) -> Any:
        """Dout, checked against the output that is on top of the stack and cast to its dtype; None means zeros.

        By an integer output (of a layer that only moves numbers) there is no gradient: then it returns None.

        It raises before anything is popped or added, so a wrong dout costs nothing. Where forward did not say what
        the output was, dout comes back as it is.
        """
        stack = self._stack
        if not stack:
            self._nothing_saved()
        out = stack[-1][2]
        return dout if out is None else self._matched(dout, out)

    def _matched(self, dout: Any, out: Any) -> Any:
        if type(out) is list:
            parts = (None,) * len(out) if dout is None else dout
            if type(parts) is not tuple or len(parts) != len(out):
                self.reject(f"dout as a tuple of {len(out)}, one for each output", _describe(dout))
            return tuple(self._matched(part, each) for part, each in zip(parts, out, strict=True))
        shape, dtype = out
        if type(dout) is np.ndarray and dout.dtype is dtype and dout.shape == shape and dtype.kind == "f":
            return dout
        if dtype.kind != "f":
            return None
        if dout is None:
            return np.zeros(shape, dtype)
        array = self.native(dout, f"dout of shape {shape}, the shape of its output")
        if array.shape != shape or type(dout) is tuple:
            self.reject(f"dout of shape {shape}, the shape of its output", _describe(dout))
        if array.dtype.kind not in "fiub":
            self.reject("dout of numbers", f"dtype {array.dtype}")
        return array if array.dtype == dtype else array.astype(dtype)

    def _top(self) -> _Saved:
        stack = self._stack
        if not stack:
            self._nothing_saved()
        return stack[-1]

    def _nothing_saved(self) -> NoReturn:
        kept = "" if self._stack is not None else "; did forward call save()?"
        if not self.caching:
            kept = "; eval() keeps nothing, use eval(caching=True) to differentiate it"
        raise RuntimeError(f"{type(self).__name__}.backward() has no forward() left to undo{kept}")

    def forget(self, since: int = 0) -> None:
        """Drop what this layer (not its inner layers) saved at tick `since` or later."""
        stack = self._stack
        while stack and stack[-1][0] >= since:
            stack.pop()

    def forget_before(self, tick: int) -> None:
        """Drop what this layer (not its inner layers) saved before this tick."""
        if self._stack and self._stack[0][0] < tick:
            self._stack[:] = [entry for entry in self._stack if entry[0] >= tick]

    def undo(self, since: int) -> None:
        """Take back what this layer did in a forward, begun at tick `since`, that failed further on."""
        self.forget(since)

    # ------------------------------------------------------------------ checking what comes in

    def array(self, x: Any) -> Array:
        """x as an array of numbers, of whatever dtype it has; LayerError for text, objects, complex or nothing.

        A Python int is a number like 3.0; integer arrays are left as they are: labels, indices, pixels.
        """
        if type(x) is int and abs(x) < 2**1023:
            x = float(x)
        array = self.native(x, "an array of numbers")
        if array.dtype.kind not in "fiub":
            self.reject("an array of numbers", f"dtype {array.dtype} ({_describe(x)})")
        if array.size == 0:
            self.reject("at least one sample", f"an empty array of shape {array.shape}")
        return array

    def input(self, x: Any, dtype: DTypeLike | None = None) -> Array:
        """x as a float array: of `dtype` where the layer has parameters, else of its own (integers: float32).

        float16 comes as float32, so that the layer computes in float32; what it returns is then made float16.
        """
        if type(x) is np.ndarray and x.size:
            own = x.dtype
            if (own is _FLOAT32 or own is _FLOAT64) and (dtype is None or own is dtype or own == dtype):
                return x
        array = self.array(x)
        if dtype is None:
            dtype = array.dtype if array.dtype.kind == "f" else np.float32
        if dtype != HALF:
            return array.astype(dtype, copy=False)
        guard.from_half(self, Layer)
        with np.errstate(over="ignore"):
            return array.astype(HALF, copy=False).astype(np.float32)

    def inputs(self, *xs: Any) -> list[Array]:
        """Several inputs of one kind, each as `input` has it; the output is float16 only where all of them are."""
        arrays = [self.input(x) for x in xs]
        if guard.is_from_half(self) and any(getattr(x, "dtype", None) != HALF for x in xs):
            guard.not_from_half(self)
        return arrays

    def native(self, x: Any, expected: str) -> Array:
        """x as an array of whatever it holds, in this machine's byte order; LayerError where it is none.

        expected : what the error says that x should be. A masked array is refused: its mask would be lost.
        """
        if type(x) is np.ndarray and x.dtype.isnative:
            return x
        if isinstance(x, np.ma.MaskedArray):
            hint = "give x.filled(...), or the rows that count"
            self.reject(expected, "a masked array, whose mask would be lost", hint)
        if isinstance(x, (list, tuple)) and any(isinstance(each, np.ma.MaskedArray) for each in x):
            self.reject(expected, f"{_describe(x)} masked arrays, whose masks would be lost")
        try:
            array = np.asarray(x)
        except Exception as error:  # whatever an object's own __array__ may raise
            if isinstance(error, ValueError) and isinstance(x, (list, tuple)):
                self.reject(expected, f"{_describe(x)} with rows of different lengths")
            self.reject(expected, f"{_describe(x)} that is no array: {error}")
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def reject(self, expected: str, got: object, hint: str = "") -> NoReturn:
        """Raise the one error of this project: which layer, what it expected, what it got."""
        raise LayerError(self, f"expected {expected}, got {got}{f'; {hint}' if hint else ''}")

    # ------------------------------------------------------------------ what it is made of

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """(name, layer) for every layer that is an attribute, or stands in a list, tuple or dict that is one."""
        yield from members(self, Layer)

    def children(self) -> Iterator[Layer]:
        """The inner layers, one level down."""
        for _, child in self.named_children():
            yield child

    def named_modules(self) -> Iterator[tuple[str, Layer]]:
        """(dotted name, layer) for this layer (name "") and every layer inside it, each once."""
        yield from self._walk(seen=set())

    def modules(self) -> Iterator[Layer]:
        """This layer and every layer inside it, each once."""
        for _, layer in self.named_modules():
            yield layer

    def _walk(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Layer]]:
        """Every layer under every name that it has, or under the first alone where `seen` is given."""
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name, seen)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter), each once however often it is shared."""
        seen = set()
        for prefix, layer in self.named_modules():
            for name, parameter in members(layer, Parameter):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{prefix}.{name}" if prefix else name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Every Parameter once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(dotted name, array) for everything that is saved with the model but not learned."""
        for prefix, layer in self.named_modules():
            for name, buffer in layer._own_buffers():
                yield f"{prefix}.{name}" if prefix else name, buffer

    def _own_buffers(self) -> Iterator[tuple[str, Array]]:
        for name in self.buffer_names:
            buffer = getattr(self, name, None)
            if buffer is not None:
                yield name, buffer

    # ------------------------------------------------------------------ state

    def _named_state(self) -> Iterator[tuple[str, Array]]:
        """The arrays themselves under torch's keys: a layer's parameters, its buffers, then its inner layers."""
        for prefix, layer in self._walk():
            dot = f"{prefix}." if prefix else ""
            for name, parameter in members(layer, Parameter):
                yield dot + name, parameter.data
            for name, buffer in layer._own_buffers():
                yield dot + name, buffer

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers under torch's names; what is shared stands under each name."""
        return {name: array.copy() for name, array in self._named_state()}

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> IncompatibleKeys:
        """Copy a state_dict into the parameters and buffers, in place.

        state : name -> array, as `state_dict()` gives it, here or in torch
        strict : False lets keys be missing or unexpected; a wrong shape is an error either way
        Of what is shared, one name is enough; several that come with different values are an error, where torch takes
        the last. Raises LayerError that lists all that is wrong; then nothing has been changed.
        """
        found = compare(self, state)
        if problems := found.problems(strict):
            raise LayerError(self, f"state_dict does not fit; {problems}")
        found.copy()
        return IncompatibleKeys(found.missing, found.unexpected)

    def _adapt_state(self, state: dict[str, Any], prefix: str, version: int | None) -> list[str]:
        """Bring what older versions, or others, call the arrays under `prefix` into the names of now, in `state`.

        version : that torch notes for the layer that was saved; None in a plain dict
        Returns what is wrong with them, in words. An array that may be missing is put in its own place.
        """
        return []

    def astype(self: L, dtype: DTypeLike) -> L:
        """Turn every parameter, gradient and float buffer into `dtype`, in place; returns the layer itself.

        With float16 the buffers become float32: a running variance leaves the range of float16 as soon as 256 is a
        usual number.
        """
        kind = np.dtype(dtype).newbyteorder("=")
        if kind.kind != "f":
            self.reject("a float dtype", kind)
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(kind, copy=False)
            parameter.grad = parameter.grad.astype(kind, copy=False)
        for layer in self.modules():
            layer._halves = False
            for name, buffer in layer._own_buffers():
                if buffer.dtype.kind == "f":
                    setattr(layer, name, buffer.astype(np.promote_types(kind, np.float32), copy=False))
        return self

    def requires_grad_(self: L, requires_grad: bool = True) -> L:
        """Thaw (or freeze, with False) every parameter in it; returns the layer itself."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def input_requires_grad_(self: L, requires_grad: bool = True) -> L:
        """With False, backward may leave dx out and return None: nobody needs the gradient by the data itself.

        Linear, the convolutions, Embedding, recurrent layers and the NTM then spare a product; a Sequential hands it on
        to its first layer. Other layers compute dx as before. A Trainer sets it. Returns the layer itself.
        """
        self.input_requires_grad = requires_grad
        return self

    def train(self: L, mode: bool = True) -> L:
        """Training behaviour, with caches (`train(False)` is `eval()`); returns the layer itself."""
        return self._set_mode(training=mode, caching=mode)

    def eval(self: L, caching: bool = False) -> L:
        """Evaluation behaviour that keeps nothing, unless `caching`: then backward works in this mode too."""
        return self._set_mode(training=False, caching=caching)

    def _set_mode(self: L, training: bool, caching: bool) -> L:
        for layer in self.modules():
            layer.training = training
            layer.caching = caching
        return self

    def zero_grad(self) -> None:
        """Let every gradient be zero, and drop what an abandoned forward left on the stacks.

        The zeros are written, in place, when `parameter.grad` is next asked for; the next backward needs none.
        """
        zero_grads(self.parameters())
        for layer in self.modules():
            layer.forget()

    def __getstate__(self) -> dict[str, Any]:
        # what a forward saved for its backward is of this moment: it is not copied, and not pickled
        return {name: value for name, value in self.__dict__.items() if name not in _PASSING}

    # ------------------------------------------------------------------ how it prints

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(constructor_arguments(self))})"


def members(owner: Layer, kind: type) -> Iterator[tuple[str, Any]]:
    """(name, object) for the attributes of `owner` that are a `kind`, or hold some in a list, tuple or dict."""
    for name, value in vars(owner).items():
        if name not in _PASSING:
            yield from _inside(name, value, kind)


def _inside(name: str, value: Any, kind: type) -> Iterator[tuple[str, Any]]:
    if isinstance(value, kind):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _inside(f"{name}.{i}", item, kind)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _inside(f"{name}.{key}", item, kind)


def _describe(x: object) -> str:
    if isinstance(x, (tuple, list)):
        return f"a {type(x).__name__} of {len(x)}"
    if isinstance(x, np.ndarray):
        return f"an array of shape {x.shape}"
    return f"a {type(x).__name__}"
