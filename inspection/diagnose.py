"""One page about a network and its data: what is wrong, the evidence, what to try."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from backhand.inspection.apart import apart, as_inputs
from backhand.inspection.babysitting import MakeOptimizer, dead_relus, few, initial_loss, saturation, update_ratio
from backhand.inspection.gradient_check import leaves, title
from backhand.inspection.hessian import LossByParameters
from backhand.inspection.nonfinite import find_nonfinite
from backhand.inspection.structure import share
from backhand.inspection.trace import Trace, record
from backhand.inspection.trial_runs import lr_range_test, overfit
from backhand.layers.activations import Sigmoid, Tanh
from backhand.layers.base import Layer, LayerError
from backhand.layers.guard import widened
from backhand.layers.parameter import Array
from backhand.layers.rectifiers import ReLU
from backhand.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, NLLLoss

OK, LOOK, WRONG = "ok", "look", "WRONG"
MOST = 100_000_000  # numbers that are looked through
RANGES: dict[type[Layer], tuple[float, float]] = {Sigmoid: (0, 1), Tanh: (-1, 1), ReLU: (0, np.inf)}


@dataclass
class Finding:
    """The answer to one question.

    check : what was asked      verdict : "ok", "look" (unusual) or "WRONG"
    evidence : the numbers      advice : what to try
    """

    check: str
    verdict: str
    evidence: str
    advice: str = ""


@dataclass(repr=False)
class Diagnosis:
    """What `diagnose` found; prints as one page, and is true when nothing is wrong."""

    subject: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(each.verdict != WRONG for each in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def __getitem__(self, check: str) -> Finding:
        """The finding of that name, the worst where there are several."""
        found = [each for each in self.findings if each.check == check]
        if not found:
            raise KeyError(f"no check {check!r}; there are {', '.join(dict.fromkeys(f.check for f in self.findings))}")
        return max(found, key=lambda each: (OK, LOOK, WRONG).index(each.verdict))

    def __repr__(self) -> str:
        lines = [self.subject]
        for each in self.findings:
            head = f"  {each.verdict:<6} {each.check:<14} "
            lines += textwrap.wrap(each.evidence, 112, initial_indent=head, subsequent_indent=" " * len(head))
            if each.advice:
                lines += textwrap.wrap(
                    f"try: {each.advice}", 112, initial_indent=" " * len(head), subsequent_indent=" " * (len(head) + 5)
                )
        count = {verdict: sum(each.verdict == verdict for each in self.findings) for verdict in (WRONG, LOOK)}
        if count[WRONG]:
            lines.append(f"{count[WRONG]} wrong, {count[LOOK]} to look at; begin with the first that is wrong")
        else:
            lines.append(f"nothing wrong{f', {count[LOOK]} to look at' if count[LOOK] else ''}")
        return "\n".join(lines)


def diagnose(
    model: Layer,
    data: Any,
    loss: Layer | None = None,
    *,
    optimizer: MakeOptimizer | None = None,
    samples: int = 64,
    steps: int = 200,
) -> Diagnosis:
    """Ask the questions of the lecture's checklist about a network that does not learn as it should; print the answer.

    data : (x, y), arrays with the samples on the first axis; x a tuple where the model takes several
    loss : None: CrossEntropyLoss where y holds labels, else MSELoss
    optimizer : a function of parameters that makes the one you train with, lambda parameters: Adam(parameters, 1e-3):
        the size of its steps is looked at, and the rate that it could have
    samples : drawn from the data, for whatever needs no more
    steps : of the short runs (a handful learned by heart, the range of rates); 0: none

    >>> print(diagnose(model, (x, y)))

    The model, its generators and gradients stay as they were, to the bit: copies are run, in its own mode.
    """
    inputs, y = few(data, samples, loss=loss)
    if loss is None:
        loss = _loss_for(y)
    subject = _Subject(model, loss, data, inputs, y, optimizer, steps)
    shapes = ", ".join(str(each.shape) for each in inputs)
    found = Diagnosis(f"{type(model).__name__} with {title(loss)}, on {len(inputs[0])} samples: x {shapes}")
    # each takes for granted what those before it have found to be so
    for check, stop in CHECKS:
        with np.errstate(all="ignore"):
            answers = list(check(subject))
        found.findings += answers
        if stop and any(each.verdict == WRONG for each in answers):
            break
    return found


@dataclass
class _Subject:
    """What the checks are given."""

    model: Layer
    loss: Layer
    data: Any
    x: tuple[Array, ...]
    y: Any
    optimizer: MakeOptimizer | None
    steps: int

    @property
    def pair(self) -> tuple[Any, Any]:
        return self.x, self.y

    @cached_property
    def trace(self) -> Trace:
        return record(self.model, self.x, loss=self.loss, target=self.y)


def _data(s: _Subject) -> Iterator[Finding]:
    names = ["x"] if len(s.x) == 1 else [f"input {i}" for i in range(len(s.x))]
    x, y = s.data
    for name, whole in zip([*names, "y"], [*(x if isinstance(x, tuple) else (x,)), y], strict=True):
        bad = _not_finite(whole)
        if bad:
            yield Finding("data", WRONG, f"{name}: {bad}", "clean the data: leave these samples out, or fill the gaps")
            return
    for name, z in zip(names, s.x, strict=True):
        if z.dtype.kind != "f":
            yield Finding("data", OK, f"{name}: {z.dtype}, from {z.min()} to {z.max()}")
            continue
        mean, std = float(z.mean()), float(z.std())
        evidence = f"{name}: mean {mean:.3g}, standard deviation {std:.3g}, from {z.min():.3g} to {z.max():.3g}"
        if len(z) > 1 and (z == z[:1]).all():
            yield Finding("data", WRONG, f"{name}: every sample is the same", "look at how the data is read")
        elif np.abs(z).max() > 20 or (std and abs(mean) > 5 * std):
            yield Finding("data", LOOK, evidence, "subtract the mean and divide by the standard deviation (of train)")
        else:
            yield Finding("data", OK, evidence)
    if s.y is not None and s.y.dtype.kind in "iu":
        labels, ignored = np.asarray(y if np.size(y) < MOST else s.y), getattr(s.loss, "ignore_index", None)
        values, counts = np.unique(labels[labels != ignored] if ignored is not None else labels, return_counts=True)
        if not counts.size:
            advice = "nothing can be learned from them; look at how the labels are read"
            yield Finding("labels", WRONG, f"y: every label is {ignored}, which the loss ignores", advice)
            return
        most = counts.max() / counts.sum()
        evidence = f"y: {len(values)} different labels, the commonest is {share(most)} of them"
        if len(values) == 1 and s.y.size > 1:
            yield Finding("labels", WRONG, evidence, "shuffle before you split; look at how the labels are read")
        else:
            verdict = LOOK if most > 0.9 else OK
            advice = f"always saying it is {share(most)} right: weigh the classes, or measure something else"
            yield Finding("labels", verdict, evidence, advice if verdict == LOOK else "")


def _fits(s: _Subject) -> Iterator[Finding]:
    try:
        trace = s.trace
    except (LayerError, ValueError, TypeError, RuntimeError) as error:
        yield Finding("it runs", WRONG, f"{type(error).__name__}: {error}", "the shapes or the labels do not fit")
        return
    yield Finding("it runs", OK, f"scores {_shape(trace.output)}, loss {np.mean(trace.loss):.4g}")
    if not all(call.shapes_match in (True, None) for call in trace.calls):
        names = [call.name for call in trace.calls if call.shapes_match is False]
        yield Finding("shapes", WRONG, f"gradients of another shape than their variables in {names}", "print(record())")


def _numbers(s: _Subject) -> Iterator[Finding]:
    found = find_nonfinite(s.model, s.x, loss=s.loss, target=s.y)
    if found:
        advice = "divisions, logarithms and exponentials there: what keeps them from 0 and from overflow?"
        yield Finding("finite", WRONG, str(found), advice)


def _scores(s: _Subject) -> Iterator[Finding]:
    out = s.trace.output
    if isinstance(out, tuple) or not out.ndim:
        return
    last = s.trace.leaves()[-2] if len(s.trace.leaves()) > 1 else s.trace.calls[0]
    kind = type(last.layer)
    sums = out.sum(axis=1) if out.ndim > 1 else out
    probabilities = out.ndim > 1 and out.min() >= 0 and np.allclose(sums, 1, atol=1e-3)
    name = title(s.loss)
    if isinstance(s.loss, CrossEntropyLoss) and probabilities:
        yield Finding(
            "scores", WRONG, f"they are probabilities already, and {name} takes a softmax of them again",
            "leave out the Softmax: the loss takes the scores as they come from the last Linear",
        )  # fmt: skip
    elif isinstance(s.loss, NLLLoss) and not (out.ndim > 1 and np.allclose(np.exp(out).sum(axis=1), 1, atol=1e-3)):
        yield Finding(
            "scores", WRONG, f"{name} takes logarithms of probabilities, and these do not sum to 1",
            "end with LogSoftmax(1), or use CrossEntropyLoss",
        )  # fmt: skip
    elif isinstance(s.loss, BCEWithLogitsLoss) and issubclass(kind, Sigmoid):
        yield Finding("scores", WRONG, f"a Sigmoid stands before {name}, which has its own", "leave out the Sigmoid")
    elif isinstance(s.loss, CrossEntropyLoss) and issubclass(kind, ReLU):
        yield Finding("scores", LOOK, "a ReLU is the last layer: no score can be negative", "leave it out")
    elif kind in RANGES and s.y is not None and s.y.dtype.kind == "f":
        low, high = RANGES[kind]
        if s.y.min() < low or s.y.max() > high:
            evidence = f"{last.kind} gives numbers from {low} to {high}, y goes from {s.y.min():.3g} to {s.y.max():.3g}"
            yield Finding("scores", WRONG, evidence, f"leave out the last {last.kind}, or scale y")


def _first_loss(s: _Subject) -> Iterator[Finding]:
    found = initial_loss(s.model, s.loss, s.pair)
    if found.ok:
        yield Finding("initial loss", OK, str(found).removeprefix("initial loss "))
    elif found.chance is not None:
        evidence = f"{found}".removeprefix("initial loss ")
        if found.loss < found.chance:
            yield Finding("initial loss", LOOK, f"{evidence}: better than chance", "fine if it has been trained before")
        else:
            advice = "smaller weights at the start, above all in the last layer; scaled inputs. (Trained weights? Then "
            yield Finding("initial loss", LOOK, f"{evidence}: worse than knowing nothing", advice + "the data changed)")


def _apart(s: _Subject) -> Iterator[Finding]:
    """Samples must not see each other."""
    if len(s.x[0]) < 2:
        return
    model = apart(s.model)[0].eval()
    half = len(s.x[0]) // 2
    with np.errstate(all="ignore"):
        whole, again = model(*as_inputs(s.x)), model(*as_inputs(s.x))
        part = model(*(z[:half] for z in s.x))
    for (_, a), (_, b), (_, c) in zip(leaves(whole), leaves(again), leaves(part), strict=False):
        if not np.array_equal(a, b, equal_nan=True):
            yield Finding("repeatable", LOOK, "the same samples give other scores the second time, in eval mode")
        elif len(np.shape(a)) and len(a) == len(s.x[0]):
            close = np.allclose(a[:half], c, 1e-3, 1e-4 * float(np.abs(a).max())) if np.shape(c)[0] == half else False
            if not close:
                evidence = "the scores of a sample depend on the other samples of its batch, in eval mode"
                yield Finding(
                    "samples apart", WRONG, evidence, "a reshape where a transpose is meant? a mean over axis 0?"
                )
                return
    yield Finding("samples apart", OK, "the scores of a sample do not depend on the others (eval mode)")


def _slopes(s: _Subject) -> Iterator[Finding]:
    """Each parameter's gradient against the slope of the loss along one random direction, in float64."""
    f = LossByParameters(s.model, s.loss, s.x, s.y)
    if not f.start.size:
        yield Finding("gradients", WRONG, "the model has no parameters")
        return
    with np.errstate(all="ignore"):
        gradient = f.split(f(f.start)[1])
        gradient = {name: g.copy() for name, g in gradient.items()}
        frozen = {name for name, p in s.model.named_parameters() if not p.requires_grad}
        wrong, none = [], []
        for name, g in gradient.items():
            direction = np.random.default_rng(0).standard_normal(g.shape) / np.sqrt(g.size)
            step = 1e-5 * f.join({name: direction})
            numeric = (f(f.start + step)[0] - f(f.start - step)[0]) / 2e-5
            analytic = float(np.sum(g * direction))
            scale = max(abs(numeric), abs(analytic), 1e-2 * float(np.linalg.norm(g)), 1e-7)
            if abs(numeric - analytic) > 0.02 * scale:
                wrong.append(f"{name!r} ({analytic:.3g}, should be {numeric:.3g})")
            elif not g.any() and name not in frozen:
                none.append(repr(name))
    if wrong:
        evidence = f"the gradient is not the slope of the loss for {_several(wrong)}"
        yield Finding("gradients", WRONG, evidence, "check_gradients(layer, x) on the layers from there to the loss")
    if none:
        advice = "a dead or unused part of the network, or weights that start at 0"
        yield Finding("gradients", LOOK, f"no gradient at all reaches {_several(none)}", advice)
    if not wrong and not none:
        yield Finding("gradients", OK, f"along a random direction they are the slope of the loss, all {len(gradient)}")
    yield from _symmetric(s)
    yield from _flow(s, gradient)


def _symmetric(s: _Subject) -> Iterator[Finding]:
    same = [
        repr(name)
        for name, p in s.model.named_parameters()
        if p.data.ndim > 1 and len(p.data) > 1 and (p.data == p.data[:1]).all()
    ]
    if same:
        yield Finding("weights", WRONG, f"all units have the same weights in {_several(same)}: they will stay the same",
                      "start from random weights")  # fmt: skip


def _flow(s: _Subject, gradient: dict[str, Array]) -> Iterator[Finding]:
    """Whether the gradients of the weights are of comparable size, from the first layer to the last."""
    ratios = {
        name: float(np.linalg.norm(widened(gradient[name])) / np.linalg.norm(widened(p.data)))
        for name, p in s.model.named_parameters()
        if p.data.ndim > 1 and p.data.any() and gradient[name].any()
    }
    if len(ratios) < 2:
        return
    low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    evidence = f"gradient by weight from {ratios[low]:.1e} ({low!r}) to {ratios[high]:.1e} ({high!r})"
    if ratios[low] < 1e-5 * ratios[high]:
        advice = "normalisation, residual connections, ReLU for saturating functions, He initialisation"
        yield Finding("gradient flow", LOOK, evidence, advice)
    else:
        yield Finding("gradient flow", OK, evidence)


def _activity(s: _Subject) -> Iterator[Finding]:
    for what, found in (("dead units", dead_relus(s.trace)), ("saturation", saturation(s.trace))):
        if not found:
            continue
        worst = max(found, key=lambda each: (each.stuck / each.units, each.share))
        part = max(worst.stuck / worst.units, worst.share if what == "saturation" else 0)
        verdict = OK if part < (0.6 if what == "dead units" else 0.5) else LOOK if part < 0.95 else WRONG
        advice = "inputs of about -1 to 1, smaller weights at the start, a smaller learning rate, BatchNorm before it"
        of = f" (the worst of {len(found)})" if len(found) > 1 else ""
        yield Finding(what, verdict, f"{worst}{of}", "" if verdict == OK else advice)


def _runs(s: _Subject) -> Iterator[Finding]:
    if not s.steps:
        return
    learned = overfit(s.model, s.loss, s.pair, steps=s.steps)
    advice = "do not tune anything yet: a network that cannot learn 8 samples by heart has a fault"
    yield Finding("by heart", OK if learned.ok else WRONG, str(learned), "" if learned.ok else advice)
    rates = lr_range_test(s.model, s.loss, s.data, steps=min(s.steps, 100), optimizer=s.optimizer)
    words = "plain gradient descent" if s.optimizer is None else "your optimizer"
    yield Finding("learning rate", LOOK if rates.suggestion is None else OK, f"{words}, {rates}")


def _steps(s: _Subject) -> Iterator[Finding]:
    if s.optimizer is None:
        return
    found = update_ratio(s.model, s.loss, s.pair, optimizer=s.optimizer)
    if found:
        worst = max(found, key=lambda each: abs(np.log10(max(each.ratio, 1e-30)) + 3))
        advice = "a smaller learning rate" if worst.ratio > 1e-3 else "a larger learning rate"
        yield Finding("update ratio", OK if worst.ok else LOOK, str(worst), "" if worst.ok else advice)


# (a check, whether what comes after it makes no sense when something is wrong)
CHECKS: list[tuple[Callable[[_Subject], Iterator[Finding]], bool]] = [
    (_data, True),
    (_fits, True),
    (_numbers, True),
    (_scores, False),
    (_first_loss, False),
    (_apart, False),
    (_slopes, False),
    (_activity, False),
    (_runs, False),
    (_steps, False),
]


def _loss_for(y: Any) -> Layer:
    if y is None:
        raise ValueError("diagnose: expected a loss, for data without a target")
    return CrossEntropyLoss() if y.dtype.kind in "iu" else MSELoss()


def _not_finite(z: Any) -> str:
    """Where there is a nan or inf in the whole of the data; "" where there is none, or too much to look at."""
    z = np.asarray(z) if z is not None and np.size(z) < MOST else np.zeros(1)
    if z.dtype.kind != "f" or np.isfinite(z).all():
        return ""
    rows = ~np.isfinite(z.reshape(len(z), -1)).all(axis=1)
    first = int(rows.argmax())
    return f"{int(rows.sum())} of {len(z)} samples hold nan or inf, the first of them sample {first}"


def _several(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _shape(out: Any) -> str:
    return " and ".join(str(np.shape(leaf)) for _, leaf in leaves(out))
