"""Beside a kink: whether forward bends at a point, and the same layer at a point a little further."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from backhand.inspection.evidence import Evidence, Target
from backhand.inspection.kinks import Kink
from backhand.layers.parameter import Array


def some(scale: float, rng: np.random.Generator, x: Array, low: int = -1, high: int = 1) -> Array:
    """Random numbers to move x by, of up to `scale` of its size."""
    moves: Array = scale * max(float(np.abs(x).mean()), 0.1) * rng.uniform(low, high, x.shape)
    return moves


def at_a_kink(t: Target) -> str:
    """What there is at the first entry at a kink (one that backward gets wrong, where there is one), in words."""

    def outside(entry: int) -> bool:
        kink, mine = t.kinks[entry], np.array([a.reshape(-1)[entry] for a in t.analytic])
        return bool(((mine < kink.low) | (mine > kink.high)).any())

    entry = max(t.kinks, key=outside)
    at = [int(i) for i in np.unravel_index(entry, t.z.shape)]
    gives = t.analytic[0].reshape(-1)[entry] + 0.0
    verdict = "which is not between them" if outside(entry) else "which is as good as any other number between"
    return f"{t.name}{f' at {at}' if at else ''}: {t.kinks[entry]}; backward gives {gives:.4g}, {verdict}"


def bends(e: Evidence) -> bool:
    """Whether forward has a kink at this point: moved to and fro, all together, y does not change by the opposite."""
    moves = [(t.z, e.rng.standard_normal(t.z.shape)) for t in e.targets]

    def bend(step: float) -> float:
        found = -2 * e.flat_y
        for way in (step, -step):
            kept = [z.copy() for z, _ in moves]
            for z, move in moves:
                z += way * move
            try:
                found = found + e.outputs()
            finally:
                for (z, _), before in zip(moves, kept, strict=True):
                    z[...] = before
        size = np.abs(np.nan_to_num(found)) / step - e.unit / step
        return float((np.maximum(size, 0) * np.abs(e.flat_douts).max(axis=0)).sum())

    try:
        coarse, fine = bend(e.step), bend(e.step / 10)
    except Exception:  # it does not take such numbers
        e.clear()
        return False
    return fine > coarse / 2 > 0


def a_little_further(e: Evidence) -> tuple[Evidence | None, float]:
    """The same at inputs moved at random, where all is finite, and by how much; where it fails, it does so twice."""
    for scale in (0.1, 0.01, 0.001):
        for low, high in ((-1, 1), (0, 1), (-1, 0)):  # at the edge of what forward takes, to one side
            found = [_moved(e, functools.partial(some, scale, e.rng, low=low, high=high)) for _ in range(2)]
            others = [other for other in found if other is not None]
            if others and len({bool(other.failing) for other in others}) == 1:
                return others[0], scale
    return None, 0.0


def _moved(e: Evidence, by: Callable[[Array], Array]) -> Evidence | None:
    """The same at other inputs, or None where that says nothing."""
    try:
        other = e.again(e.nudged(by))
    except Exception:  # such numbers it does not take
        e.clear()
        return None
    sure = np.isfinite(other.flat_y).all() and not (other.failing and any(t.kinks for t in other.targets))
    return other if sure else None


def allow_inner_kinks(e: Evidence) -> None:
    """Let backward give, at a kink inside forward, what it gives around this point, and of several steps more.

    What an inner step gives at its kink need not lie between the slopes of the whole: where all units of a hidden
    ReLU stand at 0, the gradient that counts none of them is as good as any other. Of inner layers each was looked at
    by itself, so there anything of the size of the gradients around goes.
    """
    near = [e.nudged(functools.partial(some, 1e-4, e.rng)) for _ in range(12)]
    try:
        found = [[e.gradients(dout, x) for x in near] for dout in e.douts]
    except Exception:  # it does not take such numbers
        e.clear()
        return
    layers, steps = len(list(e.layer.modules())) > 1, len(list(e.layer.parameters())) > 0
    for t in (t for t in e.targets if t.name in e.failing and t.comparable):
        around = np.stack([[np.asarray(g[t.name]) for g in each] for each in found])
        low, high = around.min(axis=1), around.max(axis=1)
        wide = np.abs(around).max() * (1 if layers else 1e-3) + (high - low) * steps
        for entry in e.differing(t):
            if entry in t.kinks and not (layers or steps):
                continue  # one function by itself: the slopes from either side are all that there is
            at: Any = (slice(None), *np.unravel_index(entry, t.z.shape))
            slopes = np.stack(t.numeric)[at]
            kink = t.kinks.get(entry, Kink(slopes, slopes, slopes, slopes))
            low_here, high_here = np.minimum(kink.low, (low - wide)[at]), np.maximum(kink.high, (high + wide)[at])
            t.kinks[entry] = Kink(kink.left, kink.right, low_here, high_here, kink.jumps)
