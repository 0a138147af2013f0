"""Forgotten terms: a way from the input to the output that the backward does not go."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from backhand.inspection.evidence import Evidence, Target
from backhand.inspection.faults import EXPLAINS, Guess
from backhand.inspection.hypotheses import Hypothesis, blocks_along, first, goes_one_way, judged
from backhand.layers.parameter import Array


def diagonal_along(e: Evidence, t: Target) -> Iterator[Guess]:
    """Each place along an axis differentiated as if it did not see the others: softmax, the recurrent path."""
    y = first(e.y)
    if t.parameter or not t.whole or t.jacobian is None or e.flat_y.size != y.size:
        return
    for i, j in itertools.product(range(y.ndim), range(t.z.ndim)):
        if y.shape[i] != t.z.shape[j] or y.shape[i] < 2 or y.ndim - i != t.z.ndim - j:
            continue
        blocks = blocks_along(t.jacobian, y.shape, t.z.shape, i, j)
        if blocks.max() == np.diag(blocks).max() and (blocks - np.diag(np.diag(blocks))).max() < 1e-9 * blocks.max():
            continue  # nothing is left out
        full = t.jacobian.reshape(*y.shape, *t.z.shape)
        same = np.eye(y.shape[i]).reshape([n if k in (i, y.ndim + j) else 1 for k, n in enumerate(full.shape)])
        kept = (full * same).reshape(t.jacobian.shape)
        time = goes_one_way(e, i) and i == j
        words = f"{{z}} takes each place along axis {j} by itself: "
        if time:
            words += "what the later steps send back through the state is forgotten (add the dh of step t + 1)"
        else:
            words += "each output there depends on all inputs (as in softmax, or a sum), and those terms are forgotten"
        predicted = [(d @ kept).reshape(t.z.shape) for d in e.flat_douts]
        yield from judged(t, "recurrent" if time else "coupling", words, predicted)


def common_term(e: Evidence, t: Target) -> Iterator[Guess]:
    """A softmax's correction that is wrong: off by a multiple of y along one axis."""
    y = first(e.y)
    if t.parameter or y.shape != t.z.shape or not np.isfinite(t.numeric[0]).all():
        return
    rest = [a - n for a, n in zip(t.analytic, t.numeric, strict=True)]
    for axis in range(y.ndim):
        if (
            y.shape[axis] > 2
            and _outside([_rows(r, y.shape, (axis,)) for r in rest], [_rows(y, y.shape, (axis,))]) < EXPLAINS
        ):
            words = (
                f"{{z}} is off by a multiple of y along axis {axis}: the term that couples the outputs there is wrong, "
            )
            yield Guess("coupling", t.name, words + "for a softmax it is y * sum(dout * y)")


def through_time(e: Evidence, t: Target) -> Iterator[Guess]:
    """Right as long as nothing comes from a later step: the recurrent path is broken."""
    x, y = first(e.inputs), first(e.y)
    for axis in range(min(x.ndim, y.ndim)):
        if not goes_one_way(e, axis) or e.flat_y.size != y.size:
            continue
        names = [each.name for each in e.targets]
        early, late = np.zeros_like(y), np.zeros_like(y)
        dout = np.moveaxis(first(e.douts[0]), axis, 0)
        np.moveaxis(early, axis, 0)[0] = dout[0]
        np.moveaxis(late, axis, 0)[-1] = dout[-1]
        right = {}
        for when, dout in (("early", early), ("late", late)):
            found = e.gradients(dout)
            right[when] = {
                each.name: _agree(found[each.name], each.pull(dout.reshape(-1))) for each in e.targets if each.whole
            }
        if not all(right["early"].get(name, False) for name in names) and all(
            right["late"].get(name, False) for name in names
        ):
            right["early"], right["late"] = right["late"], right["early"]  # a scan that runs from the end
        if t.name not in right["early"]:
            return
        dx_wrong = any(not ok for name, ok in right["late"].items() if name.startswith("dx"))
        if right["early"][t.name] and not right["late"][t.name]:
            if dx_wrong:
                words = "{z} is right where nothing comes from a later step, and wrong else: the recurrent path (what "
                yield Guess("recurrent", t.name, words + "step t + 1 sends back through the state) is lost or wrong")
            else:
                words = "{z} misses steps, while dx is right: the uses of a shared weight add up over time, use +="
                yield Guess("shared weights", t.name, words)


def _agree(mine: Array | None, wanted: Array) -> bool:
    return (
        mine is not None
        and mine.shape == wanted.shape
        and bool(np.linalg.norm(mine - wanted) <= 1e-6 * (1e-6 + np.linalg.norm(wanted)))
    )


# ---------------------------------------------------------------------- mean and variance


def statistics(e: Evidence, t: Target) -> Iterator[Guess]:
    """The mean's or the variance's way through a normalisation.

    A right dx has, in each group of numbers that were normalised together, no part along (1, ..., 1), because adding
    to all of x changes nothing, and none along x - mean (but for eps). A backward that forgets the mean's or the
    variance's way leaves just that part in.
    """
    if t.parameter or t.z.ndim < 1 or not np.isfinite(t.numeric[0]).all():
        return
    best: tuple[int, int, Guess] | None = None
    for shape, axes in groupings(e, t.z):
        x = _rows(t.z, shape, axes)
        count, size = x.shape
        if size < 3:
            continue
        ones, centred = np.ones_like(x), x - x.mean(axis=1, keepdims=True)
        numeric = [_rows(n, shape, axes) for n in t.numeric]
        rest = [_rows(a - n, shape, axes) for a, n in zip(t.analytic, t.numeric, strict=True)]
        no_mean = _share(numeric, ones) < 1e-3
        for kind, basis in (
            ("mean path", [ones]),
            ("variance path", [centred] if no_mean else [x]),
            ("statistics", [ones, centred]),
        ):
            if size < len(basis) + 2 or (kind != "variance path" and not no_mean):
                continue
            if kind != "mean path" and _share(numeric, basis[-1]) > 0.1:
                continue
            left = _outside(rest, basis)
            if left < EXPLAINS:
                found = Guess(kind, t.name, _WORDS[kind].format(z="{z}", axes=_named(shape, axes)), left)
                cost = (len(basis) * count, len(basis))
                if best is None or cost < best[:2]:
                    best = (*cost, found)
    if best is not None:
        yield best[2]


_WORDS = {
    "mean path": "{z} lacks the way through the mean: over {axes}, the right dx adds up to 0 and this one does not; "
    "take off its mean there (the derivative of x - mean by the mean)",
    "variance path": "{z} lacks the way through the variance (or the mean square): over {axes}, take off the part that "
    "is proportional to xhat, xhat * mean(dxhat * xhat)",
    "statistics": "{z} treats mean and variance as constants: over {axes}, both depend on x; dx = rstd * (dxhat - "
    "mean(dxhat) - xhat * mean(dxhat * xhat))",
}


def groupings(e: Evidence, z: Array) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ways to divide z into groups: (a shape to view it in, the axes of a group)."""
    shapes = [z.shape]
    if z.ndim > 1:
        channels = z.shape[1]
        shapes += [(z.shape[0], g, channels // g, *z.shape[2:]) for g in range(2, channels) if channels % g == 0]
    for shape in shapes:
        for k in range(1, len(shape) + 1):
            for axes in itertools.combinations(range(len(shape)), k):
                if any(shape[a] > 1 for a in axes):
                    yield shape, axes


def _rows(x: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """One row for each group."""
    x = x.reshape(shape)
    rest = [i for i in range(x.ndim) if i not in axes]
    return x.transpose(*rest, *axes).reshape(int(np.prod([shape[i] for i in rest])), -1)


def _share(rows: list[Array], direction: Array) -> float:
    """How much of the rows lies along a direction."""
    unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return max(float(np.linalg.norm((r * unit).sum(1)) / (1e-30 + np.linalg.norm(r))) for r in rows)


def _outside(rows: list[Array], basis: list[Array]) -> float:
    """How much of the rows lies outside the span of the (orthogonal) basis, row by row."""
    worst = 0.0
    for r in rows:
        rest = r
        for direction in basis:
            unit = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-30)
            rest = rest - unit * (rest * unit).sum(1, keepdims=True)
        worst = max(worst, float(np.linalg.norm(rest) / (1e-30 + np.linalg.norm(r))))
    return worst


def _named(shape: tuple[int, ...], axes: tuple[int, ...]) -> str:
    if axes == (0,):
        return "the samples of the batch"
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))} of {shape}"


# ---------------------------------------------------------------------- windows


def other_stride(e: Evidence, t: Target) -> Iterator[Guess]:
    """Each window put back at another multiple of its number."""
    y = first(e.y)
    if t.parameter or not t.whole or t.jacobian is None or y.ndim != t.z.ndim or y.ndim < 2 or e.flat_y.size != y.size:
        return
    for axis in range(1, y.ndim):
        if y.shape[axis] < 2 or t.z.shape[axis] < 3:
            continue
        full = t.jacobian.reshape(*y.shape, *t.z.shape)
        for change in (-1, 1, -2, 2):
            sheared = np.zeros_like(full)
            for o in range(y.shape[axis]):
                row = np.take(full, o, axis)
                moved = _moved(row, o * change, y.ndim - 1 + axis)
                sheared[(slice(None),) * axis + (o,)] = moved
            words = (
                f"{{z}} puts window number o back {abs(change)} * o places too far {'on' if change > 0 else 'back'} "
            )
            words += f"along axis {axis}: the stride of the backward is not that of the forward"
            predicted = [(d @ sheared.reshape(t.jacobian.shape)).reshape(t.z.shape) for d in e.flat_douts]
            for beyond in (0, 1, 2):
                known = np.where(_padding(full, axis, change, beyond), np.nan, 0)
                found = list(judged(t, "stride", words, [p + known for p in predicted]))
                if found:
                    yield found[0]
                    break


def _padding(full: Array, axis: int, change: int, beyond: int) -> Array:
    """Where the parts of windows land that lay up to `beyond` places in the padding: nobody saw what is there."""
    half = full.ndim // 2
    n = full.shape[half + axis]
    seen = np.moveaxis(np.abs(full), (axis, half + axis), (0, -1)).reshape(full.shape[axis], -1, n).max(axis=1) > 0
    hidden = np.zeros(n, bool)
    for o, row in enumerate(seen):
        for edge, places in ((0, range(-beyond, 0)), (n - 1, range(n, n + beyond))):
            for place in places if row[edge] else ():
                if 0 <= place + o * change < n:
                    hidden[place + o * change] = True
    return hidden.reshape([-1 if i == axis else 1 for i in range(half)])


def _moved(x: Array, by: int, axis: int) -> Array:
    """x moved along the axis, with zeros coming in."""
    n = x.shape[axis]
    out = np.zeros_like(x)
    if abs(by) < n:
        to, come = [slice(None)] * x.ndim, [slice(None)] * x.ndim
        to[axis] = slice(by, None) if by >= 0 else slice(None, by)
        come[axis] = slice(None, n - by) if by >= 0 else slice(-by, None)
        out[tuple(to)] = x[tuple(come)]
    return out


TERMS: tuple[Hypothesis, ...] = (statistics, diagonal_along, common_term, through_time, other_stride)
