"""Whose memory is it? What a layer hands out is never changed by a later call, and what it is lent is never written.

What a user may count on, for every layer of the CASES table:

1. Outputs, gradients, states and attention maps that are kept stay as they are, whatever runs later and whether or not
   `release()` was called. They may be written to once the backward has run (before it, the layer may need them).
2. Inputs and upstream gradients are not written to: they may be read-only, or shared with others.
3. A gradient by an input has memory of its own, apart from parameters, buffers, inputs and outputs; apart from dout
   too, but for the layers in HAND_DOUT_ON. An output has memory of its own but for those in HAND_X_ON, which only look
   at the numbers in another shape, and those are views in torch too.
4. forward and backward change no `parameter.data`; `parameter.grad` is the same array from one step to the next.

Here all results come from the pool, which fills what it hands out with nan, so that also shows who reads memory that
nobody has written.
"""

from __future__ import annotations

import copy
import tracemalloc

import numpy as np
import pytest

from backhand.inspection import check_layer
from backhand.inspection.gradient_check import generators_of, leaves, map_leaves
from backhand.inspection.step_memory import pool_apart
from backhand.layers import Conv2d, Layer, Linear, MultiheadAttention, Parameter, ReLU, memory
from backhand.losses import CrossEntropyLoss
from backhand.models import Sequential
from tests import large
from tests.cases import families
from tests.pools import Careless, Poisoned, every_result_from

CASES = families("CASES")
DTYPES = (np.float64, np.float32)
NUMPY = np.lib.tracemalloc_domain

# y looks into x: the same numbers, in another shape or order, or all of them
HAND_X_ON = {"Identity", "Flatten", "Unflatten", "Reshape", "Permute", "Copy", "Dropout"}
HAND_X_ON |= {"Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"}  # in eval
# dx looks into dout: the derivative is 1, or dout is cut or spread
HAND_DOUT_ON = (HAND_X_ON - {"Copy"}) | {"Add", "AddConstant", "SinusoidalPositionalEncoding", "AdaptiveAvgPool2d"}
HAND_DOUT_ON |= {f"{kind}Pad{axes}d" for kind in ("Constant", "Zero") for axes in (1, 2, 3)}

# What these have attended to stays on them after the last forward, in eval too: it is there to be drawn. So do the
# layers that have an `attention_map`.
LEAVE_SOMETHING = {"NTM"}


@pytest.fixture
def pool():
    with every_result_from(Poisoned()) as pool:
        yield pool


def built(case, dtype=np.float32):
    """The layer of a case; a copy, for layers among its arguments would be shared with the next one."""
    return copy.deepcopy(case.build(dtype))


def lent(tree, dtype):
    """Copies that may not be written to, the floats of them in `dtype`."""

    def frozen(x):
        array = np.array(x, dtype if np.asarray(x).dtype.kind == "f" else None)
        array.flags.writeable = False
        return array

    return map_leaves(tree, frozen)


def upstream_of(y, seed):
    rng = np.random.default_rng(100 + seed)
    return lent(map_leaves(y, lambda each: rng.standard_normal(np.shape(each))), np.asarray(first_of(y)).dtype)


def first_of(y):
    return next(leaf for _, leaf in leaves(y) if np.asarray(leaf).dtype.kind == "f")


def arrays_of(tree):
    return [leaf for _, leaf in leaves(tree) if isinstance(leaf, np.ndarray)]


def left_on(layer):
    """The arrays that a layer leaves on itself for the user: attention maps, and the like."""
    return [
        array
        for each in layer.modules()
        for name, value in vars(each).items()
        if name not in ("_stack", *each.buffer_names)
        for array in in_lists(value)
    ]


def in_lists(value):
    if isinstance(value, (list, tuple)):
        return [array for each in value for array in in_lists(each)]
    return [value] if isinstance(value, np.ndarray) else []


class Kept:
    """What a user keeps, and how it looked when it was handed over."""

    def __init__(self):
        self.things = []

    def keep(self, what, *trees):
        self.things += [(what, array, array.tobytes()) for tree in trees for array in arrays_of(tree)]

    def check(self, when):
        for what, array, before in self.things:
            assert array.tobytes() == before, f"{what} of shape {array.shape} has changed {when}"


def passes(case, layer, dtype, seeds):
    """Forward with each input, then backward in reverse order; (inputs, output, dout, dx) of each."""
    forwards = []
    for seed in seeds:
        inputs = lent(case.arrays(seed), dtype)
        forwards.append((inputs, layer.forward(*inputs, **case.options)))
    done = []
    for seed, (inputs, y) in zip(reversed(seeds), reversed(forwards), strict=True):
        dout = upstream_of(y, seed)
        done.append((inputs, y, dout, layer.backward(dout)))
    return done


def keeps_what_is_kept(case, dtype, others):
    """Assert rule 1 and rule 2 for one case."""
    layer = built(case, dtype)
    kept = Kept()
    inputs = lent(case.arrays(1), dtype)
    kept.keep("an input", inputs)
    y = layer.forward(*inputs, **case.options)
    kept.keep("the output", y)
    kept.keep("what the layer left on itself", *left_on(layer))
    dout = upstream_of(y, 1)
    kept.keep("dout", dout)
    dx = layer.backward(dout)
    kept.keep("the gradient", dx)
    kept.check("in its own backward")
    for done in passes(case, layer, dtype, [2, 3]):
        for what, tree in zip(("an input", "an output", "dout", "a gradient"), done, strict=True):
            kept.keep(what, tree)
    kept.check("in later passes of the layer")
    layer.zero_grad()
    passes(case, layer, dtype, [4])
    for other in others:
        passes(other, built(other, dtype), dtype, [5, 6])
    kept.check("while other layers ran")
    memory.release()
    layer.eval().forward(*lent(case.arrays(7), dtype), **case.options)
    kept.check("after release()")


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
@pytest.mark.parametrize("i", range(len(CASES)), ids=[str(case) for case in CASES])
def test_what_is_kept_is_never_changed(i, dtype, pool):
    keeps_what_is_kept(CASES[i], dtype, [CASES[i - 1], CASES[(i + 1) % len(CASES)]])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_reads_what_nobody_wrote(case, pool):
    # the numbers are right, and gradients add, two forwards stay apart ...: all of check_layer, on poisoned memory
    check_layer(case.build(cls=case.checked), *case.arrays())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_have_memory_of_their_own(case, pool):
    layer = built(case)
    ((inputs, y, dout, dx),) = passes(case, layer, np.float32, [1])
    own = [(name, p.data) for name, p in layer.named_parameters()] + list(layer.named_buffers())
    own += [(f"the gradient of {name}", p.grad) for name, p in layer.named_parameters()]
    given = [("an input", x) for x in arrays_of(inputs)]
    upstream = [("dout", each) for each in arrays_of(dout)]
    outputs = [("the output", each) for each in arrays_of(y)]
    name = case.cls.__name__
    apart(y, own + ([] if name in HAND_X_ON else given))
    apart(dx, own + given + outputs + ([] if name in HAND_DOUT_ON else upstream))


def apart(tree, others):
    for array in arrays_of(tree):
        for what, other in others:
            assert not np.may_share_memory(array, other), f"a result of shape {array.shape} shares memory with {what}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parameters_are_read_and_gradients_are_added_to(case, pool):
    layer = built(case)
    if not any(True for _ in layer.parameters()):
        return
    states = [(g, g.bit_generator.state) for g in generators_of(layer)]
    data = [(p, p.data, p.data.tobytes()) for p in layer.parameters()]
    grads = [(p, p.grad) for p in layer.parameters()]

    def once():
        for generator, state in states:
            generator.bit_generator.state = state
        passes(case, layer, np.float32, [1])

    once()
    first = [grad.copy() for _, grad in grads]
    once()
    for (_, grad), one in zip(grads, first, strict=True):
        np.testing.assert_allclose(grad, 2 * one, rtol=1e-4, atol=1e-5 * max(1, np.abs(one).max()))
    layer.zero_grad()
    once()
    for (p, grad), one in zip(grads, first, strict=True):
        assert p.grad is grad
        np.testing.assert_allclose(grad, one, rtol=1e-4, atol=1e-5 * max(1, np.abs(one).max()))
    layer.zero_grad()
    assert all(p.grad is grad and not grad.any() for p, grad in grads)
    for p, array, before in data:
        assert p.data is array and array.tobytes() == before


def held_by_arrays(layer, inputs, options):
    """How many bytes of arrays are alive after a forward that were not before it."""
    tracemalloc.start()
    try:
        layer.forward(*inputs, **options)
        traced = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, NUMPY)])
    finally:
        tracemalloc.stop()
    return sum(trace.size for trace in traced.traces)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_eval_keeps_nothing(case, pool):
    layer = built(case).eval()
    inputs = lent(case.arrays(1), np.float32)
    layer.forward(*inputs, **case.options)
    in_use = pool.bytes()[0]
    maps = any(hasattr(each, "attention_map") for each in layer.modules()) or case.cls.__name__ in LEAVE_SOMETHING
    assert not in_use or maps
    layer.forward(*lent(case.arrays(2), np.float32), **case.options)
    assert pool.bytes()[0] == in_use
    assert not any(getattr(each, "_stack", None) for each in layer.modules())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "LEAST_BYTES", 1 << 60)  # now all arrays are NumPy's own
        assert held_by_arrays(layer, inputs, case.options) == 0 or maps


def test_the_pool_is_really_used(pool):
    for case in CASES:
        if case.cls in (Linear, Conv2d):
            passes(case, built(case), np.float32, [1])
    assert pool.handed_out > 5


# ---------------------------------------------------------------------- at the sizes of real use


def large_passes(layer, inputs, kept):
    """Three passes whose results are kept, each in training and then in eval."""
    for step in range(3):
        scaled = tuple(large.frozen(x * np.float32(1 + step)) if x.dtype.kind == "f" else x for x in inputs)
        y = layer(*scaled)
        kept.keep(f"the output of pass {step}", y)
        kept.keep("what the layer left on itself", *left_on(layer))
        dout = upstream_of(y, step)
        kept.keep("dout", dout)
        kept.keep(f"the gradient of pass {step}", layer.backward(dout))
        layer.eval()
        kept.keep(f"the output of pass {step} in eval", layer(*scaled))
        layer.train().zero_grad()
        kept.check(f"by pass {step}")
    memory.release()
    layer(*inputs)
    kept.check("after release()")


@pytest.mark.parametrize("build", [*large.LAYERS, *large.MODELS])
def test_large_results_are_kept_and_large_memory_is_written_before_it_is_read(build):
    found = []
    for pool in (memory.Pool(), Poisoned()):
        layer, *inputs = large.model(build)[:2] if build in large.MODELS else flat(large.layer(build))
        kept = Kept()
        with pool_apart(pool):
            large_passes(layer, inputs, kept)
        found.append([(what, before) for what, _, before in kept.things])
    assert found[0] == found[1]  # nan from the poison would show here


def flat(pair):
    return pair[0], *pair[1]


def test_a_step_changes_no_state_dict_that_was_taken(pool):
    model = Sequential(Linear(4, 8, rng=0), ReLU(), Linear(8, 3, rng=1))
    state = model.state_dict()
    kept = Kept()
    kept.keep("the state_dict", *state.values())
    loss = CrossEntropyLoss()
    loss(model(np.ones((5, 4))), np.zeros(5, int))
    model.backward(loss.backward())
    for parameter in model.parameters():
        parameter.data -= parameter.grad
    kept.check("in a step of training")


# ---------------------------------------------------------------------- these tests can fail


def case_of(cls):
    return next(case for case in CASES if case.cls is cls)


@pytest.mark.parametrize("cls", [Linear, MultiheadAttention], ids=lambda cls: cls.__name__)
def test_a_pool_that_hands_out_what_is_in_use_is_noticed(cls):
    with every_result_from(Careless()), pytest.raises(AssertionError, match="has changed"):
        keeps_what_is_kept(case_of(Linear), np.float32, [])


class Bad(Layer):
    """y = 2 x, with whatever mistake a subclass makes."""

    def forward(self, x):
        x = self.input(x)
        self.save(x)
        return x * 2

    def backward(self, dout):
        self.saved()
        return dout * 2


class OneBuffer(Bad):
    """Gives the same array each time."""

    def forward(self, x):
        x = self.input(x)
        if not hasattr(self, "y"):
            self.y = np.empty_like(x)
        self.save(x)
        return np.multiply(x, 2, out=self.y)


class OverItsOutput(Bad):
    """Turns the output into the gradient."""

    def forward(self, x):
        y = super().forward(x)
        self.y = y
        return y

    def backward(self, dout):
        self.saved()
        return np.multiply(dout, 2, out=self.y)


class IntoDout(Bad):
    """Saves an array by writing into what it was lent."""

    def backward(self, dout):
        self.saved()
        dout *= 2
        return dout


class Unwritten(Bad):
    """Adds to memory that nobody has set to zero."""

    def forward(self, x):
        y = memory.empty_like(super().forward(x))
        y += x * 2
        return y


class Hoarder(Bad):
    """Keeps its input in eval too."""

    def forward(self, x):
        self.last = [np.array(x)]
        return super().forward(x)


class BadCase:
    def __init__(self, cls):
        self.cls, self.options = cls, {}

    def build(self, dtype):
        return self.cls()

    def arrays(self, seed):
        return (np.random.default_rng(seed).standard_normal((3, 4)),)


@pytest.mark.parametrize("cls, error", [(OneBuffer, "has changed"), (OverItsOutput, "the output .* has changed")])
def test_a_layer_that_uses_its_results_again_is_noticed(cls, error, pool):
    keeps_what_is_kept(BadCase(Bad), np.float32, [])
    with pytest.raises(AssertionError, match=error):
        keeps_what_is_kept(BadCase(cls), np.float32, [])


def test_a_layer_that_writes_into_dout_is_noticed(pool):
    with pytest.raises(ValueError, match="read-only"):
        keeps_what_is_kept(BadCase(IntoDout), np.float32, [])


def test_a_layer_that_reads_what_nobody_wrote_is_noticed(pool):
    with np.errstate(invalid="ignore"), pytest.raises((AssertionError, ValueError)):
        check_layer(Unwritten(), np.ones((3, 4)))


def test_a_layer_that_keeps_something_in_eval_is_noticed():
    x = np.ones((3, 4), np.float32)
    assert held_by_arrays(Bad().eval(), (x,), {}) == 0
    assert held_by_arrays(Hoarder().eval(), (x,), {}) == x.nbytes


def test_a_layer_that_hands_out_its_parameter_is_noticed():
    weight = Parameter(np.ones(3))
    with pytest.raises(AssertionError, match="shares memory with weight"):
        apart(weight.data[1:], [("weight", weight.data)])
