"""Points in the plane that no straight line separates."""

from __future__ import annotations

import numpy as np

from backhand.datasets.base import Array, Data, count, reject


def spirals(
    n: int = 300,
    classes: int = 3,
    noise: float = 0.2,
    turns: float = 0.75,
    *,
    rng: np.random.Generator | int | None = None,
) -> Data:
    """Arms that wind around the origin, one for each class.

        x = t (sin a, cos a),    a = 2 pi (turns t + c / classes) + noise e,    e ~ N(0, 1),    0 < t <= 1

    x : (n, 2) float32      y : (n,) int64, c

    n : points in all; the classes differ by one point at the most, and follow each other in turn
    noise : standard deviation of the angle, in radians      turns : how far an arm winds
    """
    classes = count("classes", classes, 1)
    y, t = _along(count("n", n, classes), classes)
    angle = 2 * np.pi * (_size("turns", turns) * t + y / classes)
    angle += _size("noise", noise) * np.random.default_rng(rng).standard_normal(n)
    return Data((t[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)).astype(np.float32), y)


def moons(n: int = 200, noise: float = 0.1, *, rng: np.random.Generator | int | None = None) -> Data:
    """Two half circles that reach into each other.

        class 0:  x = (cos a, sin a) + noise e                a = pi t,    e ~ N(0, I),    0 < t <= 1
        class 1:  x = (1 - cos a, 1/2 - sin a) + noise e

    x : (n, 2) float32      y : (n,) int64

    n : points in all, the classes in turn      noise : standard deviation of both coordinates
    """
    y, t = _along(count("n", n, 2), 2)
    angle = np.pi * t
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = np.where(y[:, None] == 0, upper, [1.0, 0.5] - upper)
    x += _size("noise", noise) * np.random.default_rng(rng).standard_normal((n, 2))
    return Data(x.astype(np.float32), y)


def _along(n: int, classes: int) -> tuple[Array, Array]:
    """The classes in turn, and for each point how far along its class it lies: evenly, up to 1."""
    y = np.arange(n, dtype=np.int64) % classes
    return y, (np.arange(n) // classes + 1) / np.bincount(y)[y]


def _size(name: str, value: float) -> float:
    if not (np.isscalar(value) and not isinstance(value, str) and np.isfinite(value) and value >= 0):
        reject(name, "a number of 0 or more", repr(value))
    return float(value)
