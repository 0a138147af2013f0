"""Faults that a single pass does not show: what is written to, drawn again, overwritten, or mixed up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from backhand.inspection.borrowed import Borrowed
from backhand.inspection.evidence import Evidence, Target
from backhand.inspection.faults import Fault, listed
from backhand.inspection.gradient_check import as_gradient, generators_of, leaves, map_leaves


def misbehaviour(e: Evidence, notes: list[str]) -> Iterator[Fault]:
    """Every fault of behaviour; what is bad style but harmless in somebody's own class goes to `notes`."""
    if e.input_changed:
        words = f"{e.input_changed} writes into its input: whoever computed x still needs it; work on a copy"
        yield Fault("input changed", ["dx"], words)
    if e.dout_changed:
        words = "backward writes into dout: the layer above may hand the same array to others; work on a copy"
        if isinstance(e.layer, Borrowed):
            notes.append(words)
        else:
            yield Fault("dout changed", ["dx"], words)
    if e.output_changed:
        words = "backward writes into y, which forward handed on: the layer above may still need it; work on a copy"
        if isinstance(e.layer, Borrowed):
            notes.append(words)
        else:
            yield Fault("output changed", ["dx"], words)
    if e.returned:
        words = f"backward returned {e.returned}: it has to return one gradient for each input, each an array"
        misshapen = [t.name for t in e.targets if not t.parameter and not _alike(t)]
        kind = "missing" if any(t.analytic[0] is None for t in e.targets if not t.parameter) else "returned"
        yield Fault(kind, misshapen or ["dx"], words + (", in a tuple" if len(e.inputs) > 1 else ""))
    if e.error is not None or not all(t.comparable or _alike(t) for t in e.targets):
        return  # that comes first
    reused = _reused(e)
    if reused:
        yield reused
    again = _redrawn(e)
    if again:
        yield again
        return
    overwritten = list(_overwritten(e))
    yield from overwritten
    yield from _mixed_up(e, {name for fault in overwritten for name in fault.targets})


def stochastic(e: Evidence) -> Fault | None:
    """Another output each time, though every generator that can be found was set back."""
    if np.array_equal(e.outputs(), e.outputs(), equal_nan=True):
        return None
    words = (
        "forward gives another output each time: it draws random numbers from a generator that cannot be set back; "
        "keep one numpy.random.Generator as an attribute and draw from that"
    )
    return Fault("stochastic", ["dx"], words)


def _alike(t: Target) -> bool:
    """Whether the gradients have the shape of z, and are numbers."""
    return all(a is not None and a.shape == t.z.shape and a.dtype.kind in "fiub" for a in t.analytic)


def _reused(e: Evidence) -> Fault | None:
    """A result that was handed on and is written over by the next pass."""
    if isinstance(e.layer, Borrowed):
        return None  # its arrays are put back before each forward
    other = map_leaves(e.inputs, lambda x: np.flip(x) * 0.75 if x.dtype.kind == "f" else np.flip(x))
    try:
        y = e.layer.forward(*map_leaves(e.inputs, np.array))
        dx = e.layer.backward(map_leaves(e.douts[0], np.array))
        before = map_leaves((y, dx), as_gradient)
        e.layer.forward(*map_leaves(other, np.array))
        e.layer.backward(map_leaves(e.douts[-1], np.array))
    except Exception:  # it cannot take the other point
        return None
    finally:
        e.clear()
        e.restore()
    pairs = zip(leaves((y, dx)), leaves(before), strict=True)
    floats = [(path[0], now, then) for (path, now), (_, then) in pairs if then.dtype.kind == "f"]
    wrong = [which for which, now, then in floats if not np.array_equal(now, then, equal_nan=True)]
    if not wrong:
        return None
    what = "y that forward returned" if wrong[0] == 0 else "dx that backward returned"
    words = f"the {what} is written over by the next pass: whoever got it still needs it; return a new array each time"
    return Fault("reused", ["dx"], words)


def _redrawn(e: Evidence) -> Fault | None:
    """A backward that draws: its answer changes with the state of the generators after forward."""
    generators = generators_of(e.layer)
    answers = []
    for ahead in (0, 1, 5):
        e.layer.zero_grad()
        e.forward()
        for generator in generators:
            generator.random(ahead)
        np.random.random(ahead)  # noqa: NPY002
        answers.append(e.backward(e.douts[0]))
        e.clear()
    e.restore()
    names = [n for n in answers[0] if not all(_close(answers[0][n], other[n]) for other in answers[1:])]
    if not names:
        return None
    words = (
        f"backward draws random numbers itself, so {listed(names)} belongs to another mask: keep the mask of forward"
    )
    return Fault("redrawn", names, words)


def _overwritten(e: Evidence) -> Iterator[Fault]:
    """A second pass must add to the gradients of the parameters."""
    if isinstance(e.layer, Borrowed):
        return  # such classes have a dW that is set, by custom
    dout = e.douts[0]
    e.clear()
    e.forward()
    once = e.backward(dout)
    e.forward()
    twice = e.backward(dout)
    e.clear()
    wrong = [
        name
        for name, p in e.layer.named_parameters()
        if once[name] is not None and not _close(twice[name], 2 * once[name])
    ]
    if wrong:
        words = f"a second backward must add to {listed(wrong)} and does not: use += (or `[...] +=`) where there is ="
        yield Fault("overwrites", wrong, words)


def _mixed_up(e: Evidence, known: set[str]) -> Iterator[Fault]:
    """Two forwards, then two backwards in reverse; for somebody's own class, one forward and backward after another."""
    other = map_leaves(e.inputs, lambda x: np.flip(x) * 0.75 if x.dtype.kind == "f" else np.flip(x))
    dout = e.douts[0]
    own = e.layer if isinstance(e.layer, Borrowed) else None
    try:
        e.clear()
        e.forward()
        first, before = e.backward(dout), _grads(e)
        e.forward(other, restore=False)
        second = _less(e.backward(dout), before)
    except Exception:  # it cannot take the other point; there is nothing to compare then
        return
    finally:
        e.clear()
    try:
        if own is not None:
            order, wrong = "A second forward and backward gives", []
            a = e.gradients(dout)
            b = e.gradients(dout, other)
            e.restore()
            unused = Evidence(own.fresh(), other)
            second = unused.gradients(dout)
            wrong = [n for n in first if not _close(b[n], second[n])]
        else:
            order = "Two forwards and then two backwards, in reverse, give"
            e.forward()
            e.forward(other, restore=False)
            b, before = e.backward(dout), _grads(e)
            wrong = [n for n in first if not _close(b[n], second[n])]
            a = _less(e.backward(dout), before)
        wrong += [n for n in first if n not in wrong and not _close(a[n], first[n])]
    except Exception as error:
        order, wrong = f"Two forwards and then two backwards raise {type(error).__name__}; they give", ["dx"]
    finally:
        e.clear()
        e.restore()
    wrong = [name for name in wrong if name not in known]
    if wrong:
        words = (
            f"{order} another {listed(wrong)}: what forward keeps is mixed up (one slot, or in the wrong order); "
            "save() and saved() are a stack"
        )
        if own is not None:
            words = f"{order} another {listed(wrong)}: something kept from an earlier forward is used"
        yield Fault("cache", wrong, words)


def _grads(e: Evidence) -> dict[str, Any]:
    return {name: None if p.grad is None else np.array(p.grad) for name, p in e.layer.named_parameters()}


def _less(total: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What this backward added; gradients by inputs are as they came."""
    return {n: g if g is None or before.get(n) is None else g - before[n] for n, g in total.items()}


def _close(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-8, atol=1e-11, equal_nan=True)
