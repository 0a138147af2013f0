"""Clipping: keep one bad batch from throwing the weights far away."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from backhand.layers.guard import HALF, widened
from backhand.layers.parameter import Array, Parameter


def clip_grad_norm_(
    parameters: Parameter | Iterable[Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients together, in place, so that their norm is at most `max_norm`; returns the norm before.

        g = g * min(1, max_norm / (|g| + 1e-6)),    |g| the norm of all gradients as one vector

    norm_type : 2, inf, or any other p; frozen parameters take no part
    Pascanu, Mikolov & Bengio 2012, arXiv:1211.5063
    """
    max_norm = _limit("max_norm", max_norm)
    gradients = _trainable(parameters)
    total = total_norm(gradients, norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"clip_grad_norm_: expected finite gradients, got a norm of {total}")
    scale_to(gradients, max_norm, total)
    return total


def clip_grad_value_(parameters: Parameter | Iterable[Parameter], clip_value: float) -> None:
    """Move every entry of every gradient into [-clip_value, clip_value], in place; frozen parameters take no part."""
    clip_value = _limit("clip_value", clip_value)
    for gradient in _trainable(parameters):
        clip_to(gradient, clip_value)


def clip_to(gradient: Array, limit: float) -> None:
    """Move every entry of an array into [-limit, limit], in place."""
    limit = min(limit, float(np.finfo(gradient.dtype).max))  # float16 ends soon
    np.clip(gradient, -limit, limit, out=gradient)


def total_norm(gradients: list[Array], norm_type: float = 2.0) -> float:
    """The norm of several arrays as one vector."""
    order = float(norm_type)
    if not gradients:
        return 0.0
    if order != 2:
        return float(np.linalg.norm([np.linalg.norm(widened(g.reshape(-1)), order) for g in gradients], order))
    with np.errstate(over="ignore", invalid="ignore"):
        flat = [widened(g.reshape(-1)) for g in gradients]
        squares = [float(np.dot(g, g)) for g in flat]
        if not math.isfinite(sum(squares)):  # squares leave the range of float32 long before the gradient does
            squares = [float(np.square(g, dtype=np.float64).sum()) for g in gradients]
    return math.sqrt(sum(squares))


def scale_to(gradients: list[Array], max_norm: float, norm: float) -> None:
    """Scale the arrays, whose norm is `norm`, down to max_norm, in place."""
    scale = max_norm / (norm + 1e-6)
    if not scale >= 1:  # a norm that is nan makes every gradient nan, as in torch
        with np.errstate(invalid="ignore"):
            for gradient in gradients:
                if gradient.dtype == HALF:  # in which the scale itself may be 0
                    gradient[...] = widened(gradient) * scale
                else:
                    gradient *= scale


def _trainable(parameters: Parameter | Iterable[Parameter]) -> list[Array]:
    each = [parameters] if isinstance(parameters, Parameter) else parameters
    return [p.grad for p in each if p.requires_grad]


def _limit(name: str, value: float) -> float:
    if not float(value) >= 0:
        raise ValueError(f"expected {name} to be a number, 0 or more, got {value!r}")
    return float(value)
