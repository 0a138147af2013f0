"""What a wrong gradient may be, seen from its numbers alone: each function is one hypothesis about one target.

A hypothesis predicts what backward gives if it has a certain fault, from the right (numeric) gradient; it counts when
the prediction explains the wrong (analytic) one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from backhand.inspection.evidence import Evidence, Target
from backhand.inspection.faults import EXPLAINS, Guess, left_over
from backhand.inspection.gradient_check import leaves
from backhand.layers.broadcasting import unbroadcast
from backhand.layers.parameter import Array

Hypothesis = Callable[[Evidence, Target], Iterator[Guess]]


def judged(target: Target, kind: str, words: str, predicted: list[Array]) -> Iterator[Guess]:
    """The guess, if the prediction explains what backward gave."""
    left = left_over(target, predicted)
    if left <= EXPLAINS:
        yield Guess(kind, target.name, words, left)


def zero(e: Evidence, t: Target) -> Iterator[Guess]:
    """Nothing but zeros came back."""
    if all((a == 0).all() for a in t.analytic):
        words = "{z} is all zeros: backward never adds to it" if t.parameter else "{z} is all zeros"
        yield Guess("zero", t.name, f"{words}, though the output depends on it")


def rounded(e: Evidence, t: Target) -> Iterator[Guess]:
    """Computed in half or single precision."""
    for kind, digits in ((np.float16, 3), (np.float32, 7)):
        with np.errstate(over="ignore"):
            exact = all(np.array_equal(a, a.astype(kind).astype(a.dtype)) for a in t.analytic)
        near = all(
            np.nanmax(np.abs(a - n)) <= 4 * np.finfo(kind).eps * np.nanmax(np.abs(n))
            for a, n in zip(t.analytic, t.numeric, strict=True)
        )
        if exact and near:
            words = f"{{z}} is right to {digits} digits only: it is computed in {np.dtype(kind)}"
            yield Guess("rounding", t.name, f"{words}; keep the dtype of dout")
            return


# ---------------------------------------------------------------------- a constant factor


def roles(e: Evidence) -> dict[str, str]:
    """What each axis of the first input is: batch, time, space or features."""
    x = first_input(e)
    found = {}
    for axis in range(x.ndim):
        role = "batch" if axis == 0 else "space" if axis > 1 else "features"
        if axis < 2 and x.ndim == 3 and goes_one_way(e, axis):
            role = "time"
        found[str(axis)] = role
    if "time" in found.values() and found.get("0") == "time":
        found["1"] = "batch"
    return found


def goes_one_way(e: Evidence, axis: int) -> bool:
    """Whether y depends on x of the same and earlier places along the axis only, or later ones: then it is time."""
    x, y = first_input(e), np.asarray(first(e.y))
    target = next((t for t in e.targets if not t.parameter), None)
    if target is None or not target.whole or target.z.shape != x.shape or y.ndim <= axis:
        return False
    if y.shape[axis] != x.shape[axis] or x.shape[axis] < 2 or target.jacobian is None:
        return False
    blocks = blocks_along(target.jacobian[: y.size], y.shape, x.shape, axis)
    tiny = 1e-9 * (1e-30 + blocks.max())
    below, above = np.tril(blocks, -1).max(), np.triu(blocks, 1).max()
    return bool((below > tiny) != (above > tiny))


def blocks_along(
    jacobian: Array, y: tuple[int, ...], x: tuple[int, ...], axis: int, x_axis: int | None = None
) -> Array:
    """The largest |dy/dx| for each place in y and place in x along an axis."""
    full = np.abs(jacobian).reshape(*y, *x)
    keep = (axis, len(y) + (axis if x_axis is None else x_axis))
    most: Array = full.max(axis=tuple(i for i in range(full.ndim) if i not in keep))
    return most


def first(tree: object) -> Array:
    """The first array of a tree."""
    return np.asarray(next(leaf for _, leaf in leaves(tree)))


def first_input(e: Evidence) -> Array:
    """The first array that goes in."""
    return first(e.inputs)


def sizes(e: Evidence) -> dict[str, tuple[str, float]]:
    """Numbers that a mean may divide by: what each is -> (the kind of fault, the number)."""
    x = first_input(e)
    of: dict[str, list[int]] = {}
    for axis, role in roles(e).items():
        of.setdefault(role, []).append(x.shape[int(axis)])
    names = {"batch": "N, the samples in the batch", "time": "T, the steps in time", "space": "the pixels of a sample"}
    found = {names[role]: (role, float(math.prod(n))) for role, n in of.items() if role in names}
    found["the numbers in x"] = ("elements", float(x.size))
    if x.ndim > 2:
        found["all the numbers in x for one place along axis 1"] = ("elements", x.size / x.shape[1])
        found["the numbers in one sample"] = ("elements", x.size / x.shape[0])
    if x.ndim > 1:
        found["the size of the last axis"] = ("axis", float(x.shape[-1]))
        found["the size of axis 1"] = ("axis", float(x.shape[1]))
    found["the numbers in y"] = ("elements", float(e.flat_y.size))
    y = first(e.y)
    if y.ndim > 2:
        found["all the numbers in y for one place along axis 1"] = ("elements", y.size / y.shape[1])
    if y.ndim:
        found["the size of the last axis of y"] = ("axis", float(y.shape[-1]))
    return found


def constants(e: Evidence) -> dict[str, float]:
    """Numbers that the layer was built with, and what formulas make of them."""
    found: dict[str, float] = {}
    for name, value in vars(getattr(e.layer, "owner", None) or e.layer).items():
        if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value):
            value = math.prod(value)
        if isinstance(value, (int, float, np.floating)) and not isinstance(value, bool) and value > 0:
            value = float(value)
            found |= {name: value, f"1/{name}": 1 / value, f"sqrt({name})": value**0.5, f"1/sqrt({name})": value**-0.5}
            if value < 1:
                found |= {f"(1 - {name})": 1 - value, f"1/(1 - {name})": 1 / (1 - value)}
    x = first_input(e)
    if x.ndim:
        found |= {
            "sqrt(d), d the last axis of x": x.shape[-1] ** 0.5,
            "1/sqrt(d), d the last axis of x": x.shape[-1] ** -0.5,
        }
    return found


def ratio(t: Target) -> float | None:
    """The c of analytic = c numeric, or None where there is none."""
    a, n = np.stack(t.analytic), np.stack(t.numeric)
    known = np.isfinite(n)
    power = float(n[known] @ n[known])
    if not power:
        return None
    c = float(a[known] @ n[known]) / power
    return c if left_over(t, [c * each for each in t.numeric]) <= EXPLAINS and abs(c) > 1e-9 else None


def scaled(e: Evidence, t: Target) -> Iterator[Guess]:
    """A constant factor too much or too little: the sign, 2, 1/N, 1/T, 1/pixels, or what the layer was built with."""
    c = ratio(t)
    if c is None:
        return
    minus = " and has the wrong sign" if c < 0 else ""
    size = abs(c)
    found: list[tuple[bool, bool, Guess]] = []
    if math.isclose(size, 1, rel_tol=1e-5):
        yield Guess("sign", t.name, "{z} has the wrong sign")
        return
    for name, (kind, n) in sizes(e).items():
        for power, two in itertools.product((-1, 1), (1, 2, 0.5)):
            if n > 1 and math.isclose(size, n**power * two, rel_tol=1e-4):
                follows = _follows(e, t, name, power, two)
                if follows is False or (follows is None and two != 1):
                    continue
                lack = "is divided by" if power < 0 else "is too large by a factor of"
                advice = (
                    "the mean is the loss's business alone: sum here" if power < 0 else "the 1/n of the mean is missing"
                )
                also = "" if two == 1 else f", and by another factor {two:g}"
                words = f"{{z}} {lack} {name} ({n:g}){also}{minus}; {advice}"
                found.append((bool(follows), two == 1, Guess(kind, t.name, words)))
    for sure, plain, guess in found:
        if (sure, plain) == max((s, p) for s, p, _ in found):
            yield guess
    if any(sure for sure, _, _ in found):
        return
    named = bool(found)
    for power in (1, 2, 3, -1, -2, -3):
        if math.isclose(size, 2.0**power, rel_tol=1e-5):
            yield Guess("factor 2", t.name, f"{{z}} is {size:g} times what it should be{minus}")
            named = True
    for name, value in constants(e).items():
        if math.isclose(size, value, rel_tol=1e-5):
            yield Guess("constant", t.name, f"{{z}} is {name} = {value:.4g} times what it should be{minus}")
            named = True
    if not named:
        yield Guess("factor", t.name, f"{{z}} is {c:.4g} times what it should be")


def _follows(e: Evidence, t: Target, name: str, power: int, two: float) -> bool | None:
    """Whether the factor follows the size when there is less of it, which tells 1/N with N = 2 from a half; None where
    the layer takes no other size.
    """
    told, here = None, sizes(e)[name][1]
    for other in e.variants():
        twin = next((each for each in other.targets if each.name == t.name), None)
        if twin is None or not twin.comparable or max(np.abs(n).max() for n in twin.numeric) < 1e-6:
            continue
        c = ratio(twin)
        if c is None and all(np.allclose(a, n, atol=1e-7) for a, n in zip(twin.analytic, twin.numeric, strict=True)):
            c = 1.0
        n = sizes(other).get(name, ("", 1.0))[1]
        if c is not None and not math.isclose(abs(c), n**power * two, rel_tol=1e-4):
            return False
        if c is not None and n != here:
            told = True
    return told


# ---------------------------------------------------------------------- the wrong array


def local_forgotten(e: Evidence, t: Target) -> Iterator[Guess]:
    """What comes in goes out: dx = dout."""
    for d in zip(*(tuple(leaf for _, leaf in leaves(dout)) for dout in e.douts), strict=True):
        if d[0].shape == t.z.shape:
            for factor, words in ((1, "is dout itself"), (-1, "is -dout")):
                yield from judged(
                    t, "local", f"{{z}} {words}: the local gradient is forgotten", [factor * np.asarray(x) for x in d]
                )
        elif t.parameter and t.z.ndim and d[0].ndim > t.z.ndim:
            sums: list[tuple[list[Array], tuple[int, ...]]] = []
            for axes in itertools.combinations(range(d[0].ndim), d[0].ndim - t.z.ndim):
                if tuple(s for i, s in enumerate(d[0].shape) if i not in axes) == t.z.shape:
                    sums.append(([np.asarray(x).sum(axis=axes) for x in d], axes))
            right = [axes for each, axes in sums if _near(each, t.numeric)]
            for each, axes in sums:
                words = "{z} is the plain sum of dout: the local gradient is forgotten"
                if right:
                    words = f"{{z}} is summed over axis {axes} of dout, and should be over axis {right[0]}"
                yield from judged(t, "wrong axis" if right else "local", words, each)


def _near(one: list[Array], other: list[Array]) -> bool:
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(one, other, strict=True))


def upstream_forgotten(e: Evidence, t: Target) -> Iterator[Guess]:
    """The same whatever comes in: the local gradient, not multiplied by dout."""
    if all(np.array_equal(t.analytic[0], a) for a in t.analytic) and t.analytic[0].any():
        words = "{z} does not depend on dout: the local gradient has to be multiplied by what comes in"
        yield Guess("upstream", t.name, words)


def own_value(e: Evidence, t: Target) -> Iterator[Guess]:
    """A term that is there without any dout: weight decay inside the layer, for one."""
    rest = [a - n for a, n in zip(t.analytic, t.numeric, strict=True)]
    known = np.isfinite(rest[0])
    same = all(np.allclose(rest[0][known], r[known], rtol=1e-4, atol=1e-9) for r in rest)
    if not same or len(rest) < 2:
        return
    z = t.z[known]
    c = float(rest[0][known] @ z) / max(float(z @ z), 1e-30)
    what = f"{c:.4g} times {'the parameter' if t.parameter else 'x'} itself"
    if not np.allclose(rest[0][known], c * z, rtol=1e-4, atol=1e-9):
        what = "something"
    yield Guess(
        "own value", t.name, f"{{z}} has {what} added to it, whatever dout is: weight decay belongs to the optimizer"
    )


def turned(e: Evidence, t: Target) -> Iterator[Guess]:
    """Transposed or flipped: the right numbers in the wrong places."""
    n = t.numeric
    for i, j in itertools.combinations(range(t.z.ndim), 2):
        if t.z.shape[i] == t.z.shape[j]:
            words = (
                f"{{z}} is transposed (axes {i} and {j}); the shape does not show it, because both are {t.z.shape[i]}"
            )
            yield from judged(t, "transposed", words, [np.swapaxes(each, i, j) for each in n])
    for axis in range(t.z.ndim):
        for count in (2, 3, 4):
            size = t.z.shape[axis]
            if size > count and size % count == 0:
                for order in itertools.permutations(range(count)):
                    if order != tuple(range(count)):
                        words = f"{{z}} has its {count} blocks along axis {axis} in the order {order}"
                        parts = [np.split(each, count, axis) for each in n]
                        yield from judged(
                            t, "blocks", words, [np.concatenate([p[k] for k in order], axis) for p in parts]
                        )
    for axes in _subsets(range(t.z.ndim)):
        if math.prod(t.z.shape[a] for a in axes) > 1:
            words = f"{{z}} runs backwards along {_axes(axes)}: is a kernel (or time) flipped?"
            yield from judged(t, "flipped", words, [np.flip(each, axes) for each in n])


def shifted(e: Evidence, t: Target) -> Iterator[Guess]:
    """Off by one: the right numbers, one place further."""
    for axis in range(t.z.ndim):
        for by in (1, -1, 2, -2):
            if t.z.shape[axis] > 2 * abs(by):
                words = (
                    f"{{z}} lies {abs(by)} place{'s' if abs(by) > 1 else ''} too far "
                    f"{'on' if by > 0 else 'back'} along axis {axis}: the offset (padding, a slice) is off"
                )
                yield from judged(t, "shifted", words, [_shift(each, by, axis) for each in t.numeric])


def _shift(x: Array, by: int, axis: int) -> Array:
    """x moved along the axis; what comes in at the edge is not known."""
    moved = np.roll(x, by, axis)
    edge = [slice(None)] * x.ndim
    edge[axis] = slice(0, by) if by > 0 else slice(by, None)
    moved[tuple(edge)] = np.nan
    return moved


def swapped(e: Evidence, t: Target) -> Iterator[Guess]:
    """The gradients of two inputs changed places, or a product that does not swap."""
    if t.parameter:
        return
    for other in e.targets:
        if other is t or other.parameter or other.z.shape != t.z.shape or not other.comparable:
            continue
        words = f"{{z}} is the gradient of the other input, {other.name}: two gradients changed places"
        yield from judged(t, "swapped", words, other.numeric)
    d = [np.asarray(first(dout)) for dout in e.douts]
    if len([x for x in e.targets if not x.parameter]) > 1 and d[0].ndim >= t.z.ndim:
        try:
            own = [unbroadcast(each * t.z, t.z.shape) for each in d]
        except ValueError:
            return
        words = "{z} is dout times the input itself: a product swaps, each input gets dout times the other one"
        yield from judged(t, "swapped", words, own)


def _subsets(items: range) -> Iterator[tuple[int, ...]]:
    for k in range(1, len(items) + 1):
        yield from itertools.combinations(items, k)


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {' and '.join(map(str, axes))}"


HYPOTHESES: tuple[Hypothesis, ...] = (
    zero,
    rounded,
    scaled,
    local_forgotten,
    upstream_forgotten,
    own_value,
    turned,
    shifted,
    swapped,
)
