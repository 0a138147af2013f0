"""What a gradient of a wrong shape, one that is missing, or a backward that raises, tells."""

from __future__ import annotations

import itertools
import linecache
import re
import traceback
from collections.abc import Iterator
from pathlib import PurePath

import numpy as np

from backhand.inspection.evidence import Evidence, Target
from backhand.inspection.faults import Guess
from backhand.layers.parameter import Array


def wrong_shape(e: Evidence, t: Target) -> Iterator[Guess]:
    """The hypotheses for a target whose gradients cannot be compared number by number."""
    a = t.analytic[0]
    if e.error is not None or (e.returned and not t.parameter):
        return  # that is why, and is said by itself
    if a is None:
        words = "backward gives no {z}: it returned None (or nothing)"
        if t.parameter:
            words = "backward leaves no {z}: it is None"
        yield Guess("missing", t.name, words + "; every input and every parameter needs its gradient")
        return
    if a.dtype.kind not in "fiub":
        kind = "complex numbers" if a.dtype.kind == "c" else "no numbers"
        words = f"{{z}} holds {kind} (dtype {a.dtype}): a gradient is an array of real numbers, in the dtype of dout"
        yield Guess("returned", t.name, words)
        return
    if a.shape == t.z.shape:
        bad = ~np.isfinite(np.stack(t.analytic)).all(axis=0)
        at = [int(i) for i in np.argwhere(bad)[0]]
        share = "everywhere" if bad.all() else f"at {at}" + (f" and {bad.sum() - 1} more" if bad.sum() > 1 else "")
        words = (
            f"{{z}} is not finite (NaN or infinite) {share}: look for 0/0, log(0), sqrt(0) or an overflow in backward"
        )
        yield Guess("nan", t.name, words)
        return
    shape = f"{{z}} has shape {a.shape} and {'the parameter' if t.parameter else 'x'} has {t.z.shape}"
    known = t.whole
    for axes in _subsets(a.ndim):
        sums = [np.asarray(each).sum(axis=axes) for each in t.analytic]
        for keep in (False, True):
            total = [s.reshape(np.expand_dims(s, axes).shape) if keep else s for s in sums]
            if total[0].shape == t.z.shape and (not known or _close(total, t.numeric)):
                over = "the samples of the batch" if axes == (0,) else f"axes {', '.join(map(str, axes))}"
                if t.parameter:
                    words = f"{shape}: the sum over {over} is missing"
                    yield Guess("missing sum", t.name, words + f"; .sum(axis={axes[0] if len(axes) == 1 else axes})")
                else:
                    words = f"{shape}: what was broadcast forward has to be summed backward"
                    yield Guess("unbroadcast", t.name, words + f"; .sum(axis={axes[0] if len(axes) == 1 else axes})")
                return
    for order in itertools.permutations(range(a.ndim)):
        moved = [np.transpose(each, order) for each in t.analytic]
        if moved[0].shape == t.z.shape and (not known or _close(moved, t.numeric)):
            yield Guess("transposed", t.name, f"{shape}: it is transposed; dW has W's shape, so swap the factors")
            return
    if a.size == t.z.size and (not known or _close([each.reshape(t.z.shape) for each in t.analytic], t.numeric)):
        yield Guess("shape", t.name, f"{shape}: reshape it back to the shape of x")
        return
    hint = "a gradient always has the shape of what it is the gradient of"
    for axes in _subsets(t.z.ndim):
        sums = [n.sum(axis=axes) for n in t.numeric] if known else []
        if known and sums[0].shape == a.shape and _close(t.analytic, sums):
            hint = f"it is summed over {'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))} too"
            break
    yield Guess("shape", t.name, f"{shape}: {hint}")


def _close(one: list[Array], other: list[Array]) -> bool:
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-7 * (1 + np.abs(b).max())) for a, b in zip(one, other, strict=True))


def _subsets(n: int) -> Iterator[tuple[int, ...]]:
    for k in range(1, n + 1):
        yield from itertools.combinations(range(n), k)


def raised(e: Evidence) -> Guess | None:
    """What a backward that raises an exception tells."""
    if e.error is None:
        return None
    said, where = f"{type(e.error).__name__}: {' '.join(str(e.error).split())}", raised_at(e.error)
    shapes = [tuple(int(n) for n in re.findall(r"\d+", s)) for s in re.findall(r"\(((?:\d+,? ?)+)\)", str(e.error))]
    for t in e.targets:
        if t.parameter and t.z.shape in shapes:
            for other in shapes:
                if len(other) > t.z.ndim and other[len(other) - t.z.ndim :] == t.z.shape:
                    words = f"{{z}} of shape {t.z.shape} gets an array of shape {other} added: the sum over the batch "
                    words += f"(and over all axes that the parameter does not have) is missing ({said}{where})"
                    return Guess("missing sum", t.name, words)
    return Guess("raises", e.targets[0].name if e.targets else "dx", f"backward raises {said}{where}")


def raised_at(error: BaseException) -> str:
    """Where in somebody's own code an exception came from, in words; "" where that is not known."""
    frames = [f for f in traceback.walk_tb(error.__traceback__)]
    own = [f for f in frames if not str(f[0].f_globals.get("__name__", "")).startswith(("backhand.", "numpy"))]
    if not own:
        return ""
    frame, number = own[-1]
    file = frame.f_code.co_filename
    code = linecache.getline(file, number).strip()
    return f", in line {number} of {PurePath(file).name}{f': `{code}`' if code else ''}"
