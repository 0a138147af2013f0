"""The battery: all that a correct layer must survive, your own too."""

from __future__ import annotations

from typing import Any

import numpy as np

from backhand.inspection.doctor import check_gradients
from backhand.inspection.gradient_check import (
    GradientReport,
    as_float64,
    floats_where_differentiated,
    generators_of,
    in_float64,
    leaves,
    map_leaves,
    title,
)
from backhand.layers.base import Layer, LayerError
from backhand.layers.parameter import Array
from backhand.losses.base import Loss


def check_layer(
    layer: Layer,
    *inputs: Any,
    tolerance: float = 1e-6,
    step: float = 1e-5,
    rng: np.random.Generator | int | None = 0,
) -> GradientReport:
    """Put a layer through everything a correct layer must survive; AssertionError says what it did not.

    1. every dx and every parameter gradient against float64 central differences, with a random dout
    2. arguments may be read-only: neither forward nor backward writes into what it was lent
    3. there is one gradient for each input
    4. gradients add, in place: a second pass doubles them
    5. nothing stays saved after backward, and nothing is saved in eval()
    6. two forwards, then two backwards in reverse, give each forward its own gradients
    7. float32 stays float32, forward and backward
    8. non-contiguous inputs and a single sample give the same numbers (or a clear LayerError for the latter)
    The layer itself is not touched. Returns the report of step 1.
    """
    inputs = floats_where_differentiated(in_float64(layer), map_leaves(inputs, as_float64))
    report = check_gradients(layer, *inputs, tolerance=tolerance, step=step, rng=rng)
    if [fault for fault in report.faults if fault.kind == "stochastic"]:
        raise ValueError(f"{report.layer}: {report.faults[0]}")
    reused = [fault for fault in report.faults if fault.kind == "reused"]
    if not report.agrees or report.tolerance > tolerance or reused:
        raise AssertionError(str(report))
    trial = _Trial(layer, np.random.default_rng(rng))
    trial.read_only(inputs)
    trial.counted(inputs)
    trial.gradients_add(inputs)
    trial.nothing_left(inputs)
    trial.two_at_once(inputs)
    trial.dtype_kept(inputs)
    trial.strided(inputs)
    trial.one_sample(inputs)
    trial.expect(report.ok, str(report))
    return report


class _Trial:
    """The parts of the battery; each works on a fresh copy of the layer, in float64 unless it says otherwise."""

    def __init__(self, layer: Layer, rng: np.random.Generator) -> None:
        self.layer = layer
        self.rng = rng
        self.name = title(layer)

    def fresh(self, dtype: type = np.float64) -> Layer:
        return in_float64(self.layer, dtype)

    def once(self, layer: Layer, inputs: Any, dout: Any = None) -> tuple[Any, Any, Any]:
        """(output, dout, gradients) of one pass; dout is drawn when it is not given."""
        output = layer.forward(*inputs)
        if dout is None:
            dout = map_leaves(output, lambda y: self.rng.standard_normal(np.shape(y)).astype(np.asarray(y).dtype))
        return output, dout, layer.backward(dout)

    def gradients(self, layer: Layer) -> list[tuple[str, Array]]:
        return [(name, parameter.grad.copy()) for name, parameter in layer.named_parameters()]

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            raise AssertionError(f"{self.name}: {problem}")

    def same(self, got: Any, wanted: Any, problem: str) -> None:
        pairs = zip(leaves(got), leaves(wanted), strict=True)
        for (path, a), (_, b) in pairs:
            if a is None and b is None:
                continue
            self.expect(
                np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-9, atol=1e-12),
                problem + (f" (number {'.'.join(map(str, path))} of several)" if path else ""),
            )

    def read_only(self, inputs: Any) -> None:
        layer = self.fresh()
        frozen = map_leaves(inputs, _frozen)
        try:
            output = layer.forward(*frozen)
            dout = map_leaves(output, lambda y: _frozen(self.rng.standard_normal(np.shape(y))))
            map_leaves(output, lambda y: _freeze_in_place(y))
            layer.backward(dout)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise AssertionError(f"{self.name}: writes into an array that it was lent ({error})") from error

    def gradients_add(self, inputs: Any) -> None:
        layer = self.fresh()
        states = [(g, g.bit_generator.state) for g in generators_of(layer)]
        buffers = [(b, b.copy()) for _, b in layer.named_buffers()]
        arrays = [(name, p, p.grad) for name, p in layer.named_parameters()]
        _, dout, _ = self.once(layer, inputs)
        first = self.gradients(layer)
        for generator, state in states:
            generator.bit_generator.state = state
        for buffer, value in buffers:
            buffer[...] = value
        self.once(layer, inputs, dout)
        for (name, once), (_, twice) in zip(first, self.gradients(layer), strict=True):
            self.same(twice, 2 * once, f"a second pass must double the gradient of {name}: use += in backward")
        for name, parameter, array in arrays:
            self.expect(parameter.grad is array, f"the gradient of {name} became another array: add in place, use +=")

    def counted(self, inputs: Any) -> None:
        _, _, grads = self.once(self.fresh(), inputs)
        if isinstance(self.layer, Loss):
            return
        if len(inputs) == 1:
            self.expect(
                not isinstance(grads, tuple) or isinstance(inputs[0], tuple),
                "takes one input, so backward returns dx, not a tuple",
            )
        else:
            got = len(grads) if isinstance(grads, tuple) else 1
            self.expect(got == len(inputs), f"takes {len(inputs)} inputs, but backward returned {got} gradients")

    def two_at_once(self, inputs: Any) -> None:
        # labels stay labels: a loss may take 1 and -1 alone
        less = [map_leaves(x, lambda part: part * 0.75 if part.dtype.kind == "f" else part) for x in inputs]
        other = tuple(x if i and _whole(x) else each for i, (x, each) in enumerate(zip(inputs, less, strict=True)))
        alone, together = self.fresh(), self.fresh()
        y1, dout1, dx1 = self.once(alone, inputs)
        y2, dout2, dx2 = self.once(alone, other)
        self.same(together.forward(*inputs), y1, "the same forward gives another output the second time")
        self.same(together.forward(*other), y2, "a second forward before the backward gives another output")
        problem = "two forwards, then two backwards in reverse, mix up what was saved: use save() and saved()"
        self.same(together.backward(dout2), dx2, problem)
        self.same(together.backward(dout1), dx1, problem)
        one, both = (tuple(g for _, g in self.gradients(each)) for each in (alone, together))
        self.same(both, one, problem)

    def nothing_left(self, inputs: Any) -> None:
        layer = self.fresh()
        self.once(layer, inputs)
        self.expect(not _kept(layer), f"still keeps something after backward: {_kept(layer)}")
        layer.eval().forward(*inputs)
        self.expect(not _kept(layer), f"saves in eval(), where nothing should be kept: {_kept(layer)}")

    def dtype_kept(self, inputs: Any) -> None:
        layer = self.fresh(np.float32)
        single = map_leaves(inputs, lambda x: x.astype(np.float32) if x.dtype.kind == "f" else x)
        output, _, grads = self.once(layer, single)
        for what, tree in (("output", output), ("gradient", grads)):
            for path, leaf in leaves(tree):
                kind = getattr(leaf, "dtype", None)
                if kind is not None and kind.kind == "f":
                    self.expect(kind == np.float32, f"float32 in, but the {what} {path} is {kind}")
        for name, parameter in layer.named_parameters():
            self.expect(parameter.grad.dtype == np.float32, f"the gradient of {name} became {parameter.grad.dtype}")

    def strided(self, inputs: Any) -> None:
        straight, strided = self.fresh(), self.fresh()
        y, dout, dx = self.once(straight, inputs)
        gaps = map_leaves(inputs, _with_gaps)
        self.same(strided.forward(*gaps), y, "a non-contiguous input gives another output")
        self.same(strided.backward(map_leaves(dout, _with_gaps)), dx, "a non-contiguous input or dout gives another dx")

    def one_sample(self, inputs: Any) -> None:
        if not all(np.ndim(x) for _, x in leaves(inputs)):
            return
        layer = self.fresh()
        try:
            self.once(layer, map_leaves(inputs, lambda x: x[:1]))
        except LayerError:
            return  # one sample is too few for it, and it says so
        self.expect(not _kept(layer), "keeps something after the backward of one sample")


def _frozen(x: Any) -> Array:
    array = np.array(x)
    array.flags.writeable = False
    return array


def _whole(x: Any) -> bool:
    return isinstance(x, np.ndarray) and bool((x == np.round(x)).all())


def _freeze_in_place(x: Any) -> None:
    if isinstance(x, np.ndarray):
        x.flags.writeable = False


def _with_gaps(x: Any) -> Array:
    """The same numbers in memory of which they use every second one, with the axes in reverse order."""
    x = np.asarray(x)
    if x.ndim == 0:
        return x
    wide: Array = np.zeros((*x.shape[::-1][:-1], x.shape[0] * 2), x.dtype).T[::2]
    wide[...] = x
    return wide


def _kept(layer: Layer) -> list[str]:
    return [name or type(each).__name__ for name, each in layer.named_modules() if vars(each).get("_stack")]
