"""Where forward has no derivative, or so steep a one that the step must be smaller: the slopes from either side.

Central differences are of no use at a kink (ReLU at 0, a tie in max-pooling, a hinge on its margin), at a jump
(Hardshrink at its threshold) and at the edge of what forward takes. At a kink backward may give any number between the
slope from the left and the slope from the right, for each number of y by itself: a tie may be given to either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backhand.layers.parameter import Array

# step -> the slopes of all numbers of y, to the left and to the right; nan where forward has no value there
Sides = Callable[[float], Array]


@dataclass
class Kink:
    """One number by which forward has no derivative.

    left, right : the slope of the sum of dout * y to either side, for each dout; nan where forward has no value there
    low, high : what backward may give lies between these, for each dout
    jumps : whether a slope grows without bound as the step shrinks, because y jumps
    """

    left: Array
    right: Array
    low: Array
    high: Array
    jumps: bool = False

    def __str__(self) -> str:
        left, right = self.left[0] + 0.0, self.right[0] + 0.0
        if np.isnan(left) or np.isnan(right):
            side = "the right" if not np.isnan(left) else "the left" if not np.isnan(right) else "either side"
            return f"this is the edge of what forward takes, with no value to {side}, so there is no derivative here"
        if not self.jumps and np.isclose(left, right, rtol=1e-3):
            return "forward has a kink or a tie inside, so there is no derivative here, though it does not show"
        what = "jumps" if self.jumps else "has a kink or a tie"
        slopes = f"from the left the slope is {left:.4g}, from the right {right:.4g}"
        grows = ", and it grows as the step shrinks" if self.jumps else ""
        return f"forward {what} at this input, so there is no derivative here: {slopes}{grows}"


def looked_at(
    sides: Sides, steps: list[float], douts: Array, analytic: Array, unit: Array
) -> Kink | tuple[Array, float]:
    """What there is at an entry where backward and central differences differ: a Kink, or (dy by this entry, its step).

    sides : the slopes with a step; they are looked at with smaller and smaller `steps` until they no longer change
    douts : one row for each dout      analytic : what backward gave, for each dout
    unit : the rounding in each number of y; with a step h, its slope may be off by unit / h
    """
    weights = np.abs(douts)
    step = steps[0]
    first = now = sides(step)
    bend = _bend(now, weights, unit / step)
    grows = np.zeros(now.shape, bool)
    for step in steps[1:]:
        before, bent = now, bend
        now, off = sides(step), unit / step
        bend = _bend(now, weights, off)
        middle = douts @ _filled(now).mean(axis=0)
        apart = np.abs(middle - analytic).max()
        change = np.abs(_filled(now) - _filled(before)) @ weights.T
        grows = (np.abs(now) > 2 * np.abs(before)) & (np.abs(now) > 100 * off)
        if grows.any():
            continue
        if bend > max(bent / 2, apart / 100) and change.max() <= bend / 10:
            break  # a kink, at every step
        moved = np.abs(middle - douts @ _filled(before).mean(axis=0))
        if (
            bend <= max(bent / 2, apart / 100)
            and (moved <= np.maximum(apart / 10, np.linalg.norm(douts * off, axis=1))).all()
        ):
            break  # smooth: the two sides come together, and the slope stays
    empty = np.isnan(now)
    if not grows.any() and not empty.any() and bend <= max(bent / 2, apart / 100):
        return now.mean(axis=0), step
    ends = [*now]
    if grows.any():  # a jump: whatever lies up to where the slope goes, or is the slope beyond the jump
        beyond = 2 * sides(2 * steps[0]) - first
        ends += [*np.where(grows, np.copysign(np.inf, now), now), *np.where(grows, beyond, now)]
        change = 1e-3 * np.abs(np.where(grows, beyond, 0)) @ weights.T
    slack = change.max(axis=0) / 4 + np.linalg.norm(douts * off, axis=1)
    with np.errstate(invalid="ignore"):  # 0 * inf is 0 here: that number of y does not count
        parts = np.stack([np.where(douts == 0, 0, douts * end) for end in ends])
    low, high = parts.min(axis=0).sum(axis=-1) - slack, parts.max(axis=0).sum(axis=-1) + slack
    if empty.any():
        low, high = np.full(len(douts), -np.inf), np.full(len(douts), np.inf)
    left, right = (np.where(douts == 0, 0, douts * side).sum(axis=1) for side in now)
    return Kink(left, right, low, high, bool(grows.any()))


def _filled(sides: Array) -> Array:
    """The two slopes, each taken for the other where forward has no value on that side."""
    other = np.where(np.isnan(sides), sides[::-1], sides)
    return np.nan_to_num(other, posinf=0.0, neginf=0.0)


def _bend(sides: Array, weights: Array, off: Array) -> float:
    """By how much the slopes to the left and to the right differ, beyond what rounding does."""
    left, right = _filled(sides)
    return float((np.maximum(np.abs(right - left) - 2 * off, 0) * weights.max(axis=0)).sum())
