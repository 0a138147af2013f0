"""Smaller inputs that show the same fault: for the diagnosis, and for the reader."""

from __future__ import annotations

from typing import Any

import numpy as np

from backhand.inspection.evidence import Evidence
from backhand.losses.base import Loss

FEW = 8  # numbers that are shown one by one


def handy(e: Evidence, names: list[str]) -> Evidence:
    """Evidence that is complete: with inputs cut down until every Jacobian was measured, where that is possible."""
    for axis in range(len(e.shape)):
        for size in [s for s in (3, 5) if s < e.shape[axis]]:
            if all(t.whole for t in e.targets if t.name in names):
                return e
            smaller = e.shrunk(axis, size)
            if smaller is not None and set(names) <= set(smaller.failing):
                e = smaller
                break
    return e


def smallest_example(e: Evidence, names: list[str]) -> tuple[str, tuple[Any, ...]]:
    """The smallest cut of the inputs at which the first wrong gradient is still wrong: in words, and as arrays."""
    name = names[0]
    if e.error is not None:
        return "", ()
    for axis in range(len(e.shape)):
        for size in [s for s in (1, 2, 3) if s < e.shape[axis]]:
            smaller = e.shrunk(axis, size, only=(name,), most=60)
            if smaller is None or smaller.error is not None or not smaller.failing:
                continue
            if axis or size > 1 or e.alone(smaller):
                e = smaller
                break
    t = next(each for each in e.targets if each.name == name)
    given = [_shown(f"x{i}" if len(e.inputs) > 1 else "x", x) for i, x in enumerate(e.inputs)]
    lines = [f"  smallest example: {', '.join(given)}"]
    if e.flat_y.size > 1 or not isinstance(e.layer, Loss):
        lines.append(f"      {_shown('dout', e.douts[0])}")
    label = name if name.startswith("dx") else f"d{name}"
    if t.z.size > FEW and t.comparable:
        row = next(each for each in e.rows() if each.name == name)
        at = f"{label}{list(row.index)}"
        pairs = [(f"{at} = {row.analytic:.4g}", "backward"), (f"{at} = {row.numeric:.4g}", "central differences")]
    else:
        pairs = [(_shown(label, t.analytic[0]), "backward"), (_shown(label, t.wanted(0)), "central differences")]
    return "\n".join(lines + [f"      {shown}, from {source}" for shown, source in pairs]), e.inputs


def _shown(name: str, x: Any) -> str:
    """An array in one line: its numbers when they are few, else its shape and the first of them."""
    if isinstance(x, tuple):
        return f"{name} = a tuple of {len(x)}"
    if x is None:
        return f"{name} = None"
    x = np.asarray(x)
    if x.size <= FEW:
        tiny = x.dtype.kind == "f" and np.abs(x).max(initial=0) < 1e-3  # as zeros they would show nothing
        text = np.array2string(x, precision=4, suppress_small=not tiny, separator=", ").replace("\n", "")
        return f"{name} = {' '.join(text.split())}"
    first = ", ".join(f"{v:.4g}" for v in x.reshape(-1)[:4])
    return f"{name} of shape {x.shape} = {first}, ..."
