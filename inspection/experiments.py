"""Hypotheses that take an experiment: "the gradient would be right if the weight were transposed", tried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from backhand.inspection.evidence import Evidence, Target, flat
from backhand.inspection.faults import Guess
from backhand.inspection.gradient_check import map_leaves
from backhand.inspection.hypotheses import Hypothesis, first, judged, ratio
from backhand.inspection.places import one_of_several
from backhand.layers.base import Layer
from backhand.layers.parameter import Array

# ---------------------------------------------------------------------- another weight


def other_weight(e: Evidence, t: Target) -> Iterator[Guess]:
    """Right for another value of a parameter: transposed, flipped, left out."""
    for each in e.targets:
        if not each.parameter or each is t or any(e.layer.children()):
            continue
        for kind, words, value in _versions(each):
            with _replaced(each.z, value):
                predicted = _measured(e, t)
            if predicted is not None:
                yield from judged(t, kind, words.format(z="{z}", p=each.name), predicted)


def square_weight(e: Evidence, t: Target) -> Iterator[Guess]:
    """W^T for W in the last product before dx, whatever nonlinearity comes after: dx W^-1 W^T."""
    if t.parameter or not t.whole or t.z.ndim < 1:
        return
    for each in e.targets:
        w = each.z
        square = each.parameter and w.ndim == 2 and w.shape[0] == w.shape[1] == t.z.shape[-1] > 1
        if square and np.linalg.cond(w) < 1e6:
            words = f"{{z}} is computed with {each.name} transposed; the shapes fit only because it is square"
            for m in (w, w.T):
                predicted = [n @ np.linalg.inv(m) @ m.T for n in t.numeric]
                yield from judged(t, "transposed weight", words, predicted)


def routed_everywhere(e: Evidence, t: Target) -> Iterator[Guess]:
    """Every input of a window gets dout: the mask of a maximum is forgotten."""
    y = first(e.y)
    if t.parameter or not t.whole or t.jacobian is None or e.flat_y.size != y.size or t.z.size < 3:
        return
    reached = _reach(e, t)
    yield from one_of_several(e, t, reached)
    if not (reached & (np.abs(t.jacobian) <= 1e-9)).any():
        return
    words = (
        "{z} is dout, handed on to every input that an output looks at: the local gradient (which one was the largest) "
    )
    yield from judged(t, "local", words + "is forgotten", [t.spread(d @ reached) for d in e.flat_douts])


def _reach(e: Evidence, t: Target) -> Array:
    """Which numbers of y can depend on which of z: where dy/dz is not 0 for some order of the numbers in z."""
    if t.jacobian is None:
        raise ValueError(f"the Jacobian of {t.name} was not kept")
    reached, here = np.abs(t.jacobian) > 1e-9, t.z.copy()
    for _ in range(8):
        with _replaced(t.z, e.rng.permutation(here.reshape(-1)).reshape(here.shape)):
            for i, entry in enumerate(t.entries):
                reached[:, i] |= np.abs(e.slope(t.z, int(entry), e.step)) > 1e-9
    return reached


def _versions(each: Target) -> Iterator[tuple[str, str, Array]]:
    w = each.z
    for i in range(w.ndim - 1):
        if w.shape[i] == w.shape[i + 1] > 1:
            words = "{z} is computed with {p} transposed; the shapes fit only because it is square"
            yield "transposed weight", words, np.swapaxes(w, i, i + 1).copy()
    for axes in (tuple(range(2, w.ndim)), *((a,) for a in range(2, w.ndim))):
        if w.ndim > 2 and any(w.shape[a] > 1 for a in axes):
            yield (
                "flipped",
                "{z} is computed with the kernel {p} flipped along its spatial axes",
                np.flip(w, axes).copy(),
            )
    if not np.allclose(w, 1):
        yield "parameter left out", "{z} is computed as if {p} were 1: {p} is left out of it", np.ones_like(w)
    yield "parameter left out", "{z} is computed as if {p} were 0: its way is left out", np.zeros_like(w)


@contextmanager
def _replaced(array: Array, value: Array) -> Iterator[None]:
    kept = array.copy()
    array[...] = value
    try:
        yield
    finally:
        array[...] = kept


def _measured(e: Evidence, t: Target) -> list[Array] | None:
    """The numeric gradients as the layer stands now; None where its output has another shape."""
    douts = e.flat_douts
    columns = []
    for entry in t.entries:
        column = e.slope(t.z, entry, e.step)
        if column.shape != douts[0].shape:
            return None
        columns.append(column)
    jacobian = np.stack(columns, axis=1)
    return [t.spread(d @ jacobian) for d in douts]


# ---------------------------------------------------------------------- another local gradient


def elementwise(e: Evidence, t: Target) -> Iterator[Guess]:
    """The local gradient of an elementwise function taken somewhere else, twice, or upside down."""
    y, d = first(e.y), [first(dout) for dout in e.douts]
    if t.parameter or not t.whole or t.jacobian is None or y.shape != t.z.shape or e.flat_y.size != y.size:
        return
    local = np.diag(t.jacobian).reshape(y.shape)
    off = t.jacobian - np.diag(np.diag(t.jacobian))
    if np.abs(off).max(initial=0) > 1e-7 * np.abs(local).max():
        return
    x = t.z

    def slope_at(value: Array) -> Array:
        with _replaced(t.z, value):
            columns = [e.slope(t.z, entry, e.step)[entry] for entry in t.entries]
        return np.array(columns).reshape(y.shape)

    options: list[tuple[str, Callable[[], Array]]] = [
        ("the local gradient * the local gradient: it is applied twice", lambda: local * local),
        ("1 / the local gradient", lambda: np.where(local == 0, np.nan, 1 / np.where(local == 0, 1, local))),
        ("the output y for the local gradient", lambda: y),
        ("the input x for the local gradient", lambda: x),
        ("1 / x for the local gradient", lambda: 1 / np.where(x == 0, 1, x)),
        ("1 - y for the local gradient", lambda: 1 - y),
        ("1 - the local gradient", lambda: 1 - local),
        ("y squared for the local gradient", lambda: y * y),
        ("x squared for the local gradient", lambda: x * x),
        ("1 - x^2: x stands where y should", lambda: 1 - x * x),
        ("x (1 - x): x stands where y should", lambda: x * (1 - x)),
        ("the local gradient at y where it should be at x", lambda: slope_at(y)),
        ("the local gradient at -x", lambda: slope_at(-x)),
    ]
    for words, g in options:
        with np.errstate(all="ignore"):
            values = g()
        for sign in (1, -1):
            text = f"{{z}} is {'-' if sign < 0 else ''}dout times {words}"
            yield from judged(t, "elementwise", text, [sign * values * each for each in d])
    ratios = [a / np.where(np.abs(each) < 1e-12, np.nan, each) for a, each in zip(t.analytic, d, strict=True)]
    if ratio(t) is None and len(ratios) > 1 and np.allclose(ratios[0], ratios[1], rtol=1e-6, equal_nan=True):
        k = int(np.argmax(np.abs(ratios[0] - local)))
        words = (
            f"{{z}} is dout times a wrong local gradient: {ratios[0].flat[k]:.4g} where x = {x.flat[k]:.4g}, "
            f"y = {y.flat[k]:.4g} and dy/dx = {local.flat[k]:.4g}"
        )
        yield Guess("elementwise", t.name, words, 0.5)


# ---------------------------------------------------------------------- dout taken for something else


def of_dout(e: Evidence, t: Target) -> Iterator[Guess]:
    """A backward is linear in dout; one that is not takes a mask or a local gradient from it."""
    if np.size(first(e.douts[0])) < 2 and len(e.douts) < 2:
        return
    one, two = e.douts[:2]
    try:
        both = e.gradients(_together(one, two)).get(t.name)
        nothing = e.gradients(map_leaves(one, lambda d: d * 0)).get(t.name)
    except Exception:  # it raised for one dout and not for another: that is reported by itself
        return
    if both is None or nothing is None or both.shape != t.z.shape:
        return
    wanted = t.analytic[0] + t.analytic[1] - nothing
    size = np.linalg.norm(wanted) + np.linalg.norm(both)
    if np.linalg.norm(both - wanted) < 0.01 * size:
        return
    same_shape = first(one).shape == t.z.shape
    if same_shape:
        masked = [np.where(first(d) > 0, first(d), 0) for d in e.douts]
        for guess in judged(t, "mask from dout", _MASK + " (dout > 0 where x > 0 is meant)", masked):
            yield guess
            return
    yield Guess("mask from dout", t.name, _MASK)


_MASK = (
    "{z} does not grow in proportion to dout: the mask, or the local gradient, is taken from dout; it belongs to x (or "
    "y), as they were in forward"
)


def _together(one: Any, two: Any) -> Any:
    if isinstance(one, tuple):
        return tuple(_together(a, b) for a, b in zip(one, two, strict=True))
    return one + two


# ---------------------------------------------------------------------- the inner layers


def without_a_child(e: Evidence, t: Target) -> Iterator[Guess]:
    """The way through one inner layer, or one use of a shared one, is missing."""
    if not t.whole:
        return
    for name, child in e.layer.named_children():
        calls = _count(e, child)
        if not calls:
            continue
        if t.parameter:
            owned = {id(p.data) for p in child.parameters()}
            if id(t.z) in owned and calls > 1:
                for only in (0, calls - 1):
                    end = "first" if only == 0 else "last"
                    words = (
                        f"{{z}} counts the {end} of the {calls} uses of {name} only: the uses of a shared weight add "
                    )
                    words += "up, parameter.grad += ..."
                    yield from judged(t, "shared weights", words, _one_use(e, t, child, only))
            continue
        words = f"{{z}} lacks what {name} ({type(child).__name__}) sends back: at a fork the gradients add, use +="
        with _held(e, child):
            predicted = _measured(e, t)
        if predicted is not None:
            yield from judged(t, "fork", words, predicted)
    y = first(e.y)
    if not t.parameter and y.shape == t.z.shape:
        rest = [n - first(d) for n, d in zip(t.numeric, e.douts, strict=True)]
        words = "{z} lacks the way around: x reaches the output directly too, so dout adds to it"
        yield from judged(t, "fork", words, rest)


def _count(e: Evidence, child: Layer) -> int:
    """How often the layer is called in a forward."""
    number = [0]

    def forward(*x: Any, **options: Any) -> Any:
        number[0] += 1
        return type(child).forward(child, *x, **options)

    with _patched(child, forward):
        e.outputs()
    return number[0]


@contextmanager
def _patched(child: Layer, forward: Callable[..., Any]) -> Iterator[None]:
    child.__dict__["forward"] = forward
    try:
        yield
    finally:
        del child.__dict__["forward"]


@contextmanager
def _held(e: Evidence, child: Layer) -> Iterator[None]:
    """The layer's outputs stay what they are now, whatever goes in."""
    record: list[Any] = []

    def recording(*x: Any, **options: Any) -> Any:
        y = type(child).forward(child, *x, **options)
        record.append(map_leaves(y, np.array))
        return y

    with _patched(child, recording):
        e.outputs()
    calls = [0]

    def replay(*x: Any, **options: Any) -> Any:
        calls[0] += 1
        return map_leaves(record[(calls[0] - 1) % len(record)], np.array)

    with _patched(child, replay):
        yield


def _one_use(e: Evidence, t: Target, child: Layer, only: int) -> list[Array]:
    """The gradient by one use of a shared parameter: in the other calls it stays as it is."""
    fixed = t.z.copy()
    calls = [0]

    def forward(*x: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] - 1 == only:
            return type(child).forward(child, *x, **options)
        with _replaced(t.z, fixed):
            return type(child).forward(child, *x, **options)

    columns = []
    with _patched(child, forward):
        for entry in t.entries:
            at = np.unravel_index(entry, t.z.shape)
            ends = []
            for way in (1, -1):
                calls[0] = 0
                t.z[at] = fixed[at] + way * e.step
                ends.append(flat(e.forward()))
                e.forget()
            t.z[at] = fixed[at]
            columns.append((ends[0] - ends[1]) / (2 * e.step))
    jacobian = np.stack(columns, axis=1)
    return [t.spread(d @ jacobian) for d in e.flat_douts]


EXPERIMENTS: tuple[Hypothesis, ...] = (of_dout, without_a_child)
LAST: tuple[Hypothesis, ...] = (square_weight, elementwise, other_weight, routed_everywhere)  # these take longest
