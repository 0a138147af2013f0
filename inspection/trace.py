"""One forward and one backward, written down: what went through every layer, in both directions."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backhand.inspection.apart import apart, as_inputs, copied, start_backward, with_target
from backhand.inspection.calls import Call, Learned, is_shape, numbers
from backhand.inspection.gradient_check import map_leaves
from backhand.inspection.kept import arrays_of, owner_of
from backhand.inspection.trace_table import table
from backhand.layers.base import Layer, members
from backhand.layers.parameter import Array, Parameter


@dataclass(repr=False)
class Trace:
    """What `record` saw; prints as a table, and is plain data.

    calls : in the order of the forward; the first is the model, the last the loss, if one was given
    loss : its value; None without a loss
    output : what the model gave      dx : the gradient by its inputs, as its backward returned it

    trace["0"] is the first call of the layer of that name, trace.of("0") the list of all, trace.inside(call) those that
    happened directly inside a call.
    """

    calls: list[Call]
    loss: Any = None

    @property
    def output(self) -> Any:
        return self.calls[0].output

    @property
    def dx(self) -> Any:
        return self.calls[0].downstream

    def __getitem__(self, name: str) -> Call:
        found = self.of(name)
        if not found:
            raise KeyError(f"no call of {name!r}; there are {', '.join(repr(c.name) for c in self.calls)}")
        return found[0]

    def of(self, name: str) -> list[Call]:
        """Every call of the layer of that name."""
        return [call for call in self.calls if call.name == name]

    def inside(self, call: Call | None) -> list[Call]:
        """The calls that happened directly inside a call; inside None: the model and the loss."""
        return [each for each in self.calls if each.parent == (None if call is None else call.number)]

    def leaves(self) -> list[Call]:
        """The calls inside which none happened, in the order of the forward, the loss included."""
        parents = {call.parent for call in self.calls}
        return [call for call in self.calls if call.number not in parents]

    def backwards(self) -> list[Call]:
        """The calls in the order of the backward."""
        return sorted((call for call in self.calls if call.back is not None), key=lambda call: call.back or 0)

    def __repr__(self) -> str:
        return table(self)


def record(
    model: Layer,
    x: Any,
    *,
    loss: Layer | None = None,
    target: Any = None,
    dout: Any = None,
    largest: int | None = None,
    **options: Any,
) -> Trace:
    """Run one forward and one backward, and write down what every layer was given and gave; print it.

    x : the input; a tuple is several inputs
    loss, target : what starts the backward; several targets are a tuple
    dout : without a loss, the gradient by the output; None: ones
    largest : arrays of more numbers are described but not kept; None keeps all
    options : keyword arguments of the model's forward

    >>> circuit = Sequential(Parallel(Add(), Identity()), Multiply())       # (x + y) z
    >>> trace = record(circuit, ((-2.0, 5.0), -4.0))
    >>> trace.output, trace.dx
    (array(-12.), ((array(-4.), array(-4.)), array(3.)))

    The model is not touched: a copy of it runs, in the model's own mode, from the same generators, with caches; the
    gradients are those of this one backward. The time that is spent on writing down does not count.
    """
    running, running_loss = apart(model, loss)
    recorder = _Recorder(largest)
    pairs = zip(model.named_modules(), running.modules(), strict=True)
    for (name, original), layer in pairs:
        recorder.watch(layer, original, name)
    inputs = as_inputs(x)
    recorder.own(inputs, running, running_loss)
    with np.errstate(all="ignore"):
        output = running(*inputs, **options)
        value = None
        if loss is not None:
            recorder.watch(running_loss, loss, "loss")
            value = running_loss(*with_target(output, target))
            dout = start_backward(running_loss, output)
        elif dout is None:
            dout = map_leaves(output, _ones)
        running.backward(map_leaves(dout, copied))
    return Trace(recorder.finish(), value)


class _Recorder:
    """Stands between the layers of a copied model: every forward and backward passes through it."""

    def __init__(self, largest: int | None) -> None:
        self.largest = largest
        self.calls: list[Call] = []
        self.running: dict[int, Layer] = {}  # number of a call -> the layer of the copy
        self.open: dict[int, list[Call]] = {}  # id of a layer -> its calls that wait for their backward
        self.inside: list[Call] = []
        self.backs = 0
        self.spent = 0.0  # on writing down
        self.kept: set[int] = set()  # ids of the memory that somebody keeps, or that lives anyway
        self.given: dict[int, int] = {}

    def watch(self, layer: Layer, original: Layer, name: str) -> None:
        # on the instance: what the layer's own code calls on itself, or by super(), does not pass through here
        layer.forward = functools.partial(  # type: ignore[method-assign]
            self.forward, layer, original, name, layer.forward
        )
        layer.backward = functools.partial(self.backward, layer, layer.backward)  # type: ignore[method-assign]

    def own(self, inputs: Any, *layers: Layer | None) -> None:
        """The memory that lives anyway: parameters."""
        self.given = {id(owner_of(array)): array.nbytes for array in arrays_of(inputs)}
        for layer in layers:
            self.kept |= {id(owner_of(p.data)) for p in (layer.parameters() if layer is not None else ())}

    def forward(
        self, layer: Layer, original: Layer, name: str, run: Callable[..., Any], *inputs: Any, **options: Any
    ) -> Any:
        since = time.perf_counter()
        parent = self.inside[-1].number if self.inside else None
        call = Call(len(self.calls), name, original, parent, len(self.inside))
        self.calls.append(call)
        self.running[call.number] = layer
        self._note(call, "inputs", inputs)
        self.inside.append(call)
        began = time.perf_counter()
        spent = self.spent = self.spent + began - since
        output = run(*inputs, **options)
        ended = time.perf_counter()
        call.seconds[0] = ended - began - (self.spent - spent)
        self.inside.pop()
        self.open.setdefault(id(layer), []).append(call)
        self._note(call, "output", output)
        call.cached = self._cached(vars(layer).get("_stack") or [])
        self.spent += time.perf_counter() - ended
        return output

    def backward(self, layer: Layer, run: Callable[..., Any], *douts: Any) -> Any:
        waiting = self.open.get(id(layer))
        if not waiting:  # it was not by forward that it was called: its own error, or its own affair
            return run(*douts)
        dout = douts[0] if douts else None
        since = time.perf_counter()
        call = waiting.pop()
        call.back = self.backs
        self.backs += 1
        self._note(call, "upstream", dout if douts else np.ones(()))
        local = self._local(layer, call, dout)
        began = time.perf_counter()
        spent = self.spent = self.spent + began - since
        downstream = run(*douts)
        ended = time.perf_counter()
        call.seconds[1] = ended - began - (self.spent - spent)
        self._note(call, "downstream", downstream)
        if local is not None:
            self._note(call, "local", local)
        self.spent += time.perf_counter() - ended
        return downstream

    def finish(self) -> list[Call]:
        """All calls, with what is only known at the end."""
        turns: dict[int, int] = {}
        for call in self.calls:
            layer = self.running[call.number]
            call.turn = turns.get(id(layer), 0)
            turns[id(layer)] = call.turn + 1
            call.parameters = [self._learned(name, p) for name, p in members(layer, Parameter)]
        for call in self.calls:
            call.turns = turns[id(self.running[call.number])]
        return self.calls

    def _note(self, call: Call, what: str, tree: Any) -> None:
        tree = map_leaves(tree, lambda leaf: None if leaf is None else np.asarray(leaf))
        call.stats[what] = numbers(tree)
        setattr(call, what, map_leaves(tree, self._copied))

    def _copied(self, array: Array | None) -> Array | None:
        if array is None or (self.largest is not None and array.size > self.largest):
            return None
        return np.array(array)

    def _learned(self, name: str, parameter: Parameter) -> Learned:
        data, grad = parameter.data, np.asarray(parameter.grad)
        norms = numbers(data).norm, numbers(grad).norm
        return Learned(name, data.shape, grad.shape, *norms, self._copied(data), self._copied(grad))

    def _cached(self, stack: list[Any]) -> int:
        total = 0
        for entry in stack[-1:]:
            for array in arrays_of(entry[1]):
                memory = owner_of(array)
                if id(memory) not in self.kept:
                    self.kept.add(id(memory))
                    total += self.given.get(id(memory), memory.nbytes)
        return total

    def _local(self, layer: Layer, call: Call, dout: Any) -> Any:
        """The diagonal of the Jacobian by each input, where it has nothing beside it; else None.

        With J diagonal, backward(d) = d * backward(1) for every d; a random d would show anything beside it.
        """
        shape, given = call.stats["output"].shape, call.stats["inputs"].shape
        if not is_shape(shape) or shape not in given or any(True for _ in layer.named_children()):
            return None
        size = int(np.prod(shape))
        if sum(p.size for p in layer.parameters()) > size or (self.largest is not None and size > self.largest):
            return None
        dtype = np.asarray(call.output).dtype
        if dtype.kind != "f":
            return None
        random = np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(dtype)
        try:
            ones, drawn = (_probe(layer, d) for d in (np.ones(shape, dtype), random))
        except Exception:  # a backward that fails will say so itself
            return None
        found = []
        for dx, d_one, d_random in zip(given, ones, drawn, strict=False):
            whole = d_one is not None and d_random is not None and np.shape(d_one) == np.shape(d_random) == shape == dx
            close = 64 * np.finfo(dtype).eps
            same = whole and np.allclose(d_random, random * d_one, close, close * np.abs(d_one).max(), equal_nan=True)
            found.append(np.array(d_one) if same else None)
        if not found or len(found) != len(given) or all(each is None for each in found):
            return None
        return found[0] if len(found) == 1 else tuple(found)


def _probe(layer: Layer, dout: Array) -> tuple[Any, ...]:
    """What backward gives for this dout, from a copy of the layer that remembers the same forward."""
    memo: dict[int, Any] = {}
    for name in ("forward", "backward"):  # the recorder is not copied along
        memo[id(vars(layer)[name])] = None
    probe = copy.deepcopy(layer, memo)
    for name in ("forward", "backward"):
        del probe.__dict__[name]
    if vars(layer).get("_stack"):
        # a copy of it too: a backward may turn what it saved into what it returns
        probe.__dict__["_stack"] = [copy.deepcopy(vars(layer)["_stack"][-1])]
    dx = probe.backward(dout)
    return dx if isinstance(dx, tuple) else (dx,)


def _ones(y: Any) -> Any:
    y = np.asarray(y)
    return np.ones(y.shape, y.dtype) if y.dtype.kind == "f" else None
