"""What a trace says of one call of one layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backhand.inspection.apart import floats
from backhand.inspection.gradient_check import leaves, map_leaves
from backhand.layers.base import Layer
from backhand.layers.parameter import Array


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


def _match(given: Any, back: Any) -> bool:
    """Whether gradients have the shapes of their variables; where there is no gradient, nothing is amiss."""
    if back is None:
        return True
    if is_shape(given):
        return bool(given == back)
    return isinstance(back, tuple) and all(_match(a, b) for a, b in zip(given, back, strict=False))
