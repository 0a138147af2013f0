"""The gradient doctor: checks a backward, and says what is wrong with it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from backhand.inspection.behaviour import misbehaviour, stochastic
from backhand.inspection.beside import a_little_further, allow_inner_kinks, at_a_kink, bends, some
from backhand.inspection.borrowed import Borrowed
from backhand.inspection.evidence import Evidence, flat, global_state
from backhand.inspection.experiments import EXPERIMENTS, LAST
from backhand.inspection.faults import ORDER, Fault, Guess, sentence
from backhand.inspection.gradient_check import (
    GradientReport,
    as_float64,
    floats_where_differentiated,
    in_float64,
    leaves,
    map_leaves,
    title,
)
from backhand.inspection.hypotheses import HYPOTHESES
from backhand.inspection.places import PLACES
from backhand.inspection.shapes import raised, wrong_shape
from backhand.inspection.smaller import handy, smallest_example
from backhand.inspection.terms import TERMS
from backhand.layers.base import Layer
from backhand.losses.base import Loss

FLOAT32_STEP, FLOAT32_TOLERANCE = 1e-2, 5e-3
VAGUE = ("part", "factor", "blocks")  # kinds that say what the numbers are like, and not why


def check_gradients(
    layer: Any,
    *inputs: Any,
    tolerance: float = 1e-6,
    step: float = 1e-5,
    rng: np.random.Generator | int | None = 0,
    most: int = 400,
) -> GradientReport:
    """Check every gradient of a layer against central differences, and name the fault where one is wrong.

        dz ~ sum of dout * (y(z + h) - y(z - h)) / 2h,        dout random

    layer : a Layer, any object with forward(x) and backward(dout), or a pair of functions (f, df) with f(x) -> y (or
        y, cache) and df(dout), df(dout, cache) or df(dout, x). It is copied to float64 and stays as it is. Parameters
        of an object are found by their gradients: W where there is a dW (or W_grad, or a dict of grads)
    inputs : arrays, or (nested) tuples of arrays where the layer takes tuples. Integers count as data, like labels,
        unless the layer gives a gradient by them
    tolerance : the largest relative error that still counts as agreement
    step : h
    rng : where dout comes from, a Generator or a seed
    most : entries compared in each array; of a larger one, that many are drawn

    Returns a report that prints as below and is true when nothing is wrong: `report.faults` are the faults, the
    likeliest first, `report.rows` the numbers, `report.example_inputs` the smallest inputs that show the first one.

    At a kink (ReLU at 0, a tie in max-pooling, x on the target of an L1) there is no derivative, and backward may give
    any number between the slope from the left and the slope from the right: `report.kinks` says at how many entries it
    was so, and the layer is checked a little further too. A forward in float32 is checked with a larger step.
    `report.notes` say so.

    >>> class Affine:
    ...     def __init__(self):
    ...         self.W = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 1.5]])
    ...     def forward(self, x):
    ...         self.x = x
    ...         return x @ self.W
    ...     def backward(self, dout):
    ...         self.dW = self.x.T @ dout / len(self.x)
    ...         return dout @ self.W.T
    >>> print(check_gradients(Affine(), np.arange(12.0).reshape(4, 3)))
    Affine: GRADIENTS DIFFER (want < 1e-06)
      gradient  shape   rel. error  worst at          analytic      numeric  verdict
      dx        (4, 3)     3.0e-10  [1, 2]             -0.1926      -0.1926  good
      W         (3, 2)     7.5e-01  [1, 0]              -5.371       -21.49  wrong
      likely: the gradient of W is divided by N, the samples in the batch (4); the mean is the loss's business
              alone: sum here
      note: dx is right, so the fault is in the lines that fill the gradients of the parameters
      smallest example: x = [[0., 1., 2.], [3., 4., 5.]]
          dout = [[-1.6553, 0.7128], [-0.3572, -0.2019]]
          dW = [[-0.5359, -0.3028], [-1.5421, -0.0473], [-2.5483, 0.2081]], from backward
          dW = [[-1.0717, -0.6057], [-3.0842, -0.0947], [-5.0967, 0.4163]], from central differences

    The verdicts are the bands of the CS231n notes: below 1e-7 good, 1e-4 fine at a kink, 1e-2 suspicious, else wrong.
    Raises ValueError where there is no gradient to compare at all, TypeError where `layer` is none of the above.
    """
    seed = rng if isinstance(rng, int) else int(np.random.default_rng(rng).integers(1 << 31))
    drawn = global_state()
    if any(np.size(x) == 0 for _, x in leaves(inputs)):
        raise ValueError("nothing to compare: an input is empty")
    try:
        patient = as_patient(layer, inputs)
        arrays = map_leaves(inputs, as_float64)
        try:
            arrays = floats_where_differentiated(patient, arrays)
        except Exception:  # the check below meets the same trouble, and reports it
            patient.zero_grad()
        if isinstance(patient, Borrowed):
            patient.forget()
        return _examined(patient, arrays, tolerance, {"step": step, "seed": seed, "most": most})
    finally:
        global_state(drawn)


def as_patient(thing: Any, inputs: tuple[Any, ...]) -> Layer:
    """A Layer in float64 to examine: a copy of a Layer, or a Layer made of somebody's object or functions."""
    if isinstance(thing, Layer):
        return in_float64(thing)
    pair = isinstance(thing, tuple) and len(thing) == 2 and all(callable(f) for f in thing)
    runs = hasattr(thing, "backward") and (hasattr(thing, "forward") or callable(thing))
    if isinstance(thing, type) or not (pair or runs):
        hint = f"; did you mean {thing.__name__}()?" if isinstance(thing, type) else ""
        raise TypeError(
            f"expected a Layer, an object with forward and backward, or a pair (f, df), got {thing!r}{hint}"
        )
    return Borrowed(thing).meet(map_leaves(inputs, as_float64))


def _examined(patient: Layer, inputs: tuple[Any, ...], tolerance: float, options: dict[str, Any]) -> GradientReport:
    report = GradientReport(title(patient), tolerance)
    e = Evidence(patient, inputs, tolerance=tolerance, **options)
    if not e.targets:
        raise ValueError(
            f"{report.layer}: nothing to compare, it has no parameters and gives no gradient by its inputs"
        )
    random = stochastic(e)
    if random is not None:
        report.faults = [random]
        return report
    if not np.isfinite(e.flat_y).all():
        words = (
            "forward gives NaN or infinite numbers at this input, which have no derivative; give it another one, or "
        )
        report.faults = [Fault("nan", ["y"], words + "guard the log, the square root or the division in forward")]
        return report
    e.measure()
    if e.failing and _in_float32(e):
        report.tolerance = max(tolerance, FLOAT32_TOLERANCE)
        e = e.again(inputs, step=FLOAT32_STEP, tolerance=report.tolerance, single=True)
        report.notes.append(_sweep(e))
    e, inner, at_kinks = _beside_kinks(e, report.notes)
    names = e.failing
    report.rows = e.rows()
    if isinstance(patient, Borrowed):
        report.notes += patient.unchecked(e.inputs)
    behaviour = list(misbehaviour(e, report.notes))
    if names or behaviour:
        inner = inner or _in_a_child(e)
        with np.errstate(all="ignore"):  # a hypothesis may divide by what is 0 here
            own = at_kinks + behaviour if at_kinks else diagnosed(handy(e, names), names, behaviour)
        report.faults = inner or own
        report.notes += _half_right(e, names)
        if names:
            report.example, report.example_inputs = smallest_example(e, names)
    return report


# ---------------------------------------------------------------------- the diagnosis


def diagnosed(e: Evidence, names: list[str], behaviour: list[Fault]) -> list[Fault]:
    """The faults, the likeliest first: what explains the most gradients, then what needs the least to be believed."""
    causes = [f for f in behaviour if f.kind in ("redrawn", "input changed", "returned", "missing")]
    effects = [f for f in behaviour if f not in causes]
    guesses: list[Guess] = []
    error = raised(e)
    if error is not None:
        guesses.append(error)
    for target in e.targets:
        if target.name in names and e.error is None:
            guesses += list(guessed(e, target))
    groups: dict[str, list[Guess]] = {}
    for guess in guesses:
        groups.setdefault(guess.kind, []).append(guess)
    faults, rest = list(causes), set(names)
    for fault in causes:
        rest -= set(fault.targets)
    while groups:
        kind = min(groups, key=lambda k: (-len({g.target for g in groups[k]} & rest), ORDER.index(k)))
        found = sorted(groups.pop(kind), key=lambda g: g.left)
        targets = [name for name in names if any(g.target == name for g in found)] or [found[0].target]
        fault = Fault(kind, targets, sentence(found[0].words, targets), second=not rest & set(targets))
        rest -= set(targets)
        faults.append(fault)
    faults.sort(key=lambda f: f.second)
    faults = [f for f in faults if not (f.second and f.kind in VAGUE)]
    if rest and e.error is None:
        faults.append(_unknown(e, [name for name in names if name in rest]))
    return faults + effects


def guessed(e: Evidence, target: Any) -> Iterator[Guess]:
    """All hypotheses that explain what one gradient is."""
    if not target.comparable:
        yield from wrong_shape(e, target)
        return
    kind = target.analytic[0].dtype
    if kind.kind != "f":
        words = f"{{z}} is rounded to whole numbers (dtype {kind}): keep the dtype of dout"
        yield Guess("rounding", target.name, words)
        return
    found = False
    for hypothesis in (*HYPOTHESES, *PLACES, *TERMS, *EXPERIMENTS, *LAST):
        if found and hypothesis in LAST:
            return
        for guess in hypothesis(e, target):
            found = found or guess.kind not in VAGUE
            yield guess


def _half_right(e: Evidence, names: list[str]) -> list[str]:
    """What it means that only the inputs, or only the parameters, have a wrong gradient."""
    if not names or len({t.parameter for t in e.targets}) < 2:
        return []
    wrong = {t.parameter for t in e.targets if t.name in names}
    if wrong == {False}:
        words = "the gradients of the parameters are right, so this layer would learn and those below it would not"
        return [f"{words}: a training run hardly shows it; look at what backward returns"]
    if wrong == {True}:
        return ["dx is right, so the fault is in the lines that fill the gradients of the parameters"]
    return []


def _unknown(e: Evidence, names: list[str]) -> Fault:
    t = next(each for each in e.targets if each.name == names[0])
    a, n = np.stack(t.analytic), np.stack(t.numeric)
    known = np.isfinite(n)
    a, n = a[known], n[known]
    cosine = float(a @ n) / max(float(np.linalg.norm(a) * np.linalg.norm(n)), 1e-300)
    off = np.mean(np.abs(a - n) > 1e-6 * np.abs(n).max())
    words = (
        f"{{z}} is wrong in {off:.0%} of the numbers, in a way that no known fault explains (cosine with the "
        f"right one {cosine:.3f}); go through the backward term by term, with the smallest example"
    )
    return Fault("unknown", names, sentence(words, names))


def _in_a_child(e: Evidence) -> list[Fault] | None:
    """The faults of an inner layer, where one is at fault by itself: looked at with what it is given inside."""
    for name, child in e.layer.named_children() if not isinstance(e.layer, Borrowed) else ():
        record: list[tuple[Any, ...]] = []

        def recording(*x: Any, _child: Layer = child, _record: list[Any] = record, **options: Any) -> Any:
            _record.append(map_leaves(x, np.array) if not options else ())
            return type(_child).forward(_child, *x, **options)

        child.__dict__["forward"] = recording
        try:
            e.outputs()
        finally:
            del child.__dict__["forward"]
        if not record or not record[0] or isinstance(child, Loss):
            continue
        try:
            options = {"step": 1e-5, "seed": e.seed, "most": e.most}
            report = _examined(in_float64(child), record[0], 1e-6 if e.single else e.tolerance, options)
        except Exception:  # it cannot be looked at by itself
            continue
        if report.faults:
            for fault in report.faults:
                fault.where = f"{name}{f' ({title(child)})' if not fault.where else f'.{fault.where}'}"
            return report.faults
    return None


# ---------------------------------------------------------------------- float32, kinks


def _in_float32(e: Evidence) -> bool:
    """Whether forward computes in single precision, whatever it is given."""
    y = flat(e.forward(e.nudged(functools.partial(some, 1e-8, e.rng))))
    e.forget()
    return bool(np.isfinite(y).all() and np.array_equal(y, y.astype(np.float32)) and len(np.unique(y)) > 2)


def _sweep(e: Evidence) -> str:
    """What the error is at several steps, of the first entry of a gradient: rounding grows as the step shrinks."""
    t = next((t for t in e.targets if t.comparable), None)
    words = "forward computes in float32, whose rounding drowns a small step"
    if t is None:
        return words
    entry = int(t.entries[np.nanargmax(np.abs(t.numeric[0].reshape(-1)[t.entries]))])
    errors = []
    for step in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        n = float(e.flat_douts[0] @ e.slope(t.z, entry, step))
        a = float(t.analytic[0].reshape(-1)[entry])
        errors.append(f"{step:.0e}: {abs(a - n) / max(abs(a), abs(n), 1e-12):.0e}")
    return f"{words}; checked with a step of {FLOAT32_STEP:g}. Relative error by step: {', '.join(errors)}"


def _beside_kinks(e: Evidence, notes: list[str]) -> tuple[Evidence, list[Fault] | None, list[Fault]]:
    """At a kink the numbers say little, so the same layer is looked at a little further; notes say what was found.

    Returns the Evidence to go by (beside the kinks where backward is wrong there too), the faults of an inner layer,
    and the fault of a backward that is right beside the kinks and impossible at them.
    """
    if e.error is not None or not (any(t.kinks for t in e.targets) or (e.failing and bends(e))):
        return e, None, []
    inner = _in_a_child(e) if e.failing else None
    other, scale = a_little_further(e)
    if other is not None and not other.failing and not inner and e.failing:
        allow_inner_kinks(e)
    wrong = e.failing
    said = [at_a_kink(t) for t in sorted(e.targets, key=lambda t: t.name not in wrong) if t.kinks]
    lead, moved = said[:1] or ["forward has a kink at this point"], ""
    if other is not None:
        how = "differ too" if other.failing else "agree"
        moved = f"all points moved by up to {scale:g} of their size, there the gradients {how}"
    if other is not None and wrong and not other.failing:
        notes.append(moved)
        words = sentence("{z} is right a little further and wrong at this point itself", wrong)
        return e, inner, [Fault("kink", wrong, "; ".join([words, *said[:1]]))]
    notes.append("; ".join([*lead, moved] if moved else lead))
    return (other if other is not None and other.failing else e), inner, []
