"""One forward and one backward, written down: what went through every layer, in both directions."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.inspection.apart import apart, as_inputs, floats, start_backward, with_target
from backhand.inspection.gradient_check import leaves, map_leaves
from backhand.inspection.trace_table import table
from backhand.layers.base import Layer, members
from backhand.layers.parameter import Array, Parameter


@dataclass
class Numbers:
    """What is said of an array, or of all the float arrays in a tuple.

    shape : of the array; nested tuples of shapes where there are several; None: there is no array
    norm : the square root of the sum of squares
    mean, magnitude, std : of the numbers, of their absolute values, and how much they spread
    zeros : the share that is exactly 0
    finite : whether none is infinite or nan
    value : the number itself, where there is only one
    """

    shape: Any
    norm: float = 0.0
    mean: float = 0.0
    magnitude: float = 0.0
    std: float = 0.0
    zeros: float = 0.0
    finite: bool = True
    value: float | None = None


@dataclass
class Learned:
    """A parameter of a layer and the gradient that this backward gave it (by all calls of the layer together).

    match : whether the gradient has the shape of its variable, as it must
    ratio : norm of the gradient by norm of the parameter
    """

    name: str
    shape: tuple[int, ...]
    grad_shape: tuple[int, ...]
    norm: float
    grad_norm: float
    data: Array | None = None
    grad: Array | None = None

    @property
    def match(self) -> bool:
        return self.shape == self.grad_shape

    @property
    def ratio(self) -> float:
        return self.grad_norm / self.norm if self.norm else np.inf


@dataclass
class Call:
    """One call of one layer: what it was given, what it gave, and both again on the way back.

    number : its place in the order in which the forwards began; a container comes before what is inside it
    back : its place in the order in which the backwards began; None: its backward was not called
    name : the layer's dotted name in the model, "" for the model itself; "loss"
    layer : the layer of the model (not changed by the trace)
    parent : the number of the call inside which it happened, or None
    depth : how many calls it happened inside
    turn, turns : which call of this layer it is, of how many
    inputs, output, upstream, downstream : copies of the arrays, in the nesting of forward and backward (inputs is
        always a tuple, downstream is what backward returned); None where nothing flows, or where there are more
        numbers than were to be kept
    local : the derivative of the output by each input where that is elementwise, so that downstream = upstream * local;
        one array, or a tuple in the order of the inputs; None where the layer is not elementwise
    stats : Numbers for "inputs", "output", "upstream", "downstream", "local"
    parameters : those of the layer itself
    seconds : of the forward and of the backward, with all that is inside
    cached : bytes that the layer itself saved in this call and that nobody had kept before
    """

    number: int
    name: str
    layer: Layer
    parent: int | None
    depth: int
    turn: int = 0
    turns: int = 1
    back: int | None = None
    inputs: Any = ()
    output: Any = None
    upstream: Any = None
    downstream: Any = None
    local: Any = None
    stats: dict[str, Numbers] = field(default_factory=dict)
    parameters: list[Learned] = field(default_factory=list)
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    cached: int = 0

    @property
    def kind(self) -> str:
        """The class of the layer."""
        return type(self.layer).__name__

    @property
    def shapes_match(self) -> bool | None:
        """The shape rule: every gradient has the shape of its variable, inputs and parameters; None: no backward."""
        if self.back is None:
            return None
        given = self.stats["inputs"].shape
        back = self.stats["downstream"].shape
        # a loss hands back one gradient for scores and target
        several = len(given) > 1 and not is_shape(back)
        return _match(given, back if several else (back,)) and all(each.match for each in self.parameters)


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
        running.backward(dout)
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
        self.given = {id(memory_of(array)): array.nbytes for array in arrays_in(inputs)}
        for layer in layers:
            self.kept |= {id(memory_of(p.data)) for p in (layer.parameters() if layer is not None else ())}

    def forward(
        self, layer: Layer, original: Layer, name: str, run: Callable[..., Any], *inputs: Any, **options: Any
    ) -> Any:
        since = time.perf_counter()
        parent = self.inside[-1].number if self.inside else None
        call = Call(len(self.calls), name, original, parent, len(self.inside))
        self.calls.append(call)
        self.running[call.number] = layer
        self._note(call, "inputs", inputs)
        depth = len(vars(layer).get("_stack") or [])
        self.inside.append(call)
        began = time.perf_counter()
        spent = self.spent = self.spent + began - since
        output = run(*inputs, **options)
        ended = time.perf_counter()
        call.seconds[0] = ended - began - (self.spent - spent)
        self.inside.pop()
        self.open.setdefault(id(layer), []).append(call)
        self._note(call, "output", output)
        call.cached = self._cached(vars(layer).get("_stack") or [], depth)
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

    def _cached(self, stack: list[Any], depth: int) -> int:
        total = 0
        for entry in stack[depth:]:
            for array in arrays_in(entry[1]):
                memory = memory_of(array)
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
        probe.__dict__["_stack"] = [vars(layer)["_stack"][-1]]
    dx = probe.backward(dout)
    return dx if isinstance(dx, tuple) else (dx,)


def numbers(tree: Any) -> Numbers:
    """The Numbers of an array, or of the float arrays (integers where there are no others) in nested tuples."""
    shape = map_leaves(tree, lambda leaf: None if leaf is None else np.shape(leaf))
    arrays = floats(tree) or [np.asarray(leaf) for _, leaf in leaves(tree) if leaf is not None]
    size = sum(array.size for array in arrays)
    if not size:
        return Numbers(shape)
    with np.errstate(all="ignore"):
        flat = np.concatenate([array.reshape(-1) for array in arrays]) if len(arrays) > 1 else arrays[0].reshape(-1)
        wide = flat.astype(np.float64, copy=False)
        return Numbers(
            shape,
            float(np.sqrt(np.dot(wide, wide))),
            float(wide.mean()),
            float(np.abs(wide).mean()),
            float(wide.std()),
            1 - np.count_nonzero(flat) / size,
            bool(np.isfinite(flat).all()),
            float(flat[0]) if size == 1 else None,
        )


def is_shape(shape: Any) -> bool:
    """Whether this is the shape of one array, and not a tuple of shapes."""
    return isinstance(shape, tuple) and all(isinstance(n, int) for n in shape)


def arrays_in(value: Any) -> Iterator[Array]:
    """Every array in lists, tuples and dicts."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from arrays_in(each)


def memory_of(array: Array) -> Array:
    """The array that owns the memory which this one looks into."""
    owner: Any = array
    while getattr(owner, "base", None) is not None:
        owner = owner.base
        if isinstance(owner, np.ndarray):
            array = owner
    return array


def _match(given: Any, back: Any) -> bool:
    """Whether gradients have the shapes of their variables; where there is no gradient, nothing is amiss."""
    if back is None:
        return True
    if is_shape(given):
        return bool(given == back)
    return isinstance(back, tuple) and all(_match(a, b) for a, b in zip(given, back, strict=False))


def _ones(y: Any) -> Any:
    y = np.asarray(y)
    return np.ones(y.shape, y.dtype) if y.dtype.kind == "f" else None
