"""Where a gradient is wrong, when it is not wrong everywhere: some samples, an edge, one side of a kink, one output."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backhand.inspection.evidence import Evidence, Target, flat
from backhand.inspection.faults import EXPLAINS, Guess, left_over
from backhand.inspection.gradient_check import leaves, map_leaves
from backhand.inspection.hypotheses import Hypothesis, first, judged, roles
from backhand.layers.parameter import Array


def some_indices(e: Evidence, t: Target) -> Iterator[Guess]:
    """Right at some places along an axis and wrong at the others: the last sample, an edge, a block."""
    for axis in range(t.z.ndim):
        size = t.z.shape[axis]
        if size < 2:
            continue
        wrong = _wrong_along(t, axis)
        if wrong is None or wrong.all() or not wrong.any():
            continue
        told = np.stack(t.analytic + t.numeric).any(axis=tuple(i for i in range(t.z.ndim + 1) if i != axis + 1))
        bad, good = np.flatnonzero(wrong).tolist(), np.flatnonzero(~wrong & told).tolist()
        if not good:
            continue
        how = _how(t, axis, wrong)
        role = roles(e).get(str(axis), "") if not t.parameter else ""
        what = {"batch": "sample", "time": "step"}.get(role, f"place along axis {axis}")
        if len(good) == 1 and size > 2 and good[0] in (0, size - 1) and role in ("batch", "time", ""):
            end = "last" if good[0] else "first"
            words = (
                f"{{z}} is right for the {end} {what} only, and {how} for the others: is something set in a loop (=) "
            )
            yield Guess("last sample", t.name, words + "that has to be kept or added for each?")
        elif set(bad) <= {0, size - 1} and size > 2:
            ends = "both ends" if len(bad) == 2 else "the last place" if bad[0] else "the first place"
            words = (
                f"{{z}} is {how} at {ends} of axis {axis} and right elsewhere: a slice or a range ends one too early"
            )
            yield Guess("edge", t.name, words)
        elif len(bad) == bad[-1] - bad[0] + 1 and len(bad) < size:
            words = f"{{z}} is {how} at {bad[0]} to {bad[-1]} of axis {axis} ({size} long) and right elsewhere"
            yield Guess("part", t.name, words)
        else:
            yield Guess("part", t.name, f"{{z}} is {how} at {bad} of axis {axis} and right elsewhere")


def _wrong_along(t: Target, axis: int) -> Array | None:
    """Which places along the axis are wrong."""
    wrong = np.zeros(t.z.shape[axis], bool)
    others = tuple(i for i in range(t.z.ndim) if i != axis)
    for a, n in zip(t.analytic, t.numeric, strict=True):
        off = np.nan_to_num(np.abs(a - n))
        wrong |= off.max(axis=others) > 1e-6 * max(float(np.nanmax(np.abs(n))), 1e-9)
    return wrong


def _how(t: Target, axis: int, wrong: Array) -> str:
    """What the wrong part is, in a word."""
    a = np.concatenate([np.take(x, np.flatnonzero(wrong), axis).reshape(-1) for x in t.analytic])
    n = np.concatenate([np.take(x, np.flatnonzero(wrong), axis).reshape(-1) for x in t.numeric])
    return relation(a, n)


def relation(a: Array, n: Array) -> str:
    """How wrong numbers stand to the right ones, in a word or two."""
    known = np.isfinite(n)
    a, n = a[known], n[known]
    if (a == 0).all():
        return "zero"
    if np.abs(n).max() < 1e-9 * np.abs(a).max():
        return "let through where it should be zero"
    c = float(a @ n) / max(float(n @ n), 1e-300)
    if np.linalg.norm(a - c * n) <= 0.001 * np.linalg.norm(a):
        return "of the wrong sign" if abs(c + 1) < 1e-4 else f"{c:.4g} times what it should be"
    return "wrong"


def branch(e: Evidence, t: Target) -> Iterator[Guess]:
    """Wrong on one side of a bend of the function only."""
    if t.parameter or t.z.size < 4:
        return
    off = np.zeros(t.z.shape, bool)
    for a, n in zip(t.analytic, t.numeric, strict=True):
        off |= np.nan_to_num(np.abs(a - n)) > 1e-6 * np.nanmax(np.abs(n))
    matters = np.zeros(t.z.shape, bool)
    for a, n in zip(t.analytic, t.numeric, strict=True):
        matters |= (np.abs(np.nan_to_num(n)) > 0) | (a != 0)
    passed = np.stack(t.analytic).any(axis=0)
    wanted = (np.abs(np.nan_to_num(np.stack(t.numeric))) > 1e-9).any(axis=0)
    if wanted.any() and not wanted.all() and (passed != wanted).all():
        words = (
            "{z} is let through exactly where it should be zero, and zero where it should pass: the mask is inverted"
        )
        yield Guess("branch", t.name, words)
        return
    if off.all() or not off.any():
        return
    for name, values in (("x", t.z), *((("y", first(e.y)),) if first(e.y).shape == t.z.shape else ())):
        bad, good = values[off], values[~off & matters]
        if not len(good) or min(len(bad), len(good)) < 2:
            continue
        how = relation(np.concatenate([x[off] for x in t.analytic]), np.concatenate([x[off] for x in t.numeric]))
        if bad.max() < good.min() or bad.min() > good.max():
            low = bad.max() < good.min()
            a, b = (bad.max(), good.min()) if low else (good.max(), bad.min())
            at = "0" if a <= 0 <= b else f"about {(a + b) / 2:.3g}"
            words = f"{{z}} is {how} where {name} is {'below' if low else 'above'} {at}, and right elsewhere: "
            yield Guess("branch", t.name, words + "that branch of the function has another slope (or mask)")
            return


def at_target(e: Evidence, t: Target) -> Iterator[Guess]:
    """Wrong just at the entries that a label points to."""
    z = t.z
    for _, leaf in leaves(e.inputs):
        if leaf.dtype.kind not in "iu" or z.ndim < 2 or leaf.shape != (z.shape[0], *z.shape[2:]):
            continue
        if t.parameter or leaf.min() < 0 or leaf.max() >= z.shape[1]:
            continue
        pointed = np.moveaxis(np.arange(z.shape[1]) == leaf[..., None], -1, 1)
        off = np.zeros(z.shape, bool)
        for a, n in zip(t.analytic, t.numeric, strict=True):
            off |= np.abs(np.nan_to_num(a - n)) > 1e-6 * float(np.nanmax(np.abs(n)))
        for wrong, where in ((pointed, "at the right class (the label)"), (~pointed, "at all but the right class")):
            if np.array_equal(off, wrong):
                how = relation(
                    np.concatenate([a[off] for a in t.analytic]), np.concatenate([n[off] for n in t.numeric])
                )
                words = f"{{z}} is {how} {where}, and right elsewhere: the target's term (the - 1 of softmax - onehot) "
                yield Guess("target", t.name, words + "is missing or wrong")


def restricted(e: Evidence, t: Target) -> Iterator[Guess]:
    """Only a part of dout arrives: one output of several, one sample, one pixel, one step."""
    if not t.whole:
        return
    parts = [leaf for _, leaf in leaves(e.y)]
    if len(parts) > 1:
        for k in range(len(parts)):
            only = [flat(_masked(dout, lambda i, d, k=k: d if i == k else d * 0)) for dout in e.douts]
            words = f"{{z}} is what output {k} of {len(parts)} sends back alone: at a fork the gradients add, use +="
            yield from judged(t, "fork", words, [t.pull(d) for d in only])
        return
    y = np.asarray(parts[0])
    role = roles(e)
    for axis in range(y.ndim):
        size = y.shape[axis]
        if size < 2 or size > 64:
            continue
        for k in (size - 1, 0):
            only = [_kept(np.asarray(dout), axis, k).reshape(-1) for dout in map(first, e.douts)]
            end = "last" if k else "first"
            what = {"batch": "sample", "time": "step"}.get(role.get(str(axis), ""), f"place along axis {axis}")
            words = f"{{z}} counts the {end} {what} only"
            kind = "last sample" if axis == 0 else "missing sum"
            yield from judged(t, kind, words + ": sum over them all", [t.pull(d) for d in only])
        for cut in range(1, size - 1):
            for start, stop in ((0, cut), (cut, size), (0, cut + 1)):
                only = [_span(first(dout), axis, start, stop).reshape(-1) for dout in e.douts]
                words = f"{{z}} is what comes back from {start} to {stop - 1} of axis {axis} of y alone: "
                words += "what the branches of a fork send back adds up (use +=)"
                yield from judged(t, "fork" if axis else "part", words, [t.pull(d) for d in only])


def one_of_several(e: Evidence, t: Target, reached: Array | None = None) -> Iterator[Guess]:
    """Of what several places of y send back to one number, only the last (or first) counts: = in a loop.

    reached : which numbers of y look at which of z; where it is not given, those that depend on it here
    """
    y = first(e.y)
    if not t.whole or t.jacobian is None or e.flat_y.size != y.size or y.ndim < 1:
        return
    lookup = any(leaf.dtype.kind in "iu" for _, leaf in leaves(e.inputs))
    kind = ("shared weights" if lookup else "last sample") if t.parameter else "overlap"
    for inner in {(), (y.ndim - 1,), (1,) if y.ndim > 1 else ()}:
        order = [i for i in range(y.ndim) if i not in inner] + list(inner)
        places = int(np.prod([y.shape[i] for i in range(y.ndim) if i not in inner]))
        if places < 2:
            continue
        for which in (-1, 0):
            predicted = []
            for d, mine in zip(e.flat_douts, t.analytic, strict=True):
                sent = (t.jacobian * d[:, None]).reshape(*y.shape, -1).transpose(*order, y.ndim)
                sent = sent.reshape(places, -1, t.z.size).sum(axis=1)
                there = np.abs(sent) > 1e-9
                if reached is not None:
                    there = reached.reshape(*y.shape, -1).transpose(*order, y.ndim).reshape(places, -1, t.z.size).any(1)
                last = places - 1 - there[::-1].argmax(0) if which else there.argmax(0)
                one = np.take_along_axis(sent, last[None], 0)[0]
                if lookup:  # of a row that one place reads twice, too, one reading counts
                    times = np.round(one / np.where(mine.reshape(-1) == 0, np.inf, mine.reshape(-1)))
                    one = one / np.maximum(times, 1)
                predicted.append(one.reshape(t.z.shape))
            words = f"{{z}} gets what the {'last' if which else 'first'} of several places sends back, not their sum: "
            words += "where windows overlap, or a row is read twice, use += (for indices np.add.at), not ="
            yield from judged(t, kind, words, predicted)


def _masked(tree: object, keep: object) -> object:
    number = iter(range(1000))
    return map_leaves(tree, lambda d: keep(next(number), np.asarray(d)))  # type: ignore[operator]


def _kept(d: Array, axis: int, k: int) -> Array:
    return _span(d, axis, k, k + 1)


def _span(d: Array, axis: int, start: int, stop: int) -> Array:
    kept = np.zeros_like(d)
    where = [slice(None)] * d.ndim
    where[axis] = slice(start, stop)
    kept[tuple(where)] = d[tuple(where)]
    return kept


def signs(e: Evidence, t: Target) -> Iterator[Guess]:
    """The right size everywhere, the wrong sign here and there."""
    left = left_over(t, [np.abs(n) * np.where(a < 0, -1, 1) for a, n in zip(t.analytic, t.numeric, strict=True)])
    if left <= EXPLAINS:
        wrong = np.mean([np.sign(a) != np.sign(n) for a, n in zip(t.analytic, t.numeric, strict=True)])
        yield Guess("sign", t.name, f"{{z}} has the right size everywhere and the wrong sign in {wrong:.0%} of it")


PLACES: tuple[Hypothesis, ...] = (some_indices, branch, at_target, restricted, one_of_several, signs)
